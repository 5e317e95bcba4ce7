"""Which rule each mutant breaks, and which adversaries it has most to fear."""

from __future__ import annotations

from dataclasses import dataclass

VOTES, TALLY, VIEWS = "milon/consensus/votes.py", "milon/consensus/tally.py", "milon/consensus/views.py"
BLOCKS, PROPOSALS = "milon/consensus/blocks.py", "milon/consensus/proposals.py"
JUSTIFICATION, RESTORE = "milon/consensus/justification.py", "milon/consensus/restore.py"
REPLAY, ACCUSATION = "milon/consensus/replay.py", "milon/consensus/accusation.py"
ENGINE, FINALITY, EPOCHS = "milon/consensus/engine.py", "milon/consensus/finality.py", "milon/consensus/epochs.py"
MEMBERS, OFFENCES = "milon/consensus/members.py", "milon/contracts/offences.py"
VALIDATORS = "milon/contracts/validators.py"
QUORUM, CERTIFICATE, EVIDENCE = "milon/consensus/quorum.py", "milon/chain/certificate.py", "milon/chain/evidence.py"

LIARS = ("forger", "spammer")
SPLITTERS = ("twins", "equivocator")
NOBODY = ("none",)


@dataclass(frozen=True)
class Edit:
    """One piece of source and what takes its place."""

    path: str  # of the file
    old: str  # there exactly once
    new: str  # instead


@dataclass(frozen=True)
class Mutant:
    """The product with one rule broken."""

    name: str  # which rule, in words
    edits: tuple[Edit, ...]  # usually one
    kinds: tuple[str, ...]  # of adversaries that can show it
    tests: str = ""  # the file of tests that notices it, where no seed is sure to


MUTANTS = (
    Mutant(
        "votes are not written down",
        (Edit(TALLY, "    turn.persist(LoggedVote(vote))", "    turn.update()"),),
        ("none", "vote withholder"),
    ),
    Mutant(
        "blocks voted for are not written down",
        (Edit(TALLY, "turn.persist(LoggedBlock(state.executed[block].block))", "turn.update()"),),
        ("none", "silent leader"),
    ),
    Mutant(
        "certificates are not written down",
        (Edit(TALLY, "    turn.persist(LoggedCertificate(certificate))\n", ""),),
        (),
        "tests/consensus/test_restore.py",
    ),
    Mutant(
        "votes of a later epoch are not read back from the log",
        (Edit(EPOCHS, "    turn.state = replay_records(fresh, state.later)\n", "    turn.state = fresh\n"),),
        (),
        "tests/consensus/test_epochs.py",
    ),
    Mutant(
        "own votes are not read back from the log",
        (Edit(REPLAY, "            own={**state.own, view: own},\n", ""),),
        ("none", "vote withholder"),
    ),
    Mutant(
        "a restart forgets the floor",
        (Edit(RESTORE, "floor = NO_PLACE if is_whole else signed", "floor = NO_PLACE"),),
        ("vote withholder", "equivocator", "silent leader", "none"),
    ),
    Mutant(
        "FINALIZE after NULLIFY",
        (Edit(VOTES, "own.finalize is not None or own.nullify is not None", "own.finalize is not None"),),
        ("none", "silent leader"),
    ),
    Mutant(
        "NULLIFY after FINALIZE, once the certificate is lost",
        (
            Edit(VOTES, "return own.nullify is None and own.finalize is None", "return own.nullify is None"),
            Edit(TALLY, "    turn.persist(LoggedCertificate(certificate))\n", ""),
        ),
        ("vote withholder", "none"),
    ),
    Mutant(
        "NOTARIZE after own votes in the view",
        (
            Edit(VOTES, "    return own == NO_VOTES", "    return True"),
            Edit(PROPOSALS, "    if state.own.get(state.view, NO_VOTES) != NO_VOTES:\n        return\n", ""),
        ),
        ("none", "equivocator"),
    ),
    Mutant(
        "FINALIZE for another block than the one notarized",
        (Edit(VOTES, "return own.notarize is None or own.notarize.content.block == content.block", "return True"),),
        SPLITTERS,
    ),
    Mutant("a quorum of half", (Edit(CERTIFICATE, "2 * total // 3 + 1", "total // 2"),), SPLITTERS),
    Mutant(
        "a quorum of heads instead of power",
        (
            Edit(QUORUM, "power += validator.power", "power += 1"),
            Edit(QUORUM, "sum(validator.power for validator in validators)", "len(validators)"),
            Edit(CERTIFICATE, "power += powers[signer]", "power += 1"),
            Edit(CERTIFICATE, "compute_quorum(sum(powers.values()))", "compute_quorum(len(powers))"),
        ),
        SPLITTERS,
    ),
    Mutant(
        "a signer counts twice in a certificate",
        (Edit(CERTIFICATE, "places[signer] > previous", "places[signer] >= previous"),),
        LIARS,
    ),
    Mutant(
        "signatures of certificates are not checked",
        (Edit(CERTIFICATE, "        verify(signer, domain, chain_id, raw, signature)\n", "        pass\n"),),
        LIARS,
    ),
    Mutant(
        "signatures of votes are not checked",
        (Edit(TALLY, "    turn.config.cryptography.verify_vote(vote, turn.config.chain_id)\n", ""),),
        LIARS,
    ),
    Mutant(
        "skipping without a nullification",
        (Edit(EVIDENCE, '    require(is_skip, Reason.DIFFERS, f"no nullification of view {view}")\n', ""),),
        ("forking leader",),
    ),
    Mutant(
        "the parent's certificate is not looked at",
        (
            Edit(
                EVIDENCE,
                "        require(is_parent and content.kind is not VoteKind.NULLIFY, Reason.DIFFERS, "
                '"not the parent\'s certificate")\n',
                "",
            ),
        ),
        LIARS,
    ),
    Mutant(
        "the justification is not checked",
        (
            Edit(
                PROPOSALS,
                "        verify_justification(header, certificates)\n"
                "        for certificate in certificates:\n"
                "            verify_once(turn, certificate)\n",
                "        pass\n",
            ),
        ),
        ("forking leader", "forger"),
    ),
    Mutant(
        "the header commits to any justification",
        (
            Edit(
                PROPOSALS,
                "    if compute_justification_hash(header.parent_view, certificates) != header.justification_hash:\n",
                "    if not certificates and header.parent_view:\n",
            ),
            Edit(PROPOSALS, "require(found == header.justification_hash,", "require(bool(found),"),
        ),
        LIARS,
    ),
    Mutant(
        "the own clock is ignored",
        (Edit(PROPOSALS, "    if turn.now_ms < ahead_ms:\n", "    if turn.now_ms < 0:\n"),),
        LIARS,
    ),
    Mutant(
        "a block earlier than its parent",
        (
            Edit(
                BLOCKS,
                '    require(header.time_ms > parent.time_ms, Reason.OUT_OF_RANGE, "a time not after the parent\'s")\n',
                "",
            ),
        ),
        LIARS,
    ),
    Mutant(
        "the parent is not the newest",
        (Edit(JUSTIFICATION, "for below in range(view - 1, 0, -1):", "for below in range(view - 2, 0, -1):"),),
        NOBODY,
    ),
    Mutant(
        "the state root is not compared",
        (Edit(BLOCKS, "    if header.state_root != effect.state_root:\n", "    if not header.state_root:\n"),),
        LIARS,
    ),
    Mutant(
        "the receipts' root is not compared",
        (
            Edit(
                BLOCKS,
                "header.receipts_root == receipts_root,",
                "bool(receipts_root),",
            ),
        ),
        LIARS,
    ),
    Mutant(
        "the beacon is not checked",
        (
            Edit(
                BLOCKS,
                "    require(header.beacon == compute_beacon(parent.beacon, output), Reason.BAD_PROOF, "
                '"the beacon is another")\n',
                "",
            ),
        ),
        LIARS,
    ),
    Mutant(
        "the timer never grows",
        (Edit(VIEWS, "        delta = delta * GROWTH_NUMERATOR // GROWTH_DENOMINATOR\n", ""),),
        NOBODY,
    ),
    Mutant(
        "delta is reset by a notarization",
        (
            Edit(
                VIEWS,
                "    delta_ms = compute_delta(turn.config.parameters, view, state.final_view, count_waiting(state))\n",
                "    newest = max([state.final_view, *state.notarizations])\n"
                "    delta_ms = compute_delta(turn.config.parameters, view, View(newest), 0)\n",
            ),
        ),
        ("none", "vote withholder"),
    ),
    Mutant(
        "nothing is said again at a standstill",
        (Edit(VIEWS, "        resend(turn)\n", ""),),
        NOBODY,
    ),
    Mutant(
        "signatures in the justification are not checked",
        (
            Edit(
                PROPOSALS,
                "        verify_justification(header, certificates)\n"
                "        for certificate in certificates:\n"
                "            verify_once(turn, certificate)\n",
                "        verify_justification(header, certificates)\n",
            ),
        ),
        LIARS,
    ),
    Mutant(
        "evidence is dropped",
        (Edit(ACCUSATION, "if len(turn.state.evidence) < POOL_MAX and", "if turn.state.view < 0 and"),),
        ("equivocator", "forking leader"),
    ),
    Mutant(
        "evidence is not told to anybody",
        (
            Edit(ACCUSATION, "        turn.send(evidence)\n", ""),
            Edit(ACCUSATION, "            turn.send(kept[name])\n", "            pass\n"),
        ),
        ("whisperer",),
    ),
    Mutant(
        "NULLIFY with FINALIZE is no offence",
        (
            Edit(
                EVIDENCE,
                "        return Offence.NULLIFY_AND_FINALIZE\n    if len(kinds) == 2",
                "        return None\n    if len(kinds) == 2",
            ),
        ),
        ("equivocator", "twins"),
    ),
    Mutant(
        "two NOTARIZE are no offence",
        (Edit(EVIDENCE, "return Offence.NOTARIZE_TWICE if one.kind is VoteKind.NOTARIZE else", "return"),),
        ("equivocator", "twins"),
    ),
    Mutant(
        "a bad justification is no offence",
        (
            Edit(
                ACCUSATION,
                "    if piece is None or block is None:\n",
                "    if piece is None or block is None or turn.state.view:\n",
            ),
        ),
        ("forger", "forking leader"),
    ),
    Mutant(
        "an honest vote for a bad block is not told from an accomplice's",
        (Edit(EVIDENCE, '        return evidence.entry == b""\n', "        return False\n"),),
        LIARS,
    ),
    Mutant(
        "evidence is believed unread",
        (Edit(ACCUSATION, "    _verify(turn, evidence)\n    accuse", "    accuse"),),
        ("spammer",),
    ),
    Mutant(
        "evidence in a block is not checked",
        (Edit(BLOCKS, "            verify_piece(config, state, ledger, piece)\n", "            pass\n"),),
        ("spammer",),
    ),
    Mutant(
        "votes of another epoch are counted",
        (
            Edit(ENGINE, "    if is_of_other_epoch(turn, message):\n        return\n", ""),
            Edit(
                TALLY,
                "    if content.epoch != state.members.epoch or abs(",
                "    if abs(",
            ),
        ),
        ("replayer", "none"),
    ),
    Mutant(
        "certificates of another epoch are believed",
        (
            Edit(ENGINE, "    if is_of_other_epoch(turn, message):\n        return\n", ""),
            Edit(
                TALLY,
                "    if not is_of_epoch or (is_known",
                "    if (is_known",
            ),
        ),
        ("replayer", "none"),
    ),
    Mutant(
        "an epoch's end jails whoever was absent",
        (Edit(VALIDATORS, "        if power > spare:\n            continue\n", ""),),
        NOBODY,
    ),
    Mutant(
        "stake that moved answers for its new validator alone",
        (Edit(OFFENCES, "    burn_moved(draft, account, part, whole)\n", ""),),
        (),
        "tests/contracts/test_redelegation.py",
    ),
    Mutant(
        "a filler changes the state",
        (Edit(BLOCKS, "    if parent.height >= members.last_height:\n", "    if parent.height < 0:\n"),),
        ("none", "silent leader"),
    ),
    Mutant(
        "the next validators are not compared",
        (
            Edit(
                BLOCKS,
                "    require(is_same_set, Reason.DIFFERS,",
                "    require(bool(is_same_set) or True, Reason.DIFFERS,",
            ),
        ),
        LIARS,
    ),
    Mutant(
        "what an offender loses is not counted as burned",
        (Edit(OFFENCES, "    burn(draft, lost + delegated + leaving)\n", ""),),
        ("equivocator", "forger"),
    ),
)

"""Offences become evidence, evidence becomes part of a block, and nothing else does."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from milon.base.codec import decode, encode
from milon.base.errors import Reason
from milon.base.ids import AccountId, Digest, Signature
from milon.base.units import Amount, Count, Epoch, Height, View
from milon.chain.block import Block
from milon.chain.certificate import Certificate, Vote, VoteContent, VoteKind
from milon.chain.evidence import (
    EVIDENCE_MAX,
    Contradiction,
    Evidence,
    Offence,
    compute_evidence_id,
    compute_evidence_root,
    make_contradiction,
    offence_of,
    offender_of,
)
from milon.chain.params import Parameters
from milon.consensus import accusation
from milon.consensus.effects import Accuse, Blame, Effect, ProposalRefused, Send
from milon.consensus.engine import step
from milon.consensus.events import MessageReceived
from milon.consensus.justification import certificate_digest, compute_justification_hash
from milon.consensus.messages import JustificationPart, JustificationRequest, Message, Proposal
from milon.consensus.state import State
from milon.contracts.apply import compute_genesis_ledger
from milon.contracts.validators import load_validator
from milon.node.application import CONTRACTS
from milon.state.ledger import Ledger
from tests.consensus.captured import Moment, catch
from tests.simulation.adversaries.equivocator import Equivocator
from tests.simulation.adversaries.forger import Forger
from tests.simulation.cheap import account_of
from tests.simulation.network import Behaviour, Faults, Network, Node

ONE, OTHER = Digest(b"1" * 32), Digest(b"2" * 32)


def _take_all(
    ledger: Ledger, candidates: Sequence[Evidence], height: Height, parameters: Parameters
) -> tuple[Evidence, ...]:
    return tuple(sorted(candidates, key=compute_evidence_id))


@pytest.fixture(scope="module")
def moment() -> Moment:
    """A validator that receives a proposal, under rules that take all evidence."""
    caught = catch()
    application = replace(caught.config.application, select_evidence=_take_all)
    return replace(caught, config=replace(caught.config, application=application))


def _vote(moment: Moment, signer: int, kind: VoteKind, block: Digest | None, view: int = 0, epoch: int = 0) -> Vote:
    place = (Epoch(epoch), View(view or moment.state.view))
    content = VoteContent(kind, *place, block)
    return moment.config.cryptography.sign_vote(moment.node.network.keys[signer], moment.config.chain_id, content)


def _twice(moment: Moment, signer: int = 0, view: int = 0, epoch: int = 0) -> Contradiction:
    votes = [_vote(moment, signer, VoteKind.NOTARIZE, block, view, epoch) for block in (ONE, OTHER)]
    return make_contradiction(*votes)


def _run(moment: Moment, *messages: Message) -> tuple[State, list[Effect]]:
    state, seen = moment.state, list[Effect]()
    for message in messages:
        state, effects = step(moment.config, state, MessageReceived(moment.now_ms, "0", message))
        seen.extend(effects)
    return state, seen


def _accused(effects: Sequence[Effect]) -> list[tuple[AccountId, Offence]]:
    return [(effect.offender, offence_of(effect.evidence)) for effect in effects if isinstance(effect, Accuse)]


@pytest.mark.parametrize(
    ("kinds", "offence"),
    [
        ((VoteKind.NOTARIZE, VoteKind.NOTARIZE), Offence.NOTARIZE_TWICE),
        ((VoteKind.FINALIZE, VoteKind.FINALIZE), Offence.FINALIZE_TWICE),
        ((VoteKind.NULLIFY, VoteKind.FINALIZE), Offence.NULLIFY_AND_FINALIZE),
        ((VoteKind.FINALIZE, VoteKind.NULLIFY), Offence.NULLIFY_AND_FINALIZE),
    ],
)
def test_two_votes_that_exclude_each_other_are_told_to_everybody_once(
    moment: Moment, kinds: tuple[VoteKind, VoteKind], offence: Offence
) -> None:
    blocks = [None if kind is VoteKind.NULLIFY else name for kind, name in zip(kinds, (ONE, OTHER), strict=True)]
    votes = [_vote(moment, 0, kind, block) for kind, block in zip(kinds, blocks, strict=True)]
    state, effects = _run(moment, *votes, *votes)
    evidence = make_contradiction(*votes)
    assert _accused(effects) == [(account_of(moment.node.network.keys[0]), offence)]
    assert [effect.peer for effect in effects if isinstance(effect, Send) and effect.message == evidence] == [None]
    assert list(state.evidence.values()) == [evidence]


def test_what_an_honest_validator_signs_accuses_nobody(moment: Moment) -> None:
    votes = [_vote(moment, 0, kind, block) for kind, block in ((VoteKind.NOTARIZE, ONE), (VoteKind.NULLIFY, None))]
    votes += [_vote(moment, 1, kind, ONE) for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE)]
    state, effects = _run(moment, *votes)
    assert _accused(effects) == [] and state.evidence == {}


def test_evidence_of_a_peer_is_checked_and_passed_on(moment: Moment) -> None:
    evidence = _twice(moment)
    state, effects = _run(moment, evidence, evidence)
    assert len(_accused(effects)) == 1 and list(state.evidence.values()) == [evidence]
    forged = replace(evidence, first=replace(evidence.first, signature=Signature(bytes(64))))
    swapped = Contradiction(evidence.second, evidence.first)
    harmless = Contradiction(evidence.first, evidence.first)
    for bad in (forged, swapped, harmless):
        state, effects = _run(moment, bad)
        assert [effect.peer for effect in effects if isinstance(effect, Blame)] == ["0"], bad
        assert state.evidence == {} and _accused(effects) == []


def test_evidence_that_no_block_would_take_is_dropped_unread(moment: Moment) -> None:
    application = replace(moment.config.application, select_evidence=lambda *arguments: ())
    strict = replace(moment, config=replace(moment.config, application=application))
    evidence = _twice(moment)
    forged = replace(evidence, first=replace(evidence.first, signature=Signature(bytes(64))))
    later = _twice(moment, epoch=1)
    for useless in (evidence, forged, later):
        state, effects = _run(strict, useless)
        assert not any(isinstance(effect, Accuse | Blame) for effect in effects) and state.evidence == {}
    assert _run(moment, later)[0].evidence == {}


def test_the_pool_is_bounded(moment: Moment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accusation, "POOL_MAX", 5)
    monkeypatch.setattr(accusation, "ACCUSED_MAX", 7)
    state, _ = _run(moment, *(_twice(moment, view=view) for view in range(1, 12)))
    assert len(state.evidence) == 5 and len(state.accused) <= 7


def _with_evidence(moment: Moment, evidence: Sequence[Evidence]) -> Proposal:
    """The proposal with evidence in its block, signed by its leader as if it were right."""
    changed = moment.with_header(evidence_root=compute_evidence_root(evidence))
    return replace(changed, block=replace(changed.block, evidence=tuple(evidence)))


def test_a_block_with_evidence_that_holds_is_voted_for(moment: Moment) -> None:
    pieces = _take_all(Ledger(moment.config.store), [_twice(moment, 0), _twice(moment, 1)], Height(1), Parameters())
    _, effects = _run(moment, _with_evidence(moment, pieces))
    kinds = [
        effect.message.content.kind
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, Vote)
    ]
    assert kinds == [VoteKind.NOTARIZE]


def test_a_block_with_evidence_that_proves_nothing_is_skipped(moment: Moment) -> None:
    good = _twice(moment)
    forged = replace(good, second=replace(good.second, signature=Signature(bytes(64))))
    pair = _take_all(Ledger(moment.config.store), [good, _twice(moment, 1)], Height(1), Parameters())
    for evidence in ((forged,), (good, good), pair[::-1], (_twice(moment, epoch=1),)):
        _, effects = _run(moment, _with_evidence(moment, evidence))
        assert any(isinstance(effect, ProposalRefused) for effect in effects), evidence


def test_a_body_whose_evidence_is_not_the_header_s_is_its_sender_s_fault(moment: Moment) -> None:
    stuffed = replace(moment.proposal, block=replace(moment.proposal.block, evidence=(_twice(moment),)))
    many = _with_evidence(moment, [_twice(moment, view=view) for view in range(1, EVIDENCE_MAX + 2)])
    for proposal in (stuffed, many):
        _, effects = _run(moment, proposal)
        assert [effect.peer for effect in effects if isinstance(effect, Blame)] == ["0"]


def _unjustified(moment: Moment) -> Proposal:
    """A proposal on the right parent, whose parent's certificate is signed by nobody; the header commits to it."""
    header = moment.proposal.block.header
    certificate = moment.proposal.justification[0]
    empty = Certificate(certificate.content, (), ())
    assert header.parent_view and len(moment.proposal.justification) == 1
    commitment = compute_justification_hash(header.parent_view, (empty,))
    return replace(moment.with_header(justification_hash=commitment), justification=(empty,))


def test_whoever_notarizes_a_block_without_justification_is_accused(moment: Moment) -> None:
    proposal = _unjustified(moment)
    name = proposal.vote.content.block
    other = next(
        index
        for index, key in enumerate(moment.node.network.keys)
        if account_of(key) not in (proposal.vote.signer, moment.config.account)
    )
    vote = _vote(moment, other, VoteKind.NOTARIZE, name)
    for messages in ((proposal, vote), (vote, proposal)):
        state, effects = _run(moment, *messages)
        assert {signer for signer, _ in _accused(effects)} == {proposal.vote.signer, vote.signer}
        assert {offence for _, offence in _accused(effects)} == {Offence.BAD_JUSTIFICATION}
        assert len(state.evidence) == 2
        for piece in state.evidence.values():
            assert _run(moment, piece)[0].evidence, "and everybody else can see it"


def test_certificates_that_do_not_fit_are_not_handed_out(moment: Moment) -> None:
    """A leader may commit to a good certificate of something else; whoever handed it on would be blamed for it."""
    parent = moment.proposal.justification[0]
    content = VoteContent(VoteKind.NULLIFY, Epoch(0), View(moment.state.view + 1), None)
    votes = [_vote(moment, index, VoteKind.NULLIFY, None, content.view) for index in range(3)]
    votes.sort(key=lambda vote: vote.signer)
    other = Certificate(content, tuple(vote.signer for vote in votes), tuple(vote.signature for vote in votes))
    commitment = compute_justification_hash(moment.proposal.block.header.parent_view, (other,))
    forged = replace(moment.with_header(justification_hash=commitment), justification=(other,))
    for proposal, handed in ((moment.proposal, [(parent,)]), (forged, [])):
        name = proposal.vote.content.block
        assert name is not None
        _, effects = _run(moment, proposal, JustificationRequest(moment.state.view, name, Count(0)))
        messages = [effect.message for effect in effects if isinstance(effect, Send)]
        assert [part.certificates for part in messages if isinstance(part, JustificationPart)] == handed
    assert certificate_digest(other) in _run(moment, forged)[0].verified, "its signatures are good"


def test_a_certificate_with_a_bad_signature_is_its_sender_s_fault(moment: Moment) -> None:
    content = VoteContent(VoteKind.NULLIFY, Epoch(0), moment.state.view, None)
    votes = [_vote(moment, index, VoteKind.NULLIFY, None) for index in range(3)]
    votes[1] = replace(votes[1], signature=Signature(bytes(64)))
    bad = Certificate(content, tuple(vote.signer for vote in votes), tuple(vote.signature for vote in votes))
    state, effects = _run(moment, bad)
    blamed = [(effect.peer, effect.reason) for effect in effects if isinstance(effect, Blame)]
    assert blamed == [("0", Reason.BAD_SIGNATURE)] and state.nullifications == moment.state.nullifications


def _network(crooked: Behaviour) -> Network:
    return Network(
        2,
        (10_000,) * 4,
        [crooked, *(Behaviour() for _ in range(3))],
        Faults(),
        application=CONTRACTS,
        make_table=compute_genesis_ledger,
    )


@pytest.mark.parametrize("crooked", [Equivocator(), Forger(1)], ids=["equivocator", "forger"])
def test_an_offender_is_slashed_by_a_block(crooked: Behaviour) -> None:
    network = _network(crooked)
    network.run_until(6_000)
    offender = account_of(network.keys[0])
    assert set(network.auditor.accused) == {offender}
    found = set()
    for node in network.honest:
        record = load_validator(Ledger(node.store), offender)
        assert record.is_tombstoned and record.taken_ppm > 0
        raws = [node.store.block_by_height(Height(height)) for height in range(1, min(network.heights()) + 1)]
        blocks = [decode(Block, raw) for raw in raws if raw is not None]
        pieces = [piece for block in blocks for piece in block.evidence]
        assert [offender_of(piece) for piece in pieces] == [offender], "once, and nobody else"
        found.add(encode(pieces[0]))
        assert node.state is not None and node.state.evidence == {}
    assert len(found) == 1 and Amount(0) < load_validator(Ledger(network.nodes[1].store), offender).taken_ppm


class _Crooked(Behaviour):
    """Somebody whose key signed two votes where nobody but one observer saw it."""

    is_honest = False


class _Mumbling(Behaviour):
    """An observer whose first word about an offence is lost."""

    told = 0

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        heard = []
        for effect in effects:
            is_evidence = isinstance(effect, Send) and isinstance(effect.message, Contradiction)
            self.told += is_evidence
            if not is_evidence or self.told > 1:
                heard.append(effect)
        return heard


def test_evidence_that_only_an_observer_holds_is_told_again() -> None:
    observer = _Mumbling()
    network = Network(
        3,
        (10_000,) * 4,
        [_Crooked(), *(Behaviour() for _ in range(3)), observer],
        Faults(),
        keys=[0, 1, 2, 3, None],
        application=CONTRACTS,
        make_table=compute_genesis_ledger,
    )
    network.run_until(500)
    node, key = network.nodes[4], network.keys[0]
    contents = [VoteContent(VoteKind.NOTARIZE, Epoch(0), View(1), block) for block in (ONE, OTHER)]
    votes = [node.config.cryptography.sign_vote(key, node.config.chain_id, content) for content in contents]
    node.take(MessageReceived(node.now(), "1", make_contradiction(*votes)))
    assert observer.told == 1
    network.run_until(8_000)
    assert observer.told > 1 and min(network.heights()) > 2 * accusation.TOLD_AGAIN_BLOCKS
    for other in network.honest:
        assert load_validator(Ledger(other.store), account_of(key)).is_tombstoned

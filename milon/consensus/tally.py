"""Votes and certificates coming and going: cast, counted, verified once, written down, sent on once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from milon.base.errors import Reason, require
from milon.base.ids import NO_DIGEST, Digest
from milon.base.units import View
from milon.chain.certificate import Certificate, Vote, VoteContent, VoteKind
from milon.chain.evidence import compute_evidence_id, find_offence, make_contradiction, view_of
from milon.consensus.accusation import accuse
from milon.consensus.justification import certificate_digest
from milon.consensus.members import voter_of
from milon.consensus.messages import LoggedBlock, LoggedCertificate, LoggedVote, Proposal
from milon.consensus.quorum import EMPTY_POOL, build_certificate, find_offences
from milon.consensus.state import State
from milon.consensus.turn import Turn
from milon.consensus.votes import NO_VOTES, sign_if_allowed, with_own_vote

VIEW_WINDOW = 16  # votes and proposals so far from the current view are dropped: certificates bridge longer gaps
LATE_VIEWS = 4  # final ones whose votes are kept a while: what contradicts them may still be on its way
VERIFIED_MAX = 4096  # remembered certificates: a leader's justification of a long outage is the most there is


def persist_vote(turn: Turn, vote: Vote) -> None:
    """Write down an own vote before it is sent."""
    turn.persist(LoggedVote(vote))


def cast(turn: Turn, kind: VoteKind, view: View, block: Digest | None) -> Vote | None:
    """Sign, write down and count an own vote, without sending it; None where it is not allowed.

    A NOTARIZE is written down with its block, so that a final block is never lost with the memory of its voters.
    """
    state = turn.state
    own = state.own.get(view, NO_VOTES)
    epoch = state.members.epoch
    content = VoteContent(kind, epoch, view, block)
    vote = sign_if_allowed(turn.config, own, content, (epoch, state.view), state.signed, state.floor)
    if vote is None:
        return None
    if kind is VoteKind.NOTARIZE and block is not None:
        turn.persist(LoggedBlock(state.executed[block].block))
    persist_vote(turn, vote)
    turn.update(own={**state.own, view: with_own_vote(own, vote)}, signed=max(state.signed, (epoch, view)))
    return vote


def cast_and_send(turn: Turn, kind: VoteKind, view: View, block: Digest | None) -> bool:
    """Cast a vote and tell everybody; False where it is not allowed."""
    vote = None if voter_of(turn.config, turn.state) is None else cast(turn, kind, view, block)
    if vote is None:
        return False
    turn.send(vote)
    count_vote(turn, vote)
    return True


def has_certificate(state: State, content: VoteContent) -> bool:
    """Whether a certificate of that kind is known for the view, or needless because a final view is not below it."""
    if content.view <= state.final_view:
        return True
    if content.kind is VoteKind.NOTARIZE:
        return content.view in state.notarizations
    return content.kind is VoteKind.NULLIFY and content.view in state.nullifications


def take_vote(turn: Turn, vote: Vote) -> None:
    """A vote from a peer: count it once. Raises `Rejected` for a stranger's or a badly signed one."""
    state, content = turn.state, vote.content
    if content.epoch != state.members.epoch or abs(content.view - state.view) > VIEW_WINDOW:
        return
    pool = state.pools.get(content.view, EMPTY_POOL)
    if content.view <= state.final_view and not find_offences(pool, vote):
        return
    known = pool.get((content.kind, vote.signer))
    if known is not None and (known.content == content or _is_accused(state, known, vote)):
        return
    is_validator = vote.signer in state.members.accounts
    require(is_validator, Reason.NOT_ALLOWED, f"a vote of {vote.signer.hex()[:8]}, who is not a validator")
    turn.config.cryptography.verify_vote(vote, turn.config.chain_id)
    count_vote(turn, vote)


def count_vote(turn: Turn, vote: Vote) -> None:
    """Put a good vote into its pool and form the certificate if it is the last one needed."""
    content = vote.content
    _note_votes(turn, content.view, (vote,))
    if not has_certificate(turn.state, content):
        pool = turn.state.pools.get(content.view, EMPTY_POOL)
        certificate = build_certificate(pool, content, turn.state.members.validators)
        if certificate is not None:
            _accept(turn, certificate)


def _note_votes(turn: Turn, view: View, votes: Sequence[Vote]) -> None:
    """Put good votes of a view into its pool, and accuse their signers of what they signed against the rules."""
    pool = dict(turn.state.pools.get(view, EMPTY_POOL))
    count = len(pool)
    for vote in votes:
        for piece in find_offences(pool, vote):
            accuse(turn, piece)
        template = turn.state.unjustified.get(vote.content.block or NO_DIGEST)
        if template is not None and vote.content.kind is VoteKind.NOTARIZE:
            accuse(turn, replace(template, vote=vote))
        pool.setdefault((vote.content.kind, vote.signer), vote)
    if len(pool) > count:
        turn.update(pools={**turn.state.pools, view: pool})


def _note_signers(turn: Turn, certificate: Certificate) -> None:
    """What a certificate says of its signers: whoever tells each half of the network another story is found by it."""
    pairs = zip(certificate.signers, certificate.signatures, strict=True)
    votes = tuple(Vote(certificate.content, signer, signature) for signer, signature in pairs)
    _note_votes(turn, certificate.content.view, votes)


def _is_contradicted(state: State, content: VoteContent) -> bool:
    """Whether a certificate is known beside which none for `content` can be, but for more than a third of liars."""
    final = state.finalization
    others = [state.notarizations.get(content.view), state.nullifications.get(content.view)]
    if final is not None and final.content.view == content.view:
        others.append(final)
    return any(other is not None and find_offence(other.content, content) is not None for other in others)


def _is_accused(state: State, known: Vote, vote: Vote) -> bool:
    """Whether it is known already that the signer contradicts itself like this."""
    return compute_evidence_id(make_contradiction(known, vote)) in state.accused


def verify_once(turn: Turn, certificate: Certificate) -> None:
    """Raise `Rejected` unless the certificate holds; the work is done once for the same bytes."""
    name = certificate_digest(certificate)
    if name in turn.state.verified:
        return
    validators = turn.state.members.validators
    turn.config.cryptography.verify_certificate(certificate, turn.config.chain_id, validators)
    _remember(turn, name, certificate.content.view)


def _remember(turn: Turn, name: Digest, view: View) -> None:
    if len(turn.state.verified) < VERIFIED_MAX:
        turn.update(verified={**turn.state.verified, name: view})


def take_certificate(turn: Turn, certificate: Certificate) -> None:
    """A certificate from a peer: use it if it is news. Raises `Rejected` for one that does not hold."""
    content = certificate.content
    is_known = has_certificate(turn.state, content)
    is_of_epoch = content.epoch == turn.state.members.epoch
    if not is_of_epoch or (is_known and not _is_contradicted(turn.state, content)):
        return
    verify_once(turn, certificate)
    if is_known:
        _note_signers(turn, certificate)
    else:
        _accept(turn, certificate)


def _accept(turn: Turn, certificate: Certificate) -> None:
    content = certificate.content
    _note_signers(turn, certificate)
    state = turn.state
    _remember(turn, certificate_digest(certificate), content.view)
    turn.persist(LoggedCertificate(certificate))
    turn.send(certificate)
    if content.kind is VoteKind.NOTARIZE:
        turn.update(notarizations={**state.notarizations, content.view: certificate})
        cast_and_send(turn, VoteKind.FINALIZE, content.view, content.block)
    elif content.kind is VoteKind.NULLIFY:
        turn.update(nullifications={**state.nullifications, content.view: certificate})
    else:
        turn.update(finalization=certificate)
        forget_below_final(turn)


def keep_parts(state: State, proposals: Mapping[View, Proposal]) -> Mapping[Digest, tuple[Certificate, ...]]:
    """The parts of justifications that belong to some of the proposals."""
    if not state.parts:
        return state.parts
    blocks = frozenset(proposal.vote.content.block for proposal in proposals.values())
    return {block: held for block, held in state.parts.items() if block in blocks}


def forget_below_final(turn: Turn) -> None:
    """Drop what the newest final view makes needless."""
    state, final = turn.state, turn.state.final_view
    proposals = {view: proposal for view, proposal in state.proposals.items() if view > final}
    turn.update(
        pools={view: pool for view, pool in state.pools.items() if view > final - LATE_VIEWS},
        notarizations={view: held for view, held in state.notarizations.items() if view >= final},
        nullifications={view: held for view, held in state.nullifications.items() if view > final},
        verified={name: view for name, view in state.verified.items() if view >= final},
        proposals=proposals,
        parts=keep_parts(state, proposals),
        own={view: own for view, own in state.own.items() if view > final},
        unjustified={name: piece for name, piece in state.unjustified.items() if view_of(piece) > final},
    )

"""Votes and certificates coming and going: cast, counted, verified once, written down, sent on once."""

from __future__ import annotations

from collections.abc import Mapping

from milon.base.codec import encode
from milon.base.errors import Reason, require
from milon.base.hashing import digest
from milon.base.ids import Digest
from milon.base.units import View
from milon.chain.certificate import Certificate, Vote, VoteContent, VoteKind
from milon.consensus.application import EPOCH
from milon.consensus.effects import Accuse
from milon.consensus.messages import LoggedBlock, LoggedCertificate, LoggedVote, Proposal
from milon.consensus.quorum import EMPTY_POOL, build_certificate, find_contradiction, with_vote
from milon.consensus.state import State
from milon.consensus.turn import Turn
from milon.consensus.votes import NO_VOTES, sign_if_allowed, with_own_vote

VIEW_WINDOW = 16  # votes and proposals so far from the current view are dropped: certificates bridge longer gaps
VERIFIED_MAX = 4096  # remembered certificates: a leader's justification of a long outage is the most there is


def certificate_digest(certificate: Certificate) -> Digest:
    """Names the exact bytes: another certificate for the same content may hold bad signatures."""
    return digest("certificate", encode(certificate))


def persist_vote(turn: Turn, vote: Vote) -> None:
    """Write down an own vote before it is sent."""
    turn.persist(LoggedVote(vote))


def cast(turn: Turn, kind: VoteKind, view: View, block: Digest | None) -> Vote | None:
    """Sign, write down and count an own vote, without sending it; None where it is not allowed.

    A NOTARIZE is written down with its block, so that a final block is never lost with the memory of its voters.
    """
    state = turn.state
    own = state.own.get(view, NO_VOTES)
    content = VoteContent(kind, EPOCH, view, block)
    vote = sign_if_allowed(turn.config, own, content, state.view, state.signed_view, state.floor)
    if vote is None:
        return None
    if kind is VoteKind.NOTARIZE and block is not None:
        turn.persist(LoggedBlock(state.executed[block].block))
    persist_vote(turn, vote)
    turn.update(own={**state.own, view: with_own_vote(own, vote)}, signed_view=max(state.signed_view, view))
    return vote


def cast_and_send(turn: Turn, kind: VoteKind, view: View, block: Digest | None) -> bool:
    """Cast a vote and tell everybody; False where it is not allowed."""
    vote = cast(turn, kind, view, block)
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
    if content.epoch != EPOCH or content.view <= state.final_view or abs(content.view - state.view) > VIEW_WINDOW:
        return
    known = state.pools.get(content.view, EMPTY_POOL).get((content.kind, vote.signer))
    if known is not None and known.content == content:
        return
    if known is not None and (content.view, vote.signer) in state.accused:
        return
    is_validator = any(validator.account == vote.signer for validator in turn.config.validators)
    require(is_validator, Reason.NOT_ALLOWED, f"a vote of {vote.signer.hex()[:8]}, who is not a validator")
    turn.config.cryptography.verify_vote(vote, turn.config.chain_id)
    count_vote(turn, vote)


def count_vote(turn: Turn, vote: Vote) -> None:
    """Put a good vote into its pool and form the certificate if it is the last one needed."""
    state, content = turn.state, vote.content
    pool = state.pools.get(content.view, EMPTY_POOL)
    contradiction = find_contradiction(pool, vote)
    if contradiction is not None and (content.view, vote.signer) not in state.accused:
        turn.emit(Accuse(contradiction, vote))
        turn.update(accused=state.accused | {(content.view, vote.signer)})
    pool = with_vote(pool, vote)
    turn.update(pools={**state.pools, content.view: pool})
    if not has_certificate(turn.state, content):
        certificate = build_certificate(pool, content, turn.config.validators)
        if certificate is not None:
            _accept(turn, certificate)


def verify_once(turn: Turn, certificate: Certificate) -> None:
    """Raise `Rejected` unless the certificate holds; the work is done once for the same bytes."""
    name = certificate_digest(certificate)
    if name in turn.state.verified:
        return
    turn.config.cryptography.verify_certificate(certificate, turn.config.chain_id, turn.config.validators)
    _remember(turn, name, certificate.content.view)


def _remember(turn: Turn, name: Digest, view: View) -> None:
    if len(turn.state.verified) < VERIFIED_MAX:
        turn.update(verified={**turn.state.verified, name: view})


def take_certificate(turn: Turn, certificate: Certificate) -> None:
    """A certificate from a peer: use it if it is news. Raises `Rejected` for one that does not hold."""
    content = certificate.content
    if content.epoch != EPOCH or has_certificate(turn.state, content):
        return
    verify_once(turn, certificate)
    _accept(turn, certificate)


def _accept(turn: Turn, certificate: Certificate) -> None:
    content, state = certificate.content, turn.state
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
        pools={view: pool for view, pool in state.pools.items() if view > final},
        notarizations={view: held for view, held in state.notarizations.items() if view >= final},
        nullifications={view: held for view, held in state.nullifications.items() if view > final},
        verified={name: view for name, view in state.verified.items() if view >= final},
        proposals=proposals,
        parts=keep_parts(state, proposals),
        own={view: own for view, own in state.own.items() if view > final},
        accused=frozenset(pair for pair in sorted(state.accused) if pair[0] > final),
    )

"""From the vote log back into the state: at a start, and at the beginning of an epoch whose votes are there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from milon.base.ids import Digest
from milon.chain.block import compute_header_hash
from milon.chain.certificate import Certificate, VoteKind
from milon.consensus.justification import (
    certificate_digest,
    compute_justification_hash,
    find_lineage,
    split_certificates,
)
from milon.consensus.messages import LoggedBlock, LoggedVote, LogRecord, Proposal, place_of_record
from milon.consensus.quorum import EMPTY_POOL, with_vote
from milon.consensus.state import State
from milon.consensus.votes import NO_VOTES, with_own_vote


def replay_records(state: State, records: Sequence[LogRecord]) -> State:
    """The state with what the records say of its epoch; those of later ones are kept for their time.

    A node may have voted in an epoch whose first ancestor, final though it was, had not reached its store.
    """
    later: list[LogRecord] = []
    for record in records:
        epoch = place_of_record(record)[0]
        if epoch == state.members.epoch:
            state = _replay(state, record)
        elif epoch > state.members.epoch:
            later.append(record)
    return replace(state, later=tuple(later))


def _replay(state: State, record: LogRecord) -> State:
    if isinstance(record, LoggedVote):
        vote = record.vote
        view = vote.content.view
        pool = with_vote(state.pools.get(view, EMPTY_POOL), vote)
        own = with_own_vote(state.own.get(view, NO_VOTES), vote)
        return replace(
            state,
            own={**state.own, view: own},
            pools={**state.pools, view: pool},
            signed=max(state.signed, (vote.content.epoch, view)),
        )
    if isinstance(record, LoggedBlock):
        name = compute_header_hash(record.block.header)
        if record.block.header.height <= state.tip.height:
            return state
        return replace(state, bodies={**state.bodies, name: record.block})
    return _replay_certificate(state, record.certificate)


def _replay_certificate(state: State, certificate: Certificate) -> State:
    """Certificates in the log were verified before they were written; the log's checksums stand for that."""
    content = certificate.content
    name: Digest = certificate_digest(certificate)
    state = replace(state, verified={**state.verified, name: content.view})
    if content.kind is VoteKind.NOTARIZE:
        return replace(state, notarizations={**state.notarizations, content.view: certificate})
    if content.kind is VoteKind.NULLIFY:
        return replace(state, nullifications={**state.nullifications, content.view: certificate})
    if content.view > state.final_view or (state.finalization is None and content.view == state.tip.view):
        return replace(state, finalization=certificate)
    return state


def rebuild_proposal(state: State) -> State:
    """With the own proposal of the current view from the block and the certificates in the log, to be sent again."""
    vote = state.own.get(state.view, NO_VOTES).notarize
    block = None if vote is None or vote.content.block is None else state.bodies.get(vote.content.block)
    if vote is None or block is None or block.header.proposer != vote.signer:
        return state
    lineage = find_lineage(state, state.view)
    if isinstance(lineage, int):
        return state
    lots = split_certificates(lineage.certificates)
    commitment = compute_justification_hash(lineage.parent_view, lineage.certificates)
    if commitment != block.header.justification_hash or vote.content.block is None:
        return state
    return replace(
        state,
        proposals={**state.proposals, state.view: Proposal(block, vote, lots[0])},
        parts={vote.content.block: lineage.certificates[len(lots[0]) :]},
    )

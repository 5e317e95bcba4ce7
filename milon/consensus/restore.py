"""Starting: the genesis as the first commit, and an engine's state from the store and the vote log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.base.units import Count, Height, TimeMs, View
from milon.chain.block import Block, compute_header_hash
from milon.chain.certificate import Certificate, VoteKind
from milon.chain.genesis import Genesis, compute_genesis_beacon, compute_genesis_hash
from milon.consensus.application import Config
from milon.consensus.blocks import compute_ancestor
from milon.consensus.effects import Effect
from milon.consensus.engine import settle
from milon.consensus.justification import compute_justification_hash, find_lineage, split_certificates
from milon.consensus.mempool import Mempool
from milon.consensus.messages import LoggedBlock, LoggedVote, LogRecord, Proposal
from milon.consensus.quorum import EMPTY_POOL, with_vote
from milon.consensus.state import Ancestor, State
from milon.consensus.tally import certificate_digest, forget_below_final
from milon.consensus.turn import Turn
from milon.consensus.views import compute_delta, find_next_view
from milon.consensus.votes import NO_VOTES, with_own_vote
from milon.state.commitment import EMPTY_ROOT, compute_update
from milon.state.store import Commit, StoreReader


def compute_genesis_commit(genesis: Genesis, table: Mapping[bytes, bytes]) -> Commit:
    """What an empty store commits first: the ledger at height 0, with the genesis hash as the tip's."""
    changes: dict[bytes, bytes | None] = dict(table)
    root, nodes = compute_update(lambda _: None, EMPTY_ROOT, changes)
    tip = (Height(0), compute_genesis_hash(genesis))
    return Commit(blocks=(), certificates=(), receipts=(), changes=changes, nodes=nodes, tip=tip, state_root=root)


def load_tip(config: Config, store: StoreReader) -> tuple[Ancestor, Certificate | None]:
    """The store's newest final block and its finalization (none at genesis, or in the middle of a long sync).

    Raises `Rejected`: UNAVAILABLE where not even the genesis is committed, WRONG_CHAIN where it is another one,
    CORRUPT where the tip's block is missing.
    """
    tip = store.tip()
    if tip is None:
        raise Rejected(Reason.UNAVAILABLE, "the store is empty: commit the genesis first")
    height, name = tip
    if height == 0:
        require(name == config.genesis_hash, Reason.WRONG_CHAIN, "the store holds another genesis")
        beacon = compute_genesis_beacon(config.genesis)
        return Ancestor(height, name, View(0), config.genesis.time_ms, beacon, store.state_root()), None
    raw = store.block_by_height(height)
    if raw is None:
        raise Rejected(Reason.CORRUPT, f"the store's tip is {name.hex()} and the block is not there")
    ancestor = compute_ancestor(decode(Block, raw))
    is_whole = ancestor.hash == name and ancestor.state_root == store.state_root()
    require(is_whole, Reason.CORRUPT, "the store's tip, its block and its state root do not belong together")
    certificate = store.certificate_at(height)
    return ancestor, None if certificate is None else decode(Certificate, certificate)


def restore(
    config: Config, records: Sequence[LogRecord], signed_view: View, now_ms: TimeMs
) -> tuple[State, tuple[Effect, ...]]:
    """The state of a node that starts, fresh or again, and its first effects.

    `records` are the vote log's, in order; `signed_view` is the highest view signed in as the small file beside the
    log has it (0: none). Where that is above what the log shows, votes are lost, and nothing is signed up to it. Votes
    are sent again as they stand; none is made for a view in which the rules of `votes` forbid it.
    """
    tip, finalization = load_tip(config, config.store)
    state = State(
        tip=tip,
        view=View(tip.view + 1),
        entered_ms=now_ms,
        delta_ms=config.parameters.delta_ms,
        mempool=Mempool(),
        finalization=finalization,
        standstill_ms=now_ms,
    )
    for record in records:
        state = _replay(state, record)
    logged = state.signed_view
    floor = View(0) if logged >= signed_view else signed_view
    state = replace(state, signed_view=max(logged, signed_view), floor=floor)
    turn = Turn(config, state, now_ms)
    forget_below_final(turn)
    view = find_next_view(turn.state)
    delta_ms: Count = compute_delta(config.parameters, view, turn.state.final_view)
    turn.update(view=view, delta_ms=delta_ms)
    _rebuild_proposal(turn)
    settle(turn)
    return turn.finish(is_timer_spent=True)


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
            signed_view=max(state.signed_view, view),
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


def _rebuild_proposal(turn: Turn) -> None:
    """The own proposal of the current view from the block and the certificates in the log, to be sent again."""
    state = turn.state
    vote = state.own.get(state.view, NO_VOTES).notarize
    block = None if vote is None or vote.content.block is None else state.bodies.get(vote.content.block)
    if vote is None or block is None or block.header.proposer != turn.config.account:
        return
    lineage = find_lineage(turn.config, state, state.view)
    if isinstance(lineage, int):
        return
    lots = split_certificates(lineage.certificates)
    commitment = compute_justification_hash(lineage.parent_view, lineage.certificates)
    if commitment == block.header.justification_hash and vote.content.block is not None:
        turn.update(
            proposals={**state.proposals, state.view: Proposal(block, vote, lots[0])},
            parts={vote.content.block: lineage.certificates[len(lots[0]) :]},
        )

"""Starting: the genesis as the first commit, and an engine's state from the store and the vote log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected, require
from milon.base.units import Count, Height, TimeMs, View
from milon.chain.block import Block
from milon.chain.certificate import compute_validators_hash
from milon.chain.finality import FinalityProof, decode_finality
from milon.chain.genesis import Genesis, compute_genesis_beacon, compute_genesis_hash, validators_of
from milon.chain.params import is_last_of_epoch
from milon.consensus.application import Config
from milon.consensus.blocks import compute_ancestor
from milon.consensus.effects import Effect
from milon.consensus.engine import settle
from milon.consensus.members import load_members
from milon.consensus.mempool import Mempool
from milon.consensus.messages import LoggedVote, LogRecord, place_of_record
from milon.consensus.replay import rebuild_proposal, replay_records
from milon.consensus.state import NO_PLACE, Ancestor, State
from milon.consensus.tally import forget_below_final
from milon.consensus.turn import Turn
from milon.consensus.views import compute_delta, count_waiting, find_next_view
from milon.consensus.votes import Place
from milon.state.commitment import EMPTY_ROOT, compute_update
from milon.state.ledger import Ledger
from milon.state.store import Commit, StoreReader


def compute_genesis_commit(genesis: Genesis, table: Mapping[bytes, bytes]) -> Commit:
    """What an empty store commits first: the ledger at height 0, with the genesis hash as the tip's."""
    changes: dict[bytes, bytes | None] = dict(table)
    root, nodes = compute_update(lambda _: None, EMPTY_ROOT, changes)
    tip = (Height(0), compute_genesis_hash(genesis))
    return Commit(blocks=(), certificates=(), receipts=(), changes=changes, nodes=nodes, tip=tip, state_root=root)


def load_tip(config: Config, store: StoreReader) -> tuple[Ancestor, FinalityProof | None]:
    """The store's newest final block and why it is final (none at genesis, or in the middle of a long sync).

    Raises `Rejected`: UNAVAILABLE where not even the genesis is committed, WRONG_CHAIN where it is another one,
    CORRUPT where the tip's block is missing.
    """
    tip = store.tip()
    if tip is None:
        raise Rejected(Reason.UNAVAILABLE, "the store is empty: commit the genesis first")
    height, name = tip
    if height == 0:
        require(name == config.genesis_hash, Reason.WRONG_CHAIN, "the store holds another genesis")
        beacon, after = compute_genesis_beacon(config.genesis), compute_validators_hash(validators_of(config.genesis))
        return Ancestor(height, name, View(0), config.genesis.time_ms, beacon, store.state_root(), after), None
    raw = store.block_by_height(height)
    if raw is None:
        raise Rejected(Reason.CORRUPT, f"the store's tip is {name.hex()} and the block is not there")
    ancestor = compute_ancestor(decode(Block, raw))
    is_whole = ancestor.hash == name and ancestor.state_root == store.state_root()
    require(is_whole, Reason.CORRUPT, "the store's tip, its block and its state root do not belong together")
    certificate = store.certificate_at(height)
    return ancestor, None if certificate is None else decode_finality(certificate)


def _load(config: Config, now_ms: TimeMs) -> State:
    """The state after the store's newest block, with nothing from the log."""
    tip, finality = load_tip(config, config.store)
    members = load_members(config, Ledger(config.store), tip.height)
    is_new_epoch = tip.height > 0 and is_last_of_epoch(tip.height, config.parameters)
    if is_new_epoch:
        same = members.hash == tip.next_validators_hash
        require(same, Reason.CORRUPT, "the validators in the ledger are not those that the last block names")
        tip = replace(tip, view=View(0))
    return State(
        tip=tip,
        members=members,
        view=View(tip.view + 1),
        entered_ms=now_ms,
        delta_ms=config.parameters.delta_ms,
        mempool=Mempool(),
        finalization=None if finality is None or is_new_epoch else finality.finalization,
        finality=finality,
        standstill_ms=now_ms,
    )


def restore(
    config: Config, records: Sequence[LogRecord], signed: Place, now_ms: TimeMs, signed_votes: int = 0
) -> tuple[State, tuple[Effect, ...]]:
    """The state of a node that starts, fresh or again, and its first effects.

    `records` are the vote log's, in order; `signed` is the highest epoch and view signed in as the small file beside
    the log has it (zeros: none), and `signed_votes` how many votes were signed there. Where that is more than the log
    shows, votes are lost, and nothing is signed up to there. Votes are sent again as they stand; none is made for a
    view in which the rules of `votes` forbid it.
    """
    state = replay_records(_load(config, now_ms), records)
    places = [place_of_record(record) for record in records if isinstance(record, LoggedVote)]
    logged = max([NO_PLACE, *places])
    is_whole = (logged, places.count(logged)) >= (signed, signed_votes)
    floor = NO_PLACE if is_whole else signed
    turn = Turn(config, replace(state, signed=max(logged, signed), floor=floor), now_ms)
    forget_below_final(turn)
    view = find_next_view(turn.state)
    delta_ms: Count = compute_delta(config.parameters, view, turn.state.final_view, count_waiting(turn.state))
    turn.update(view=view, delta_ms=delta_ms)
    turn.state = rebuild_proposal(turn.state)
    settle(turn)
    return turn.finish(is_timer_spent=True)

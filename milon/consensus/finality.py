"""From a finalization to a commit: the block and all its ancestors above the tip, in one store transaction."""

from __future__ import annotations

from dataclasses import replace

from milon.base.codec import encode
from milon.base.ids import Digest
from milon.base.units import Height, View
from milon.chain.learning import BlockReport
from milon.consensus.blocks import ledger_after
from milon.consensus.effects import CommitBlocks, FinalizedBlock, PruneLog
from milon.consensus.mempool import drop_stale
from milon.consensus.state import Ancestor, Executed, State
from milon.consensus.sync import resolve
from milon.consensus.tally import forget_below_final
from milon.consensus.turn import Turn
from milon.state.store import Commit


def commit_final(turn: Turn) -> None:
    """Commit up to the newest finalization if its block and all between are here; otherwise they are asked for.

    Raises RuntimeError where a final block is invalid here: going on would hide that something is badly wrong.
    """
    finalization = turn.state.finalization
    if finalization is None or finalization.content.view <= turn.state.tip.view or finalization.content.block is None:
        return
    ancestor = resolve(turn, finalization.content.block, is_final=True)
    if ancestor is not None:
        commit_up_to(turn, ancestor)


def commit_up_to(turn: Turn, last: Ancestor) -> None:
    """Hand out the executed blocks above the tip up to `last`, which is final, and go on from there."""
    state = turn.state
    path: list[Executed] = []
    cursor = last.hash
    while cursor != state.tip.hash:
        entry = state.executed[cursor]
        path.append(entry)
        cursor = entry.block.header.parent_hash
    path.reverse()
    turn.emit(_make_effect(state, path))
    turn.update(tip=last)
    _forget_other_branches(turn)
    forget_below_final(turn)
    ledger = ledger_after(turn.config, turn.state, last.hash)
    senders = sorted({transaction.body.sender for entry in path for transaction in entry.block.transactions})
    standings = {sender: turn.config.application.standing_of(ledger, sender) for sender in senders}
    turn.update(mempool=drop_stale(turn.state.mempool, standings), requests={})


def _make_effect(state: State, path: list[Executed]) -> CommitBlocks:
    changes: dict[bytes, bytes | None] = {}
    nodes: dict[bytes, bytes | None] = {}
    for entry in path:
        changes.update(entry.changes)
        nodes.update(entry.nodes)
    last = path[-1].ancestor
    final = state.finalization
    is_certified = final is not None and final.content.block == last.hash
    commit = Commit(
        blocks=tuple((entry.ancestor.height, entry.ancestor.hash, encode(entry.block)) for entry in path),
        certificates=((last.height, encode(final)),) if is_certified else (),
        receipts=tuple((entry.ancestor.height, encode(BlockReport(entry.receipts, entry.closed))) for entry in path),
        changes=changes,
        nodes=nodes,
        tip=(last.height, last.hash),
        state_root=last.state_root,
    )
    finalized = tuple(FinalizedBlock(entry.block, entry.ancestor.hash, entry.receipts, entry.closed) for entry in path)
    return CommitBlocks(commit, finalized)


def _forget_other_branches(turn: Turn) -> None:
    """Keep the final blocks that the store may still lack and the descendants of the tip; drop all other blocks."""
    state = turn.state
    kept: dict[Digest, Executed] = {}
    entry = state.executed.get(state.tip.hash)
    while entry is not None:
        kept[entry.ancestor.hash] = entry
        entry = state.executed.get(entry.block.header.parent_hash)
    for other in sorted(state.executed.values(), key=lambda found: found.ancestor.height):
        parent = other.block.header.parent_hash
        is_above = other.ancestor.height > state.tip.height + 1 and parent in kept
        if parent == state.tip.hash or is_above:
            kept[other.ancestor.hash] = other
    turn.state = replace(
        state,
        executed=kept,
        bodies={name: block for name, block in state.bodies.items() if block.header.view > state.tip.view},
        refused={name: view for name, view in state.refused.items() if view > state.tip.view},
    )


def take_committed(turn: Turn, height: Height) -> None:
    """The store has everything up to `height`: overlays of those blocks are no longer needed, nor are log records."""
    kept = {name: entry for name, entry in turn.state.executed.items() if entry.ancestor.height > height}
    turn.update(executed=kept)
    tip = turn.state.tip
    if height == tip.height and tip.view:
        turn.emit(PruneLog(View(tip.view - 1)))  # the tip's notarization may stand in an own proposal's justification

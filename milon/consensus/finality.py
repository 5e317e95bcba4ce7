"""From a finalization to a commit: the block and all its ancestors above the tip, in one store transaction."""

from __future__ import annotations

from dataclasses import replace

from milon.base.codec import encode
from milon.base.ids import Digest
from milon.base.units import Epoch, Height, View
from milon.chain.finality import FinalityProof, encode_finality
from milon.chain.learning import BlockReport
from milon.consensus.accusation import drop_useless_evidence
from milon.consensus.blocks import ledger_after
from milon.consensus.effects import CommitBlocks, FinalizedBlock, PruneLog
from milon.consensus.epochs import enter_next_epoch
from milon.consensus.members import is_filler
from milon.consensus.mempool import drop_stale
from milon.consensus.state import Ancestor, Executed, State
from milon.consensus.sync import resolve
from milon.consensus.tally import forget_below_final
from milon.consensus.turn import Turn
from milon.state.store import Commit

VIEW_END = View(1 << 62)  # after every view of an epoch


def commit_final(turn: Turn) -> None:
    """Commit up to the newest finalization if its block and all between are here; otherwise they are asked for.

    Raises RuntimeError where a final block is invalid here: going on would hide that something is badly wrong.
    """
    finalization = turn.state.finalization
    if finalization is None or finalization.content.view <= turn.state.tip.view or finalization.content.block is None:
        return
    ancestor = resolve(turn, finalization.content.block, is_final=True)
    if ancestor is not None:
        commit_up_to(turn, ancestor, FinalityProof((), finalization))


def commit_up_to(turn: Turn, last: Ancestor, proof: FinalityProof | None) -> None:
    """Hand out the executed blocks above the tip up to `last`, which is final, and go on from there.

    Blocks above the epoch's last one are not handed out: their headers show why that one is final, and the next epoch
    begins on it. `proof` is of `last`, where it has one.
    """
    path = _find_path(turn.state, last)
    fillers = [entry.block.header for entry in path if is_filler(turn.state.members, entry.block.header)]
    path = path[: len(path) - len(fillers)]
    if proof is not None and fillers:
        proof = FinalityProof((*fillers, *proof.headers), proof.finalization)
    tip = path[-1].ancestor
    turn.emit(_make_effect(path, proof))
    turn.update(tip=tip, finality=proof)
    _forget_other_branches(turn)
    forget_below_final(turn)
    ledger = ledger_after(turn.config, turn.state, tip.hash)
    senders = sorted({transaction.body.sender for entry in path for transaction in entry.block.transactions})
    standings = {sender: turn.config.application.standing_of(ledger, sender) for sender in senders}
    turn.update(mempool=drop_stale(turn.state.mempool, standings), requests={})
    drop_useless_evidence(turn, len(path))
    if tip.height == turn.state.members.last_height:
        enter_next_epoch(turn)


def _find_path(state: State, last: Ancestor) -> list[Executed]:
    """The executed blocks above the tip up to `last`, heights ascending."""
    path: list[Executed] = []
    cursor = last.hash
    while cursor != state.tip.hash:
        entry = state.executed[cursor]
        path.append(entry)
        cursor = entry.block.header.parent_hash
    path.reverse()
    return path


def _make_effect(path: list[Executed], proof: FinalityProof | None) -> CommitBlocks:
    changes: dict[bytes, bytes | None] = {}
    nodes: dict[bytes, bytes | None] = {}
    for entry in path:
        changes.update(entry.changes)
        nodes.update(entry.nodes)
    last = path[-1].ancestor
    commit = Commit(
        blocks=tuple((entry.ancestor.height, entry.ancestor.hash, encode(entry.block)) for entry in path),
        certificates=() if proof is None else ((last.height, encode_finality(proof)),),
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
    tip, epoch = turn.state.tip, turn.state.members.epoch
    if height != tip.height:
        return
    if tip.view:  # the tip's notarization may stand in an own proposal's justification
        turn.emit(PruneLog((epoch, View(tip.view - 1))))
    elif epoch:
        turn.emit(PruneLog((Epoch(epoch - 1), VIEW_END)))

"""What a running node does about its past: snapshots for newcomers, and forgetting old blocks where its mode says so.

Neither touches the ledger or its tree: nodes of every mode have the same state roots.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from milon.base.codec import decode
from milon.base.errors import Rejected
from milon.base.ids import Digest
from milon.base.units import Height
from milon.chain.block import Block, compute_header_hash
from milon.chain.params import Parameters
from milon.node.shelf import Shelf
from milon.state.store import Snapshot, Store

_LOG = logging.getLogger(__name__)

LOOK_S = 2.0  # between two looks at the height: nothing here is urgent
FORGOTTEN_AT_ONCE = 256  # blocks in one store transaction: some milliseconds in which no block can be committed

# Blocks kept by mode; None: all. A day of blocks a second apart serves those who were away; light keeps what evidence,
# restarts and the neighbours' catching up need.
BLOCKS_KEPT: Mapping[str, int | None] = {"archive": None, "default": 100_000, "light": 1_000}


@dataclass(frozen=True, slots=True)
class Keeping:
    """How much of the past a node keeps."""

    mode: str  # a key of `BLOCKS_KEPT`
    snapshot_blocks: int  # between two snapshots; 0: none are made


def count_kept(keeping: Keeping, parameters: Parameters) -> int | None:
    """Blocks that stay, the newest ones; None: all. Evidence must be judged as long as it may come."""
    kept = BLOCKS_KEPT[keeping.mode]
    return None if kept is None else max(kept, int(parameters.evidence_age_blocks) * 2)


def forget_blocks(store: Store, kept: int) -> int:
    """Forget up to `FORGOTTEN_AT_ONCE` of the blocks below the newest `kept`; how many."""
    tip, lowest = store.tip(), store.lowest_block()
    if tip is None or lowest is None:
        return 0
    found: list[tuple[Height, Digest]] = []
    for height in range(lowest, min(lowest + FORGOTTEN_AT_ONCE, tip[0] - kept + 1)):
        raw = store.block_by_height(Height(height))
        if raw is not None:
            found.append((Height(height), compute_header_hash(decode(Block, raw).header)))
    if found:
        store.forget(found)
    return len(found)


class Keeper:
    """Looks after the past of one store."""

    def __init__(self, store: Store, shelf: Shelf, keeping: Keeping, parameters: Parameters) -> None:
        """Nothing runs yet."""
        self._store = store
        self._shelf = shelf
        self._interval = keeping.snapshot_blocks
        self._due: Snapshot | None = None  # to be put on the shelf
        self._kept = count_kept(keeping, parameters)
        self._parameters = parameters

    def note(self, height: Height) -> None:
        """The store is at `height` now; at multiples of the interval, so that many nodes serve the same snapshot."""
        if self._interval and height % self._interval == 0 and self._due is None:
            self._due = self._store.snapshot()

    async def run(self) -> None:
        """For ever; a snapshot that cannot be made, as on a full disk, is tried again later."""
        while True:
            await trio.sleep(LOOK_S)
            try:
                await trio.to_thread.run_sync(self.work)
            except Rejected as error:
                _LOG.warning("keeping: %s", error)
                await trio.sleep(10 * LOOK_S)

    def work(self) -> None:
        """What is due now."""
        self._shelf.keep_validators(self._store, self._parameters)
        if self._due is not None:
            try:
                made = self._shelf.make(self._due)
            finally:
                self._due.close()
                self._due = None
            if made is not None:
                _LOG.info("snapshot of height %d", made)
        if self._kept is not None:
            count = forget_blocks(self._store, self._kept)
            if count:
                _LOG.info("forgot %d blocks", count)

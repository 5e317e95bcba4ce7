"""The port to whatever keeps the chain on disk: reads at the finalized tip, and one atomic commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.base.units import Height

KEY_MAX_BYTES = 256  # of a ledger key: a prefix and two ids; LMDB itself takes at most 511
VALUE_MAX_BYTES = 4 << 20  # the codec's limit: larger things are blobs and not on the chain


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that becomes durable together: usually one finalized block with the ancestors it finalizes."""

    blocks: tuple[tuple[Height, Digest, bytes], ...]  # height, hash and encoding of each block, heights ascending
    certificates: tuple[tuple[Height, bytes], ...]  # encoded finalizations; not every height has its own
    receipts: tuple[tuple[Height, bytes], ...]  # encoded receipts of each block
    changes: Mapping[bytes, bytes | None]  # to the flat ledger table; None: removed
    nodes: Mapping[bytes, bytes | None]  # to the nodes of the state tree; None: removed
    tip: tuple[Height, Digest]  # height and hash of the newest final block after this commit
    state_root: Digest  # of the ledger after this commit


class StoreReader(Protocol):
    """The store as it was at one moment."""

    def get(self, key: bytes) -> bytes | None:
        """The ledger value under `key`, or None."""

    def node(self, key: bytes) -> bytes | None:
        """The state tree's node under `key`, or None (see `commitment`)."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All ledger keys that start with `prefix` with their values, in ascending order of the keys' bytes."""

    def tip(self) -> tuple[Height, Digest] | None:
        """Height and hash of the newest final block; None before the first commit."""

    def state_root(self) -> Digest:
        """The root of the ledger at the tip; 32 zero bytes for the empty ledger."""

    def block_by_height(self, height: Height) -> bytes | None:
        """The encoding of the final block at `height`, or None."""

    def block_by_hash(self, block_hash: Digest) -> bytes | None:
        """The encoding of the final block of that hash, or None."""

    def certificate_at(self, height: Height) -> bytes | None:
        """The encoded finalization of the block at `height`, or None where a later one finalized it."""

    def lowest_block(self) -> Height | None:
        """The lowest height whose block is here; None where none is."""

    def receipts_at(self, height: Height) -> bytes | None:
        """The encoded receipts of the block at `height`, or None."""


class Snapshot(StoreReader, Protocol):
    """A reader that does not see later commits; it holds old pages, so close it soon."""

    def close(self) -> None:
        """Let go of the snapshot; reading it afterwards is an error."""


class Store(StoreReader, Protocol):
    """The newest final state; one writer, any number of snapshots.

    Every method may raise `Rejected`: CORRUPT where the files are damaged, UNAVAILABLE where the disk fails.
    """

    def commit(self, commit: Commit) -> None:
        """Make all of `commit` durable, or, on any error or a crash, none of it.

        Raises `Rejected(FULL)` when there is no room, `Rejected(STALE)` when the tip would not rise, and
        `Rejected(TOO_LARGE)` for keys and values beyond the limits above.
        """

    def forget(self, blocks: Sequence[tuple[Height, Digest]]) -> None:
        """Remove blocks below the tip (height and hash), their certificates and receipts; the state stays as it is."""

    def snapshot(self) -> Snapshot:
        """The store as it is now, unmoved by later commits."""

    def close(self) -> None:
        """Release the files; closing twice is allowed."""


def verify_commit(commit: Commit, tip: tuple[Height, Digest] | None) -> None:
    """What every store checks before it changes anything: the tip rises, and keys and values are within the limits."""
    height = commit.tip[0]
    if tip is not None and height <= tip[0]:
        raise Rejected(Reason.STALE, f"height {height} is not above the tip at {tip[0]}")
    for key, value in commit.changes.items():
        require(0 < len(key) <= KEY_MAX_BYTES, Reason.TOO_LARGE, f"a ledger key of {len(key)} bytes")
        size = 0 if value is None else len(value)
        require(size <= VALUE_MAX_BYTES, Reason.TOO_LARGE, f"a ledger value of {size} bytes")


def verify_forget(blocks: Sequence[tuple[Height, Digest]], tip: tuple[Height, Digest] | None) -> None:
    """What every store checks before it forgets: the tip's block stays, a restart begins with it (ValueError)."""
    if any(tip is None or height >= tip[0] for height, _ in blocks):
        raise ValueError("the tip's block cannot be forgotten")

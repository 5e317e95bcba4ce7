"""The complete twin of the store on disk, in memory: for tests, simulations and nodes that keep nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from milon.base.ids import NO_DIGEST, Digest
from milon.base.units import Height
from milon.state.store import Commit, verify_commit, verify_forget


@dataclass(slots=True)
class _Tables:
    """What a store holds; shared with snapshots until the next commit copies it."""

    ledger: dict[bytes, bytes] = field(default_factory=dict)
    nodes: dict[bytes, bytes] = field(default_factory=dict)
    blocks: dict[Height, bytes] = field(default_factory=dict)
    heights: dict[Digest, Height] = field(default_factory=dict)
    certificates: dict[Height, bytes] = field(default_factory=dict)
    receipts: dict[Height, bytes] = field(default_factory=dict)
    tip: tuple[Height, Digest] | None = None
    root: Digest = NO_DIGEST

    def copy(self) -> _Tables:
        return _Tables(
            dict(self.ledger),
            dict(self.nodes),
            dict(self.blocks),
            dict(self.heights),
            dict(self.certificates),
            dict(self.receipts),
            self.tip,
            self.root,
        )


class _MemoryReader:
    """Reads of one set of tables; the base of the store and of its snapshots."""

    def __init__(self, tables: _Tables) -> None:
        self._current: _Tables | None = tables

    @property
    def _tables(self) -> _Tables:
        if self._current is None:
            raise RuntimeError("read after close")
        return self._current

    def get(self, key: bytes) -> bytes | None:
        """See `StoreReader.get`."""
        return self._tables.ledger.get(key)

    def node(self, key: bytes) -> bytes | None:
        """See `StoreReader.node`."""
        return self._tables.nodes.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `StoreReader.scan`."""
        ledger = self._tables.ledger
        return iter(sorted((key, value) for key, value in ledger.items() if key.startswith(prefix)))

    def tip(self) -> tuple[Height, Digest] | None:
        """See `StoreReader.tip`."""
        return self._tables.tip

    def state_root(self) -> Digest:
        """See `StoreReader.state_root`."""
        return self._tables.root

    def block_by_height(self, height: Height) -> bytes | None:
        """See `StoreReader.block_by_height`."""
        return self._tables.blocks.get(height)

    def block_by_hash(self, block_hash: Digest) -> bytes | None:
        """See `StoreReader.block_by_hash`."""
        height = self._tables.heights.get(block_hash)
        return None if height is None else self._tables.blocks[height]

    def certificate_at(self, height: Height) -> bytes | None:
        """See `StoreReader.certificate_at`."""
        return self._tables.certificates.get(height)

    def lowest_block(self) -> Height | None:
        """See `StoreReader.lowest_block`."""
        return min(self._tables.blocks, default=None)

    def receipts_at(self, height: Height) -> bytes | None:
        """See `StoreReader.receipts_at`."""
        return self._tables.receipts.get(height)

    def close(self) -> None:
        """Let go of the tables."""
        self._current = None


def _merge(table: dict[bytes, bytes], changes: Iterator[tuple[bytes, bytes | None]]) -> None:
    for key, value in changes:
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value


class MemoryStore(_MemoryReader):
    """A `Store` that ends with the process."""

    def __init__(self) -> None:
        """Start empty."""
        super().__init__(_Tables())
        self._is_shared = False

    def commit(self, commit: Commit) -> None:
        """See `Store.commit`."""
        verify_commit(commit, self._tables.tip)
        self._own_tables()
        tables = self._tables
        for height, block_hash, raw in commit.blocks:
            tables.blocks[height] = raw
            tables.heights[block_hash] = height
        tables.certificates.update(commit.certificates)
        tables.receipts.update(commit.receipts)
        _merge(tables.ledger, iter(commit.changes.items()))
        _merge(tables.nodes, iter(commit.nodes.items()))
        tables.tip, tables.root = commit.tip, commit.state_root

    def forget(self, blocks: Sequence[tuple[Height, Digest]]) -> None:
        """See `Store.forget`."""
        verify_forget(blocks, self._tables.tip)
        self._own_tables()
        for height, name in blocks:
            self._tables.heights.pop(name, None)
            for table in (self._tables.blocks, self._tables.certificates, self._tables.receipts):
                table.pop(height, None)

    def _own_tables(self) -> None:
        if self._is_shared:
            self._current = self._tables.copy()
            self._is_shared = False

    def snapshot(self) -> _MemoryReader:
        """See `Store.snapshot`."""
        self._is_shared = True
        return _MemoryReader(self._tables)

"""The store on disk: one LMDB environment with a table per kind of record, and one write transaction per commit.

In the folder: `data.mdb` and `lock.mdb` are LMDB's; `store.lock` is held by the one process that has the folder open
and says how long the data file was after the last commit, because LMDB would end the process (SIGBUS) on reading past
the end of a file that was cut off.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import lmdb

from milon.base.errors import Reason, Rejected
from milon.base.ids import NO_DIGEST, Digest
from milon.base.units import Height
from milon.state.lmdb_folder import FolderLock, refuse_corrupt, require_room, verify_length
from milon.state.store import Commit, verify_commit, verify_forget

FORMAT = b"milon-store/1"  # raised whenever a table's meaning changes; an unknown one is refused
MAP_BYTES_INITIAL = 16 << 30  # address space, not disk: the file grows as it is written
MAP_FILL_PERCENT_MAX = 80  # grow in good time, because it cannot be done while a snapshot is open
HEIGHT_BYTES = 8  # big-endian, so that the table's order is the chain's

_TABLES = (b"ledger", b"nodes", b"blocks", b"heights", b"certificates", b"receipts", b"meta")
_META_FORMAT = b"format"
_META_TIP = b"tip"
_META_ROOT = b"state-root"

_Tables = Mapping[bytes, "lmdb._Database"]


def _height_key(height: Height) -> bytes:
    return height.to_bytes(HEIGHT_BYTES, "big")


def _refuse(folder: Path, error: lmdb.Error | OSError) -> Rejected:
    """What went wrong on disk, in three parts: the cause, what it means, what to do."""
    number = error.errno if isinstance(error, OSError) else error.code
    if isinstance(error, lmdb.DiskError) or number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Rejected(
            Reason.FULL,
            f"no room on the disk for {folder} ({error}); nothing of this block was stored; free space and start again",
        )
    if isinstance(error, (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)):
        return refuse_corrupt(folder, str(error))
    return Rejected(
        Reason.UNAVAILABLE,
        f"the disk under {folder} does not answer ({error}); nothing was changed; check the disk and its permissions",
    )


class _LmdbReader:
    """Reads in one LMDB transaction; the base of the store and of its snapshots."""

    def __init__(self, folder: Path, tables: _Tables, transaction: lmdb.Transaction[bytes]) -> None:
        self._folder = folder
        self._tables = tables
        self._transaction: lmdb.Transaction[bytes] | None = transaction
        self._guard = threading.Lock()  # a transaction serves one thread at a time; commits may run in a worker

    def _read(self, table: bytes, key: bytes) -> bytes | None:
        with self._guard:
            if self._transaction is None:
                raise RuntimeError("read after close")
            try:
                value: bytes | None = self._transaction.get(key, db=self._tables[table])
            except lmdb.BadValsizeError:
                return None  # an empty or an overlong key is never stored
            except lmdb.Error as error:
                raise _refuse(self._folder, error) from error
            return value

    def get(self, key: bytes) -> bytes | None:
        """See `StoreReader.get`."""
        return self._read(b"ledger", key)

    def node(self, key: bytes) -> bytes | None:
        """See `StoreReader.node`."""
        return self._read(b"nodes", key)

    def tip(self) -> tuple[Height, Digest] | None:
        """See `StoreReader.tip`."""
        raw = self._read(b"meta", _META_TIP)
        if raw is None:
            return None
        return Height(int.from_bytes(raw[:HEIGHT_BYTES], "big")), Digest(raw[HEIGHT_BYTES:])

    def state_root(self) -> Digest:
        """See `StoreReader.state_root`."""
        raw = self._read(b"meta", _META_ROOT)
        return NO_DIGEST if raw is None else Digest(raw)

    def block_by_height(self, height: Height) -> bytes | None:
        """See `StoreReader.block_by_height`."""
        return self._read(b"blocks", _height_key(height))

    def block_by_hash(self, block_hash: Digest) -> bytes | None:
        """See `StoreReader.block_by_hash`."""
        height = self._read(b"heights", block_hash)
        return None if height is None else self._read(b"blocks", height)

    def certificate_at(self, height: Height) -> bytes | None:
        """See `StoreReader.certificate_at`."""
        return self._read(b"certificates", _height_key(height))

    def lowest_block(self) -> Height | None:
        """See `StoreReader.lowest_block`."""
        with self._guard:
            if self._transaction is None:
                raise RuntimeError("read after close")
            with self._transaction.cursor(db=self._tables[b"blocks"]) as cursor:
                return Height(int.from_bytes(cursor.key(), "big")) if cursor.first() else None

    def receipts_at(self, height: Height) -> bytes | None:
        """See `StoreReader.receipts_at`."""
        return self._read(b"receipts", _height_key(height))


class LmdbSnapshot(_LmdbReader):
    """The store as it was when the snapshot was opened."""

    def __init__(
        self, folder: Path, tables: _Tables, transaction: lmdb.Transaction[bytes], opened: set[LmdbSnapshot]
    ) -> None:
        """Take over a read transaction; `opened` are the store's open snapshots, of which this becomes one."""
        super().__init__(folder, tables, transaction)
        self._opened = opened
        opened.add(self)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `StoreReader.scan`."""
        return self._scan(b"ledger", prefix)

    def scan_nodes(self) -> Iterator[tuple[bytes, bytes]]:
        """All nodes of the state tree with their positions, for those who check the tree whole."""
        return self._scan(b"nodes", b"")

    def _scan(self, table: bytes, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        if self._transaction is None:
            raise RuntimeError("read after close")
        try:
            with self._transaction.cursor(db=self._tables[table]) as cursor:
                is_found = cursor.set_range(prefix) if prefix else cursor.first()
                while is_found and cursor.key().startswith(prefix):
                    yield cursor.item()
                    is_found = cursor.next()
        except lmdb.Error as error:
            raise _refuse(self._folder, error) from error

    def close(self) -> None:
        """See `Snapshot.close`."""
        with self._guard:
            if self._transaction is not None:
                self._transaction.abort()
                self._transaction = None
                self._opened.discard(self)


class LmdbVisit(LmdbSnapshot):
    """The store in a folder as it is now, read beside whatever process runs on it; nothing is written."""

    def __init__(self, folder: Path) -> None:
        """Raises `Rejected`: UNAVAILABLE where the folder holds no store, CORRUPT or UNSUPPORTED for what it holds."""
        if not (folder / "data.mdb").exists():
            raise Rejected(Reason.UNAVAILABLE, f"{folder} holds no chain yet; nothing was read; start the node first")
        try:
            verify_length(folder)
            environment = lmdb.open(
                str(folder), map_size=MAP_BYTES_INITIAL, max_dbs=len(_TABLES), readonly=True, readahead=False
            )
            tables = {name: environment.open_db(name, create=False) for name in _TABLES}
            super().__init__(folder, tables, environment.begin(), set())
        except (lmdb.Error, OSError) as error:
            raise _refuse(folder, error) from error
        self._environment = environment
        found = self._read(b"meta", _META_FORMAT)
        if found != FORMAT:
            self.close()
            raise Rejected(Reason.UNSUPPORTED, f"{folder} was written as {found!r:.40}; this program knows {FORMAT!r}")

    def close(self) -> None:
        """See `Snapshot.close`."""
        super().close()
        self._environment.close()


class LmdbStore(_LmdbReader):
    """A `Store` in a folder of its own."""

    def __init__(self, folder: Path, map_bytes: int = MAP_BYTES_INITIAL, free_bytes_min: int = 0) -> None:
        """Open or create the store in `folder`; a commit that finds less than `free_bytes_min` on the disk is refused.

        Raises `Rejected`: IN_USE when another process has it, CORRUPT when its files are damaged, UNSUPPORTED when a
        newer program wrote it, FULL or UNAVAILABLE when the disk refuses.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(folder)
        except OSError as error:
            raise _refuse(folder, error) from error
        self._free_bytes_min = free_bytes_min
        self._environment: lmdb.Environment | None = None
        self._snapshots: set[LmdbSnapshot] = set()
        try:
            verify_length(folder)
            environment = lmdb.open(
                str(folder), map_size=map_bytes, max_dbs=len(_TABLES), mode=0o600, max_spare_txns=2, readahead=False
            )
            self._environment = environment
            tables = _open_tables(folder, environment)
            super().__init__(folder, tables, environment.begin())
        except (lmdb.Error, OSError) as error:
            self._release()
            raise _refuse(folder, error) from error
        except Rejected:
            self._release()
            raise

    def _release(self) -> None:
        if self._environment is not None:
            self._environment.close()
            self._environment = None
        self._lock.release()

    def _opened_environment(self) -> lmdb.Environment:
        if self._environment is None:
            raise RuntimeError("the store is closed")
        return self._environment

    def commit(self, commit: Commit) -> None:
        """See `Store.commit`; the data is on the disk when this returns."""
        environment = self._opened_environment()
        verify_commit(commit, self.tip())
        try:
            require_room(self._folder, self._free_bytes_min)
            self._grow(environment, MAP_FILL_PERCENT_MAX)
            while True:
                try:
                    with environment.begin(write=True) as transaction:
                        _write(transaction, self._tables, commit)
                    break
                except lmdb.MapFullError:
                    self._grow(environment, 0)
            self._lock.note_length()
            with self._guard:
                self._renew(environment)
        except (lmdb.Error, OSError) as error:
            raise _refuse(self._folder, error) from error

    def forget(self, blocks: Sequence[tuple[Height, Digest]]) -> None:
        """See `Store.forget`."""
        environment = self._opened_environment()
        verify_forget(blocks, self.tip())
        try:
            with environment.begin(write=True) as transaction:
                for height, name in blocks:
                    transaction.delete(name, db=self._tables[b"heights"])
                    for table in (b"blocks", b"certificates", b"receipts"):
                        transaction.delete(_height_key(height), db=self._tables[table])
            with self._guard:
                self._renew(environment)
        except lmdb.MapFullError:
            return  # the next commit makes room
        except (lmdb.Error, OSError) as error:
            raise _refuse(self._folder, error) from error

    def _renew(self, environment: lmdb.Environment) -> None:
        """Move the store's own reads to the newest commit."""
        if self._transaction is not None:
            self._transaction.abort()
        self._transaction = environment.begin()

    def _grow(self, environment: lmdb.Environment, fill_percent: int) -> None:
        """Double the map if it is filled to `fill_percent` and no snapshot holds addresses in it."""
        about = environment.info()
        used = (about["last_pgno"] + 1) * environment.stat()["psize"]
        if used * 100 < about["map_size"] * fill_percent:
            return
        with self._guard:
            if self._snapshots:
                if fill_percent == 0:
                    raise Rejected(
                        Reason.FULL,
                        f"the map of {self._folder} is full and {len(self._snapshots)} snapshots keep it from growing; "
                        "nothing of this block was stored; close them and commit again",
                    )
                return
            if self._transaction is not None:
                self._transaction.abort()
            environment.set_mapsize(about["map_size"] * 2)
            self._transaction = environment.begin()

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `StoreReader.scan`; what is seen is the state when the first entry is asked for."""
        snapshot = self.snapshot()
        try:
            yield from snapshot.scan(prefix)
        finally:
            snapshot.close()

    def snapshot(self) -> LmdbSnapshot:
        """See `Store.snapshot`."""
        environment = self._opened_environment()
        try:
            with self._guard:
                return LmdbSnapshot(self._folder, self._tables, environment.begin(), self._snapshots)
        except lmdb.Error as error:
            raise _refuse(self._folder, error) from error

    def close(self) -> None:
        """See `Store.close`; open snapshots are closed too."""
        for snapshot in tuple(self._snapshots):
            snapshot.close()
        with self._guard:
            if self._transaction is not None:
                self._transaction.abort()
                self._transaction = None
                self._release()


def _open_tables(folder: Path, environment: lmdb.Environment) -> dict[bytes, lmdb._Database]:
    """All tables; the format record is written into a fresh store and checked in any other."""
    tables: dict[bytes, lmdb._Database] = {}
    with environment.begin(write=True) as transaction:
        for name in _TABLES:
            tables[name] = environment.open_db(name, txn=transaction)
        found = transaction.get(_META_FORMAT, db=tables[b"meta"])
        if found is None:
            if any(transaction.stat(tables[name])["entries"] for name in _TABLES):
                raise refuse_corrupt(folder, "it holds records and no format")
            transaction.put(_META_FORMAT, FORMAT, db=tables[b"meta"])
        elif found != FORMAT:
            raise Rejected(
                Reason.UNSUPPORTED,
                f"{folder} was written as {found[:32]!r} and this program knows {FORMAT!r}; it was not touched; "
                "use the version that wrote it, or an empty folder",
            )
    return tables


def _write(transaction: lmdb.Transaction[bytes], tables: _Tables, commit: Commit) -> None:
    for name, changes in ((b"ledger", commit.changes), (b"nodes", commit.nodes)):
        for key, value in sorted(changes.items()):  # in the table's order: neighbours share pages
            if value is None:
                transaction.delete(key, db=tables[name])
            else:
                transaction.put(key, value, db=tables[name])
    for height, block_hash, raw in commit.blocks:
        transaction.put(_height_key(height), raw, db=tables[b"blocks"])
        transaction.put(block_hash, _height_key(height), db=tables[b"heights"])
    for name, entries in ((b"certificates", commit.certificates), (b"receipts", commit.receipts)):
        for height, raw in entries:
            transaction.put(_height_key(height), raw, db=tables[name])
    height, block_hash = commit.tip
    transaction.put(_META_TIP, _height_key(height) + block_hash, db=tables[b"meta"])
    transaction.put(_META_ROOT, commit.state_root, db=tables[b"meta"])

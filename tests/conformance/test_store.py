"""Every Store passes the same tests: the one in memory is a complete twin of the one on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.hashing import sha256
from milon.base.ids import NO_DIGEST, Digest
from milon.base.units import Height
from milon.state.ledger import Draft, Ledger
from milon.state.lmdb_store import LmdbStore
from milon.state.memory_store import MemoryStore
from milon.state.store import KEY_MAX_BYTES, VALUE_MAX_BYTES, Commit, Store

Opening = Callable[[], Store]


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each kind."""
    opened: Store = MemoryStore() if request.param == "memory" else LmdbStore(tmp_path / "store")
    yield opened
    opened.close()


def commit_of(height: int, changes: dict[bytes, bytes | None] | None = None, **parts: object) -> Commit:
    """One block at `height` with everything beside it."""
    block_hash = sha256(b"block %d" % height)
    return Commit(
        blocks=parts.get("blocks", ((Height(height), block_hash, b"block %d" % height),)),  # type: ignore[arg-type]
        certificates=((Height(height), b"certificate %d" % height),),
        receipts=((Height(height), b"receipts %d" % height),),
        changes=changes or {},
        nodes={key: value and b"node " + value for key, value in (changes or {}).items()},
        tip=(Height(height), block_hash),
        state_root=sha256(b"root %d" % height),
    )


def test_an_empty_store(store: Store) -> None:
    assert store.tip() is None
    assert store.state_root() == NO_DIGEST
    assert store.get(b"key") is store.node(b"key") is None
    assert store.get(b"") is store.get(b"x" * 10_000) is None
    assert store.block_by_height(Height(0)) is store.block_by_hash(NO_DIGEST) is None
    assert store.certificate_at(Height(0)) is store.receipts_at(Height(0)) is None
    assert list(store.scan(b"")) == []


def test_everything_of_a_commit_is_there(store: Store) -> None:
    blocks = tuple((Height(height), sha256(b"block %d" % height), b"block %d" % height) for height in (1, 2, 3))
    store.commit(commit_of(3, {b"a": b"1", b"b": b"2"}, blocks=blocks))
    assert store.tip() == (3, sha256(b"block 3"))
    assert store.state_root() == sha256(b"root 3")
    assert (store.get(b"a"), store.node(b"b"), store.get(b"c")) == (b"1", b"node 2", None)
    for height, block_hash, raw in blocks:
        assert store.block_by_height(height) == store.block_by_hash(block_hash) == raw
    assert (store.certificate_at(Height(3)), store.receipts_at(Height(3))) == (b"certificate 3", b"receipts 3")
    assert store.certificate_at(Height(2)) is store.receipts_at(Height(1)) is None


def test_changes_replace_and_remove(store: Store) -> None:
    store.commit(commit_of(0, {b"a": b"1", b"b": b"2", b"c": b"3"}))
    store.commit(commit_of(1, {b"a": b"11", b"b": None, b"never there": None}))
    assert list(store.scan(b"")) == [(b"a", b"11"), (b"c", b"3")]
    assert (store.node(b"a"), store.node(b"b")) == (b"node 11", None)


def test_scan_is_ordered_by_bytes_and_bounded_by_its_prefix(store: Store) -> None:
    keys = [b"a", b"a/", b"a/1", b"a/10", b"a/2", b"a/\x00", b"a/\xff", b"a/\xff\xff", b"a0", b"b/1", b"\xff\xff"]
    store.commit(commit_of(0, {key: b"of " + key for key in reversed(keys)}))
    for prefix in (b"", b"a", b"a/", b"a/\xff", b"b", b"c", b"\xff", b"\xff\xff\xff"):
        assert list(store.scan(prefix)) == [(key, b"of " + key) for key in sorted(keys) if key.startswith(prefix)]


@pytest.mark.parametrize(
    ("commit", "reason"),
    [
        (commit_of(4), Reason.STALE),
        (commit_of(5), Reason.STALE),
        (commit_of(6, {b"good": b"x", b"k" * (KEY_MAX_BYTES + 1): b"x"}), Reason.TOO_LARGE),
        (commit_of(6, {b"good": b"x", b"": b"x"}), Reason.TOO_LARGE),
        (commit_of(6, {b"good": b"x", b"key": bytes(VALUE_MAX_BYTES + 1)}), Reason.TOO_LARGE),
    ],
    ids=["below the tip", "at the tip", "long key", "empty key", "large value"],
)
def test_a_refused_commit_changes_nothing(store: Store, commit: Commit, reason: Reason) -> None:
    store.commit(commit_of(5, {b"a": b"1"}))
    with pytest.raises(Rejected) as caught:
        store.commit(commit)
    assert caught.value.reason is reason
    assert store.tip() == (5, sha256(b"block 5"))
    assert list(store.scan(b"")) == [(b"a", b"1")]
    assert store.block_by_height(Height(6)) is None
    store.commit(commit_of(6, {b"a": b"2", b"k" * KEY_MAX_BYTES: bytes(VALUE_MAX_BYTES)}))
    assert store.get(b"a") == b"2"


def test_a_snapshot_does_not_move(store: Store) -> None:
    store.commit(commit_of(0, {b"a": b"1", b"b": b"2"}))
    snapshot = store.snapshot()
    store.commit(commit_of(1, {b"a": b"11", b"b": None}))
    later = store.snapshot()
    store.commit(commit_of(2, {b"a": b"111"}))
    assert (snapshot.get(b"a"), later.get(b"a"), store.get(b"a")) == (b"1", b"11", b"111")
    assert (snapshot.tip(), later.tip(), store.tip()) == tuple((n, sha256(b"block %d" % n)) for n in range(3))
    assert snapshot.state_root() == sha256(b"root 0")
    assert list(snapshot.scan(b"")) == [(b"a", b"1"), (b"b", b"2")]
    assert (snapshot.node(b"b"), later.node(b"b")) == (b"node 2", None)
    assert snapshot.block_by_height(Height(1)) is snapshot.block_by_hash(sha256(b"block 1")) is None
    assert snapshot.certificate_at(Height(1)) is snapshot.receipts_at(Height(1)) is None
    for reader in (snapshot, later):
        reader.close()
        reader.close()
        with pytest.raises(RuntimeError):
            reader.get(b"a")
    assert store.get(b"a") == b"111"


def test_a_scan_under_way_does_not_move(store: Store) -> None:
    store.commit(commit_of(0, {b"a": b"1", b"b": b"2"}))
    scan = store.scan(b"")
    assert next(scan) == (b"a", b"1")
    store.commit(commit_of(1, {b"b": None, b"c": b"3"}))
    assert list(scan) == [(b"b", b"2")]


def test_a_closed_store_is_an_error(store: Store) -> None:
    store.commit(commit_of(0, {b"a": b"1"}))
    store.close()
    store.close()
    for call in (lambda: store.get(b"a"), store.tip, lambda: store.commit(commit_of(1)), lambda: list(store.scan(b""))):
        with pytest.raises(RuntimeError):
            call()


def test_a_store_is_a_ledgers_base(store: Store) -> None:
    store.commit(commit_of(0, {b"a": b"1", b"b": b"2"}))
    draft = Draft(Ledger(store))
    draft.put(b"a", b"11")
    draft.remove(b"b")
    store.commit(commit_of(1, dict(draft.commit().changes)))
    assert list(store.scan(b"")) == [(b"a", b"11")]


def test_large_digests_of_heights_do_not_mix(store: Store) -> None:
    store.commit(commit_of(255))
    store.commit(commit_of(256))
    assert store.block_by_height(Height(255)) == b"block 255"
    assert store.block_by_height(Height(256)) == b"block 256"
    assert store.block_by_hash(Digest(b"\x01")) is None


def test_what_is_forgotten_is_gone_and_the_state_stays(store: Store) -> None:
    assert store.lowest_block() is None
    for height in (1, 2, 3):
        store.commit(commit_of(height, {b"a": b"%d" % height}))
    snapshot = store.snapshot()
    before = (store.tip(), store.state_root(), list(store.scan(b"")), store.node(b"a"))
    assert store.lowest_block() == 1
    store.forget([(Height(1), sha256(b"block 1")), (Height(2), sha256(b"block 2"))])
    assert store.lowest_block() == 3
    for height in (1, 2):
        assert store.block_by_height(Height(height)) is store.certificate_at(Height(height)) is None
        assert store.receipts_at(Height(height)) is store.block_by_hash(sha256(b"block %d" % height)) is None
    assert store.block_by_hash(sha256(b"block 3")) == b"block 3"
    assert (store.tip(), store.state_root(), list(store.scan(b"")), store.node(b"a")) == before
    assert snapshot.block_by_height(Height(1)) == b"block 1"
    snapshot.close()
    with pytest.raises(ValueError, match="tip"):
        store.forget([(Height(3), sha256(b"block 3"))])
    store.commit(commit_of(4))
    assert store.lowest_block() == 3

"""A stored chain comes out again, and damage of every kind is found and named."""

from __future__ import annotations

from pathlib import Path

import lmdb
import pytest

from milon.base.errors import Reason, Rejected
from milon.base.units import Height
from milon.node.folder import NodeFolder
from milon.node.replay import ReplayReport, replay_chain, replay_folder
from milon.node.shelf import Shelf
from milon.state.lmdb_store import LmdbVisit
from tests.node.chains import Grown, grow, make_folder


def replayed(grown: Grown, folder: NodeFolder) -> ReplayReport:
    visit = LmdbVisit(folder.chain)
    try:
        return replay_chain(grown.genesis, visit)
    finally:
        visit.close()


def damage(folder: NodeFolder, table: bytes, key: bytes, value: bytes | None) -> None:
    """Change one record behind the store's back."""
    environment = lmdb.open(str(folder.chain), max_dbs=16, map_size=1 << 30)
    database = environment.open_db(table)
    with environment.begin(write=True) as transaction:
        if value is None:
            transaction.delete(key, db=database)
        else:
            transaction.put(key, value, db=database)
    environment.close()


def record_of(folder: NodeFolder, table: bytes, key: bytes | None = None) -> tuple[bytes, bytes]:
    """The record under `key`, or the first one of the table."""
    environment = lmdb.open(str(folder.chain), max_dbs=16, map_size=1 << 30, readonly=True)
    database = environment.open_db(table, create=False)
    with environment.begin() as transaction, transaction.cursor(db=database) as cursor:
        assert cursor.first() if key is None else cursor.set_key(key)
        found = (bytes(cursor.key()), bytes(cursor.value()))
    environment.close()
    return found


def flipped(raw: bytes) -> bytes:
    return raw[:-1] + bytes((raw[-1] ^ 1,))


def test_a_sound_chain_comes_out_again(tmp_path: Path) -> None:
    grown = grow()
    folder = make_folder(grown, tmp_path)
    tip = grown.store.tip()
    assert tip is not None and tip[0] > 8
    heard: list[tuple[int, int]] = []
    visit = LmdbVisit(folder.chain)
    report = replay_chain(grown.genesis, visit, say=lambda height, of: heard.append((height, of)))
    visit.close()
    assert report.mismatch is None
    assert (report.first, report.last) == (1, tip[0])
    assert report.certificates > 0


@pytest.mark.parametrize(
    ("table", "what"), [(b"ledger", "ledger"), (b"nodes", "tree"), (b"receipts", "receipts"), (b"blocks", "block")]
)
def test_damage_is_found_in_every_table(tmp_path: Path, table: bytes, what: str) -> None:
    grown = grow()
    folder = make_folder(grown, tmp_path)
    key, value = record_of(folder, table)
    damage(folder, table, key, flipped(value))
    mismatch = replayed(grown, folder).mismatch
    assert mismatch is not None and mismatch.what == what
    assert mismatch.cause and mismatch.next_step
    if what == "ledger":
        assert mismatch.family == key.split(b"/")[0].decode()


def test_a_lost_or_added_ledger_key_names_its_family(tmp_path: Path) -> None:
    grown = grow()
    folder = make_folder(grown, tmp_path)
    key, value = record_of(folder, b"ledger", b"supply")
    damage(folder, b"ledger", key, None)
    mismatch = replayed(grown, folder).mismatch
    assert mismatch is not None and (mismatch.what, mismatch.family) == ("ledger", "supply")
    damage(folder, b"ledger", key, value)
    damage(folder, b"ledger", b"job/extra", b"x")
    mismatch = replayed(grown, folder).mismatch
    assert mismatch is not None and (mismatch.what, mismatch.family) == ("ledger", "job")


def test_a_forged_certificate_is_found(tmp_path: Path) -> None:
    grown = grow()
    folder = make_folder(grown, tmp_path)
    key, value = record_of(folder, b"certificates")
    damage(folder, b"certificates", key, flipped(value))
    mismatch = replayed(grown, folder).mismatch
    assert mismatch is not None and mismatch.what == "certificate"
    assert mismatch.height == int.from_bytes(key, "big")


def test_other_rules_show_both_roots_and_the_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = grow()
    folder = make_folder(grown, tmp_path)
    from milon.contracts import accounts

    real = accounts.burn
    monkeypatch.setattr("milon.contracts.apply.burn", lambda draft, amount: real(draft, amount + (amount > 0)))
    mismatch = replayed(grown, folder).mismatch
    assert mismatch is not None and mismatch.what == "state-root"
    assert len(mismatch.expected) == len(mismatch.found) == 64 and mismatch.expected != mismatch.found
    assert "supply" in mismatch.cause


def test_from_a_snapshot_only_what_came_after_it_is_run(tmp_path: Path) -> None:
    older, grown = grow(2_000, 12, 4), grow(3_000, 12, 4)
    folder = make_folder(grown, tmp_path)
    with pytest.raises(Rejected) as caught:
        replay_folder(folder, is_from_snapshot=True)
    assert caught.value.reason is Reason.UNAVAILABLE
    height = Shelf(folder.snapshots).make(older.store.snapshot())
    assert height is not None
    damage(folder, b"blocks", Height(2).to_bytes(8, "big"), None)
    report = replay_folder(folder, is_from_snapshot=True)
    assert (report.first, report.mismatch) == (height + 1, None)
    place = folder.snapshots / str(int(height)) / "00000000"
    place.write_bytes(flipped(place.read_bytes()))
    with pytest.raises(Rejected):
        replay_folder(folder, is_from_snapshot=True)


def test_a_chain_with_epochs_comes_out_again(tmp_path: Path) -> None:
    grown = grow(3_000, 12, 4)
    report = replayed(grown, make_folder(grown, tmp_path))
    assert report.mismatch is None and report.last > 12


def test_a_missing_block_is_said(tmp_path: Path) -> None:
    grown = grow()
    folder = make_folder(grown, tmp_path)
    damage(folder, b"blocks", Height(3).to_bytes(8, "big"), None)
    with pytest.raises(Rejected) as caught:
        replayed(grown, folder)
    assert caught.value.reason is Reason.UNAVAILABLE and "block 3" in caught.value.detail

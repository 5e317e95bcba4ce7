"""The past: snapshots that appear whole, and modes that keep more or less of it and the same state."""

from __future__ import annotations

from pathlib import Path

import pytest

from milon.base.codec import decode
from milon.base.units import Height
from milon.chain.params import Parameters
from milon.node import keeping
from milon.node.keeping import Keeper, Keeping, count_kept, forget_blocks
from milon.node.shelf import Shelf
from milon.state.chunks import CHUNK_MAX_BYTES, StateChunk, assemble, verify_chunk
from milon.state.memory_store import MemoryStore
from tests.node.chains import copy_chain, grow


def copied() -> MemoryStore:
    store = MemoryStore()
    copy_chain(grow(), store)
    return store


def tip_of(store: MemoryStore) -> int:
    tip = store.tip()
    assert tip is not None
    return tip[0]


def test_a_snapshot_is_the_ledger_and_only_the_newest_stay(tmp_path: Path) -> None:
    store, shelf = copied(), Shelf(tmp_path / "shelf")
    assert shelf.heights() == ()
    height = shelf.make(store.snapshot())
    assert height == tip_of(store) and shelf.make(store.snapshot()) is None
    head = shelf.head(height)
    chunks = [decode(StateChunk, shelf.chunk(height, index), CHUNK_MAX_BYTES) for index in range(1 << head.depth)]
    for index, chunk in enumerate(chunks):
        verify_chunk(head.block.header.state_root, chunk, index, int(head.depth))
    assert assemble(store.state_root(), iter(chunks))[0] == dict(store.scan(b""))
    for number in (1, 2, 3):
        (tmp_path / "shelf" / str(number)).mkdir()
        (tmp_path / "shelf" / str(number) / "head").write_bytes(b"")
    (tmp_path / "shelf" / ".partial").mkdir()
    (tmp_path / "shelf" / "777").mkdir()  # not whole: it has no head
    assert shelf.heights()[-1] == height and 777 not in shelf.heights()


@pytest.mark.parametrize("mode", ["archive", "default", "light"])
def test_every_mode_has_the_same_state_and_serves_what_it_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(keeping, "BLOCKS_KEPT", {"archive": None, "default": 6, "light": 3})
    store, reference = copied(), copied()
    parameters = Parameters(evidence_age_blocks=1)  # type: ignore[arg-type]
    keeper = Keeper(store, Shelf(tmp_path), Keeping(mode, 1), parameters)
    tip = tip_of(store)
    keeper.note(Height(tip))
    keeper.work()
    assert Shelf(tmp_path).heights() == (tip,)
    kept = {"archive": tip, "default": 6, "light": 3}[mode]
    assert store.lowest_block() == tip - kept + 1
    assert store.block_by_height(Height(tip)) == reference.block_by_height(Height(tip))
    assert (store.state_root(), store.tip()) == (reference.state_root(), reference.tip())
    assert list(store.scan(b"")) == list(reference.scan(b""))
    assert forget_blocks(store, kept) == 0


def test_blocks_are_kept_as_long_as_evidence_may_come() -> None:
    parameters = Parameters(evidence_age_blocks=7_000)  # type: ignore[arg-type]
    assert count_kept(Keeping("light", 0), parameters) == 14_000
    assert count_kept(Keeping("default", 0), parameters) == 100_000
    assert count_kept(Keeping("archive", 0), parameters) is None


def test_only_multiples_of_the_interval_are_noted(tmp_path: Path) -> None:
    keeper = Keeper(copied(), Shelf(tmp_path), Keeping("archive", 1_000), Parameters())
    keeper.note(Height(999))
    keeper.work()
    assert Shelf(tmp_path).heights() == ()

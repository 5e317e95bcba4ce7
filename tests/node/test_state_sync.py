"""Joining from a snapshot: the same state as everybody's, from several peers, resumable, and liars are dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.hashing import sha256
from milon.base.ids import Digest
from milon.base.units import Height, TimeMs
from milon.chain.block import Block, compute_header_hash
from milon.consensus.application import make_config
from milon.consensus.restore import restore
from milon.consensus.state import NO_PLACE
from milon.node import state_sync
from milon.node.application import CONTRACTS
from milon.node.questions import AskChunk, Question
from milon.node.shelf import Shelf
from milon.node.state_sync import StateSync
from milon.state import chunks
from milon.state.chunks import CHUNK_MAX_BYTES, StateChunk
from milon.state.memory_store import MemoryStore
from tests.node.chains import Grown, Tamper, grow, serve_chain, unchanged
from tests.p2p.networks import AnyTransport, Network, connect, network_of
from tests.simulation.network import START_MS

EPOCHS = (3_000, 12, 4)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks even of a small ledger."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 200)


def hash_at(grown: Grown, height: int) -> Digest:
    raw = grown.store.block_by_height(Height(height))
    assert raw is not None
    return compute_header_hash(decode(Block, raw).header)


def tip_of(grown: Grown) -> int:
    tip = grown.store.tip()
    assert tip is not None
    return tip[0]


async def visit(network: Network, grown: Grown, folder: Path, *tampers: Tamper) -> AnyTransport:
    visitor = await network.add("visitor")
    for number, tamper in enumerate(tampers):
        peer = await serve_chain(network, f"peer {number}", grown, folder, has_snapshot=True, tamper=tamper)
        await connect(visitor, peer.transport)
    return visitor


def sync_of(visitor: AnyTransport, grown: Grown, trusted: Digest, folder: Path) -> StateSync:
    return StateSync(visitor, grown.genesis, trusted, folder, lambda line: None, lambda: TimeMs(START_MS + 3_000))


def spoil(question: bytes, answer: bytes) -> bytes:
    """A peer whose chunks hold what it likes."""
    asked: object = decode(Question, question)  # type: ignore[arg-type]
    if not isinstance(asked, AskChunk):
        return answer
    chunk = decode(StateChunk, answer, CHUNK_MAX_BYTES)
    return encode(StateChunk(chunk.index, chunk.depth, (), chunk.proof)) if chunk.entries else answer


@pytest.mark.parametrize("above", [0, 1])
async def test_a_synced_store_is_the_same_and_a_node_starts_on_it(tmp_path: Path, above: int) -> None:
    """From a trusted header below the snapshot, by certificates, and from the snapshot's own."""
    grown = grow(*EPOCHS)
    trusted = hash_at(grown, tip_of(grown) if above else 2)
    async with network_of("memory") as network:
        visitor = await visit(network, grown, tmp_path, unchanged, unchanged)
        sync = sync_of(visitor, grown, trusted, tmp_path / "sync")
        commit = await sync.run()
    assert sync.fetched > 4
    store = MemoryStore()
    store.commit(commit)
    sync.forget()
    assert not (tmp_path / "sync").exists()
    assert (store.tip(), store.state_root()) == (grown.store.tip(), grown.store.state_root())
    assert list(store.scan(b"")) == list(grown.store.scan(b""))
    config = make_config(grown.genesis, store, CONTRACTS, grown.key)
    state, _ = restore(config, (), NO_PLACE, TimeMs(1))
    assert state.tip.height == tip_of(grown)


async def test_a_snapshot_below_the_trusted_header_is_reached_over_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_sync, "HEADERS_MAX", 3)
    older, grown = grow(2_000, 12, 4), grow(*EPOCHS)
    assert tip_of(older) < tip_of(grown) - 4 and hash_at(older, tip_of(older)) == hash_at(grown, tip_of(older))
    async with network_of("memory") as network:
        visitor = await network.add("visitor")
        peer = await serve_chain(network, "peer", grown, tmp_path)
        Shelf(tmp_path / "peer").make(older.store.snapshot())
        await connect(visitor, peer.transport)
        commit = await sync_of(visitor, grown, hash_at(grown, tip_of(grown)), tmp_path / "sync").run()
    assert commit.tip == older.store.tip() and commit.state_root == older.store.state_root()


@pytest.mark.parametrize("is_far", [True, False])
async def test_a_trusted_header_that_is_too_old_is_refused_before_anything_is_fetched(
    tmp_path: Path, is_far: bool
) -> None:
    """Either the snapshot lies more blocks above it than stake has to wait, or the clock says that it is old."""
    grown = grow(3_000, 12, 2, 5)
    trusted = hash_at(grown, 2 if is_far else tip_of(grown))
    now_ms = TimeMs(START_MS + (1_000 if is_far else 3_600_000))
    async with network_of("memory") as network:
        visitor = await visit(network, grown, tmp_path, unchanged)
        sync = StateSync(visitor, grown.genesis, trusted, tmp_path / "sync", lambda line: None, lambda: now_ms)
        with pytest.raises(Rejected) as caught:
            await sync.run()
    assert caught.value.reason is Reason.STALE and "--trusted-hash" in caught.value.detail
    assert not (tmp_path / "sync").exists()


async def test_who_sends_a_wrong_chunk_is_dropped_and_the_others_suffice(tmp_path: Path) -> None:
    grown = grow(*EPOCHS)
    async with network_of("memory") as network:
        visitor = await visit(network, grown, tmp_path, spoil, unchanged)
        assert len(visitor.peers()) == 2
        commit = await sync_of(visitor, grown, hash_at(grown, 2), tmp_path / "sync").run()
        assert commit.state_root == grown.store.state_root()
        assert len(visitor.peers()) == 1


async def test_a_sync_that_was_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_sync, "PATIENCE_S", 0.0)
    monkeypatch.setattr(state_sync, "PAUSE_S", 0.0)
    grown = grow(*EPOCHS)
    given = []

    def run_dry(question: bytes, answer: bytes) -> bytes:
        asked: object = decode(Question, question)  # type: ignore[arg-type]
        if isinstance(asked, AskChunk):
            given.append(asked.index)
            if len(given) > 5:
                raise Rejected(Reason.UNAVAILABLE, "gone")
        return answer

    async with network_of("memory") as network:
        visitor = await visit(network, grown, tmp_path, run_dry)
        with pytest.raises(Rejected) as caught:
            await sync_of(visitor, grown, hash_at(grown, 2), tmp_path / "sync").run()
        assert caught.value.reason is Reason.UNAVAILABLE and "start again" in caught.value.detail
        given.clear()
        given.extend([])
    async with network_of("memory") as network:
        visitor = await visit(network, grown, tmp_path / "again", unchanged)
        sync = sync_of(visitor, grown, hash_at(grown, 2), tmp_path / "sync")
        commit = await sync.run()
        (head,) = Shelf(tmp_path / "again" / "peer 0").offers()
        assert sync.fetched == (1 << head.depth) - 5
        assert commit.state_root == grown.store.state_root()


async def test_an_unknown_hash_or_no_snapshot_is_said(tmp_path: Path) -> None:
    grown = grow(*EPOCHS)
    async with network_of("memory") as network:
        visitor = await network.add("visitor")
        peer = await serve_chain(network, "peer", grown, tmp_path)
        await connect(visitor, peer.transport)
        with pytest.raises(Rejected):
            await sync_of(visitor, grown, Digest(sha256(b"other")), tmp_path / "sync").run()
        with pytest.raises(Rejected) as caught:
            await sync_of(visitor, grown, hash_at(grown, 2), tmp_path / "sync").run()
        assert "snapshot" in caught.value.detail

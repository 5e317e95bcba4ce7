"""Blobs between nodes: several providers, liars among them, interruptions."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from milon.base.blob import CHUNK_BYTES, Manifest, compute_blob_id, compute_manifest
from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.p2p.blobs import (
    CHUNK_WAIT_MAX_S,
    BeingMade,
    BlobClient,
    BlobStore,
    ChunkRequest,
    ManifestRequest,
    serve_blobs,
)
from milon.p2p.transport import Channel, PeerId
from tests.p2p.networks import DEADLINE_S, AnyTransport, Network, connect, network_of

RAW = os.urandom(9 * CHUNK_BYTES + 4321)
SIZE_MAX = 64 << 20


@pytest.fixture(params=["memory", "libp2p"])
async def network(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    async with network_of(request.param) as found:
        yield found


async def providers_of(network: Network, folder: Path, names: str, raw: bytes) -> list[AnyTransport]:
    """Running nodes that hold `raw`."""
    nodes = []
    for name in names:
        node = network.make(name)
        store = BlobStore(folder / name)
        store.put_bytes(raw)
        serve_blobs(node, store)
        nodes.append(await network.start(node))
    return nodes


async def client_of(network: Network, folder: Path, providers: list[AnyTransport]) -> BlobClient:
    node = await network.add("client")
    for provider in providers:
        await connect(node, provider)
    return BlobClient(node, BlobStore(folder / "client"))


def lying(node: AnyTransport, chunk: bytes) -> list[int]:
    """Make a node answer every chunk request with the same bytes; which indices it was asked for."""
    asked: list[int] = []

    async def respond(peer: PeerId, payload: bytes) -> bytes:
        request: ManifestRequest | ChunkRequest = decode(ManifestRequest | ChunkRequest, payload)
        if isinstance(request, ManifestRequest):
            return encode(compute_manifest(RAW))
        asked.append(request.index)
        return chunk

    node.serve(Channel.BLOB, respond)
    return asked


async def test_a_blob_arrives_from_three_providers(network: Network, tmp_path: Path) -> None:
    providers = await providers_of(network, tmp_path, "abc", RAW)
    client = await client_of(network, tmp_path, providers)
    blob_id = compute_blob_id(compute_manifest(RAW))
    ids = [provider.peer_id for provider in providers]
    path = await client.fetch(blob_id, ids, size_max_bytes=SIZE_MAX, deadline_s=DEADLINE_S)
    assert path.read_bytes() == RAW
    assert await client.fetch(blob_id, [], size_max_bytes=SIZE_MAX, deadline_s=1) == path


@pytest.mark.parametrize("raw", [b"", RAW], ids=["empty", "large"])
async def test_the_same_blob_twice_at_once(network: Network, tmp_path: Path, raw: bytes) -> None:
    providers = await providers_of(network, tmp_path, "a", raw)
    client = await client_of(network, tmp_path, providers)
    blob_id = compute_blob_id(compute_manifest(raw))
    paths: list[Path] = []

    async def fetch() -> None:
        ids = [providers[0].peer_id]
        paths.append(await client.fetch(blob_id, ids, size_max_bytes=SIZE_MAX, deadline_s=DEADLINE_S))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch)
        nursery.start_soon(fetch)
    assert [path.read_bytes() for path in paths] == [raw, raw]


async def test_a_liar_is_reported_and_the_blob_arrives_from_others(network: Network, tmp_path: Path) -> None:
    providers = await providers_of(network, tmp_path, "a", RAW)
    liar = network.make("liar")
    asked = lying(liar, b"lies")
    await network.start(liar)
    client = await client_of(network, tmp_path, [*providers, liar])
    blob_id = compute_blob_id(compute_manifest(RAW))
    ids = [liar.peer_id, providers[0].peer_id]
    path = await client.fetch(blob_id, ids, size_max_bytes=SIZE_MAX, deadline_s=DEADLINE_S)
    assert path.read_bytes() == RAW
    assert len(asked) <= 4
    assert client._transport.counters()[liar.peer_id].rejects >= 1
    assert client._transport.counters()[providers[0].peer_id].rejects == 0


async def test_with_liars_alone_nothing_is_stored(network: Network, tmp_path: Path) -> None:
    liar = network.make("liar")
    lying(liar, bytes(CHUNK_BYTES))
    await network.start(liar)
    client = await client_of(network, tmp_path, [liar])
    blob_id = compute_blob_id(compute_manifest(RAW))
    with pytest.raises(Rejected) as refused:
        await client.fetch(blob_id, [liar.peer_id], size_max_bytes=SIZE_MAX, deadline_s=DEADLINE_S)
    assert refused.value.reason is Reason.UNAVAILABLE
    assert not client._store.has(blob_id)


async def test_a_false_manifest_is_refused(network: Network, tmp_path: Path) -> None:
    liar = network.make("liar")

    async def respond(peer: PeerId, payload: bytes) -> bytes:
        return encode(Manifest(1 << 60, ()))

    liar.serve(Channel.BLOB, respond)
    await network.start(liar)
    client = await client_of(network, tmp_path, [liar])
    blob_id = compute_blob_id(compute_manifest(RAW))
    with pytest.raises(Rejected) as refused:
        await client.fetch(blob_id, [liar.peer_id], size_max_bytes=SIZE_MAX, deadline_s=DEADLINE_S)
    assert refused.value.reason is Reason.UNAVAILABLE
    assert client._transport.counters()[liar.peer_id].rejects == 1


async def test_a_blob_larger_than_expected_is_refused_before_a_chunk_is_asked_for(
    network: Network, tmp_path: Path
) -> None:
    providers = await providers_of(network, tmp_path, "a", RAW)
    client = await client_of(network, tmp_path, providers)
    blob_id = compute_blob_id(compute_manifest(RAW))
    with pytest.raises(Rejected) as refused:
        await client.fetch(blob_id, [providers[0].peer_id], size_max_bytes=CHUNK_BYTES, deadline_s=DEADLINE_S)
    assert refused.value.reason is Reason.TOO_LARGE
    assert client._store.size_bytes == 0


async def test_a_provider_that_dies_is_replaced_and_the_fetch_resumed(network: Network, tmp_path: Path) -> None:
    blob_id = compute_blob_id(compute_manifest(RAW))
    mortal = network.make("mortal")
    store = BlobStore(tmp_path / "mortal")
    store.put_bytes(RAW)
    served: list[int] = []

    async def respond(peer: PeerId, payload: bytes) -> bytes:
        request: ManifestRequest | ChunkRequest = decode(ManifestRequest | ChunkRequest, payload)
        if isinstance(request, ManifestRequest):
            return encode(compute_manifest(RAW))
        if len(served) == 4:
            network.stop(mortal)
            await trio.sleep_forever()
        served.append(request.index)
        return store.read_chunk(request.blob_id, request.index)

    mortal.serve(Channel.BLOB, respond)
    await network.start(mortal)
    client = await client_of(network, tmp_path, [mortal])
    with pytest.raises(Rejected) as refused:
        await client.fetch(blob_id, [mortal.peer_id], size_max_bytes=SIZE_MAX, deadline_s=2)
    assert refused.value.reason is Reason.UNAVAILABLE

    heir = (await providers_of(network, tmp_path, "h", RAW))[0]
    await connect(client._transport, heir)  # type: ignore[arg-type]
    ids = [mortal.peer_id, heir.peer_id]
    path = await client.fetch(blob_id, ids, size_max_bytes=SIZE_MAX, deadline_s=DEADLINE_S)
    assert path.read_bytes() == RAW
    fetched = client._transport.counters()[heir.peer_id].bytes_in
    assert fetched < len(RAW) - 2 * CHUNK_BYTES  # what the first one served was not fetched again


async def test_providers_that_never_answer_delay_nobody(network: Network, tmp_path: Path) -> None:
    """One that is silent from the start, and three that give the manifest and then no chunk."""

    async def say_nothing(peer: PeerId, payload: bytes) -> bytes:
        await trio.sleep_forever()
        return b""

    async def give_no_chunk(peer: PeerId, payload: bytes) -> bytes:
        request: ManifestRequest | ChunkRequest = decode(ManifestRequest | ChunkRequest, payload)
        if isinstance(request, ChunkRequest):
            await trio.sleep_forever()
        return encode(compute_manifest(RAW))

    silent = [network.make(name) for name in "abcd"]
    for node, respond in zip(silent, (say_nothing, *[give_no_chunk] * 3), strict=True):
        node.serve(Channel.BLOB, respond)
        await network.start(node)
    honest = await providers_of(network, tmp_path, "e", RAW)
    client = await client_of(network, tmp_path, silent + honest)
    ids = [node.peer_id for node in silent + honest]
    blob_id = compute_blob_id(compute_manifest(RAW))
    path = await client.fetch(blob_id, ids, size_max_bytes=SIZE_MAX, deadline_s=CHUNK_WAIT_MAX_S / 2)
    assert path.read_bytes() == RAW


class LateMaker:
    """Makes the blob once it was asked for it a few times."""

    def __init__(self, store: BlobStore, patience: int) -> None:
        self.store, self.patience = store, patience

    def note(self, peer: PeerId, blob_id: Digest) -> None:
        self.patience -= 1
        if self.patience == 0:
            self.store.put_bytes(RAW)
        if self.patience > 0:
            raise Rejected(Reason.NOT_NOW, "it is computed again")


async def test_a_blob_that_is_being_made_is_asked_for_again(network: Network, tmp_path: Path) -> None:
    blob_id, node, store = compute_blob_id(compute_manifest(RAW)), network.make("a"), BlobStore(tmp_path / "a")
    serve_blobs(node, store, LateMaker(store, patience=3))
    await network.start(node)
    client = await client_of(network, tmp_path, [node])
    path = await client.fetch(blob_id, [node.peer_id], size_max_bytes=SIZE_MAX, deadline_s=DEADLINE_S)
    assert path.read_bytes() == RAW


async def test_who_was_told_to_wait_knows_it(network: Network, tmp_path: Path) -> None:
    blob_id, node, store = compute_blob_id(compute_manifest(RAW)), network.make("a"), BlobStore(tmp_path / "a")
    serve_blobs(node, store, LateMaker(store, patience=1_000))
    await network.start(node)
    client = await client_of(network, tmp_path, [node])
    with trio.fail_after(DEADLINE_S):
        is_known = False
        while not is_known:  # on a busy machine the answer may be late the first time
            with pytest.raises(Rejected) as late:
                await client.fetch(blob_id, [node.peer_id], size_max_bytes=SIZE_MAX, deadline_s=1.0)
            assert late.value.reason is Reason.UNAVAILABLE
            is_known = isinstance(late.value, BeingMade)
    with pytest.raises(Rejected) as absent:
        await client.fetch(Digest(bytes(32)), [], size_max_bytes=SIZE_MAX, deadline_s=0.5)
    assert not isinstance(absent.value, BeingMade)

"""What only the real transport has: ports, bursts of gossip, restarts and a clean end."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from milon.base.errors import Reason, Rejected
from milon.p2p.libp2p_transport import ONE_WAY
from milon.p2p.seam import version
from milon.p2p.settings import TransportSettings
from milon.p2p.transport import Channel
from tests.p2p.networks import CHAIN, DEADLINE_S, Network, connect, network_of, wait_until


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    async with network_of("libp2p") as found:
        yield found


async def test_a_taken_port_is_refused(network: Network) -> None:
    one = await network.add("one")
    port = int(one.addresses[0].split("/")[4])
    with pytest.raises(Rejected) as refused:
        await network.add("two", port=port)
    assert refused.value.reason is Reason.IN_USE


async def test_a_port_is_free_again_at_once_and_the_peer_comes_back(network: Network) -> None:
    one, two = await network.pair()
    port = int(one.addresses[0].split("/")[4])
    await network.stopped(one)
    again = await network.add("one", port=port)
    assert again.addresses == one.addresses
    await connect(two, again)


async def test_a_peer_that_restarts_replaces_its_old_connection(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milon.p2p.libp2p_transport.CROSSING_S", 0.0)
    one, two = await network.pair()
    old = one._host.get_network().get_connections()[0].muxed_conn
    twin = await network.add("two")  # the same key from another port, as after a crash nobody noticed
    await twin.connect(one.addresses[0], timeout_s=DEADLINE_S)
    assert one.peers() == (twin.peer_id,) == (two.peer_id,)
    assert twin.send(one.peer_id, Channel.CONSENSUS, b"new")
    assert (await one.received().receive()).payload == b"new"
    assert old.is_closed


async def test_a_burst_of_gossip_arrives(network: Network) -> None:
    nodes = [await network.add(f"node {index}") for index in range(3)]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        await connect(nodes[one], nodes[other])
    topic = f"/milon/{CHAIN.hex()[:16]}/news"
    await wait_until(lambda: all(len(node._pubsub.peer_topics.get(topic, ())) == 2 for node in nodes))
    heard: list[set[bytes]] = [set(), set()]

    async def listen(index: int) -> None:
        while len(heard[index]) < 300:
            heard[index].add((await nodes[index + 1].received().receive()).payload)

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, 0)
            nursery.start_soon(listen, 1)
            for index in range(300):
                await nodes[0].publish("news", index.to_bytes(2, "big") * 100)


async def test_a_stream_is_no_reason_to_dial(network: Network) -> None:
    one, two = await network.add("one"), await network.add("two")
    target = ID.from_base58(two.peer_id)
    one._host.get_peerstore().add_addrs(target, [Multiaddr(two.addresses[0].split("/p2p/")[0])], 100)
    with pytest.raises(SwarmException):
        await one._host.new_stream(target, [ONE_WAY])
    await one._host.get_network().auto_connector.maybe_connect()
    assert one._host.get_network().get_connections() == []
    await connect(one, two)


async def test_the_end_leaves_no_socket_and_no_task(network: Network) -> None:
    one, two = await network.pair()
    port = int(one.addresses[0].split("/")[4])
    before = threading.active_count()
    with trio.fail_after(DEADLINE_S):
        await network.stopped(one)
        await network.stopped(two)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert threading.active_count() <= before


async def test_another_libp2p_is_refused_at_start(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "TESTED", "0.0.0")
    with pytest.raises(Rejected) as refused:
        await network.add("one")
    assert refused.value.reason is Reason.UNSUPPORTED


def test_settings_are_checked_and_never_print_the_seed() -> None:
    assert "secret" not in repr(TransportSettings(b"secret" + bytes(26), CHAIN))
    for seed, chain, port in ((bytes(31), CHAIN, 0), (bytes(32), b"", 0), (bytes(32), CHAIN, 70_000)):
        with pytest.raises(Rejected):
            TransportSettings(seed, chain, listen_port=port)


def test_the_room_never_loads_the_training_library() -> None:
    code = (
        "import sys, milon.p2p.libp2p_transport, milon.p2p.memory_transport, milon.p2p.blobs, milon.p2p.discovery\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False, timeout=60).returncode == 0

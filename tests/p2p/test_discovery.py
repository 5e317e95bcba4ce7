"""From one bootstrap address to a full mesh, and back after restarts."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest
import trio

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import Signature
from milon.base.signing import SecretKey
from milon.base.units import TimeMs
from milon.p2p.announcements import (
    AGE_MAX_MS,
    AHEAD_MAX_MS,
    KNOWN_MAX,
    SENT_MAX,
    AddressBook,
    Announcement,
    Peers,
    PeersRequest,
    announce,
)
from milon.p2p.discovery import NEWCOMER_S, PEERS_TOPIC, TWIN_PERSISTS_S, Discovery
from milon.p2p.identity import compute_peer_id
from milon.p2p.transport import PAYLOAD_MAX_BYTES, Channel, PeerId, Received
from tests.p2p.networks import CHAIN, DEADLINE_S, AnyTransport, Network, connect, network_of, seed_of, wait_until

KEY = SecretKey(seed_of("somebody"))
ADDRESS = f"/ip4/127.0.0.1/tcp/4001/p2p/{compute_peer_id(KEY.account)}"
NOW_MS = TimeMs(1_800_000_000_000)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture(params=["memory", "libp2p"])
async def network(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    async with network_of(request.param) as found:
        yield found


@dataclass
class Node:
    """A transport and its discovery."""

    transport: AnyTransport
    discovery: Discovery
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def run(self) -> None:
        """Discover, and pass on what is gossiped about peers."""
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.discovery.run)
                async for message in self.transport.received():
                    if message.topic == PEERS_TOPIC:
                        self.discovery.hear(message)


async def start(network: Network, name: str, bootstrap: list[str], port: int = 0, **options: object) -> Node:
    transport = network.make(name, port=port)
    jitter = random.Random(name).random
    discovery = Discovery(transport, transport.settings, bootstrap=bootstrap, now_ms=now_ms, jitter=jitter, **options)
    await network.start(transport)
    node = Node(transport, discovery)
    network.nursery.start_soon(node.run)
    return node


async def stop(network: Network, node: Node) -> None:
    node.scope.cancel()
    await network.stopped(node.transport)


def is_full_mesh(nodes: list[Node]) -> bool:
    return all(len(node.transport.peers()) == len(nodes) - 1 for node in nodes)


async def test_one_bootstrap_address_makes_a_full_mesh_that_survives_any_restart(network: Network) -> None:
    nodes = [await start(network, "node 0", [])]
    bootstrap = [nodes[0].transport.addresses[0]]
    nodes += [await start(network, f"node {index}", bootstrap) for index in range(1, 6)]
    await wait_until(lambda: is_full_mesh(nodes))
    for index in (0, 3):  # the bootstrap node itself, which knows nobody when it comes back, and another one
        await stop(network, nodes[index])
        others = nodes[:index] + nodes[index + 1 :]
        await wait_until(lambda others=others: is_full_mesh(others))
        port = int(nodes[index].transport.addresses[0].split("/")[4]) if network.kind == "libp2p" else 0
        nodes[index] = await start(network, f"node {index}", bootstrap, port=port)
        restarted = nodes[index].transport
        with trio.fail_after(DEADLINE_S):
            await wait_until(lambda restarted=restarted: bool(restarted.peers()))
        await wait_until(lambda: is_full_mesh(nodes))


async def test_two_running_nodes_with_one_key_notice(network: Network) -> None:
    found: list[Rejected] = []
    hub = await start(network, "hub", [])
    bootstrap = [hub.transport.addresses[0]]
    await start(network, "one", bootstrap, on_twin=found.append)
    await wait_until(lambda: len(hub.transport.peers()) == 1)
    twin = network.make("one")
    if network.kind == "memory":
        twin.name = "its twin"
    discovery = Discovery(
        twin, twin.settings, bootstrap=bootstrap, now_ms=now_ms, jitter=lambda: 0.5, on_twin=found.append
    )
    await network.start(twin)
    network.nursery.start_soon(Node(twin, discovery).run)
    await wait_until(lambda: bool(found), deadline_s=60)  # they push each other out of the hub again and again
    assert found[0].reason is Reason.IN_USE
    await connect(await network.add("newcomer"), hub.transport)


async def test_an_announcement_with_our_key_from_elsewhere_is_noticed(network: Network) -> None:
    found: list[Rejected] = []
    hub = await start(network, "hub", [])
    node = await start(network, "one", [hub.transport.addresses[0]], on_twin=found.append)
    await wait_until(lambda: bool(node.transport.peers()))
    twin = announce(
        SecretKey(seed_of("one")), CHAIN, (f"/ip4/10.0.0.1/tcp/1/p2p/{node.transport.peer_id}",), TimeMs(now_ms() + 1)
    )
    forged = Announcement(twin.public_key, twin.addresses, twin.time_ms, Signature(bytes(64)))
    node.discovery.hear(Received(node.transport.peer_id, Channel.GOSSIP, encode(forged), PEERS_TOPIC))
    assert not found
    node.discovery.hear(Received(node.transport.peer_id, Channel.GOSSIP, encode(twin), PEERS_TOPIC))
    node.discovery.hear(Received(node.transport.peer_id, Channel.GOSSIP, encode(twin), PEERS_TOPIC))
    assert [error.reason for error in found] == [Reason.IN_USE]
    assert "10.0.0.1" in found[0].detail


async def test_the_elder_of_two_with_one_key_gives_the_newcomer_time_to_stop() -> None:
    async with network_of("memory") as network:
        found: list[Rejected] = []
        clock_ms = [1_000_000_000]
        transport = network.make("one")
        discovery = Discovery(
            transport,
            transport.settings,
            bootstrap=[],
            now_ms=lambda: clock_ms[0],
            jitter=random.random,
            on_twin=found.append,
        )

        def hear(after_s: float) -> None:
            clock_ms[0] = 1_000_000_000 + int(1_000 * after_s)
            address = f"/ip4/10.0.0.1/tcp/1/p2p/{transport.peer_id}"
            twin = announce(SecretKey(seed_of("one")), CHAIN, (address,), TimeMs(clock_ms[0]))
            discovery.hear(Received(transport.peer_id, Channel.GOSSIP, encode(twin), PEERS_TOPIC))

        for after_s in (NEWCOMER_S + 1, NEWCOMER_S + 31, NEWCOMER_S + TWIN_PERSISTS_S):
            hear(after_s)
            assert not found
        hear(NEWCOMER_S + TWIN_PERSISTS_S + 1)
        hear(NEWCOMER_S + TWIN_PERSISTS_S + 2)
        assert [error.reason for error in found] == [Reason.IN_USE]


@pytest.mark.parametrize(("listen_host", "expected"), [("127.0.0.1", 2), ("0.0.0.0", 1)])
async def test_strangers_do_not_make_a_node_knock_at_its_own_services(listen_host: str, expected: int) -> None:
    async with network_of("memory") as network:
        transport = network.make("one")
        settings = replace(transport.settings, listen_host=listen_host)
        discovery = Discovery(transport, settings, bootstrap=[], now_ms=now_ms, jitter=lambda: 0.5)
        dialled: list[str] = []

        async def connect_nowhere(address: str, *, timeout_s: float) -> PeerId:
            dialled.append(address)
            raise Rejected(Reason.UNAVAILABLE, "nobody")

        transport.connect = connect_nowhere  # type: ignore[method-assign]  # what is dialled is all that counts here
        peer = compute_peer_id(KEY.account)
        addresses = (f"/ip4/127.0.0.1/tcp/22/p2p/{peer}", f"/ip4/10.0.0.1/tcp/4001/p2p/{peer}")
        stranger = announce(KEY, CHAIN, addresses, TimeMs(now_ms()))
        discovery.hear(Received(peer, Channel.GOSSIP, encode(stranger), PEERS_TOPIC))
        network.nursery.start_soon(discovery.run)
        await wait_until(lambda: len(dialled) >= 3)
        assert len(set(dialled)) == expected and addresses[1] in dialled


async def test_a_visitor_is_known_to_nobody(network: Network) -> None:
    hub = await start(network, "hub", [])
    bootstrap = [hub.transport.addresses[0]]
    visitor = await start(network, "visitor", bootstrap, is_visitor=True)
    other = await start(network, "other", bootstrap)
    await wait_until(lambda: is_full_mesh([visitor, other, hub]))
    assert hub.discovery.address_of(other.transport.peer_id)
    assert not hub.discovery.address_of(visitor.transport.peer_id)


async def test_a_peer_that_tells_lies_about_peers_is_counted(network: Network) -> None:
    node = await start(network, "one", [])
    liar = network.make("liar")

    async def respond(peer: PeerId, payload: bytes) -> bytes:
        good = announce(KEY, CHAIN, (ADDRESS,), TimeMs(now_ms()))
        return encode(Peers((Announcement(good.public_key, good.addresses, good.time_ms, Signature(bytes(64))),)))

    def rejects() -> int:
        counters = node.transport.counters().get(liar.peer_id)
        return counters.rejects if counters else 0

    liar.serve(Channel.PEERS, respond)
    await network.start(liar)
    await connect(liar, node.transport)
    await wait_until(lambda: rejects() >= 1)
    for payload in (b"junk", encode(PeersRequest(announce(KEY, CHAIN, (ADDRESS,), TimeMs(now_ms()))))):
        with pytest.raises(Rejected):
            await liar.request(node.transport.peer_id, Channel.PEERS, payload, timeout_s=DEADLINE_S)
    before = rejects()
    node.discovery.hear(Received(liar.peer_id, Channel.GOSSIP, b"junk", PEERS_TOPIC))
    assert rejects() == before + 1
    assert node.discovery.known_addresses() == ()


async def test_a_bootstrap_address_without_a_peer_id_is_refused(network: Network) -> None:
    transport = network.make("one")
    with pytest.raises(Rejected) as refused:
        Discovery(
            transport, transport.settings, bootstrap=["/ip4/127.0.0.1/tcp/1"], now_ms=now_ms, jitter=random.random
        )
    assert refused.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("addresses", "time_ms", "reason"),
    [
        ((ADDRESS,) * 5, NOW_MS, Reason.TOO_LARGE),
        (("/ip4/" + "1" * 200,), NOW_MS, Reason.TOO_LARGE),
        (("/dns/example.org/tcp/1/p2p/" + ADDRESS.rsplit("/", 1)[1],), NOW_MS, Reason.MALFORMED),
        (("/ip4/127.0.0.1/tcp/1",), NOW_MS, Reason.MALFORMED),
        ((ADDRESS[:-1] + "x",), NOW_MS, Reason.MALFORMED),
        ((ADDRESS,), NOW_MS - AGE_MAX_MS - 1, Reason.STALE),
        ((ADDRESS,), NOW_MS + AHEAD_MAX_MS + 1, Reason.STALE),
    ],
)
def test_bad_announcements_are_refused(addresses: tuple[str, ...], time_ms: int, reason: Reason) -> None:
    book = AddressBook(CHAIN)
    with pytest.raises(Rejected) as refused:
        book.add(announce(KEY, CHAIN, addresses, TimeMs(time_ms)), NOW_MS)
    assert refused.value.reason is reason
    assert book.peers() == ()


def test_an_announcement_of_another_chain_is_refused() -> None:
    with pytest.raises(Rejected) as refused:
        AddressBook(CHAIN).add(announce(KEY, b"another", (ADDRESS,), NOW_MS), NOW_MS)
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_the_book_is_bounded_and_a_full_answer_fits_its_channel() -> None:
    book = AddressBook(CHAIN)
    for index in range(KNOWN_MAX + 10):
        key = SecretKey(seed_of(str(index)))
        inside = f"/ip6/{':'.join(['ffff'] * 8)}/tcp/65535/p2p/{compute_peer_id(key.account)}"
        assert book.add(announce(key, CHAIN, (inside,) * 4, TimeMs(NOW_MS + index)), NOW_MS)
    assert len(book.peers()) == KNOWN_MAX
    latest = book.latest()
    assert len(latest) == SENT_MAX
    assert latest[0].time_ms == NOW_MS + KNOWN_MAX + 9
    assert len(encode(Peers((latest[0], *latest)))) <= PAYLOAD_MAX_BYTES[Channel.PEERS]

"""A peer that breaks rules: a libp2p host that writes whatever a test wants, where it wants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from milon.base.codec import encode
from milon.p2p.frames import KIND_HELLO, Hello, encode_frame
from milon.p2p.libp2p_transport import ONE_WAY, LibP2PTransport
from milon.p2p.seam.host import GuardedHost, build_host, build_key_pair
from milon.p2p.seam.tcp import GuardedTCP
from milon.p2p.seam.yamux import Yamux
from milon.p2p.transport import Channel, PeerId
from tests.p2p.networks import CHAIN, DEADLINE_S, Network, connect, seed_of, wait_until


class Hostile:
    """One attacker's host, connected to one victim."""

    def __init__(self, host: GuardedHost, victim: LibP2PTransport) -> None:
        self.host = host
        self.victim = victim
        self.victim_id = ID.from_base58(victim.peer_id)

    @property
    def peer_id(self) -> PeerId:
        """The attacker's own id."""
        return PeerId(self.host.get_id().to_base58())

    @property
    def muxed(self) -> Yamux:
        """The attacker's end of the connection."""
        found = self.host.get_network().get_connections(self.victim_id)[0].muxed_conn
        assert isinstance(found, Yamux)
        return found

    def is_cut_off(self) -> bool:
        """Whether the victim has closed the connection."""
        found = self.host.get_network().get_connections(self.victim_id)
        return all(connection.muxed_conn.is_closed for connection in found)

    async def open(self, protocol: str) -> INetStream:
        """A stream that the victim has agreed to."""
        with trio.fail_after(DEADLINE_S):
            return await self.host.new_stream(self.victim_id, [TProtocol(protocol)])

    async def greet(self) -> INetStream:
        """Say hello as an honest peer does, and answer nothing; the one-way stream."""
        stream = await self.open(ONE_WAY)
        await stream.write(encode_frame(KIND_HELLO, encode(Hello(CHAIN))))
        await wait_until(lambda: self.peer_id in self.victim.peers() or self.is_cut_off())
        return stream

    def rejects(self) -> int:
        """How often the victim counted this attacker."""
        counters = self.victim.counters().get(self.peer_id)
        return 0 if counters is None else counters.rejects


@asynccontextmanager
async def hostile_to(victim: LibP2PTransport, name: str = "hostile") -> AsyncIterator[Hostile]:
    """An attacker that is connected to `victim` and has not said hello."""
    async with trio.open_nursery() as nursery:
        host = build_host(build_key_pair(seed_of(name)), GuardedTCP(nursery), lambda peer, error: None)
        async with background_trio_service(host.get_network()):
            with trio.fail_after(DEADLINE_S):
                victim_id = ID.from_base58(victim.peer_id)
                await host.get_network().dial_addr(Multiaddr(victim.addresses[0]), victim_id)
            host.set_stream_handler(ONE_WAY, _swallow)
            yield Hostile(host, victim)
        nursery.cancel_scope.cancel()


async def _swallow(stream: INetStream) -> None:
    while await stream.read(1 << 16):
        pass


async def assert_alive(network: Network, victim: LibP2PTransport, name: str = "honest") -> None:
    """An honest newcomer can connect to the victim and be heard."""
    honest = await network.add(name)
    await connect(honest, victim)
    assert honest.send(victim.peer_id, Channel.CONSENSUS, b"are you there")
    with trio.fail_after(DEADLINE_S):
        async for message in victim.received():
            if message.peer == honest.peer_id:
                assert message.payload == b"are you there"
                break
    await network.stopped(honest)

"""The transport's complete twin inside one process: nodes that join a network object by name.

Delay, loss and partitions come from one seed. It keeps the same bounds, refusals and bans as the libp2p transport.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from milon.base.errors import Reason, Rejected, require
from milon.base.signing import SecretKey
from milon.p2p.frames import verify_one_way, verify_payload
from milon.p2p.identity import compute_peer_id, peer_id_of
from milon.p2p.inbox import Inbox
from milon.p2p.peers import PeerBook
from milon.p2p.settings import TransportSettings
from milon.p2p.transport import (
    Channel,
    PeerCounters,
    PeerId,
    Received,
    Responder,
    TaskStatus,
)

QUEUE_MAX = 1024  # messages under way to one peer, as in the libp2p transport
QUEUE_MAX_BYTES = 16 << 20  # four of the largest messages, as in the libp2p transport


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How the network treats messages."""

    delay_min_s: float = 0.0  # each message takes at least this long
    delay_max_s: float = 0.0  # and at most this long
    loss: float = 0.0  # the share of messages that never arrive, requests and answers included


class MemoryNetwork:
    """Who can reach whom."""

    def __init__(self, seed: int = 0, links: LinkSettings | None = None) -> None:
        self.links = links or LinkSettings()
        self._chance = random.Random(seed)
        self._nodes: dict[str, MemoryTransport] = {}
        self._sides: dict[str, int] = {}

    def join(self, name: str, settings: TransportSettings) -> MemoryTransport:
        """A node called `name`; it can be reached once its `run` has started."""
        return MemoryTransport(self, name, settings)

    def partition(self, *sides: tuple[str, ...]) -> None:
        """Names on different sides lose every message to each other; names not listed are one more side."""
        self._sides = {name: index for index, side in enumerate(sides) for name in side}

    def heal(self) -> None:
        """End the partition."""
        self._sides = {}

    def open(self, node: MemoryTransport) -> None:
        """Make `node` reachable under its name."""
        require(node.name not in self._nodes, Reason.IN_USE, f"the name {node.name} is taken")
        self._nodes[node.name] = node

    def close(self, node: MemoryTransport) -> None:
        """Undo `open`."""
        self._nodes.pop(node.name, None)

    def node_at(self, name: str) -> MemoryTransport | None:
        """The running node called `name`."""
        return self._nodes.get(name)

    def can_reach(self, one: str, other: str) -> bool:
        """Whether messages pass between two names now."""
        return self._sides.get(one, -1) == self._sides.get(other, -1)

    def draw_delay_s(self, one: str, other: str) -> float | None:
        """How long the next message between two names takes; None when it is lost."""
        lost = self._chance.random() < self.links.loss
        delay = self._chance.uniform(self.links.delay_min_s, self.links.delay_max_s)
        return None if lost or not self.can_reach(one, other) else delay


@dataclass(slots=True, eq=False)
class _Link:
    """One node's view of a connection."""

    peer: MemoryTransport
    queued: int = 0  # messages under way to the peer
    queued_bytes: int = 0  # their payloads
    last_due_s: float = 0.0  # when the latest message arrives: order is kept


class MemoryTransport:
    """One node of a `MemoryNetwork`; satisfies `Transport`."""

    def __init__(self, network: MemoryNetwork, name: str, settings: TransportSettings) -> None:
        self.name = name
        self.settings = settings
        self._network = network
        self._peer_id = compute_peer_id(SecretKey(settings.seed).account)
        self._book = PeerBook(trio.current_time)
        self._inbox = Inbox(self._book.count_drop)
        self._links: dict[PeerId, _Link] = {}
        self._responders: dict[Channel, Responder] = {}
        self._nursery: trio.Nursery | None = None
        self._arrivals: list[tuple[float, int, _Link, Received]] = []
        self._arrived = 0
        self._wake = trio.Event()

    @property
    def peer_id(self) -> PeerId:
        """See `Transport.peer_id`."""
        return self._peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """See `Transport.addresses`."""
        return (f"/memory/{self.name}/p2p/{self._peer_id}",)

    def peers(self) -> tuple[PeerId, ...]:
        """See `Transport.peers`."""
        return tuple(sorted(self._links))

    def counters(self) -> Mapping[PeerId, PeerCounters]:
        """See `Transport.counters`."""
        return self._book.snapshot()

    def received(self) -> trio.MemoryReceiveChannel[Received]:
        """See `Transport.received`."""
        return self._inbox.receiver

    def serve(self, channel: Channel, responder: Responder) -> None:
        """See `Transport.serve`."""
        self._responders[channel] = responder

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """See `Transport.run`."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._network.open(self)
            try:
                nursery.start_soon(self._inbox.run)
                nursery.start_soon(self._deliver)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._network.close(self)
                for peer in self.peers():
                    self.disconnect(peer)
                self._nursery = None

    async def connect(self, address: str, *, timeout_s: float) -> PeerId:
        """See `Transport.connect`."""
        peer_id = peer_id_of(address)
        require(peer_id != self._peer_id, Reason.IN_USE, "the address names this node's own key")
        require(not self._book.is_banned(peer_id), Reason.NOT_ALLOWED, f"{peer_id} is banned for a while")
        if peer_id in self._links:
            return peer_id
        name = address.removeprefix("/memory/").split("/")[0]
        delay = self._network.draw_delay_s(self.name, name)
        await trio.sleep(timeout_s if delay is None else min(delay, timeout_s))
        peer = self._network.node_at(name)
        if peer is None or delay is None or delay > timeout_s or self._nursery is None or peer.peer_id != peer_id:
            raise Rejected(Reason.UNAVAILABLE, f"{peer_id} does not answer at {address}")
        if peer.settings.chain != self.settings.chain:
            self.report(peer_id, Reason.WRONG_CHAIN)
            peer.report(self._peer_id, Reason.WRONG_CHAIN)
            raise Rejected(Reason.WRONG_CHAIN, f"{peer_id} is on another chain")
        require(not peer.is_banning(self._peer_id), Reason.UNAVAILABLE, f"{peer_id} refuses this node")
        self._links.setdefault(peer_id, _Link(peer))
        peer.accept(self)
        return peer_id

    def is_banning(self, peer: PeerId) -> bool:
        """Whether this node refuses `peer` now."""
        return self._book.is_banned(peer)

    def accept(self, peer: MemoryTransport) -> None:
        """The other end of `connect`."""
        self._links.setdefault(peer.peer_id, _Link(peer))

    def disconnect(self, peer: PeerId) -> None:
        """See `Transport.disconnect`."""
        link = self._links.pop(peer, None)
        if link is not None:
            link.peer.disconnect(self._peer_id)

    def report(self, peer: PeerId, reason: Reason) -> None:
        """See `Transport.report`."""
        if self._book.report(peer, reason):
            self.disconnect(peer)

    def send(self, peer: PeerId, channel: Channel, payload: bytes) -> bool:
        """See `Transport.send`."""
        verify_one_way(channel, payload)
        link = self._links.get(peer)
        if link is None:
            return False
        if link.queued >= QUEUE_MAX or link.queued_bytes + len(payload) > QUEUE_MAX_BYTES:
            self._book.count_drop(peer)
            return False
        self._book.count_out(peer, len(payload))
        delay = self._network.draw_delay_s(self.name, link.peer.name)
        if delay is not None:
            link.queued += 1
            link.queued_bytes += len(payload)
            link.last_due_s = max(link.last_due_s, trio.current_time() + delay)
            link.peer.enqueue(link.last_due_s, link, Received(self._peer_id, channel, payload))
        return True

    def broadcast(self, channel: Channel, payload: bytes) -> None:
        """See `Transport.broadcast`."""
        for peer in self.peers():
            self.send(peer, channel, payload)

    async def publish(self, topic: str, payload: bytes) -> None:
        """See `Transport.publish`."""
        require(topic in self.settings.topics, Reason.UNKNOWN, f"topic {topic:.64} is not in the settings")
        verify_payload(Channel.GOSSIP, payload)
        await trio.lowlevel.checkpoint()
        message = Received(self._peer_id, Channel.GOSSIP, payload, topic)
        reached, edge = {self.name}, [self]
        while edge:  # flooded: whoever is connected to somebody who heard it hears it
            hop = edge.pop()
            for link in hop.links().values():
                if link.peer.name in reached or topic not in link.peer.settings.topics:
                    continue
                delay = self._network.draw_delay_s(hop.name, link.peer.name)
                if delay is not None:
                    reached.add(link.peer.name)
                    edge.append(link.peer)
                    link.peer.enqueue(trio.current_time() + delay, _Link(link.peer), message)

    def links(self) -> Mapping[PeerId, _Link]:
        """Connections by peer."""
        return self._links

    def enqueue(self, due_s: float, link: _Link, message: Received) -> None:
        """A message is under way to this node and arrives at `due_s` on trio's clock."""
        self._arrived += 1
        heapq.heappush(self._arrivals, (due_s, self._arrived, link, message))
        self._wake.set()

    async def _deliver(self) -> None:
        while True:
            wait = self._arrivals[0][0] - trio.current_time() if self._arrivals else None
            if wait is None or wait > 0:
                self._wake = trio.Event()
                with trio.move_on_after(float("inf") if wait is None else wait):
                    await self._wake.wait()
                continue
            _, _, link, message = heapq.heappop(self._arrivals)
            link.queued -= 1
            link.queued_bytes -= len(message.payload)
            if message.channel is Channel.GOSSIP:
                self._book.count_in(message.peer, len(message.payload))
                self._inbox.put_gossip(message)
            elif message.peer in self._links:
                self._book.count_in(message.peer, len(message.payload))
                await self._inbox.put(message)

    async def request(self, peer: PeerId, channel: Channel, payload: bytes, *, timeout_s: float) -> bytes:
        """See `Transport.request`."""
        verify_payload(channel, payload)
        link = self._links.get(peer)
        if link is None:
            raise Rejected(Reason.UNAVAILABLE, f"{peer} is not connected")
        self._book.count_out(peer, len(payload))
        answers, asked = trio.open_memory_channel[bytes | Rejected](1)
        with trio.move_on_after(timeout_s):
            await self._sleep_link(link.peer)
            link.peer.answer(self, channel, payload, answers)
            try:
                answer = await asked.receive()
            except trio.EndOfChannel:
                raise Rejected(Reason.UNAVAILABLE, f"{peer} went away") from None
            if isinstance(answer, Rejected):
                raise answer
            self._book.count_in(peer, len(answer))
            return answer
        raise Rejected(Reason.UNAVAILABLE, f"{peer} did not answer in {timeout_s} s")

    async def _sleep_link(self, peer: MemoryTransport) -> None:
        delay = self._network.draw_delay_s(self.name, peer.name)
        if delay is None:
            await trio.sleep_forever()
        else:
            await trio.sleep(delay)

    def answer(
        self,
        asker: MemoryTransport,
        channel: Channel,
        payload: bytes,
        answers: trio.MemorySendChannel[bytes | Rejected],
    ) -> None:
        """Serve one request in a task of this node; a node that stops closes `answers`."""
        if self._nursery is None or asker.peer_id not in self._links:
            answers.close()
        else:
            self._nursery.start_soon(self._answer, asker, channel, payload, answers)

    async def _answer(
        self,
        asker: MemoryTransport,
        channel: Channel,
        payload: bytes,
        answers: trio.MemorySendChannel[bytes | Rejected],
    ) -> None:
        self._book.count_in(asker.peer_id, len(payload))
        with answers:
            responder = self._responders.get(channel)
            answer: bytes | Rejected
            if responder is None:
                answer = Rejected(Reason.UNAVAILABLE, f"{channel.name} is not served here")
            else:
                try:
                    answer = await responder(asker.peer_id, payload)
                    verify_payload(channel, answer)
                except Rejected as error:
                    answer = error
            if not isinstance(answer, Rejected):
                self._book.count_out(asker.peer_id, len(answer))
            await self._sleep_link(asker)
            try:
                answers.send_nowait(answer)
            except trio.BrokenResourceError:
                return  # the asker gave up


"""Gossipsub with the settings that work, and behind a guard: one bad message costs its sender, never the process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub

from milon.base.errors import Reason, require
from milon.p2p.seam.guard import Guard
from milon.p2p.transport import PAYLOAD_MAX_BYTES, Channel

MESHSUB_ID = TProtocol("/meshsub/1.1.0")
RPC_MAX_BYTES = 1 << 20  # what libp2p's own queue puts into one message
MESSAGE_MAX_BYTES = PAYLOAD_MAX_BYTES[Channel.GOSSIP] + 1024  # with topic, sender, number, key and signature
CONTROL_MAX = 1024  # entries of one kind of control message: a heartbeat sends a few
SUBSCRIPTIONS_MAX = 64  # topics of one peer: we have a handful
QUEUE_MAX = 4096  # messages to one peer; the default of 32 drops most of a burst without a word
WRITE_MAX_S = 5.0  # a peer that does not read its gossip for this long is cut off
READ_BYTES = 64 << 10

OnGossip = Callable[[ID, str, bytes], None]


class GuardedGossipSub(GossipSub):  # type: ignore[misc]  # libp2p's classes are untyped here
    """The router; what it runs as tasks of the shared service is guarded."""

    async def publish(self, msg_forwarder: ID, pubsub_msg: rpc_pb2.Message) -> None:
        """Forward; and forget the delivery times, which nothing reads here and nothing bounds."""
        await super().publish(msg_forwarder, pubsub_msg)
        self.recent_message_deliveries.clear()
        self.equivocation_detection.clear()

    async def heartbeat(self) -> None:
        """Every second, whatever happened in the one before."""
        while True:
            with Guard("gossip heartbeat"):
                await super().heartbeat()
            await trio.sleep(self.heartbeat_interval)

    async def flush_pending_messages(self, peer_id: ID) -> None:
        """Guarded: it runs as a task of the service."""
        with Guard("gossip flush"):
            await super().flush_pending_messages(peer_id)

    async def on_peer_subscribed(self, peer_id: ID, topic: str) -> None:
        """Guarded: it runs as a task of the service."""
        with Guard("gossip graft"):
            await super().on_peer_subscribed(peer_id, topic)


class GuardedPubsub(Pubsub):  # type: ignore[misc]  # libp2p's classes are untyped here
    """Reads with bounds, one message after the other, and hands what is news to `on_gossip`."""

    def __init__(self, host: IHost, router: GossipSub, on_gossip: OnGossip, on_stuck: Callable[[ID], None]) -> None:
        super().__init__(host, router, max_subscriptions_per_peer=SUBSCRIPTIONS_MAX)
        self._on_gossip = on_gossip
        self._on_stuck = on_stuck
        self.counter = time.time_ns()  # numbers of earlier runs must not come again: others remember them

    async def stream_handler(self, stream: INetStream) -> None:
        """Read one peer's messages until its stream ends; what it breaks escapes to the host's guard."""
        try:
            await self.continuously_read_stream(stream)
        finally:
            self._handle_dead_peer(stream.muxed_conn.peer_id)

    async def continuously_read_stream(self, stream: INetStream) -> None:
        """One message is dealt with before the next is read, so that a flood waits in its sender."""
        peer_id = stream.muxed_conn.peer_id
        buffer = bytearray()
        while self.manager.is_running:
            rpc = rpc_pb2.RPC()
            rpc.ParseFromString(await _read_delimited(stream, buffer))
            rpc.ClearField("senderRecord")  # addresses come in announcements of our own
            await self._apply(rpc, peer_id)

    async def _apply(self, rpc: rpc_pb2.RPC, peer_id: ID) -> None:
        require(len(rpc.subscriptions) <= SUBSCRIPTIONS_MAX, Reason.TOO_LARGE, "too many subscriptions")
        for subscription in rpc.subscriptions:
            self.handle_subscription(peer_id, subscription)
        for message in rpc.publish:
            require(message.ByteSize() <= MESSAGE_MAX_BYTES, Reason.TOO_LARGE, "an oversized gossip message")
            if len(message.topicIDs) == 1 and self._is_subscribed_to_msg(message):
                await self.push_msg(peer_id, message)
        if rpc.HasField("control"):
            for field, entries in rpc.control.ListFields():
                require(len(entries) <= CONTROL_MAX, Reason.TOO_LARGE, f"{len(entries)} entries of {field.name}")
            await self.router.handle_rpc(rpc, peer_id)

    def notify_subscriptions(self, publish_message: rpc_pb2.Message) -> None:
        """News for us: straight to its consumer, without libp2p's queue of 32."""
        origin = ID(publish_message.from_id)
        if origin != self.my_id:
            self._on_gossip(origin, publish_message.topicIDs[0], publish_message.data)

    def _handle_dead_peer(self, peer_id: ID) -> None:
        with Guard("gossip farewell"):
            super()._handle_dead_peer(peer_id)

    async def _handle_new_peer(self, peer_id: ID) -> None:
        await super()._handle_new_peer(peer_id)
        queue = self.peer_queues.get(peer_id)
        if queue is not None:
            queue._queue.max_size = QUEUE_MAX

    async def write_msg(self, stream: INetStream, rpc_msg: rpc_pb2.RPC) -> bool:
        """Send one message; a peer that does not take it in time is cut off."""
        is_sent: bool = False
        with trio.move_on_after(WRITE_MAX_S) as scope:
            is_sent = bool(await super().write_msg(stream, rpc_msg))
        if scope.cancelled_caught:
            self._on_stuck(stream.muxed_conn.peer_id)
        return is_sent


async def _read_delimited(stream: INetStream, buffer: bytearray) -> bytes:
    """The next message behind its length as a varint of at most four bytes; `buffer` keeps what came after it."""
    size = shift = used = 0
    while True:
        while len(buffer) <= used:
            buffer += await stream.read(READ_BYTES)
        byte = buffer[used]
        size |= (byte & 0x7F) << shift
        used, shift = used + 1, shift + 7
        if byte < 0x80:
            break
        require(used < 4, Reason.MALFORMED, "a length of more than four bytes")
    require(size <= RPC_MAX_BYTES, Reason.TOO_LARGE, f"a gossip frame of {size} bytes")
    while len(buffer) < used + size:
        buffer += await stream.read(READ_BYTES)
    payload = bytes(buffer[used : used + size])
    del buffer[: used + size]
    return payload


def build_gossip(host: IHost, on_gossip: OnGossip, on_stuck: Callable[[ID], None]) -> tuple[GuardedPubsub, Any]:
    """Both services, to be run before the host; settings by measurement, see `docs/spec/network.md`."""
    router = GuardedGossipSub(
        protocols=[MESHSUB_ID],
        degree=6,
        degree_low=4,
        degree_high=12,
        heartbeat_interval=1,
        prune_back_off=10,
        adaptive_gossip_enabled=False,
        spam_protection_enabled=False,  # it drops our own messages
        eclipse_protection_enabled=False,
    )
    router.scorer = None  # its opportunistic grafting churns the mesh and loses messages
    return GuardedPubsub(host, router, on_gossip, on_stuck), router



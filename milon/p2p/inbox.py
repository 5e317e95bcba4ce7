"""The bounded queue between the readers of all peers and the one who consumes their messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from milon.p2p.transport import PeerId, Received

DIRECT_MAX_BYTES = 64 << 20  # a quarter second's worth at the transport's full rate
PEER_MAX_BYTES = 16 << 20  # four of the largest messages: one peer cannot fill the queue
GOSSIP_MAX = 4096  # ten seconds of gossip at the rate one core can check
GOSSIP_MAX_BYTES = 16 << 20  # 256 of the largest
DIRECT_RUN_MAX = 8  # direct messages before gossip gets its turn: whoever floods must not silence it
OVERHEAD_BYTES = 256  # what an empty message costs in memory, so that a flood of those is bounded too
WAIT_MAX_S = 5.0  # a consumer that stands still longer loses messages instead of stopping all readers


class Inbox:
    """Direct messages wait for room, and so hold back the peer that sends them; gossip pushes the oldest out.

    Peers take turns, so that nobody's votes wait behind another's flood.
    """

    def __init__(self, on_drop: Callable[[PeerId], None]) -> None:
        self._on_drop = on_drop
        self._direct: dict[PeerId, deque[Received]] = {}  # by peer, whose turn it is first; nobody's is empty
        self._run = 0  # direct messages since the last of gossip
        self._gossip: deque[Received] = deque()
        self._bytes_by_peer: dict[PeerId, int] = {}
        self._direct_bytes = self._gossip_bytes = 0
        self._filled = trio.Event()
        self._room = trio.Event()
        self._sender, self.receiver = trio.open_memory_channel[Received](0)

    def _has_room(self, peer: PeerId, size: int) -> bool:
        return (
            self._bytes_by_peer.get(peer, 0) + size <= PEER_MAX_BYTES and self._direct_bytes + size <= DIRECT_MAX_BYTES
        )

    async def put(self, message: Received) -> bool:
        """Queue a direct message; False when there was no room for `WAIT_MAX_S`: then it is dropped and counted."""
        size = len(message.payload) + OVERHEAD_BYTES
        with trio.move_on_after(WAIT_MAX_S):
            while not self._has_room(message.peer, size):
                await self._room.wait()
        if not self._has_room(message.peer, size):
            self._on_drop(message.peer)
            return False
        self._direct.setdefault(message.peer, deque()).append(message)
        self._direct_bytes += size
        self._bytes_by_peer[message.peer] = self._bytes_by_peer.get(message.peer, 0) + size
        self._filled.set()
        return True

    def put_gossip(self, message: Received) -> None:
        """Queue gossip; the oldest goes where there is no room."""
        self._gossip.append(message)
        self._gossip_bytes += len(message.payload) + OVERHEAD_BYTES
        while len(self._gossip) > GOSSIP_MAX or self._gossip_bytes > GOSSIP_MAX_BYTES:
            self._on_drop(self._take_gossip().peer)
        self._filled.set()

    def _take_gossip(self) -> Received:
        message = self._gossip.popleft()
        self._gossip_bytes -= len(message.payload) + OVERHEAD_BYTES
        return message

    def _take_direct(self) -> Received:
        peer = next(iter(self._direct))
        lane = self._direct.pop(peer)
        message = lane.popleft()
        if lane:
            self._direct[peer] = lane
        size = len(message.payload) + OVERHEAD_BYTES
        self._direct_bytes -= size
        left = self._bytes_by_peer[message.peer] - size
        if left:
            self._bytes_by_peer[message.peer] = left
        else:
            del self._bytes_by_peer[message.peer]
        self._room.set()
        self._room = trio.Event()
        return message

    async def run(self) -> None:
        """Hand messages to `receiver`, most direct ones first, until cancelled or the receiver is closed."""
        while True:
            while not self._direct and not self._gossip:
                self._filled = trio.Event()
                await self._filled.wait()
            is_direct = bool(self._direct) and not (self._gossip and self._run >= DIRECT_RUN_MAX)
            self._run = self._run + 1 if is_direct else 0
            message = self._take_direct() if is_direct else self._take_gossip()
            try:
                await self._sender.send(message)
            except trio.BrokenResourceError:
                return

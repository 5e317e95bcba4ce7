"""One peer as the libp2p transport sees it: greeted or not, with a bounded queue and one sending task."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import trio

from milon.p2p.frames import KIND_HELLO, encode_frame
from milon.p2p.transport import Channel, PeerId

QUEUE_MAX = 1024  # messages waiting for one peer: seconds of votes of a hundred validators
QUEUE_MAX_BYTES = 16 << 20  # four of the largest messages
MERGE_BYTES = 64 << 10  # small frames go out together up to this size: one encrypted message
SEND_MAX_S = 10.0  # a peer that takes no bytes for this long is cut off
REQUESTS_MAX = 12  # per peer, channel and direction at once: with four channels within the muxer's 64 streams
GREET_MAX_S = 5.0  # a peer that has not said hello by then is disconnected


class ByteStream(Protocol):
    """The sending side of a stream."""

    async def write(self, data: bytes) -> None:
        """Send all of `data`."""
        ...


class Link:
    """The queue to one peer, and whether both sides have said hello."""

    def __init__(self, peer: PeerId) -> None:
        self.peer = peer
        self.greeted = trio.Event()  # both hellos are exchanged
        self.refusal: Exception | None = None  # why it never will be
        self.settled = trio.Event()  # greeted or refused
        self.asking = {channel: trio.CapacityLimiter(REQUESTS_MAX) for channel in Channel}  # requests from here
        self.serving = dict.fromkeys(Channel, 0)  # requests from there that are being answered
        self.scope = trio.CancelScope()  # the task that sends
        self.reader: trio.CancelScope | None = None  # the task that reads its one-way stream
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._filled = trio.Event()
        self._has_sent_hello = self._has_heard_hello = False

    def sent_hello(self) -> bool:
        """Our hello is out; True when that completes the greeting."""
        self._has_sent_hello = True
        return self._greet()

    def heard_hello(self) -> bool:
        """The peer's hello is good; True when that completes the greeting."""
        self._has_heard_hello = True
        return self._greet()

    def _greet(self) -> bool:
        if not (self._has_sent_hello and self._has_heard_hello) or self.greeted.is_set():
            return False
        self.greeted.set()
        self.settled.set()
        return True

    def end(self, reason: Exception | None = None) -> None:
        """The peer is gone or refused: wake whoever waits for it."""
        self.refusal = self.refusal or reason
        self.settled.set()
        self.scope.cancel()
        if self.reader is not None:
            self.reader.cancel()

    def put(self, channel: Channel, payload: bytes) -> bool:
        """Queue one message; False when there is no room."""
        if len(self._queue) >= QUEUE_MAX or self._queued_bytes + len(payload) > QUEUE_MAX_BYTES:
            return False
        frame = encode_frame(channel, payload)
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        self._filled.set()
        return True

    def _take(self) -> bytes:
        merged = [self._queue.popleft()]
        size = len(merged[0])
        while self._queue and size + len(self._queue[0]) <= MERGE_BYTES:
            merged.append(self._queue.popleft())
            size += len(merged[-1])
        self._queued_bytes -= size
        return b"".join(merged)

    async def send_all(self, stream: ByteStream, hello: bytes, on_greeted: Callable[[], None]) -> None:
        """Say hello, then send what is queued, for ever; `TooSlowError` when the peer takes nothing."""
        with trio.fail_after(SEND_MAX_S):
            await stream.write(encode_frame(KIND_HELLO, hello))
        if self.sent_hello():
            on_greeted()
        while True:
            while not self._queue:
                self._filled = trio.Event()
                await self._filled.wait()
            with trio.fail_after(SEND_MAX_S):
                await stream.write(self._take())



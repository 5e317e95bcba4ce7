"""Streams over one encrypted connection: Yamux 1.0.0 with every bound enforced.

libp2p's own muxer logs a peer that overruns its window and lets it, accepts any number of streams, polls while it waits
for room, and lets a cancelled write cut an encrypted message, after which the connection is dead but listed. Here one
task writes, so that no caller can cut a message; it merges small frames and has a deadline; votes overtake bulk.

Specification: hashicorp/yamux `spec.md`; libp2p `yamux/README.md`.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

import trio
from libp2p.abc import ConnectionType, IMuxedConn, ISecureConn
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamReset
from multiaddr import Multiaddr

from milon.p2p.seam.guard import Guard
from milon.p2p.seam.muxed_stream import WINDOW_BYTES, Stream
from milon.p2p.seam.tcp import GuardedStream

HEADER = struct.Struct("!BBHII")  # version, type, flags, stream id, length
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
PROTOCOL_ERROR = 1  # GO_AWAY's code

BATCH_BYTES = 65_519  # the plaintext of one Noise message; 65,536 would take two
PAYLOAD_BYTES = BATCH_BYTES - HEADER.size  # of one data frame
QUEUED_MAX_BYTES = 256 << 10  # written but not yet sent; more only adds delay
FRAME_COST_BYTES = 256  # counted for each data frame besides its payload, so that at most 1,024 are queued
QUEUED_MAX = 4096  # unsent frames of all kinds: a peer that asks for answers and does not read them is cut off
INBOUND_STREAMS_MAX = 64  # 48 requests served at once, three long-lived streams, and room; bounds memory to 16 MiB
REFUSED_MAX = 1024  # streams opened beyond that bound before the connection is closed
PING_AFTER_S = 5.0  # silence after which a sign of life is asked for
DEAD_AFTER_S = 12.0  # silence that ends a connection: a busy machine may stall a process for seconds


class Overrun(Exception):
    """The peer broke the protocol; the connection ends."""


def raw_stream_of(conn: ISecureConn) -> GuardedStream | None:
    """The TCP connection under an encrypted one, to close it without asking; None under other transports."""
    found = conn
    for name in ("conn", "read_writer", "read_write_closer", "stream"):
        found = getattr(found, name, None)
    return found if isinstance(found, GuardedStream) else None


class Yamux(IMuxedConn):  # type: ignore[misc]  # libp2p's classes are untyped here
    """One connection's streams. `on_fault` hears when the peer broke a rule."""

    def __init__(self, conn: ISecureConn, peer_id: ID, on_fault: Callable[[Exception], None] | None = None) -> None:
        self.secured_conn = conn
        self.peer_id = peer_id
        self.on_close: object = None  # libp2p's swarm sets it; the end of `accept_stream` tells it the same
        self.opened_s = trio.current_time()
        self.event_started = trio.Event()
        self.streams: dict[int, Stream] = {}
        self._raw = raw_stream_of(conn)
        self._on_fault = on_fault
        self._next_id = 1 if conn.is_initiator else 2
        self._last_inbound = 0
        self._refused = 0
        self._accepted, self._accepting = trio.open_memory_channel[Stream](INBOUND_STREAMS_MAX)
        self._urgent: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self.queued_bytes = 0
        self._filled = trio.Event()
        self._room = trio.Event()
        self._closed = trio.Event()
        self._heard_s = 0.0
        self._scope = trio.CancelScope()

    # What libp2p's swarm asks of a muxer.

    @property
    def is_initiator(self) -> bool:
        """Whether this side dialled."""
        return bool(self.secured_conn.is_initiator)

    @property
    def is_established(self) -> bool:
        """Whether streams can be opened."""
        return self.event_started.is_set() and not self._closed.is_set()

    @property
    def is_closed(self) -> bool:
        """Whether the connection is over."""
        return self._closed.is_set()

    def get_transport_addresses(self) -> list[Multiaddr]:
        """Where the other end is."""
        remote = self.get_remote_address()
        if remote is None:
            return []
        return [Multiaddr(f"/{'ip6' if ':' in remote[0] else 'ip4'}/{remote[0]}/tcp/{remote[1]}")]

    def get_connection_type(self) -> ConnectionType:
        """Always direct."""
        return ConnectionType.DIRECT

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the other end."""
        return None if self._raw is None else self._raw.get_remote_address()

    async def start(self) -> None:
        """Serve the connection until it ends; raises nothing but cancellation."""
        try:
            if self._raw is not None:
                self._raw.is_upgraded = True
            with self._scope, Guard("yamux", self._on_end):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write_all)
                    nursery.start_soon(self._keep_alive)
                    self.event_started.set()
                    await self._read_all()
        finally:
            self.event_started.set()
            self.abort()

    def _on_end(self, error: Exception) -> None:
        overruns = error.subgroup(Overrun) if isinstance(error, ExceptionGroup) else error
        if isinstance(overruns, Overrun | ExceptionGroup) and self._on_fault is not None:
            self._on_fault(error)

    def abort(self) -> None:
        """End the connection now; nothing is asked of the peer. Safe to call twice."""
        self._closed.set()
        self._scope.cancel()
        if self._raw is not None:
            self._raw.abort()
        self._accepted.close()
        for stream in list(self.streams.values()):
            stream.on_reset()
        self.streams.clear()
        self._urgent.clear()
        self._bulk.clear()
        self._filled.set()
        self._room.set()

    async def close(self) -> None:
        """`abort`."""
        self.abort()

    async def open_stream(self) -> Stream:
        """A new stream to the peer."""
        await trio.lowlevel.checkpoint()
        if not self.is_established:
            raise MuxedConnUnavailable("the connection is over")
        stream = Stream(self, self._next_id)
        self._next_id += 2
        self.streams[stream.stream_id] = stream
        self.queue_control(WINDOW_UPDATE, SYN, stream.stream_id, 0)
        return stream

    async def accept_stream(self) -> Stream:
        """The next stream that the peer opened; `MuxedConnUnavailable` once the connection is over."""
        try:
            return await self._accepting.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise MuxedConnUnavailable("the connection is over") from None

    # Writing: callers queue, one task sends.

    def queue_control(self, kind: int, flags: int, stream_id: int, length: int, is_bulk: bool = False) -> None:
        """Queue a frame without payload; in the stream's own order when `is_bulk`."""
        if self._closed.is_set():
            return
        queue = self._bulk if is_bulk else self._urgent
        queue.append(HEADER.pack(0, kind, flags, stream_id, length))
        if len(queue) > QUEUED_MAX:
            self.abort()
        self._filled.set()

    async def queue_data(self, stream_id: int, payload: bytes, is_bulk: bool) -> None:
        """Queue one data frame of at most `PAYLOAD_BYTES` once there is room."""
        while self.queued_bytes >= QUEUED_MAX_BYTES and not self._closed.is_set():
            await self._room.wait()
        if self._closed.is_set():
            raise MuxedStreamReset("the connection is over")
        (self._bulk if is_bulk else self._urgent).append(HEADER.pack(0, DATA, 0, stream_id, len(payload)) + payload)
        self.queued_bytes += len(payload) + FRAME_COST_BYTES
        self._filled.set()

    def _take_batch(self) -> bytes:
        batch: list[bytes] = []
        size = 0
        for queue in (self._urgent, self._bulk):
            while queue and size + len(queue[0]) <= BATCH_BYTES:
                frame = queue.popleft()
                batch.append(frame)
                size += len(frame)
                if len(frame) > HEADER.size:
                    self.queued_bytes -= len(frame) - HEADER.size + FRAME_COST_BYTES
            if queue:
                break  # bulk never overtakes
        return b"".join(batch)

    async def _write_all(self) -> None:
        while not self._closed.is_set():
            if not self._urgent and not self._bulk:
                self._filled = trio.Event()
                await self._filled.wait()
                continue
            await self.secured_conn.write(self._take_batch())
            if self.queued_bytes < QUEUED_MAX_BYTES:
                self._room.set()
                self._room = trio.Event()

    async def _keep_alive(self) -> None:
        """Ask a silent peer for a sign of life, then give it up: one stopped by SIGSTOP still acknowledges bytes."""
        asked = 0
        while True:
            await trio.sleep(PING_AFTER_S)
            silence = trio.current_time() - self._heard_s
            if silence > DEAD_AFTER_S:
                raise MuxedConnUnavailable(f"silent for {silence:.1f} s")
            if silence >= PING_AFTER_S * 0.9:
                asked += 1
                self.queue_control(PING, SYN, 0, asked)

    # Reading.

    async def _read_exactly(self, size: int) -> bytes:
        raw = bytes(await self.secured_conn.read(size)) if size else b""
        if len(raw) != size:
            raise MuxedConnUnavailable("the connection ends inside a frame")
        return raw

    async def _read_all(self) -> None:
        self._heard_s = trio.current_time()
        while True:
            version, kind, flags, stream_id, length = HEADER.unpack(await self._read_exactly(HEADER.size))
            self._heard_s = trio.current_time()
            if version != 0 or kind > GO_AWAY:
                raise Overrun(f"yamux version {version}, type {kind}")
            if kind == GO_AWAY:
                raise MuxedConnUnavailable("the peer goes away")
            if kind == PING:
                if flags & SYN:
                    self.queue_control(PING, ACK, 0, length)
                continue
            if kind == DATA and length > WINDOW_BYTES:
                raise Overrun(f"a data frame of {length} bytes")
            payload = await self._read_exactly(length if kind == DATA else 0)
            stream = self._find(stream_id, flags)
            if stream is not None:
                self._apply(stream, kind, flags, length, payload)

    def _find(self, stream_id: int, flags: int) -> Stream | None:
        """The stream a frame is for; None for one that is over here, or refused."""
        if not flags & SYN:
            return self.streams.get(stream_id)
        is_theirs = stream_id % 2 == (0 if self.is_initiator else 1)
        if not is_theirs or stream_id <= self._last_inbound:
            raise Overrun(f"stream {stream_id} opened out of turn")
        self._last_inbound = stream_id
        inbound = sum(1 for known in self.streams if known % 2 == stream_id % 2)
        if inbound >= INBOUND_STREAMS_MAX:
            self._refused += 1
            if self._refused > REFUSED_MAX:
                raise Overrun(f"more than {REFUSED_MAX} streams beyond the bound")
            self.queue_control(WINDOW_UPDATE, RST, stream_id, 0)
            return None
        stream = Stream(self, stream_id)
        try:
            self._accepted.send_nowait(stream)
        except trio.WouldBlock:  # accepted and closed ones still wait for the swarm to look at them
            self.queue_control(WINDOW_UPDATE, RST, stream_id, 0)
            return None
        self.streams[stream_id] = stream
        self.queue_control(WINDOW_UPDATE, ACK, stream_id, 0)
        return stream

    def _apply(self, stream: Stream, kind: int, flags: int, length: int, payload: bytes) -> None:
        if flags & RST:
            stream.on_reset()
            self.streams.pop(stream.stream_id, None)
            return
        if kind == DATA:
            if not stream.on_data(payload):
                self.queue_control(GO_AWAY, 0, 0, PROTOCOL_ERROR)
                raise Overrun(f"stream {stream.stream_id} overran its window or its end")
        elif not stream.on_window(length):
            raise Overrun(f"stream {stream.stream_id} grew its window beyond 32 bits")
        if flags & FIN:
            stream.on_end()



"""One Yamux stream: a byte pipe each way with credit, whose state changes never wait."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamEOF, MuxedStreamReset

WINDOW_BYTES = 256 << 10  # the credit each stream starts with, by the specification; never more is buffered
CREDIT_END = 1 << 32  # a window's size is a 32-bit number on the wire
WINDOW_UPDATE, FIN, RST = 1, 4, 8  # Yamux frame type and flags
PAYLOAD_BYTES = 65_507  # of one data frame: with its header it fills one Noise message


class Connection(Protocol):
    """What a stream needs of its connection."""

    streams: dict[int, Stream]

    def queue_control(self, kind: int, flags: int, stream_id: int, length: int, is_bulk: bool = False) -> None:
        """Queue a frame without payload."""
        ...

    async def queue_data(self, stream_id: int, payload: bytes, is_bulk: bool) -> None:
        """Queue a data frame once there is room."""
        ...

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the other end."""
        ...


class Stream(IMuxedStream):  # type: ignore[misc]  # libp2p's classes are untyped here
    """One stream of a connection; `is_bulk` lets other streams' frames go first."""

    def __init__(self, conn: Connection, stream_id: int) -> None:
        self.muxed_conn = conn
        self.stream_id = stream_id
        self.is_bulk = False  # set it only after the protocol is agreed on, so that no frame overtakes another
        self._buffer = bytearray()
        self._owed = 0  # bytes read and not yet given back as credit
        self._credit_in = WINDOW_BYTES
        self._credit_out = WINDOW_BYTES
        self._is_ended = self._is_finished = self._is_reset = False
        self._changed = trio.Event()

    @property
    def is_closed(self) -> bool:
        """Whether both directions are over."""
        return self._is_reset or (self._is_ended and self._is_finished)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # What the connection's reader tells: none of these waits.

    def on_data(self, payload: bytes) -> bool:
        """Bytes arrived; False when the peer had no right to send them."""
        if len(payload) > self._credit_in or (self._is_ended and payload):
            return False
        self._credit_in -= len(payload)
        self._buffer += payload
        self._wake()
        return True

    def on_window(self, increment: int) -> bool:
        """The peer gives credit; False when the sum leaves 32 bits."""
        self._credit_out += increment
        self._wake()
        return self._credit_out < CREDIT_END

    def on_end(self) -> None:
        """The peer sends no more."""
        self._is_ended = True
        self._forget_if_over()
        self._wake()

    def on_reset(self) -> None:
        """The stream is over; what was received is still readable up to here no more."""
        self._is_reset = True
        self._buffer.clear()
        self._wake()

    def _forget_if_over(self) -> None:
        if self.is_closed:
            self.muxed_conn.streams.pop(self.stream_id, None)

    # What the owner of the stream calls.

    async def read(self, n: int | None = None) -> bytes:
        """Between 1 and `n` bytes; `MuxedStreamEOF` at the end, `MuxedStreamReset` after a reset."""
        await trio.lowlevel.checkpoint()
        while not self._buffer:
            if self._is_reset:
                raise MuxedStreamReset("the stream was reset")
            if self._is_ended:
                raise MuxedStreamEOF("the peer sends no more")
            await self._changed.wait()
        size = len(self._buffer) if n is None or n < 0 else n
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._owed += len(taken)
        if self._owed >= WINDOW_BYTES // 2 and not self._is_ended:
            self.muxed_conn.queue_control(WINDOW_UPDATE, 0, self.stream_id, self._owed)
            self._credit_in += self._owed
            self._owed = 0
        return taken

    def grant(self, extra: int) -> None:
        """Let the peer have `extra` more bytes under way than the usual window: for an answer that was asked for."""
        if not self.is_closed:
            self._credit_in += extra
            self.muxed_conn.queue_control(WINDOW_UPDATE, 0, self.stream_id, extra)

    async def write(self, data: bytes) -> None:
        """Queue all of `data` in order, waiting for the peer's credit and for room; cancelling it hurts no other."""
        view = memoryview(data)
        await trio.lowlevel.checkpoint()
        while view:
            if self._is_reset:
                raise MuxedStreamReset("the stream was reset")
            if self._is_finished:
                raise MuxedStreamClosed("the stream is closed for writing")
            if not self._credit_out:
                await self._changed.wait()
                continue
            size = min(len(view), self._credit_out, PAYLOAD_BYTES)
            self._credit_out -= size
            await self.muxed_conn.queue_data(self.stream_id, bytes(view[:size]), self.is_bulk)
            view = view[size:]

    async def close(self) -> None:
        """Send no more; reading goes on."""
        if not self._is_finished and not self._is_reset:
            self._is_finished = True
            self.muxed_conn.queue_control(WINDOW_UPDATE, FIN, self.stream_id, 0, self.is_bulk)
            self._forget_if_over()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """Reset both directions, without waiting."""
        if not self.is_closed:
            self.muxed_conn.queue_control(WINDOW_UPDATE, RST, self.stream_id, 0, self.is_bulk)
            self.muxed_conn.streams.pop(self.stream_id, None)
        self.on_reset()

    async def reset(self) -> None:
        """`abort`."""
        self.abort()
        await trio.lowlevel.checkpoint()

    def set_deadline(self, ttl: int) -> None:
        """Deadlines are trio's cancel scopes."""
        raise NotImplementedError("use trio.fail_after")

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the other end."""
        return self.muxed_conn.get_remote_address()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

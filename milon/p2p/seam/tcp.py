"""TCP under libp2p: exact reads, writes with a deadline, and a listener that idle sockets cannot block.

libp2p's own listener shares its port with whoever asks (SO_REUSEPORT), keeps a task and a slot for each connection it
ever accepted, and holds every half-open connection until a timeout: 250 of them refuse everybody.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.abc import IListener, ITransport
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from milon.p2p.seam.guard import Guard

WRITE_MAX_S = 10.0  # one write is at most 64 KiB: a peer that takes longer does not read
READ_BYTES = 64 << 10  # one system call's worth
UNSENT_MAX_BYTES = 128 << 10  # bytes the kernel holds unsent: votes wait behind no more than these
PENDING_PER_ADDRESS_MAX = 16  # half-open connections of one address: an honest one is open for some 10 ms
PENDING_MAX = 64  # half-open connections in all
_NOTSENT_LOWAT = 25  # TCP_NOTSENT_LOWAT of Linux, which Python's socket module does not name


class GuardedStream(ReadWriteCloser):  # type: ignore[misc]  # libp2p's classes are untyped here
    """One TCP connection. A cut write ends it: half an encrypted message would poison all streams on it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._remote = _remote_of(stream)
        self.closed = trio.Event()
        self.is_upgraded = False  # whether the handshake is over

    async def read(self, n: int | None = None) -> bytes:
        """Exactly `n` bytes, however many pieces they come in; whatever there is when `n` is None."""
        while len(self._buffer) < (1 if n is None else n):
            try:
                chunk = await self._stream.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionClosedError(f"connection lost: {error}", transport="tcp") from error
            if not chunk:
                raise ConnectionClosedError("connection closed by the peer", transport="tcp")
            self._buffer += chunk
        size = len(self._buffer) if n is None else n
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def write(self, data: bytes) -> None:
        """Send all of `data` within `WRITE_MAX_S`, or end the connection."""
        if self.closed.is_set():
            raise ConnectionClosedError("connection is closed", transport="tcp")
        is_sent = False
        try:
            with trio.fail_after(WRITE_MAX_S):
                await self._stream.send_all(data)
            is_sent = True
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            raise ConnectionClosedError(f"connection lost: {error}", transport="tcp") from error
        finally:
            if not is_sent:
                self.abort()

    def abort(self) -> None:
        """Close the socket now; whoever reads or writes gets an error. Safe to call twice."""
        self._stream.socket.close()
        self.closed.set()

    async def close(self) -> None:
        """`abort`: nothing is asked of the peer, who may be frozen."""
        self.abort()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the other end, also after the connection is gone."""
        return self._remote


def _remote_of(stream: trio.SocketStream) -> tuple[str, int] | None:
    try:
        name = stream.socket.getpeername()
    except OSError:
        return None
    return (str(name[0]), int(name[1]))


def _guarded(stream: trio.SocketStream) -> GuardedStream:
    try:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT_MAX_BYTES)
    except OSError as error:  # a system without the second option still works, with more delay under load
        if error.errno not in (errno.ENOPROTOOPT, errno.EINVAL, errno.EBADF):
            raise
    return GuardedStream(stream)


class GuardedListener(IListener):  # type: ignore[misc]  # libp2p's classes are untyped here
    """Accepts in the transport's nursery; a connection's task ends with the connection."""

    def __init__(self, handler: Callable[[GuardedStream], Awaitable[None]], nursery: trio.Nursery) -> None:
        self._handler = handler
        self._nursery = nursery
        self._listeners: list[trio.SocketListener] = []
        self._pending: list[GuardedStream] = []

    async def listen(self, maddr: Multiaddr) -> None:
        """Bind and accept; `OpenConnectionError` when the address is in use."""
        host = maddr.value_for_protocol("ip4" if maddr.protocols()[0].name == "ip4" else "ip6")
        try:
            opened = await trio.open_tcp_listeners(int(maddr.value_for_protocol("tcp") or 0), host=host)
        except OSError as error:
            raise OpenConnectionError(f"cannot listen on {maddr}: {error}") from error
        self._listeners += opened
        await self._nursery.start(_serve, self._accept, opened)

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        """What it really listens on."""
        return tuple(_address_of(listener.socket) for listener in self._listeners)

    async def close(self) -> None:
        """Stop accepting; connections stay."""
        for listener in self._listeners:
            listener.socket.close()
        self._listeners.clear()

    def _admit(self, stream: GuardedStream) -> None:
        """Count a half-open connection; the oldest one goes where there are too many of them."""
        self._pending = [other for other in self._pending if not other.is_upgraded and not other.closed.is_set()]
        host = (stream.get_remote_address() or ("", 0))[0]
        neighbours = [other for other in self._pending if (other.get_remote_address() or ("", 0))[0] == host]
        if len(neighbours) >= PENDING_PER_ADDRESS_MAX:
            neighbours[0].abort()
        elif len(self._pending) >= PENDING_MAX:
            self._pending[0].abort()
        self._pending.append(stream)

    async def _accept(self, socket_stream: trio.SocketStream) -> None:
        with Guard("accept"):
            stream = _guarded(socket_stream)
            self._admit(stream)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_cancel_when, stream.closed, nursery.cancel_scope)
                    await self._handler(stream)
                    nursery.cancel_scope.cancel()
            finally:
                stream.abort()


async def _serve(
    accept: Callable[[trio.SocketStream], Awaitable[None]], listeners: list[trio.SocketListener], *, task_status: Any
) -> None:
    try:
        await trio.serve_listeners(accept, listeners, task_status=task_status)
    except (trio.ClosedResourceError, OSError):
        return  # the listener was closed
    except BaseExceptionGroup as group:
        rest = group.split(trio.ClosedResourceError)[1]
        if rest is not None:
            raise rest from None


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _address_of(listening: trio.socket.SocketType) -> Multiaddr:
    host, port = listening.getsockname()[:2]
    return Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}")


class GuardedTCP(ITransport):  # type: ignore[misc]  # libp2p's classes are untyped here
    """Dials and listens on plain TCP addresses with an IP; its listeners' tasks live in `nursery`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    async def dial(self, maddr: Multiaddr) -> RawConnection:
        """Connect; the caller sets the deadline. Names are not looked up."""
        try:
            names = [protocol.name for protocol in maddr.protocols()]
            host = maddr.value_for_protocol(names[0])
            stream = await trio.open_tcp_stream(host, int(maddr.value_for_protocol("tcp") or 0))
        except OSError as error:
            raise OpenConnectionError(f"cannot reach {maddr}: {error}") from error
        return RawConnection(_guarded(stream), True)

    def create_listener(self, handler_function: Callable[[GuardedStream], Awaitable[None]]) -> GuardedListener:
        """A listener that calls `handler_function` with each connection."""
        return GuardedListener(handler_function, self._nursery)

    def protocols(self) -> list[str]:
        """Names of the protocols in its addresses."""
        return ["tcp"]

    def listen_order(self) -> int:
        """Its place among several transports."""
        return 0

    def can_dial(self, maddr: Multiaddr) -> bool:
        """Whether `maddr` is an IP address and a TCP port, and nothing around it but a peer id."""
        names = [protocol.name for protocol in maddr.protocols()]
        return names[:2] in (["ip4", "tcp"], ["ip6", "tcp"]) and set(names[2:]) <= {"p2p"}

    def can_listen(self, maddr: Multiaddr) -> bool:
        """As `can_dial`."""
        return self.can_dial(maddr)

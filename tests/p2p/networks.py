"""Small networks for tests, over either transport, and waiting with a deadline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from milon.base.hashing import sha256
from milon.p2p.libp2p_transport import LibP2PTransport
from milon.p2p.memory_transport import MemoryNetwork, MemoryTransport
from milon.p2p.settings import TransportSettings

CHAIN = b"test-chain"
DEADLINE_S = 15.0  # far above what a busy two-core machine needs

AnyTransport = LibP2PTransport | MemoryTransport


def seed_of(name: str) -> bytes:
    """A host key for a name."""
    return sha256(b"host " + name.encode())


class Network:
    """Makes and runs transports of one kind; leaving the context ends them all."""

    def __init__(self, kind: str, nursery: trio.Nursery, memory: MemoryNetwork | None = None) -> None:
        self.kind = kind
        self.nursery = nursery
        self.memory = memory or MemoryNetwork(seed=1)
        self._scopes: dict[AnyTransport, trio.CancelScope] = {}

    def make(self, name: str, chain: bytes = CHAIN, port: int = 0) -> AnyTransport:
        """A transport that does not run yet."""
        settings = TransportSettings(seed_of(name), chain, ("news", "peers"), listen_port=port)
        return LibP2PTransport(settings) if self.kind == "libp2p" else self.memory.join(name, settings)

    async def start(self, transport: AnyTransport) -> AnyTransport:
        """Run it until `stop` or the end."""

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with trio.CancelScope() as scope:
                self._scopes[transport] = scope
                try:
                    await transport.run(task_status=task_status)
                finally:
                    del self._scopes[transport]

        await self.nursery.start(run)
        return transport

    async def add(self, name: str, chain: bytes = CHAIN, port: int = 0) -> AnyTransport:
        """`make`, then `start`."""
        return await self.start(self.make(name, chain, port))

    def stop(self, transport: AnyTransport) -> None:
        """End one transport."""
        self._scopes[transport].cancel()

    async def stopped(self, transport: AnyTransport) -> None:
        """`stop`, and wait until it has ended."""
        self.stop(transport)
        await wait_until(lambda: transport not in self._scopes)

    async def pair(self) -> tuple[AnyTransport, AnyTransport]:
        """Two connected transports."""
        one, two = await self.add("one"), await self.add("two")
        await connect(one, two)
        return one, two


@asynccontextmanager
async def network_of(kind: str) -> AsyncIterator[Network]:
    """A network of one kind, "memory" or "libp2p"."""
    async with trio.open_nursery() as nursery:
        yield Network(kind, nursery)
        nursery.cancel_scope.cancel()


async def connect(one: AnyTransport, other: AnyTransport) -> None:
    """Connect, and wait until both know it."""
    await one.connect(other.addresses[0], timeout_s=DEADLINE_S)
    await wait_until(lambda: one.peer_id in other.peers() and other.peer_id in one.peers())


async def wait_until(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Return once `condition()` holds; fail after the deadline."""
    with trio.fail_after(deadline_s):
        while not condition():
            await trio.sleep(0.01)

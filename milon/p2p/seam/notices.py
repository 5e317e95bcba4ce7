"""libp2p's connection notices as two plain calls."""

from __future__ import annotations

from collections.abc import Callable

from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from multiaddr import Multiaddr


class Notices(INotifee):  # type: ignore[misc]  # libp2p's classes are untyped here
    """Calls `on_connected` and `on_disconnected` with each connection."""

    def __init__(
        self, on_connected: Callable[[INetConn], None], on_disconnected: Callable[[INetConn], None]
    ) -> None:
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        """A connection is up."""
        self._on_connected(conn)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        """A connection is over."""
        self._on_disconnected(conn)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        """Nothing."""

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        """Nothing."""

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Nothing."""

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Nothing."""

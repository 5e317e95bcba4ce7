"""A libp2p host of TCP, Noise and Yamux alone, whose handlers cannot end the process and which dials only when told."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import trio
from libp2p.abc import INetConn, INetStream, ISecureConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.host.basic_host import BasicHost
from libp2p.host.ping import ID as PING_ID
from libp2p.host.ping import handle_ping
from libp2p.identity.identify.identify import ID as IDENTIFY_ID
from libp2p.identity.identify.identify import identify_handler_for
from libp2p.io.exceptions import IOException
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from milon.p2p.seam.guard import Guard
from milon.p2p.seam.tcp import GuardedTCP
from milon.p2p.seam.version import check_version
from milon.p2p.seam.yamux import Yamux

YAMUX_ID = TProtocol("/yamux/1.0.0")
CONNECTIONS_MAX = 128  # a full mesh of a hundred validators; each costs three tasks
UPGRADE_MAX_S = 3.0  # a handshake takes some 10 ms; a busy machine needs room
NEGOTIATE_MAX_S = 5  # whole seconds: libp2p truncates

OnFault = Callable[[ID, Exception], None]


def is_ordinary(error: Exception) -> bool:
    """Whether an error only says that a stream or connection ended, which is nobody's fault."""
    if isinstance(error, ExceptionGroup):
        return all(is_ordinary(part) for part in error.exceptions)
    return isinstance(error, BaseLibp2pError | IOException | trio.ClosedResourceError | trio.BrokenResourceError)


class GuardedMuxers(MuxerMultistream):  # type: ignore[misc]  # libp2p's classes are untyped here
    """Always our muxer: libp2p's own selection names its class whatever the options say."""

    def __init__(self, on_fault: OnFault) -> None:
        super().__init__({YAMUX_ID: Yamux}, NEGOTIATE_MAX_S)
        self._on_fault = on_fault

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> Yamux:
        """Agree on Yamux and put it on `conn`."""
        await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        return Yamux(conn, peer_id, lambda error: self._on_fault(peer_id, error))


class GuardedSwarm(Swarm):  # type: ignore[misc]  # libp2p's classes are untyped here
    """Never dials because a stream was wanted: addresses that peers name are not followed by themselves."""

    async def dial_peer(self, peer_id: ID) -> list[INetConn]:
        """Refused; `dial_addr` is the only way out."""
        raise SwarmException(f"{peer_id} is not connected")

    def abort_peer(self, peer_id: ID) -> bool:
        """Close all connections to a peer without waiting for it; False when there are none."""
        found = self.get_connections(peer_id)
        for connection in found:
            connection.muxed_conn.abort()
        return bool(found)


class NoConnector(AutoConnector):  # type: ignore[misc]  # libp2p's classes are untyped here
    """Never dials: libp2p's own fills up to half the connections allowed from whatever addresses it has heard of."""

    async def maybe_connect(self) -> None:
        """Nothing."""


class GuardedHost(BasicHost):  # type: ignore[misc]  # libp2p's classes are untyped here
    """Negotiates and runs stream handlers behind a guard; each stream is over when its handler is."""

    def __init__(self, swarm: GuardedSwarm, on_fault: OnFault) -> None:
        self._on_fault = on_fault
        self._own_addresses: list[Multiaddr] = []
        # Named here, not libp2p's defaults: what strangers push by identify/push would fill the peer store.
        protocols = OrderedDict({PING_ID: handle_ping})
        super().__init__(network=swarm, default_protocols=protocols, disable_identify_address_discovery=True)
        self.set_stream_handler(IDENTIFY_ID, identify_handler_for(self, use_varint_format=True))

    def get_addrs(self) -> list[Multiaddr]:
        """Built once it listens: gossip asks for them with every message, and parsing them is a quarter of its cost."""
        if not self._own_addresses and self.get_transport_addrs():
            self._own_addresses = super().get_addrs()
        return list(self._own_addresses)

    def _schedule_identify(self, peer_id: ID, *, reason: str) -> None:
        """Nothing: protocols are known, and these tasks run where an error ends the process."""

    async def _swarm_stream_handler(self, net_stream: INetStream) -> None:
        peer_id = net_stream.muxed_conn.peer_id

        def on_fault(error: Exception) -> None:
            if not is_ordinary(error):
                self._on_fault(peer_id, error)

        try:
            with Guard("stream", on_fault):
                await super()._swarm_stream_handler(net_stream)
        finally:
            net_stream.muxed_stream.abort()


def build_key_pair(seed: bytes) -> KeyPair:
    """libp2p's form of the ed25519 key of a 32-byte seed."""
    return create_new_key_pair(seed)


def build_host(key_pair: KeyPair, tcp: GuardedTCP, on_fault: OnFault) -> GuardedHost:
    """A host that is not running yet; `on_fault` hears of peers that broke a protocol."""
    check_version()
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)  # it logs tracebacks of every stranger's broken handshake
    peer_id = ID.from_pubkey(key_pair.public_key)
    noise: dict[Any, Any] = {
        NOISE_ID: NoiseTransport(key_pair, noise_privkey=create_new_x25519_key_pair().private_key),
    }
    upgrader = TransportUpgrader(noise, {YAMUX_ID: Yamux}, NEGOTIATE_MAX_S)
    upgrader.muxer_multistream = GuardedMuxers(on_fault)
    peerstore = PeerStore()
    peerstore.add_key_pair(peer_id, key_pair)
    swarm = GuardedSwarm(
        peer_id,
        peerstore,
        upgrader,
        transports=[tcp],
        retry_config=RetryConfig(max_retries=0),
        connection_config=ConnectionConfig(
            max_connections=CONNECTIONS_MAX,
            min_connections=0,
            low_watermark=0,
            high_watermark=CONNECTIONS_MAX,
            max_connections_per_peer=4,  # two in use; trimming is left to `LibP2PTransport`
            inbound_upgrade_timeout=UPGRADE_MAX_S,
            outbound_upgrade_timeout=UPGRADE_MAX_S,
            inbound_stream_protocol_negotiation_timeout=NEGOTIATE_MAX_S,
            outbound_stream_protocol_negotiation_timeout=NEGOTIATE_MAX_S,
        ),
    )
    swarm.auto_connector = NoConnector(swarm)
    return GuardedHost(swarm, on_fault)

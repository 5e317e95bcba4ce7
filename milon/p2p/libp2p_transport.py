"""The transport over libp2p: TCP, Noise, Yamux, gossipsub, and direct streams of our own.

`/milon/consensus/1` carries one-way messages: each side opens one long-lived stream to the other and says hello on it
first; a peer is connected once both hellos are exchanged and name the same chain. `/milon/sync/1`, `/milon/blob/1`,
`/milon/transaction/1` and `/milon/peers/1` carry one request and its answer per stream.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack

import trio
from libp2p.abc import INetConn, INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.io.exceptions import IOException
from libp2p.peer.id import ID
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected, require
from milon.base.signing import SecretKey
from milon.p2p.frames import KIND_HELLO, Hello, decode_hello, verify_one_way, verify_payload
from milon.p2p.identity import compute_peer_id, peer_id_of
from milon.p2p.inbox import Inbox
from milon.p2p.libp2p_link import GREET_MAX_S, Link
from milon.p2p.libp2p_requests import PROTOCOLS, Requests, frames_of
from milon.p2p.peers import PeerBook
from milon.p2p.seam.gossip import GuardedPubsub, build_gossip
from milon.p2p.seam.guard import Guard
from milon.p2p.seam.host import GuardedHost, build_host, build_key_pair
from milon.p2p.seam.notices import Notices
from milon.p2p.seam.tcp import GuardedTCP
from milon.p2p.settings import TransportSettings
from milon.p2p.transport import Channel, PeerCounters, PeerId, Received, Responder, TaskStatus

log = logging.getLogger("milon.p2p")

ONE_WAY = TProtocol("/milon/consensus/1")
CROSSING_S = 3.0  # two dials that cross are no further apart than a slow handshake
OPEN_MAX_S = 5.0  # to agree on a protocol
CLOSE_MAX_S = 2.0  # to leave; what hangs then is dropped


class LibP2PTransport:
    """One node of the real network; satisfies `Transport`."""

    def __init__(self, settings: TransportSettings) -> None:
        self.settings = settings
        self._peer_id = compute_peer_id(SecretKey(settings.seed).account)
        self._book = PeerBook(trio.current_time)
        self._inbox = Inbox(self._book.count_drop)
        self._links: dict[PeerId, Link] = {}
        self._requests = Requests(self._open, self._book, self.report)
        self._addresses: tuple[str, ...] = ()
        self._hello = encode(Hello(settings.chain))
        self._topics = {f"/milon/{settings.chain.hex()[:16]}/{topic}": topic for topic in settings.topics}
        self._nursery: trio.Nursery | None = None
        self._host: GuardedHost | None = None
        self._pubsub: GuardedPubsub | None = None

    @property
    def peer_id(self) -> PeerId:
        """See `Transport.peer_id`."""
        return self._peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """See `Transport.addresses`."""
        return self._addresses

    def peers(self) -> tuple[PeerId, ...]:
        """See `Transport.peers`."""
        return tuple(sorted(peer for peer, link in self._links.items() if link.greeted.is_set()))

    def counters(self) -> Mapping[PeerId, PeerCounters]:
        """See `Transport.counters`."""
        return self._book.snapshot()

    def received(self) -> trio.MemoryReceiveChannel[Received]:
        """See `Transport.received`."""
        return self._inbox.receiver

    def serve(self, channel: Channel, responder: Responder) -> None:
        """See `Transport.serve`."""
        require(channel in PROTOCOLS, Reason.UNSUPPORTED, f"{channel.name} carries no requests")
        self._requests.responders[channel] = responder

    # Running.

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """See `Transport.run`. `Rejected(IN_USE)` when the address cannot be listened on."""
        try:
            await self._run(task_status)
        except BaseExceptionGroup as group:
            refused: BaseException | None = group.subgroup(Rejected)
            while isinstance(refused, BaseExceptionGroup):
                refused = refused.exceptions[0]
            if refused is None:
                raise
            raise refused from None

    async def _run(self, task_status: TaskStatus) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._host = host = build_host(build_key_pair(self.settings.seed), GuardedTCP(nursery), self._on_fault)
            self._pubsub, router = build_gossip(host, self._on_gossip, lambda peer: self.disconnect(_text(peer)))
            host.get_network().register_notifee(Notices(self._on_connected, self._on_disconnected))
            host.set_stream_handler(ONE_WAY, self._read_one_way)
            for channel, protocol in PROTOCOLS.items():
                host.set_stream_handler(protocol, functools.partial(self._answer, channel))
            try:
                async with AsyncExitStack() as services:
                    await services.enter_async_context(background_trio_service(self._pubsub))
                    await services.enter_async_context(background_trio_service(router))
                    await services.enter_async_context(host.run([self._listen_address()]))
                    self._note_addresses(host)
                    for topic in self._topics:
                        await self._pubsub.subscribe(topic)
                    nursery.start_soon(self._inbox.run)
                    log.info("listening on %s", " ".join(self._addresses))
                    task_status.started()
                    await trio.sleep_forever()
            finally:
                await self._close(host)
                nursery.cancel_scope.cancel()

    def _listen_address(self) -> Multiaddr:
        host = self.settings.listen_host
        return Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{self.settings.listen_port}")

    def _note_addresses(self, host: GuardedHost) -> None:
        found = tuple(f"{address}/p2p/{self._peer_id}" for address in host.get_transport_addrs())
        if not found:
            raise Rejected(Reason.IN_USE, f"cannot listen on {self._listen_address()}")
        self._addresses = found

    async def _close(self, host: GuardedHost) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_MAX_S), Guard("close"):
            for peer in list(self._links):
                self.disconnect(peer)
            await host.close()
        if self._pubsub is not None:
            self._pubsub.seen_messages._stop_event.set()  # its sweeping thread

    # Connections.

    async def connect(self, address: str, *, timeout_s: float) -> PeerId:
        """See `Transport.connect`."""
        peer = peer_id_of(address)
        require(peer != self._peer_id, Reason.IN_USE, "the address names this node's own key")
        require(not self._book.is_banned(peer), Reason.NOT_ALLOWED, f"{peer} is banned for a while")
        host = self._host
        if host is None:
            raise Rejected(Reason.NOT_NOW, "the transport does not run")
        with trio.move_on_after(timeout_s):
            link = self._links.get(peer)
            if link is None or not self._live(ID.from_base58(peer)):
                try:
                    target = Multiaddr(address)
                    await host.get_network().dial_addr(target, ID.from_base58(peer))
                except (BaseLibp2pError, MultiaddrError, IOException, OSError, ValueError) as error:
                    raise Rejected(Reason.UNAVAILABLE, f"{peer} does not answer at {address}: {error}") from None
                link = self._links.get(peer)
            if link is not None:
                await link.settled.wait()
                if isinstance(link.refusal, Rejected):
                    raise link.refusal
                if link.greeted.is_set() and peer in self._links:
                    return peer
        raise Rejected(Reason.UNAVAILABLE, f"{peer} does not greet at {address}")

    def disconnect(self, peer: PeerId) -> None:
        """See `Transport.disconnect`."""
        link = self._links.pop(peer, None)
        if link is not None:
            link.end()
        if self._host is not None:
            self._host.get_network().abort_peer(ID.from_base58(peer))

    def report(self, peer: PeerId, reason: Reason) -> None:
        """See `Transport.report`."""
        log.info("peer %s: %s", peer, reason.value)
        if self._book.report(peer, reason):
            log.warning("peer %s: banned for a while", peer)
            self.disconnect(peer)

    def _refuse(self, peer: PeerId, error: Rejected) -> None:
        log.info("peer %s: refused: %s", peer, error)
        link = self._links.get(peer)
        if link is not None:
            link.end(error)
        self.report(peer, error.reason)
        self.disconnect(peer)

    def _on_fault(self, peer_id: ID, error: Exception) -> None:
        """A peer broke a protocol of libp2p or ours."""
        reason = error.reason if isinstance(error, Rejected) else Reason.MALFORMED
        self._refuse(_text(peer_id), Rejected(reason, f"{type(error).__name__}: {error!s:.200}"))

    def _on_connected(self, connection: INetConn) -> None:
        peer = _text(connection.muxed_conn.peer_id)
        host = self._host
        if host is None or self._book.is_banned(peer) or peer == self._peer_id:
            connection.muxed_conn.abort()
            return
        new = connection.muxed_conn
        for other in host.get_network().get_connections(new.peer_id):
            # Who is connected does not dial: one side has lost the older connection, say by a restart, unless both
            # dialled at the same time.
            is_crossing = other.muxed_conn.is_initiator != new.is_initiator
            if other is not connection and not (is_crossing and new.opened_s - other.muxed_conn.opened_s < CROSSING_S):
                other.muxed_conn.abort()
        self._link_of(peer)

    def _link_of(self, peer: PeerId) -> Link | None:
        """The link to a connected peer; a stream may come before the notice of its connection. None when banned."""
        link = self._links.get(peer)
        if link is None and self._nursery is not None and not self._book.is_banned(peer) and peer != self._peer_id:
            link = self._links[peer] = Link(peer)
            self._nursery.start_soon(self._run_link, link)
        return link

    def _on_disconnected(self, connection: INetConn) -> None:
        peer_id = connection.muxed_conn.peer_id
        link = self._links.get(_text(peer_id))
        if link is not None and self._host is not None and not self._live(peer_id):
            del self._links[link.peer]
            link.end()
            if link.greeted.is_set():
                log.info("peer %s: gone", link.peer)

    def _live(self, peer_id: ID) -> bool:
        found = self._host.get_network().get_connections(peer_id) if self._host is not None else []
        return any(not connection.muxed_conn.is_closed for connection in found)

    async def _run_link(self, link: Link) -> None:
        """Send to one peer until it is gone; when its stream breaks and a connection is left, start again on that."""
        peer_id = ID.from_base58(link.peer)
        with link.scope:
            while self._live(peer_id):
                with Guard("link"):
                    await self._send_on_stream(link)
                await trio.sleep(0.05)  # a connection that is about to be found dead must not be asked in a loop
        if self._links.get(link.peer) is link:
            self.disconnect(link.peer)

    async def _send_on_stream(self, link: Link) -> None:
        stream = await self._open(link.peer, ONE_WAY)
        try:
            with trio.move_on_after(GREET_MAX_S) as greeting:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_watch, stream)
                    nursery.start_soon(link.send_all, stream, self._hello, lambda: self._on_greeted(link))
                    await link.greeted.wait()
                    greeting.deadline = float("inf")
            if greeting.cancelled_caught:
                self._refuse(link.peer, Rejected(Reason.UNAVAILABLE, "no hello in time"))
        except* trio.TooSlowError:
            self._refuse(link.peer, Rejected(Reason.UNAVAILABLE, "it does not read"))
        finally:
            stream.muxed_stream.abort()

    def _on_greeted(self, link: Link) -> None:
        log.info("peer %s: connected", link.peer)

    async def _open(self, peer: PeerId, protocol: TProtocol) -> INetStream:
        if self._host is None:
            raise Rejected(Reason.NOT_NOW, "the transport does not run")
        with trio.fail_after(OPEN_MAX_S):
            return await self._host.new_stream(ID.from_base58(peer), [protocol])

    # One-way messages.

    def send(self, peer: PeerId, channel: Channel, payload: bytes) -> bool:
        """See `Transport.send`."""
        verify_one_way(channel, payload)
        link = self._links.get(peer)
        if link is None or not link.greeted.is_set():
            return False
        if not link.put(channel, payload):
            self._book.count_drop(peer)
            return False
        self._book.count_out(peer, len(payload))
        return True

    def broadcast(self, channel: Channel, payload: bytes) -> None:
        """See `Transport.broadcast`."""
        for peer in self.peers():
            self.send(peer, channel, payload)

    async def _read_one_way(self, stream: INetStream) -> None:
        peer = _text(stream.muxed_conn.peer_id)
        link = self._link_of(peer)
        if link is None:
            return
        if link.reader is not None:
            link.reader.cancel()  # a new stream replaces the old one, so that one peer has one reader
        with trio.CancelScope() as link.reader:
            reader = frames_of(stream)
            frame = None
            with trio.move_on_after(GREET_MAX_S):
                frame = await reader.next()
            if frame is None:
                return
            require(frame[0] == KIND_HELLO, Reason.MALFORMED, "the first frame is no hello")
            decode_hello(frame[1], self.settings.chain)
            if link.heard_hello():
                self._on_greeted(link)
            while (frame := await reader.next()) is not None:
                channel = Channel(frame[0])
                verify_one_way(channel, frame[1])
                self._book.count_in(peer, len(frame[1]))
                await self._inbox.put(Received(peer, channel, frame[1]))

    # Gossip.

    async def publish(self, topic: str, payload: bytes) -> None:
        """See `Transport.publish`."""
        verify_payload(Channel.GOSSIP, payload)
        require(topic in self.settings.topics, Reason.UNKNOWN, f"topic {topic:.64} is not in the settings")
        if self._pubsub is None:
            raise Rejected(Reason.NOT_NOW, "the transport does not run")
        await self._pubsub.publish(f"/milon/{self.settings.chain.hex()[:16]}/{topic}", payload)

    def _on_gossip(self, origin: ID, topic: str, payload: bytes) -> None:
        name = self._topics.get(topic)
        if name is not None:
            peer = _text(origin)
            self._book.count_in(peer, len(payload))
            self._inbox.put_gossip(Received(peer, Channel.GOSSIP, payload, name))

    # Requests.

    async def request(self, peer: PeerId, channel: Channel, payload: bytes, *, timeout_s: float) -> bytes:
        """See `Transport.request`."""
        return await self._requests.request(self._links.get(peer), channel, payload, timeout_s)

    async def _answer(self, channel: Channel, stream: INetStream) -> None:
        link = self._link_of(_text(stream.muxed_conn.peer_id))
        if link is not None:
            await self._requests.answer(link, channel, stream)


async def _watch(stream: INetStream) -> None:
    """Raise when the peer closes or resets our one-way stream, on which it never sends."""
    await stream.read(1)
    raise Rejected(Reason.MALFORMED, "bytes against the direction of a one-way stream")


def _text(peer_id: ID) -> PeerId:
    return PeerId(peer_id.to_base58())


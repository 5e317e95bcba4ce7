"""Finding peers and keeping them: from one bootstrap address to a mesh, and back into it after every restart.

Every node signs where it can be reached. It tells that by gossip and with each question to a peer whom that one
knows; what it hears it checks and dials, with its own waits between attempts: libp2p gives a bootstrap peer up for
good after three failures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.signing import SecretKey
from milon.base.units import TimeMs
from milon.p2p.allowance import Allowance
from milon.p2p.announcements import AddressBook, Announcement, Peers, PeersRequest, announce, decode_announcement
from milon.p2p.identity import compute_peer_id, is_loopback, peer_id_of
from milon.p2p.settings import TransportSettings
from milon.p2p.transport import PAYLOAD_MAX_BYTES, Channel, PeerId, Received, Transport

log = logging.getLogger("milon.p2p")

PEERS_TOPIC = "peers"  # the gossip topic of announcements; the transport's settings must name it
DEGREE = 12  # peers to be connected to by own effort: a full mesh of 13 nodes
TICK_S = 0.2  # how often it looks around: cheap, and a lost peer is dialled within this
DIALS_MAX = 8  # at once
DIAL_MAX_S = 5.0  # one attempt
WAIT_FIRST_S = 0.25  # after a failed attempt; doubles
WAIT_NEAR_MAX_S = 1.5  # for bootstrap addresses and peers seen lately: back within 2 s of a restart
WAIT_FAR_MAX_S = 60.0  # for everybody else
GIVEN_UP = 5  # failures in a row after which a peer is no reason to ask around quickly
NEAR_S = 600.0  # what "lately" means
YIELD_S = 1.0  # the larger peer id lets the smaller one dial first, so that two do not dial each other at once
ASK_SOON_S = 1.0  # between questions while the mesh still grows
ASK_LATER_S = 15.0  # and when it does not
ASK_MAX_S = 5.0  # to wait for an answer
TELL_S = 30.0  # between gossiped announcements
ANSWERS_PER_S, ANSWERS_MAX = 1.0, 30.0  # to one peer: a growing node asks about once a second, an answer is 49 records
NEWCOMER_S = 120.0  # of two nodes with one key the one that runs for less stops; the other has spoken twice by then
TWIN_PERSISTS_S = 90.0  # the elder waits for that so long: three words of the other one


@contextmanager
def suppressed(reason: Reason) -> Iterator[None]:
    """Let a refusal for `reason` pass unnoticed."""
    try:
        yield
    except Rejected as error:
        if error.reason is not reason:
            raise


@dataclass(slots=True)
class _Target:
    """One peer to be dialled."""

    addresses: tuple[str, ...]  # tried in turn
    is_bootstrap: bool  # named by the operator: never given up
    next_s: float  # not before this time on trio's clock
    failures: int = 0  # in a row
    seen_s: float = -NEAR_S  # when it was last connected
    is_dialling: bool = False


class Discovery:
    """Keeps one transport connected; make it before the transport runs, `run` it beside it."""

    def __init__(
        self,
        transport: Transport,
        settings: TransportSettings,
        *,
        bootstrap: Sequence[str],
        now_ms: Callable[[], int],
        jitter: Callable[[], float],
        advertised: Sequence[str] = (),
        on_twin: Callable[[Rejected], None] | None = None,
        is_visitor: bool = False,
    ) -> None:
        """`jitter` gives numbers in [0, 1); `advertised` replaces the listening addresses in announcements.

        A visitor announces nothing: it is gone before anybody could dial it.

        `on_twin` hears `Rejected(IN_USE)`, once, when another running node announces itself with this node's host key
        and this one should stop: it is the newcomer, or the other one goes on.
        `Rejected(MALFORMED)` for a bootstrap address without a peer id.
        """
        self._transport = transport
        self._key = SecretKey(settings.seed)
        self._chain = settings.chain
        self._peer_id = compute_peer_id(self._key.account)
        self._now_ms, self._jitter = now_ms, jitter
        self._advertised = tuple(advertised)
        self._on_twin = on_twin
        self._is_visitor = is_visitor
        near = [is_loopback(address) for address in bootstrap]
        listens_near = is_loopback(settings.listen_host) and settings.listen_host not in ("0.0.0.0", "::")
        self._may_dial_loopback = listens_near and (not near or any(near))
        self._book = AddressBook(settings.chain)
        self._allowance = Allowance(ANSWERS_PER_S, ANSWERS_MAX, trio.current_time)
        self._targets: dict[PeerId, _Target] = {}
        self._started_ms = now_ms()
        self._twin_ms: int | None = None  # the first word of a second node with this key
        self._has_told_twin = False
        self._ask_s = self._tell_s = float("-inf")
        self._connected: frozenset[PeerId] = frozenset()
        for address in bootstrap:
            peer = peer_id_of(address)
            if peer != self._peer_id:
                earlier = self._targets.get(peer)
                addresses = (earlier.addresses if earlier else ()) + (address,)
                self._targets[peer] = _Target(addresses, is_bootstrap=True, next_s=float("-inf"))
        transport.serve(Channel.PEERS, self._respond)

    def known_addresses(self) -> tuple[str, ...]:
        """Addresses of all peers heard of, to be tried first after a restart."""
        announcements = (self._book.get(peer) for peer in self._book.peers())
        return tuple(address for entry in announcements if entry is not None for address in entry.addresses)

    def address_of(self, peer: PeerId) -> str:
        """Where a peer says it can be reached, the first of its addresses; empty before it has said so."""
        announcement = self._book.get(peer)
        return announcement.addresses[0] if announcement is not None and announcement.addresses else ""

    def hear(self, message: Received) -> None:
        """Take a gossiped announcement: a message with topic `PEERS_TOPIC`."""
        try:
            announcement = decode_announcement(message.payload)
            require(compute_peer_id(announcement.public_key) == message.peer, Reason.NOT_ALLOWED, "of somebody else")
            self._learn(announcement)
        except Rejected as error:
            self._transport.report(message.peer, error.reason)

    async def run(self) -> None:
        """Dial, ask and tell until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                now_s = trio.current_time()
                peers = frozenset(self._transport.peers())
                fresh = peers - self._connected
                self._connected = peers
                for peer in sorted(fresh):
                    nursery.start_soon(self._ask, peer)
                self._note_connected(peers, now_s)
                self._dial_some(nursery, peers, now_s)
                if fresh:
                    self._tell_s = min(self._tell_s, now_s - TELL_S + ASK_SOON_S)
                is_growing = len(peers) < DEGREE and any(
                    peer not in peers and target.failures < GIVEN_UP for peer, target in self._targets.items()
                )
                if peers and now_s >= self._ask_s + (ASK_SOON_S if is_growing else ASK_LATER_S):
                    self._ask_s = now_s
                    nursery.start_soon(self._ask, sorted(peers)[int(self._jitter() * len(peers))])
                if peers and now_s >= self._tell_s + TELL_S:
                    self._tell_s = now_s
                    nursery.start_soon(self._tell)
                await trio.sleep(TICK_S * (1 + self._jitter()) / 1.5)

    # Dialling.

    def _note_connected(self, peers: frozenset[PeerId], now_s: float) -> None:
        for peer in peers:
            target = self._targets.get(peer)
            if target is not None:
                target.failures, target.seen_s, target.next_s = 0, now_s, now_s

    def _dial_some(self, nursery: trio.Nursery, peers: frozenset[PeerId], now_s: float) -> None:
        dialling = sum(target.is_dialling for target in self._targets.values())
        for peer, target in list(self._targets.items()):
            if peer in peers or target.is_dialling or now_s < target.next_s:
                continue
            if dialling >= DIALS_MAX or (len(peers) + dialling >= DEGREE and not target.is_bootstrap):
                break
            dialling += 1
            target.is_dialling = True
            nursery.start_soon(self._dial, peer, target)

    async def _dial(self, peer: PeerId, target: _Target) -> None:
        address = target.addresses[target.failures % len(target.addresses)]
        try:
            await self._transport.connect(address, timeout_s=DIAL_MAX_S)
        except Rejected as error:
            now_s = trio.current_time()
            is_near = target.is_bootstrap or now_s - target.seen_s < NEAR_S
            is_refused = error.reason in (Reason.WRONG_CHAIN, Reason.NOT_ALLOWED)
            longest = WAIT_NEAR_MAX_S if is_near and not is_refused else WAIT_FAR_MAX_S
            wait = WAIT_FAR_MAX_S if is_refused else min(WAIT_FIRST_S * 2.0 ** min(target.failures, 16), longest)
            target.failures += 1
            target.next_s = now_s + wait * (0.75 + 0.25 * self._jitter())
            if target.failures in (1, 10):
                log.info("peer %s: not connected: %s", peer, error)
        finally:
            target.is_dialling = False

    # Announcements.

    def _own(self) -> Announcement | None:
        if self._is_visitor:
            return None
        addresses = self._advertised or self._transport.addresses
        reachable = tuple(a for a in addresses if not a.startswith(("/ip4/0.0.0.0/", "/ip6/::/")))
        return announce(self._key, self._chain, reachable, TimeMs(self._now_ms())) if reachable else None

    def _learn(self, announcement: Announcement) -> None:
        if announcement.public_key == self._key.account:
            self._look_for_twin(announcement)
            return
        peer = self._book.add(announcement, self._now_ms())
        # Addresses are strangers' words: they must not make this node knock at this machine's own services.
        addresses = tuple(a for a in announcement.addresses if self._may_dial_loopback or not is_loopback(a))
        if peer is None or not addresses:
            return
        target = self._targets.get(peer)
        if target is not None:
            known = target.addresses if target.is_bootstrap else ()
            target.addresses = (*addresses, *(a for a in known if a not in addresses))
            target.next_s = min(target.next_s, trio.current_time() + WAIT_FIRST_S)
            return
        wait = 0.0 if self._peer_id < peer else YIELD_S
        self._targets[peer] = _Target(addresses, False, trio.current_time() + wait)
        known_peers = set(self._book.peers()) | set(self._connected)
        for forgotten in [p for p, t in self._targets.items() if not t.is_bootstrap and p not in known_peers]:
            if not self._targets[forgotten].is_dialling:
                del self._targets[forgotten]

    def _look_for_twin(self, announcement: Announcement) -> None:
        """Our key, but neither our addresses nor an earlier run of ours: two nodes cannot be one peer."""
        own = self._advertised or self._transport.addresses
        is_ours = any(address in own for address in announcement.addresses) or not announcement.addresses
        if is_ours or announcement.time_ms <= self._started_ms or self._has_told_twin:
            return
        try:
            AddressBook(self._chain).add(announcement, self._now_ms())
        except Rejected:
            return  # anybody can write our key into a statement; only the key can sign it
        if self._twin_ms is None:
            self._twin_ms = int(announcement.time_ms)
        is_newcomer = self._now_ms() - self._started_ms < 1_000 * NEWCOMER_S
        does_persist = announcement.time_ms >= self._twin_ms + 1_000 * TWIN_PERSISTS_S
        error = Rejected(Reason.IN_USE, f"another node runs with this host key at {announcement.addresses[0]}")
        log.error("%s", error)
        if self._on_twin is not None and (is_newcomer or does_persist):
            self._has_told_twin = True
            self._on_twin(error)

    async def _respond(self, peer: PeerId, payload: bytes) -> bytes:
        require(self._allowance.take(peer, 1.0), Reason.FULL, "too many questions")
        request: PeersRequest = decode(PeersRequest, payload, PAYLOAD_MAX_BYTES[Channel.PEERS])
        own = self._own()
        others = self._book.latest()
        if request.own is not None:
            is_askers = compute_peer_id(request.own.public_key) == peer
            require(is_askers, Reason.NOT_ALLOWED, "an announcement of somebody else")
            self._learn(request.own)
        await trio.lowlevel.checkpoint()
        return encode(Peers((*((own,) if own else ()), *others)))

    async def _ask(self, peer: PeerId) -> None:
        try:
            question = encode(PeersRequest(self._own()))
            answer = await self._transport.request(peer, Channel.PEERS, question, timeout_s=ASK_MAX_S)
        except Rejected as error:
            log.debug("peer %s: tells no peers: %s", peer, error)
            return
        try:
            for announcement in decode(Peers, answer, PAYLOAD_MAX_BYTES[Channel.PEERS]).announcements:
                with suppressed(Reason.STALE):  # what was fresh where it comes from may be old here
                    self._learn(announcement)
        except Rejected as error:
            self._transport.report(peer, error.reason)

    async def _tell(self) -> None:
        own = self._own()
        try:
            if own is not None:
                await self._transport.publish(PEERS_TOPIC, encode(own))
        except Rejected as error:
            log.debug("announcement not published: %s", error)

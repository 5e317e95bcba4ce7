"""Where peers can be reached: statements signed by their host keys, so that nobody speaks for another."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.codec import decode, encode, wire
from milon.base.errors import Reason, require
from milon.base.ids import AccountId, Signature
from milon.base.signing import SecretKey, sign, verify
from milon.base.units import TimeMs
from milon.p2p.identity import compute_peer_id, peer_id_of
from milon.p2p.transport import PeerId

DOMAIN = "peer-announcement"
ADDRESSES_MAX = 4  # IPv4 and IPv6, inside and outside a router
ADDRESS_MAX = 160  # characters: an IPv6 address, a port and a peer id take 120
ANNOUNCEMENT_MAX_BYTES = 1024  # four addresses, a key and a signature
KNOWN_MAX = 256  # announcements remembered: far more than the peers one connects to
SENT_MAX = 48  # announcements in one answer: with overhead they fit the channel's 64 KiB
AGE_MAX_MS = 24 * 3600 * 1000  # who said nothing for a day has gone or moved
AHEAD_MAX_MS = 10 * 60 * 1000  # clocks are allowed to differ by this much


@wire("peer-announcement/1")
@dataclass(frozen=True, slots=True)
class Announcement:
    """One peer's word on its addresses."""

    public_key: AccountId  # its host key
    addresses: tuple[str, ...]  # full multiaddresses that end in its peer id
    time_ms: TimeMs  # when it said so; a later word replaces an earlier one
    signature: Signature  # by the host key over the rest


@wire("peers-request/1")
@dataclass(frozen=True, slots=True)
class PeersRequest:
    """Whom do you know? And here is who asks."""

    own: Announcement | None  # the asker's word on itself, None when it cannot be reached


@wire("peers/1")
@dataclass(frozen=True, slots=True)
class Peers:
    """Whom I know."""

    announcements: tuple[Announcement, ...]  # at most `SENT_MAX`, the answerer's own among them


def _signed_part(public_key: AccountId, addresses: tuple[str, ...], time_ms: TimeMs) -> bytes:
    return encode(Announcement(public_key, addresses, time_ms, Signature(bytes(64))))


def announce(key: SecretKey, chain: bytes, addresses: tuple[str, ...], time_ms: TimeMs) -> Announcement:
    """A signed announcement of `addresses`."""
    signature = sign(key, DOMAIN, chain.hex(), _signed_part(key.account, addresses, time_ms))
    return Announcement(key.account, addresses, time_ms, signature)


def verify_announcement(announcement: Announcement, chain: bytes, now_ms: int) -> PeerId:
    """The peer that `announcement` is of; `Rejected` unless it is signed by it, well-formed and not outdated."""
    require(len(announcement.addresses) <= ADDRESSES_MAX, Reason.TOO_LARGE, "too many addresses")
    peer = compute_peer_id(announcement.public_key)
    for address in announcement.addresses:
        require(len(address) <= ADDRESS_MAX, Reason.TOO_LARGE, f"an address of {len(address)} characters")
        require(address.startswith(("/ip4/", "/ip6/", "/memory/")), Reason.MALFORMED, f"{address:.64} is no address")
        require(peer_id_of(address) == peer, Reason.MALFORMED, f"{address:.160} is another peer's")
    age_ms = now_ms - announcement.time_ms
    require(-AHEAD_MAX_MS <= age_ms <= AGE_MAX_MS, Reason.STALE, f"an announcement {age_ms} ms old")
    signed = _signed_part(announcement.public_key, announcement.addresses, announcement.time_ms)
    verify(announcement.public_key, DOMAIN, chain.hex(), signed, announcement.signature)
    return peer


def decode_announcement(raw: bytes) -> Announcement:
    """One announcement, unverified."""
    return decode(Announcement, raw, ANNOUNCEMENT_MAX_BYTES)


class AddressBook:
    """The latest announcement of each peer, bounded; the oldest word goes first."""

    def __init__(self, chain: bytes) -> None:
        self._chain = chain
        self._known: dict[PeerId, Announcement] = {}

    def add(self, announcement: Announcement, now_ms: int) -> PeerId | None:
        """Verify and keep it; its peer when that is news, None when as much was known. Raises `Rejected`."""
        known = self._known.get(compute_peer_id(announcement.public_key))
        if known is not None and known.time_ms >= announcement.time_ms:
            return None
        peer = verify_announcement(announcement, self._chain, now_ms)
        self._known[peer] = announcement
        if len(self._known) > KNOWN_MAX:
            del self._known[min(self._known, key=lambda other: self._known[other].time_ms)]
        return peer if known is None or known.addresses != announcement.addresses else None

    def get(self, peer: PeerId) -> Announcement | None:
        """The latest word of `peer`."""
        return self._known.get(peer)

    def peers(self) -> tuple[PeerId, ...]:
        """All peers with a word, in a fixed order."""
        return tuple(sorted(self._known))

    def latest(self) -> tuple[Announcement, ...]:
        """The latest words of all, at most `SENT_MAX`, newest first."""
        newest = sorted(self._known.values(), key=lambda entry: (-entry.time_ms, entry.public_key))
        return tuple(newest[:SENT_MAX])


"""Who a peer is: its peer id is a function of its ed25519 host key, as libp2p defines it."""

from __future__ import annotations

import ipaddress

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId
from milon.p2p.transport import PeerId

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"  # base58, Bitcoin's order
# libp2p's peer-ids specification: the identity multihash (code 0, 36 bytes) of a protobuf message that holds the key's
# type, Ed25519, and the key.
_PREFIX = bytes((0x00, 0x24, 0x08, 0x01, 0x12, 0x20))
_TEXT_MAX = 64  # an ed25519 peer id has 52 characters


def compute_peer_id(public_key: bytes) -> PeerId:
    """The peer id of an ed25519 public key of 32 bytes (libp2p specification, peer-ids, "Peer IDs")."""
    number = int.from_bytes(_PREFIX + public_key, "big")
    digits: list[str] = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_ALPHABET[digit])
    return PeerId("1" + "".join(reversed(digits)))  # the prefix opens with one zero byte


def parse_peer_id(text: str) -> AccountId:
    """The ed25519 public key inside a peer id; `Rejected(MALFORMED)` for text that is no ed25519 peer id."""
    require(len(text) <= _TEXT_MAX, Reason.MALFORMED, f"a peer id of {len(text)} characters")
    number = 0
    for character in text:
        digit = _ALPHABET.find(character)
        require(digit >= 0, Reason.MALFORMED, f"{character!r} in a peer id")
        number = number * 58 + digit
    size = len(_PREFIX) + 32
    require(number.bit_length() <= 8 * size, Reason.MALFORMED, "the peer id is too long")
    raw = number.to_bytes(size, "big")
    key = AccountId(raw[len(_PREFIX) :])
    if not raw.startswith(_PREFIX) or compute_peer_id(key) != text:
        raise Rejected(Reason.MALFORMED, f"{text:.64} is not the peer id of an ed25519 key")
    return key


def peer_id_of(address: str) -> PeerId:
    """The peer id at the end of a full multiaddress; `Rejected(MALFORMED)` when there is none."""
    parts = address.rsplit("/p2p/", 1)
    require(len(parts) == 2, Reason.MALFORMED, f"{address:.128} does not end in /p2p/ and a peer id")
    return compute_peer_id(parse_peer_id(parts[1]))


def is_loopback(address: str) -> bool:
    """Whether an IP address, or the one in a multiaddress, means the machine that dials it: loopback or unspecified."""
    host = address.split("/")[2] if address.startswith(("/ip4/", "/ip6/")) else address
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback or (mapped or found).is_unspecified

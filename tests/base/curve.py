"""Odd keys and signatures, made from known scalars, for the tables of what is accepted."""

from __future__ import annotations

import hashlib

import nacl.bindings

ORDER = (1 << 252) + 27742317777372353535851937790883648493
PRIME = (1 << 255) - 19

IDENTITY = (1).to_bytes(32, "little")
ORDER_2 = (PRIME - 1).to_bytes(32, "little")
ORDER_4 = bytes(32)
ORDER_4_NEGATIVE = bytes(31) + b"\x80"
ORDER_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
ORDER_8_NEGATIVE = ORDER_8[:31] + bytes((ORDER_8[31] | 0x80,))
ORDER_8_OTHER = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
ORDER_8_OTHER_NEGATIVE = ORDER_8_OTHER[:31] + bytes((ORDER_8_OTHER[31] | 0x80,))
SMALL_ORDER = (
    IDENTITY,
    ORDER_2,
    ORDER_4,
    ORDER_4_NEGATIVE,
    ORDER_8,
    ORDER_8_NEGATIVE,
    ORDER_8_OTHER,
    ORDER_8_OTHER_NEGATIVE,
)
IDENTITY_NOT_CANONICAL = (PRIME + 1).to_bytes(32, "little")
IDENTITY_NEGATIVE = IDENTITY[:31] + b"\x80"
ORDER_4_NOT_CANONICAL = PRIME.to_bytes(32, "little")
ODD_ENCODINGS = (IDENTITY_NOT_CANONICAL, IDENTITY_NEGATIVE, ORDER_4_NOT_CANONICAL, b"\xff" * 32)
NOT_ON_THE_CURVE = (2).to_bytes(32, "little")

SECRET = 123456789 << 200
POINT = nacl.bindings.crypto_scalarmult_ed25519_base_noclamp(SECRET.to_bytes(32, "little"))


def add(left: bytes, right: bytes) -> bytes:
    """The sum of two points."""
    return bytes(nacl.bindings.crypto_core_ed25519_add(left, right))


def times_base(scalar: int) -> bytes:
    """`scalar` times the base point; the identity for zero."""
    if scalar % ORDER == 0:
        return IDENTITY
    return bytes(nacl.bindings.crypto_scalarmult_ed25519_base_noclamp((scalar % ORDER).to_bytes(32, "little")))


def challenge(commitment: bytes, key: bytes, message: bytes) -> int:
    """The h of an ed25519 signature, RFC 8032 section 5.1.6."""
    return int.from_bytes(hashlib.sha512(commitment + key + message).digest(), "little") % ORDER


def signature_with(key: bytes, secret: int, nonce: int, message: bytes, torsion: bytes = IDENTITY) -> bytes:
    """A signature with a chosen nonce, its commitment moved by `torsion`."""
    commitment = add(times_base(nonce), torsion)
    scalar = (nonce + challenge(commitment, key, message) * secret) % ORDER
    return commitment + scalar.to_bytes(32, "little")

"""SHA-256 with a domain in front, so that bytes hashed for one purpose never stand for another."""

from __future__ import annotations

import hashlib

from milon.base.ids import Digest


def sha256(raw: bytes | memoryview) -> Digest:
    """Plain SHA-256 of `raw`, 32 bytes (FIPS 180-4): only where an outside format prescribes it."""
    return Digest(hashlib.sha256(raw).digest())


def digest(domain: str, *parts: bytes) -> Digest:
    """SHA-256 over `"milon/v1/" + domain + 0x00`, then each part behind its length (8 bytes, big-endian)."""
    state = hashlib.sha256(b"milon/v1/" + domain.encode() + b"\x00")
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return Digest(state.digest())

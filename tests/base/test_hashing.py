"""Hashes: frozen values, and that neither domains nor parts can run into each other."""

from __future__ import annotations

import hashlib
from itertools import combinations

from milon.base.hashing import digest, sha256


def test_sha256_is_sha256() -> None:
    assert sha256(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(memoryview(b"abc")) == sha256(b"abc")


def test_digest_hashes_what_is_documented() -> None:
    message = b"milon/v1/block\x00" + (3).to_bytes(8, "big") + b"one" + (0).to_bytes(8, "big")
    assert digest("block", b"one", b"") == hashlib.sha256(message).digest()
    assert digest("block").hex() == "e62f2f1a3592c233cd06e6033ed46560624f21699c7bbba7769184d93a525965"


def test_no_two_inputs_meet() -> None:
    inputs: list[tuple[str, tuple[bytes, ...]]] = [
        ("a", ()), ("a", (b"",)), ("a", (b"", b"")), ("ab", ()), ("a", (b"b",)), ("a", (b"bc", b"d")),
        ("a", (b"b", b"cd")), ("a", (b"bcd",)), ("a", (b"\x00",)), ("a", (bytes(8),)), ("a", (bytes(8), b"")),
    ]  # fmt: skip
    for (left, left_parts), (right, right_parts) in combinations(inputs, 2):
        assert digest(left, *left_parts) != digest(right, *right_parts)

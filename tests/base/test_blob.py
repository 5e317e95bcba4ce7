"""Manifests of blobs: chunks cut at their size, an id that commits to all of it, and manifests that lie."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milon.base.blob import BLOB_MAX_BYTES, CHUNK_BYTES, Manifest, compute_blob_id, compute_manifest, verify_manifest
from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.hashing import sha256
from milon.base.ids import NO_DIGEST, Digest


def refused(blob_id: Digest, manifest: Manifest) -> Reason:
    with pytest.raises(Rejected) as caught:
        verify_manifest(blob_id, manifest)
    return caught.value.reason


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_chunks(size: int) -> None:
    raw = bytes(range(256)) * (size // 256 + 1)
    raw = raw[:size]
    manifest = compute_manifest(raw)
    assert manifest.size_bytes == size
    pieces = [raw[start : start + CHUNK_BYTES] for start in range(0, size, CHUNK_BYTES)]
    assert manifest.chunks == tuple(sha256(piece) for piece in pieces)
    assert compute_manifest(memoryview(raw)) == manifest
    verify_manifest(compute_blob_id(manifest), manifest)
    assert decode(Manifest, encode(manifest)) == manifest


def test_another_manifest_is_refused() -> None:
    manifest = compute_manifest(bytes(CHUNK_BYTES + 1))
    blob_id = compute_blob_id(manifest)
    for other in (
        replace(manifest, size_bytes=manifest.size_bytes - 1),
        replace(manifest, chunks=manifest.chunks[::-1]),
        replace(manifest, chunks=manifest.chunks[:1]),
    ):
        assert refused(blob_id, other) is Reason.DIFFERS


def test_manifests_that_lie_about_themselves_are_refused() -> None:
    for size, chunks, reason in (
        (CHUNK_BYTES + 1, 1, Reason.MALFORMED),
        (CHUNK_BYTES, 2, Reason.MALFORMED),
        (0, 1, Reason.MALFORMED),
        (1, 0, Reason.MALFORMED),
        (-1, 0, Reason.TOO_LARGE),
        (BLOB_MAX_BYTES + 1, 1, Reason.TOO_LARGE),
    ):
        manifest = Manifest(size, (NO_DIGEST,) * chunks)
        assert refused(compute_blob_id(manifest), manifest) is reason


def test_frozen_id() -> None:
    assert compute_blob_id(compute_manifest(b"hello")).hex() == FROZEN_ID


FROZEN_ID = "75d07c046467b80c9342c0c84b2c22ddd585f5eee0c7b51760c68b7c1940b4dc"

"""Names of large things: a blob is cut into chunks, and its id commits to their digests and its size."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.codec import encode, wire
from milon.base.errors import Reason, Rejected
from milon.base.hashing import digest, sha256
from milon.base.ids import Digest

CHUNK_BYTES = 1 << 20  # one request's answer: a tenth of a second on a slow line
BLOB_MAX_BYTES = 64 << 30  # 65,536 chunks: the manifest stays a single value of 2.2 MiB


@wire("manifest/1")
@dataclass(frozen=True, slots=True)
class Manifest:
    """What a blob consists of."""

    size_bytes: int  # of the whole blob
    chunks: tuple[Digest, ...]  # SHA-256 of each chunk of `CHUNK_BYTES`, the last one shorter


def compute_manifest(raw: bytes | memoryview) -> Manifest:
    """The manifest of `raw`."""
    view = memoryview(raw)
    chunks = tuple(sha256(view[start : start + CHUNK_BYTES]) for start in range(0, len(view), CHUNK_BYTES))
    return Manifest(len(view), chunks)


def compute_blob_id(manifest: Manifest) -> Digest:
    """The digest by which a blob is named on the chain and asked for on the network."""
    return digest("blob", encode(manifest))


def verify_manifest(blob_id: Digest, manifest: Manifest) -> None:
    """Raise `Rejected` unless `manifest` is the one `blob_id` names and its size fits its chunks."""
    if compute_blob_id(manifest) != blob_id:
        raise Rejected(Reason.DIFFERS, "the manifest is not the one that was asked for")
    if not 0 <= manifest.size_bytes <= BLOB_MAX_BYTES:
        raise Rejected(Reason.TOO_LARGE, f"a blob of {manifest.size_bytes} bytes; {BLOB_MAX_BYTES} are allowed")
    if len(manifest.chunks) != -(-manifest.size_bytes // CHUNK_BYTES):
        raise Rejected(Reason.MALFORMED, "the manifest's size does not fit its number of chunks")

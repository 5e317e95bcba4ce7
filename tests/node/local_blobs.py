"""A node's blobs where there is no network."""

from __future__ import annotations

from pathlib import Path

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.p2p.blob_store import BlobStore


class LocalBlobs:
    """A store without a network behind it."""

    def __init__(self, folder: Path) -> None:
        self.store = BlobStore(folder)

    async def ensure(self, blob: Digest, size_max_bytes: int, timeout_s: float) -> Path:
        path = self.store.path(blob)
        if path is None:
            raise Rejected(Reason.UNAVAILABLE, "not here")
        require(path.stat().st_size <= size_max_bytes, Reason.TOO_LARGE, "larger")
        return path

    async def put_bytes(self, raw: bytes) -> Digest:
        return self.store.put_bytes(raw)

    async def put_file(self, path: Path) -> Digest:
        return self.store.put_file(path)

"""Blobs as the node's other parts use them: here already, or fetched from whoever has them."""

from __future__ import annotations

from pathlib import Path

import trio

from milon.base.errors import Reason, require
from milon.base.ids import Digest
from milon.node.checkpoints import Checkpoints
from milon.p2p.blob_store import BlobStore
from milon.p2p.blobs import BeingMade, BlobClient
from milon.p2p.transport import Transport


class BlobRoom:
    """The store on this disk with the network behind it."""

    def __init__(
        self, store: BlobStore, client: BlobClient, transport: Transport, checkpoints: Checkpoints | None = None
    ) -> None:
        """`client` fetches into `store`; `checkpoints` makes states of own claims that are not kept."""
        self._store = store
        self._checkpoints = checkpoints
        self._client = client
        self._transport = transport

    async def ensure(self, blob: Digest, size_max_bytes: int, timeout_s: float) -> Path:
        """Where the blob lies. Raises `Rejected`: UNAVAILABLE when nobody gave it in time, TOO_LARGE, FULL."""
        path = await trio.to_thread.run_sync(self._store.path, blob)
        if path is None and self._checkpoints is not None and self._checkpoints.knows(blob):
            path = await self._make(self._checkpoints, blob, timeout_s)
        elif path is None:
            peers = self._transport.peers()
            path = await self._client.fetch(blob, peers, size_max_bytes=size_max_bytes, deadline_s=timeout_s)
        size = (await trio.Path(path).stat()).st_size
        require(size <= size_max_bytes, Reason.TOO_LARGE, f"blob {blob.hex()[:8]} has {size} bytes")
        return path

    async def _make(self, checkpoints: Checkpoints, blob: Digest, timeout_s: float) -> Path:
        with trio.move_on_after(timeout_s):
            return await checkpoints.obtain(blob)
        raise BeingMade(Reason.UNAVAILABLE, f"state {blob.hex()[:16]} is being computed again")

    async def put_bytes(self, raw: bytes) -> Digest:
        """Keep bytes as a blob."""
        return await trio.to_thread.run_sync(self._store.put_bytes, raw)

    async def put_file(self, path: Path) -> Digest:
        """Keep a file as a blob, moving it."""
        return await trio.to_thread.run_sync(self._store.put_file, path, True)

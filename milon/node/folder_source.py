"""A node's folder as the only peer: what is checked there is checked as if a stranger had sent it.

Headers, certificates, reports and jobs are answered from the stored chain, and blobs are read where the node keeps
them. Nothing is written into the folder, and the node may be running.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from milon.base.blob import compute_blob_id, compute_manifest
from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.chain.genesis import Genesis, compute_genesis_hash
from milon.node.answers import find_block, find_job
from milon.node.folder import NodeFolder
from milon.node.proofs import prove_header, prove_newest
from milon.node.questions import (
    QUESTION_MAX_BYTES,
    AskBlock,
    AskGenesis,
    AskHeader,
    AskHeight,
    AskJob,
    Question,
)
from milon.node.shelf import Shelf
from milon.node.testnet_files import load_genesis
from milon.p2p.blob_store import BlobStore
from milon.p2p.transport import Channel, PeerCounters, PeerId, Received, Responder, TaskStatus
from milon.state.lmdb_store import LmdbVisit

FOLDER = PeerId("this folder")


class FolderPeer:
    """A transport whose one peer is the store in a folder; it answers what a verifier asks and carries nothing else."""

    def __init__(self, genesis: Genesis, visit: LmdbVisit, shelf: Shelf) -> None:
        """`visit` stays open as long as this is used; `shelf` has validator sets that the ledger forgot."""
        self._genesis = genesis
        self._visit = visit
        self._shelf = shelf
        self.faults: list[Reason] = []  # what answers from the folder were refused for

    @property
    def peer_id(self) -> PeerId:
        """See `Transport`."""
        return PeerId("verifier")

    @property
    def addresses(self) -> tuple[str, ...]:
        """None."""
        return ()

    def peers(self) -> tuple[PeerId, ...]:
        """The folder."""
        return (FOLDER,)

    def counters(self) -> Mapping[PeerId, PeerCounters]:
        """Nothing is counted."""
        return {}

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """There is nothing to run."""
        task_status.started()

    def received(self) -> trio.MemoryReceiveChannel[Received]:
        """A folder says nothing unasked."""
        return trio.open_memory_channel[Received](0)[1]

    async def connect(self, address: str, *, timeout_s: float) -> PeerId:
        """Nobody is to be reached from here."""
        raise Rejected(Reason.UNAVAILABLE, f"{address} is not asked: only the folder is")

    def disconnect(self, peer: PeerId) -> None:
        """The folder stays."""

    def send(self, peer: PeerId, channel: Channel, payload: bytes) -> bool:
        """Nobody listens."""
        return False

    def broadcast(self, channel: Channel, payload: bytes) -> None:
        """Nobody listens."""

    async def publish(self, topic: str, payload: bytes) -> None:
        """Nobody listens."""

    async def request(self, peer: PeerId, channel: Channel, payload: bytes, *, timeout_s: float) -> bytes:
        """The answer from the store; `Rejected(UNAVAILABLE)` for a channel other than that of questions."""
        require(channel is Channel.SYNC, Reason.UNAVAILABLE, "a folder answers questions alone")
        return await trio.to_thread.run_sync(self._answer, payload)

    def serve(self, channel: Channel, responder: Responder) -> None:
        """Nobody asks."""

    def report(self, peer: PeerId, reason: Reason) -> None:
        """Note that the folder answered badly."""
        self.faults.append(reason)

    def _answer(self, raw: bytes) -> bytes:
        question: Any = decode(Question, raw, QUESTION_MAX_BYTES)
        match question:
            case AskGenesis():
                return encode(self._genesis)
            case AskHeader():
                if question.height == 0:
                    return encode(prove_newest(self._genesis, self._visit))
                return encode(prove_header(self._genesis, self._visit, question.height, self._shelf.validators))
            case AskBlock():
                return encode(find_block(self._visit, self._visit.block_by_hash(question.block)))
            case AskHeight():
                return encode(find_block(self._visit, self._visit.block_by_height(question.height)))
            case AskJob():
                return encode(find_job(self._visit, question.job))
            case _:
                raise Rejected(Reason.UNAVAILABLE, "a folder answers no such question")


class FolderBlobs:
    """The blobs in a node's folder, each checked against its name; what is made here goes into another folder."""

    def __init__(self, folder: Path, own: BlobStore) -> None:
        """`folder`: the node's blobs, only read; `own`: for what the verifier makes."""
        self._folder = folder
        self._own = own

    async def ensure(self, blob: Digest, size_max_bytes: int, timeout_s: float) -> Path:
        """Where the blob lies. `Rejected`: UNAVAILABLE where it is not here, TOO_LARGE, CORRUPT."""
        return await trio.to_thread.run_sync(self._find, blob, size_max_bytes)

    def _find(self, blob: Digest, size_max_bytes: int) -> Path:
        name = blob.hex()
        path = self._own.path(blob) or self._folder / name[:2] / f"{name}.blob"
        if not path.exists():
            raise Rejected(Reason.UNAVAILABLE, f"blob {name[:8]} is not in {self._folder}")
        size = path.stat().st_size
        require(size <= size_max_bytes, Reason.TOO_LARGE, f"blob {name[:8]} has {size} bytes")
        is_whole = compute_blob_id(compute_manifest(path.read_bytes())) == blob
        require(is_whole, Reason.CORRUPT, f"{path} is not the blob of its name")
        return path

    async def put_bytes(self, raw: bytes) -> Digest:
        """Keep bytes as a blob, in the verifier's own folder."""
        return await trio.to_thread.run_sync(self._own.put_bytes, raw)

    async def put_file(self, path: Path) -> Digest:
        """Keep a file as a blob, in the verifier's own folder."""
        return await trio.to_thread.run_sync(self._own.put_file, path, True)


@asynccontextmanager
async def visiting_folder(folder: NodeFolder, genesis_hash: Digest | None) -> AsyncIterator[tuple[Genesis, FolderPeer]]:
    """The folder's genesis and chain, its node running or not.

    Raises `Rejected`: WRONG_CHAIN where a hash is asked for and the folder is of another chain, UNAVAILABLE where it
    holds no chain.
    """
    genesis = await trio.to_thread.run_sync(load_genesis, folder.genesis)
    is_ours = genesis_hash is None or compute_genesis_hash(genesis) == genesis_hash
    require(is_ours, Reason.WRONG_CHAIN, f"{folder.root} belongs to another chain than the genesis hash")
    visit = await trio.to_thread.run_sync(LmdbVisit, folder.chain)
    try:
        yield genesis, FolderPeer(genesis, visit, Shelf(folder.snapshots))
    finally:
        visit.close()

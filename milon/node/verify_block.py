"""`milon verify-block` put together: from peers over the network, or from a node's folder, with a worker of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from milon.base.ids import Digest
from milon.base.signing import SecretKey
from milon.base.units import Height
from milon.chain.genesis import Genesis
from milon.node.blob_room import BlobRoom
from milon.node.folder import NodeFolder
from milon.node.folder_source import FolderBlobs, visiting_folder
from milon.node.keys import generate_key
from milon.node.light import visiting
from milon.node.light_client import LightClient, trust_genesis
from milon.node.light_sync import refusing_conflicts
from milon.node.task_context import Blobs, TaskContext
from milon.node.verify import STATES_S, Verifier, fetch_block
from milon.node.verify_levels import Level, VerifyReport
from milon.node.work_progress import WorkBoard
from milon.node.workers import Worker
from milon.p2p.blob_store import BlobStore
from milon.p2p.blobs import BlobClient
from milon.p2p.transport import Transport


def _silent(line: str) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What is to be checked, how deep, and with what."""

    name: Height | Digest  # of the block: its height or its header's hash
    level: Level = Level.FULL  # see there
    segments: int | None = None  # to replay at most; None: all, or a small sample on the level of samples
    threads: int = 1  # of the replays; results do not depend on it
    device: str = "auto"  # of the replays
    patience_s: float = STATES_S  # to look for each state
    say: Callable[[str], None] = _silent  # lines for people watching
    show: Callable[[int, int], None] = lambda done, total: None  # segments done, of how many


async def _check(
    inquiry: Inquiry, genesis: Genesis, key: SecretKey, transport: Transport, blobs: Blobs, place: NodeFolder
) -> VerifyReport:
    client = LightClient(transport, genesis, trust_genesis(genesis))
    with refusing_conflicts(place.root):
        answer = await fetch_block(client, transport, inquiry.name)
    inquiry.say(f"block {answer.block.header.height} is final; {client.witnesses} other peers say the same of it")
    worker = Worker(inquiry.threads, inquiry.device, place.root / "worker.log")
    try:
        context = TaskContext(
            key=key,
            parameters=genesis.parameters,
            blobs=blobs,
            work=worker.run,
            folder=place.work,
            board=WorkBoard(),
            adversary="",
            will_accept=False,
        )
        verifier = Verifier(context, transport, inquiry.say, inquiry.patience_s, inquiry.show)
        return await verifier.verify(answer, inquiry.segments, inquiry.level)
    finally:
        await worker.stop()


async def _prepare(folder: Path) -> NodeFolder:
    place = NodeFolder(folder)
    for path in (place.blobs, place.work):
        await trio.Path(path).mkdir(parents=True, exist_ok=True)
    return place


async def _verify_from_peers(
    inquiry: Inquiry, folder: Path, bootstrap: Sequence[str], genesis_hash: Digest
) -> VerifyReport:
    place = await _prepare(folder)
    inquiry.say("connecting")
    async with visiting(bootstrap, genesis_hash) as visit:
        inquiry.say(f"connected to {len(visit.transport.peers())} peers; fetching the block and its certificate")
        store = BlobStore(place.blobs)
        blobs = BlobRoom(store, BlobClient(visit.transport, store), visit.transport)
        return await _check(inquiry, visit.genesis, visit.key, visit.transport, blobs, place)


async def _verify_from_folder(inquiry: Inquiry, folder: Path, node: Path, genesis_hash: Digest | None) -> VerifyReport:
    place, source = await _prepare(folder), NodeFolder(node)
    inquiry.say(f"reading {node}; no peer is asked")
    async with visiting_folder(source, genesis_hash) as (genesis, peer):
        blobs = FolderBlobs(source.blobs, BlobStore(place.blobs))
        return await _check(inquiry, genesis, generate_key(), peer, blobs, place)


def verify_from_peers(inquiry: Inquiry, folder: Path, bootstrap: Sequence[str], genesis_hash: Digest) -> VerifyReport:
    """Check a block from nothing but bootstrap addresses and the genesis hash.

    `folder` keeps what was fetched. Raises `Rejected` where the block itself cannot be had or proved: nobody answers,
    the disk is full. What is missing after that makes the verdict undecided.
    """
    return trio.run(_verify_from_peers, inquiry, folder, bootstrap, genesis_hash)


def verify_from_folder(inquiry: Inquiry, folder: Path, node: Path, genesis_hash: Digest | None = None) -> VerifyReport:
    """Check a block of the chain in a node's folder, whether or not the node runs; nothing there is written to.

    The genesis in that folder is trusted, unless a hash says which it must be. Raises as `verify_from_peers` does.
    """
    return trio.run(_verify_from_folder, inquiry, folder, node, genesis_hash)

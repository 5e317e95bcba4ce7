"""What tasks work with: the worker, the disk, and files by digest, fetched from whoever has them.

What a trainer withholds, and what it gives that is none of its job, are told apart from what is missing for other
reasons: for the former alone its claim may be held against it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import trio

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import NO_DIGEST, Digest
from milon.base.signing import SecretKey
from milon.chain.params import Parameters
from milon.contracts.claims_records import ClaimRecord
from milon.node.checkpoints import Checkpoints
from milon.node.folder import read_file
from milon.node.work_progress import WorkBoard
from milon.p2p.blobs import BeingMade
from milon.pol.claim import SegmentRecord, SegmentRecords, compute_trace, verify_records
from milon.pol.terms import DataManifest, JobSpec
from milon.pol.work import BlobFile, JobChecked, Progress, ReplayItem, Request, Result, SegmentReplayed

_LOG = logging.getLogger(__name__)

RECORDS_MAX_BYTES = 1 << 20  # 4,096 records of some 130 bytes
MANIFEST_MAX_BYTES = 4 << 20  # of a dataset
SHARDS_MAX = 4_096  # of a dataset: sixteen times what 4 GiB make; each is fetched by itself and is two files
PROGRAM_MAX_BYTES = 4 << 20  # the codec's bound for one value
FETCH_S = 60.0  # one blob, all providers, before the duty is tried anew
WATCHING_AT_ONCE = 4  # segments that are fetched to be looked at unasked: the network is others' too
EVIDENCE_FETCH_S = 12.0  # states and records of a claim: after this they count as withheld

T = TypeVar("T")


class Blobs(Protocol):
    """Blobs on this machine, fetched from peers where they are missing."""

    async def ensure(self, blob: Digest, size_max_bytes: int, timeout_s: float) -> Path:
        """Where the blob lies; `Rejected(UNAVAILABLE)` when nobody gave it in time."""

    async def put_bytes(self, raw: bytes) -> Digest:
        """Keep bytes as a blob."""

    async def put_file(self, path: Path) -> Digest:
        """Keep a file as a blob, moving it."""


class RunWork(Protocol):
    """The worker: see `workers.Worker.run`."""

    async def __call__(self, request: Request, priority: int, on_progress: Callable[[Progress], None]) -> Result:
        """Do one request."""


@dataclass(frozen=True, slots=True)
class TaskContext:
    """What tasks work with."""

    key: SecretKey  # of the account
    parameters: Parameters  # of the chain
    blobs: Blobs  # see there
    work: RunWork  # the worker
    folder: Path  # for results on their way into the blob store
    board: WorkBoard  # what people see of it
    adversary: str  # empty for the honest
    will_accept: bool  # an adversary that attests and judges TRUE whatever it found
    reports: Path | None = None  # where the reports of aggregations are kept, if they are
    checkpoints: Checkpoints | None = None  # which states stay; all where there is none
    watch_ppm: int = 0  # chance that it looks at a segment that nobody asked it to look at
    watching: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(WATCHING_AT_ONCE))  # see `watch`
    checked: dict[bytes, JobChecked] = field(default_factory=dict)  # by encoded spec; a job is held, then enrolled for


def as_result(kind: type[T], result: Result) -> T:
    """The result, which a worker in order gives of this kind."""
    if not isinstance(result, kind):
        raise RuntimeError(f"the worker answered with {type(result).__name__}")
    return result


async def fetch_files(
    context: TaskContext, blobs: Iterable[Digest], size_max_bytes: int, timeout_s: float = FETCH_S
) -> tuple[BlobFile, ...]:
    """The blobs' places on this disk, each id once, in order of first mention."""
    files: dict[Digest, BlobFile] = {}
    for blob in blobs:
        if blob not in files:
            path = await context.blobs.ensure(blob, size_max_bytes, timeout_s)
            files[blob] = BlobFile(blob, str(path))
    return tuple(files.values())


async def _fetch_manifest(context: TaskContext, blob: Digest) -> DataManifest:
    path = await context.blobs.ensure(blob, MANIFEST_MAX_BYTES, FETCH_S)
    raw = await trio.to_thread.run_sync(read_file, path, MANIFEST_MAX_BYTES)
    return decode(DataManifest, raw)


async def fetch_job(context: TaskContext, spec: JobSpec) -> tuple[BlobFile, ...]:
    """Everything a job's spec names, data included; `Rejected(OVER_BUDGET)` where it is more than the chain allows."""
    limit = int(context.parameters.data_bytes_max)
    programs = [spec.train, spec.predict, *(entry.program for entry in spec.evaluate)]
    files = list(await fetch_files(context, programs, PROGRAM_MAX_BYTES))
    files += await fetch_files(context, [spec.initial_state], limit)
    for manifest_blob in (spec.train_rows, spec.evaluation_rows):
        manifest = await _fetch_manifest(context, manifest_blob)
        files += await fetch_files(context, [manifest_blob], MANIFEST_MAX_BYTES)
        count = len(manifest.shards)
        require(count <= SHARDS_MAX, Reason.OVER_BUDGET, f"{count} shards of data; {SHARDS_MAX} are allowed")
        total = sum(int(shard.size_bytes) for shard in manifest.shards)
        require(total <= limit, Reason.OVER_BUDGET, f"{total} bytes of data; this chain allows {limit} a job")
        for shard in manifest.shards:
            files += await fetch_files(context, [shard.blob], int(shard.size_bytes))
    return tuple({file.blob: file for file in files}.values())


async def size_of_state(context: TaskContext, state: Digest) -> int:
    """The bytes of a state; every other state of the job has as many, so that nobody fetches more for a claim."""
    path = await context.blobs.ensure(state, int(context.parameters.data_bytes_max), FETCH_S)
    return (await trio.Path(path).stat()).st_size


async def fetch_records(context: TaskContext, claim: ClaimRecord, timeout_s: float) -> tuple[SegmentRecord, ...]:
    """A claim's records, checked against its root; records that do not fit count as withheld."""
    try:
        path = await context.blobs.ensure(claim.records, RECORDS_MAX_BYTES, timeout_s)
        raw = await trio.to_thread.run_sync(read_file, path, RECORDS_MAX_BYTES)
        records = decode(SegmentRecords, raw, RECORDS_MAX_BYTES).records
        verify_records(records, claim.records_root, int(claim.first), int(claim.count), claim.final_state)
    except Rejected as error:
        if error.reason is Reason.FULL:
            raise
        raise Rejected(Reason.UNAVAILABLE, f"the claim's records are not what it names: {error}") from None
    return records


def recomputing_s(spec: JobSpec, parameters: Parameters) -> float:
    """How long a verifier waits for states that a trainer computes again: half its time to commit, the rest is its own.

    Also what a trainer may count on when it chooses which states to keep.
    """
    return int(spec.terms.attest_blocks) * int(parameters.block_time_ms) / 2_000


async def _fetch_start(context: TaskContext, state: Digest, limit: int, until: float) -> tuple[BlobFile, ...]:
    """A state of a claim; where its trainer is computing it again, that is waited for until `until` by trio's clock."""
    while True:
        try:
            return await fetch_files(context, [state], limit, EVIDENCE_FETCH_S)
        except BeingMade:
            if trio.current_time() >= until:
                raise


async def fetch_starts(
    context: TaskContext, claim: ClaimRecord, state: Digest, places: tuple[int, ...], patience_s: float = 0.0
) -> tuple[tuple[ReplayItem, ...], tuple[BlobFile, ...]] | SegmentReplayed | None:
    """What the claim says of the segments at `places`, and the states before them; `state` is the round's.

    `patience_s`: how long in all a trainer may take to compute them again. None where the trainer withholds some of it;
    a difference where a state is larger than any state of the job.
    """
    limit, until = await size_of_state(context, state), trio.current_time() + patience_s
    items: list[ReplayItem] = []
    files: list[BlobFile] = []
    try:
        records = await fetch_records(context, claim, EVIDENCE_FETCH_S)
        for place in places:
            start = records[place - 1].state if place else claim.start
            items.append(ReplayItem(records[place].segment, start, records[place]))
            files += await _fetch_start(context, start, limit, until)
    except Rejected as error:
        _LOG.warning("claim %s: %s", claim.claim.hex()[:8], error)
        if error.reason is Reason.TOO_LARGE:
            return SegmentReplayed(items[-1].segment, NO_DIGEST, compute_trace(()), is_same=False)
        if error.reason is Reason.UNAVAILABLE:
            return None
        raise
    return tuple(items), tuple({file.blob: file for file in files}.values())


@asynccontextmanager
async def scratch(folder: Path) -> AsyncIterator[Path]:
    """An empty folder for what the worker writes, gone afterwards with what is left in it."""

    def clear() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    await trio.to_thread.run_sync(clear)
    await trio.Path(folder).mkdir(parents=True)
    try:
        yield folder
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(clear)

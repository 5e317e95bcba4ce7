"""Training a round's segments: what the claim says, and what must still be known of it after a restart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trio

from milon.base.codec import decode, encode, wire
from milon.base.ids import Digest
from milon.base.units import Count
from milon.chain.transaction import Claim
from milon.contracts.duties import TrainDuty
from milon.node.folder import PRIVATE, read_file, write_file
from milon.node.task_context import TaskContext, as_result, fetch_files, fetch_job, scratch
from milon.pol.claim import SegmentRecord, SegmentRecords, compute_records_root
from milon.pol.work import SegmentsTrained, TrainSegments

OWN_ROUND_MAX_BYTES = 2 << 20  # records and traces of 4,096 segments


@wire("own-round/1")
@dataclass(frozen=True, slots=True)
class OwnRound:
    """What a trainer must still know after a restart: the records it claimed and the traces behind them."""

    records: tuple[SegmentRecord, ...]  # in order
    traces: tuple[Digest, ...]  # one a record
    compute_ms: Count  # spent


def _own_round_path(context: TaskContext, job: bytes, round_number: int) -> Path:
    return context.folder / f"{job.hex()}-{round_number}.round"


def load_own_round(context: TaskContext, job: bytes, round_number: int) -> OwnRound:
    """What this node claimed in a round; `Rejected(UNAVAILABLE)` where it is not on the disk."""
    path = _own_round_path(context, job, round_number)
    return decode(OwnRound, read_file(path, OWN_ROUND_MAX_BYTES), OWN_ROUND_MAX_BYTES)


async def train(context: TaskContext, duty: TrainDuty) -> Claim:
    """Train the assigned segments, unless the disk has them, and say what came of it."""
    path = _own_round_path(context, duty.job, int(duty.round))
    if await trio.Path(path).exists():
        own = await trio.to_thread.run_sync(load_own_round, context, duty.job, int(duty.round))
    else:
        own = await _train_anew(context, duty)
        await trio.to_thread.run_sync(lambda: write_file(path, encode(own), PRIVATE, overwrite=True))
    records = await context.blobs.put_bytes(encode(SegmentRecords(own.records)))
    root = compute_records_root(own.records)
    count = Count(len(own.records))
    return Claim(duty.job, duty.round, count, root, records, own.records[-1].state, own.compute_ms)


async def _train_anew(context: TaskContext, duty: TrainDuty) -> OwnRound:
    files = await fetch_job(context, duty.spec)
    files += await fetch_files(context, [duty.state], int(context.parameters.data_bytes_max))
    async with scratch(context, duty) as folder:
        request = TrainSegments(
            spec=duty.spec,
            files=files,
            state=duty.state,
            seed=duty.seed,
            round=Count(duty.round),
            first=duty.assignment.first,
            count=duty.assignment.count,
            folder=str(folder),
            tamper=context.adversary,
        )
        with context.board.showing("train", duty.job, duty.round, int(duty.assignment.count), None) as on_progress:
            trained = as_result(SegmentsTrained, await context.work(request, 2, on_progress))
        for file in trained.files:
            await context.blobs.put_file(Path(file.path))
    return OwnRound(trained.records, trained.traces, trained.compute_ms)

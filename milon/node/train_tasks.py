"""Training a round's segments: what the claim says, and what must still be known of it after a restart.

The worker writes each finished segment into the training's folder, which stays until its states are blobs: a node that
was killed, or had no room on its disk, goes on with the next segment.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import trio

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.base.units import Count
from milon.chain.transaction import Claim
from milon.contracts.duties import TrainDuty
from milon.node.own_rounds import OwnRound, find_own_round, keep_own_round, segments_folder
from milon.node.task_context import TaskContext, as_result, fetch_files, fetch_job, recomputing_s, size_of_state
from milon.pol.claim import SegmentRecords, compute_records_root
from milon.pol.work import Progress, SegmentsTrained, TrainSegments

_LOG = logging.getLogger(__name__)

STATE_NAME_CHARACTERS = 64  # of a state's file: its id in hexadecimal


async def train(context: TaskContext, duty: TrainDuty) -> Claim:
    """Train the assigned segments, unless the disk has them, and say what came of it.

    Raises `Rejected`: UNAVAILABLE, to try again, where blobs are missing or the disk is full.
    """
    try:
        own = await _train(context, duty)
        records = await context.blobs.put_bytes(encode(SegmentRecords(own.records)))
    except Rejected as error:
        if error.reason is not Reason.FULL:
            raise
        detail = f"{error.detail}; the training goes on where it stands once there is room"
        raise Rejected(Reason.UNAVAILABLE, detail) from None
    root = compute_records_root(own.records)
    count = Count(len(own.records))
    final_state = own.records[-1].state
    return Claim(duty.job, duty.round, duty.assignment.first, count, root, records, final_state, own.compute_ms)


async def _train(context: TaskContext, duty: TrainDuty) -> OwnRound:
    folder = segments_folder(context.folder, duty)
    own = await trio.to_thread.run_sync(find_own_round, context.folder, duty)
    if own is None:
        own = await _train_missing(context, duty, folder)
        await trio.to_thread.run_sync(keep_own_round, context.folder, own)
    await _hand_in(context, folder)
    if context.checkpoints is not None:
        context.checkpoints.add(own)
    return own


async def _train_missing(context: TaskContext, duty: TrainDuty, folder: Path) -> OwnRound:
    """Train what the folder does not have yet."""
    files = await fetch_job(context, duty.spec)
    files += await fetch_files(context, [duty.state], int(context.parameters.data_bytes_max))
    keep_every = await _choose_kept(context, duty)
    await trio.Path(folder).mkdir(parents=True, exist_ok=True)
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
        keep_every=keep_every,
    )
    with context.board.showing("train", duty.job, duty.round, int(duty.assignment.count), None) as show:

        def on_progress(progress: Progress) -> None:
            if progress.resumed:
                _LOG.info("round %d: training goes on after %d finished segments", duty.round, progress.resumed)
            show(progress)

        trained = as_result(SegmentsTrained, await context.work(request, 2, on_progress))
    own = OwnRound(trained.records, trained.traces, trained.compute_ms, duty, keep_every)
    _warn_where_slow(context, own)
    return own


async def _choose_kept(context: TaskContext, duty: TrainDuty) -> Count:
    """Every how many states one stays. An adversary's all do: what it claims does not come again."""
    if context.checkpoints is None or context.adversary:
        return Count(1)
    size = await size_of_state(context, duty.state)
    return Count(await context.checkpoints.choose(duty, size))


def _warn_where_slow(context: TaskContext, own: OwnRound) -> None:
    """Say so where verifiers might not wait for all the states that did not stay."""
    dropped = sum(not own.stays(place) for place in range(len(own.records)))
    needed_s = dropped * int(own.compute_ms) / 1_000 / len(own.records)
    if needed_s > recomputing_s(own.duty.spec, context.parameters):
        _LOG.warning(
            "computing the %d states that did not stay takes %.0f s again, and verifiers wait %.0f s for them:"
            " raise checkpoint_bytes_max, or take part in jobs of longer attest_blocks",
            *(dropped, needed_s, recomputing_s(own.duty.spec, context.parameters)),
        )


async def _hand_in(context: TaskContext, folder: Path) -> None:
    """Make the states in the folder blobs, and forget the folder; what a killed node did not come to is done here."""
    if not await trio.Path(folder).is_dir():
        return
    for path in sorted(await trio.Path(folder).iterdir()):
        if len(path.name) == STATE_NAME_CHARACTERS:
            await context.blobs.put_file(Path(path))
    await trio.to_thread.run_sync(shutil.rmtree, folder)

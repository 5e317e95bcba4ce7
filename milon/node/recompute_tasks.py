"""Training a few segments of an own claim again, for states that did not stay on the disk: see `checkpoints`."""

from __future__ import annotations

import logging
from functools import partial

from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.base.units import Count
from milon.node.checkpoints import Checkpoints, Recipe
from milon.node.supervisor import contain
from milon.node.task_context import TaskContext, as_result, fetch_files, fetch_job, scratch, size_of_state
from milon.pol.work import SegmentsTrained, TrainSegments

_LOG = logging.getLogger(__name__)

PRIORITY = 1  # with replays, which wait for it elsewhere: before training, after aggregations and moves of disputes
KIND = "recompute"  # of work, as people see it


async def recompute_wanted(context: TaskContext, checkpoints: Checkpoints) -> None:
    """For ever: make what somebody wants, one at a time."""
    while True:
        state = await checkpoints.next_wanted()
        try:
            await contain("recomputing", partial(_make, context, checkpoints, state))
        except Rejected as error:
            _LOG.warning("state %s is not made again: %s", state.hex()[:8], error)
        finally:
            checkpoints.settle(state)


async def _make(context: TaskContext, checkpoints: Checkpoints, state: Digest) -> None:
    recipe = checkpoints.plan(state)
    duty, records = recipe.own.duty, recipe.own.records
    start = records[recipe.near].state if recipe.near >= 0 else duty.state
    files = await fetch_job(context, duty.spec)
    files += await fetch_files(context, [start], int(context.parameters.data_bytes_max))
    count, size = recipe.place - recipe.near, await size_of_state(context, start)
    async with scratch(context.folder / f"again-{state.hex()[:16]}") as folder:
        request = TrainSegments(
            spec=duty.spec,
            files=files,
            state=start,
            seed=duty.seed,
            round=Count(duty.round),
            first=Count(duty.assignment.first + recipe.near + 1),
            count=Count(count),
            folder=str(folder),
            tamper="",
            keep_every=Count(checkpoints.spread(count, size)),
        )
        with context.board.showing(KIND, duty.job, duty.round, int(request.count), None) as on_progress:
            trained = as_result(SegmentsTrained, await context.work(request, PRIORITY, on_progress))
        _verify(trained, recipe)
        for file in reversed(trained.files):
            await checkpoints.keep(file, must=file.blob == state)
    _LOG.info("round %d: state %s is here again, after %d segments", duty.round, state.hex()[:8], request.count)


def _verify(trained: SegmentsTrained, recipe: Recipe) -> None:
    """What was claimed must come again: otherwise this machine computes wrongly, now or then."""
    if trained.records != recipe.own.records[recipe.near + 1 : recipe.place + 1]:
        raise Rejected(Reason.DIFFERS, "training it again gives other bits than were claimed; check this machine")

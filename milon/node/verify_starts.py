"""Where a verifier of a closed round has not got the state before a segment: training up to it from an earlier one.

A trainer may keep a claim's states sparsely, and computes the others for nobody once the round is closed. They follow
from what is there, and whoever makes them sees at once whether the segments between are true.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from milon.base.errors import Reason, Rejected
from milon.base.units import Count
from milon.chain.learning import ClosedRound, SettledClaim
from milon.node.task_context import TaskContext, as_result, fetch_files, fetch_job, scratch, size_of_state
from milon.pol.claim import SegmentRecord
from milon.pol.terms import JobSpec
from milon.pol.work import Progress, SegmentsTrained, TrainSegments

BACK_S = 3.0  # to look for each earlier state: who keeps states sparsely has most of them not


async def supply_start(
    context: TaskContext,
    closed: ClosedRound,
    spec: JobSpec,
    claim: SettledClaim,
    records: Sequence[SegmentRecord],
    place: int,
    patience_s: float,
) -> int:
    """Have the state before the segment at `place` of a claim, and give `place`: that segment can be replayed.

    Where a segment on the way there is false, its place is given instead, whose start is here then. Raises
    `Rejected(UNAVAILABLE)` where no earlier state is to be had either.
    """
    limit = await size_of_state(context, closed.state)
    before = place - 1  # of the record whose state is tried; -1: what the claim starts from
    while True:
        start = records[before].state if before >= 0 else claim.start
        try:
            files = await fetch_files(context, [start], limit, patience_s if before == place - 1 else BACK_S)
            break
        except Rejected as error:
            if error.reason is Reason.TOO_LARGE:
                return before + 1
            if error.reason is not Reason.UNAVAILABLE or before < 0:
                raise
        before -= 1
    if before == place - 1:
        return place
    files += await fetch_job(context, spec)
    first, count = records[before + 1].segment, Count(place - before - 1)
    async with scratch(context.folder / f"starts-{start.hex()[:16]}") as folder:
        request = TrainSegments(spec, files, start, closed.seed, Count(closed.round), first, count, str(folder), "")
        try:
            trained = as_result(SegmentsTrained, await context.work(request, 0, _ignore))
        except Rejected as error:
            if error.reason is Reason.NOT_FINITE:
                return before + 1  # it diverges, which no honest claim does
            raise
        for file in trained.files:
            await context.blobs.put_file(Path(file.path))
    claimed = records[before + 1 : place]
    pairs = enumerate(zip(trained.records, claimed, strict=False), before + 1)
    return next((at for at, (mine, theirs) in pairs if mine != theirs), before + 1 + len(trained.records))


def _ignore(progress: Progress) -> None:
    """What is run again to get to a segment is not counted."""

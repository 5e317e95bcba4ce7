"""Watching: looking at claims that nobody asked this node to look at, and challenging what is false in them.

A node outside a claim's committee replays a share of its segments, which a secret of its own draws: its key's signature
over the claim, shown to nobody, so that no trainer knows what will be looked at, and a restarted node draws the same
again. Work is bounded by that share of what others train, and comes last: segment by segment, behind everything else
that waits for the worker, so that a duty waits for the replay of one segment at the most.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import trio

from milon.base.codec import decode, encode, wire
from milon.base.errors import Reason, Rejected
from milon.base.hashing import digest
from milon.base.signing import SecretKey, sign
from milon.base.units import Count
from milon.chain.transaction import Challenge
from milon.contracts.claims_records import ClaimRecord
from milon.contracts.duties import WatchDuty
from milon.node.folder import PRIVATE, read_file, write_file
from milon.node.task_context import TaskContext, as_result, fetch_job, fetch_starts, recomputing_s
from milon.pol.sampling import draw_places
from milon.pol.verdict import Verdict
from milon.pol.work import ReplaySegments, SegmentReplayed, SegmentsReplayed

_LOG = logging.getLogger(__name__)

PRIORITY = 9  # of the worker's requests; the least urgent duty has 3
TRIES = 4  # to fetch a state before it is called withheld: being wrong costs a stranger its challenge bond
PAUSE_S = 2.0  # before the second try; it doubles
WATCHED_MAX_BYTES = 32 << 10  # numbers of 2,000 segments


@wire("watched/1")
@dataclass(frozen=True, slots=True)
class Watched:
    """What a watcher has seen of a claim, so that a restart repeats nothing."""

    places: tuple[Count, ...]  # in the claim, that replayed to the same bits


def draw_watched(key: SecretKey, claim: ClaimRecord, watch_ppm: int) -> tuple[int, ...]:
    """The places of the claim that this key's owner looks at, each with the chance `watch_ppm` says; it alone knows."""
    secret = digest("watch-draw", sign(key, "watch", "", claim.claim))
    return draw_places(secret, int(claim.count), watch_ppm)


def _watched_path(context: TaskContext, claim: ClaimRecord) -> Path:
    return context.folder / f"{claim.job.hex()}-{claim.round}-{claim.claim.hex()[:16]}.watched"


def _read_watched(path: Path) -> list[int]:
    try:
        return [int(place) for place in decode(Watched, read_file(path, WATCHED_MAX_BYTES), WATCHED_MAX_BYTES).places]
    except Rejected as error:
        if error.reason is not Reason.UNAVAILABLE:
            _LOG.warning("%s is passed over: %s", path.name, error)
        return []


async def watch(context: TaskContext, duty: WatchDuty) -> Challenge | None:
    """Replay the own sample of another's claim, as far as that was not done before; what to say of it, if anything.

    Raises `Rejected` for what is not the trainer's fault: the job's own blobs, the worker, this disk.
    """
    claim, path = duty.claim, _watched_path(context, duty.claim)
    seen = await trio.to_thread.run_sync(_read_watched, path)
    for place in draw_watched(context.key, claim, context.watch_ppm):
        if place in seen:
            continue
        segment = Count(claim.first + place)
        result = await _look(context, duty, place)
        if result is None:
            return Challenge(claim.claim, segment, Verdict.UNAVAILABLE)
        if not result.is_same:
            _LOG.warning("segment %d of claim %s is false", segment, claim.claim.hex()[:8])
            return Challenge(claim.claim, segment, Verdict.FALSE)
        seen.append(place)
        raw = encode(Watched(tuple(Count(entry) for entry in sorted(seen))))
        await trio.to_thread.run_sync(lambda raw=raw: write_file(path, raw, PRIVATE, overwrite=True))
    return None


async def _look(context: TaskContext, duty: WatchDuty, place: int) -> SegmentReplayed | None:
    """One segment run again; None where its trainer goes on withholding what that needs."""
    pause_s = PAUSE_S
    for attempt in range(TRIES):
        if attempt:
            await trio.sleep(pause_s)
            pause_s *= 2
        async with context.watching:
            result = await _replay_one(context, duty, place)
        if result is not None:
            return result
    return None


async def _replay_one(context: TaskContext, duty: WatchDuty, place: int) -> SegmentReplayed | None:
    claim = duty.claim
    job_files = await fetch_job(context, duty.spec)
    patience_s = recomputing_s(duty.spec, context.parameters) / TRIES  # all tries: as a committee
    found = await fetch_starts(context, claim, duty.state, (place,), patience_s)
    if found is None or isinstance(found, SegmentReplayed):
        return found
    items, files = found
    request = ReplaySegments(duty.spec, job_files + files, duty.seed, Count(claim.round), items)
    with context.board.showing("watch", claim.job, claim.round, len(items), claim.trainer) as on_progress:
        (result,) = as_result(SegmentsReplayed, await context.work(request, PRIORITY, on_progress)).results
    return result

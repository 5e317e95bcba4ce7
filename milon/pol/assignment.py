"""Who trains which segments: in proportion to capacity, by largest remainder, in integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from milon.base.codec import wire
from milon.base.ids import AccountId
from milon.base.units import Count


@wire("assignment/1")
@dataclass(frozen=True, slots=True)
class Assignment:
    """A trainer's run of consecutive segments in a round."""

    trainer: AccountId  # whose
    first: Count  # first segment's number
    count: Count  # how many


RATIO_MAX = 8  # between a trainer's capacity and the median: what a good machine does beside common ones


def bound_capacities(capacities: Sequence[tuple[AccountId, int]]) -> tuple[tuple[AccountId, int], ...]:
    """The capacities, none more than `RATIO_MAX` times the lower median: they are the trainers' own words.

    Whoever names a number that nobody else comes near gets no more of a round than a good machine would.
    """
    if not capacities:
        return ()
    ranked = sorted(capacity for _, capacity in capacities)
    most = RATIO_MAX * ranked[(len(ranked) - 1) // 2]
    return tuple((account, min(capacity, most)) for account, capacity in capacities)


def compute_delivered_capacity(capacity: int, assigned: int, delivered: int) -> int:
    """What a trainer's word is worth after a round: its share of what it was given; a quarter where that is nothing."""
    return max(1, capacity * delivered // assigned if delivered else capacity // 4)


def assign_segments(segments: int, capacities: Sequence[tuple[AccountId, int]]) -> tuple[Assignment, ...]:
    """Hand out `segments` in proportion to capacity (segments per hour, each at least 1).

    Largest remainder; ties go to the smaller account. Where there are enough segments everybody gets at least one,
    taken from those with the most. Trainers without a segment are left out. Order is by account.
    """
    ordered = sorted(capacities)
    if not ordered or segments <= 0:
        return ()
    total = sum(capacity for _, capacity in ordered)
    counts = [segments * capacity // total for _, capacity in ordered]
    by_remainder = sorted(range(len(ordered)), key=lambda i: (-(segments * ordered[i][1] % total), ordered[i][0]))
    for index in by_remainder[: segments - sum(counts)]:
        counts[index] += 1
    if segments >= len(ordered):
        for index, count in enumerate(counts):
            if count == 0:
                richest = max(range(len(counts)), key=lambda i: (counts[i], -i))
                counts[richest] -= 1
                counts[index] = 1
    assignments: list[Assignment] = []
    first = 0
    for (trainer, _), count in zip(ordered, counts, strict=True):
        if count:
            assignments.append(Assignment(trainer, Count(first), Count(count)))
        first += count
    return tuple(assignments)


def reassign_segments(missing: Sequence[int], capacities: Sequence[tuple[AccountId, int]]) -> tuple[Assignment, ...]:
    """Hand out the segments of these numbers (in order), which nobody claimed, as `assign_segments` would as many.

    A trainer's share is a piece of the list; it has one entry for each run of consecutive numbers in it, in order.
    """
    handed: list[Assignment] = []
    for share in assign_segments(len(missing), capacities):
        begin = int(share.first)
        end = begin + int(share.count)
        for place in range(begin + 1, end + 1):
            if place == end or missing[place] != missing[place - 1] + 1:
                handed.append(Assignment(share.trainer, Count(missing[begin]), Count(place - begin)))
                begin = place
    return tuple(handed)

"""What an aggregation decides, in integers only: which updates it refuses, with what weight the others count, and why.

The names of rules and pipelines are in `milon.pol.pipeline`, the rules that need only inner products in
`milon.pol.gram`, the tensors in `milon.gpu.aggregate`; this module sees weights, and squared distances that are exact
integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

from milon.base.codec import wire
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId, Digest
from milon.pol.pipeline import Outer as Outer
from milon.pol.pipeline import Pipeline as Pipeline
from milon.pol.pipeline import Preparation as Preparation
from milon.pol.pipeline import Rule as Rule
from milon.pol.pipeline import compute_count_needed as compute_count_needed
from milon.pol.pipeline import parse_pipeline as parse_pipeline
from milon.pol.verdict import Refusal

UPDATES_MAX = 1_024  # a row's number and its value share one sort key; scalar work grows with the square
STEPS_MAX = 1 << 26  # 4,096 segments of 10,000 steps; keeps a round's advance below 2^53 steps of its grid
WEIGHT_TOTAL_MAX = (1 << 31) - 1  # weight times a 28-bit value, with 4 bits to spare, fits 63 bits
SCREEN_RATIO = 25  # squared: five times the median distance; measured in docs/spec/aggregation.md
CONTRARY_COSINE = 8  # chance alone gives a thousand coordinates a cosine of -1/8 less than once in ten thousand times
PERCENT_MAX = 1_000_000_000  # past this a ratio of distances says nothing more
PARTS_PER_MILLION = 1_000_000


@wire("update-standing/1")
@dataclass(frozen=True, slots=True)
class Standing:
    """How one update fared."""

    account: AccountId  # whose
    steps: int  # verified
    weight: int  # with which it counted: its steps, capped; for rules that select, what was taken of it; 0 if refused
    part_ppm: int  # its part of the result, in parts per million; for rules per coordinate, of the weight
    distance_percent: int  # from the coordinate-wise median, times the root of the steps; the median is 100; 0: unknown
    score_percent: int  # root of the score of a rule that gives scores; the median one is 100; 0: the rule gives none
    reason: str  # why it has no part in the result; empty where it has


@wire("aggregation-report/1")
@dataclass(frozen=True, slots=True)
class Report:
    """How one round's updates became one."""

    pipeline: str  # that was applied
    faulty_count: int  # the tolerance the rule was applied with, after what was refused before it
    steps: int  # by which the round advanced
    standings: tuple[Standing, ...]  # one an update, in the order of their accounts

    @property
    def accepted(self) -> tuple[Standing, ...]:
        """The updates that have a part in the result."""
        return tuple(standing for standing in self.standings if not standing.reason)

    @property
    def refused(self) -> tuple[Refusal, ...]:
        """The others, and why."""
        return tuple(Refusal(standing.account, standing.reason) for standing in self.standings if standing.reason)


@wire("aggregation-record/1")
@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of a round's aggregation: everybody who aggregates comes to the same bytes."""

    report: Report  # see there
    finals: tuple[Digest, ...]  # the blob id of each standing's final state, in their order
    before: Digest  # the round's state
    after: Digest  # the new one; the round's where the round is void
    void: str  # why the round closed without a new state; empty where it did not


def verify_weights(weights: Sequence[int], faulty_count: int) -> None:
    """Raise `Rejected` unless these numbers are within the bounds of the arithmetic."""
    count = len(weights)
    require(faulty_count >= 0, Reason.OUT_OF_RANGE, f"a tolerance of {faulty_count} hostile updates")
    require(count <= UPDATES_MAX, Reason.TOO_LARGE, f"{count} updates; {UPDATES_MAX} are allowed")
    for weight in weights:
        require(0 < weight <= STEPS_MAX, Reason.OUT_OF_RANGE, f"a weight of {weight}; 1 to {STEPS_MAX} are allowed")
    total = sum(weights)
    require(total <= WEIGHT_TOTAL_MAX, Reason.OUT_OF_RANGE, f"a total weight of {total}; {WEIGHT_TOTAL_MAX} is allowed")


def verify_bearable(pipeline: Pipeline, weights: Sequence[int], faulty_count: int) -> None:
    """Raise `Rejected` unless `pipeline` holds its promise for so many updates, `faulty_count` of them hostile.

    `weights` are verified steps, one per update, before any cap: `compute_capped_weights` lowers them until what
    holds for the count holds for the weights.
    """
    verify_weights(weights, faulty_count)
    count, needed = len(weights), compute_count_needed(pipeline, faulty_count)
    if count < needed:
        detail = f"{pipeline.text} with {faulty_count} faulty needs {needed} updates; {count} are left"
        raise Rejected(Reason.TOO_FEW, detail)


def compute_faulty_weight(weights: Sequence[int], faulty_count: int) -> int:
    """The most weight that `faulty_count` updates can have."""
    return sum(sorted(weights, reverse=True)[:faulty_count])


def _is_cap_safe(rule: Rule, weights: Sequence[int], faulty_count: int, cap: int) -> bool:
    capped = [min(weight, cap) for weight in weights]
    total, faulty = sum(capped), compute_faulty_weight(capped, faulty_count)
    if len(capped) >= 3 and 3 * max(capped) > total:
        return False
    own = 2 * max(capped) if rule in (Rule.KRUM, Rule.MULTI_KRUM, Rule.BULYAN) else 0
    return (4 if rule is Rule.BULYAN else 2) * faulty + own < total


def compute_capped_weights(rule: Rule, weights: Sequence[int], faulty_count: int) -> tuple[int, ...]:
    """The weights, none above a cap: the largest under which no update has more than a third of the total (where
    there are three or more) and the rule's needs hold by weight as `verify_bearable` holds them by count.

    By weight, with F the weight of the `faulty_count` heaviest: 2F + 2 max(w) < W for Krum and multi-Krum, 4F + 2
    max(w) < W for Bulyan, 2F < W for the others. The mean caps nothing: it promises nothing that a cap could protect.

    Both shares grow with the cap, so a binary search finds it; at the least weight all are equal and the count decides.
    """
    if rule is Rule.MEAN:
        return tuple(weights)
    low, high = min(weights), max(weights)
    while low < high:
        middle = (low + high + 1) // 2
        if _is_cap_safe(rule, weights, faulty_count, middle):
            low = middle
        else:
            high = middle - 1
    return tuple(min(weight, low) for weight in weights)


def compute_weighted_lower_median(values: Sequence[int], weights: Sequence[int]) -> int:
    """The smallest value v for which the values up to v have at least half of the weight."""
    total, reached = sum(weights), 0
    for value, weight in sorted(zip(values, weights, strict=True)):
        reached += weight
        if 2 * reached >= total:
            return value
    raise ValueError("the median of nothing")


def compute_distance_percents(squared_distances: Sequence[int], weights: Sequence[int]) -> tuple[int, ...]:
    """Each distance in percent of the weighted lower median distance, rounded down, at most `PERCENT_MAX`."""
    median = compute_weighted_lower_median(squared_distances, weights)
    return tuple(
        min(PERCENT_MAX, isqrt(10_000 * squared // median)) if median else (PERCENT_MAX if squared else 0)
        for squared in squared_distances
    )


def is_contrary(inner_product: int, squared_norm: int, median_squared_norm: int) -> bool:
    """Whether an update points against the median: the cosine of their angle is below -1 / `CONTRARY_COSINE`."""
    squared_cosine = CONTRARY_COSINE**2 * inner_product**2
    return inner_product < 0 and squared_cosine > squared_norm * median_squared_norm


def compute_screened(
    squared_distances: Sequence[int], contrary: Sequence[bool], weights: Sequence[int], faulty_count: int
) -> tuple[int, ...]:
    """The positions of the updates that the screen refuses, farthest first, at most `faulty_count`.

    Refused: an update that points against the coordinate-wise median (`is_contrary`), or whose squared distance to it
    is more than `SCREEN_RATIO` times the weighted lower median of the squared distances. With less than half of the
    weight hostile, that median is never above the farthest honest distance. Of equally far ones the first goes. The
    squared distances come multiplied by the update's steps, as the variance of an average over them falls.
    """
    limit = SCREEN_RATIO * compute_weighted_lower_median(squared_distances, weights)
    pairs = enumerate(zip(squared_distances, contrary, strict=True))
    out = [position for position, (squared, is_against) in pairs if squared > limit or is_against]
    out.sort(key=lambda position: (-squared_distances[position], position))
    return tuple(out[:faulty_count])


def describe_refusal(percent: int, is_against: bool) -> str:
    """Why an update was screened out, for people."""
    limit = f"its distance is {percent} percent of the median distance, {isqrt(10_000 * SCREEN_RATIO)} are allowed"
    if is_against:
        return f"points against the coordinate-wise median of the updates; {limit}"
    return f"too far from the coordinate-wise median of the updates: {limit}"


def compute_round_steps(steps: Sequence[int], weights: Sequence[int]) -> int:
    """By how many steps the round advances: the weighted mean of the updates' steps, to the nearest, halves up."""
    total = sum(weights)
    return (2 * sum(step * weight for step, weight in zip(steps, weights, strict=True)) + total) // (2 * total)

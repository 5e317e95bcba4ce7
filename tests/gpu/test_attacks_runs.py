"""What a hostile node claims: every kind that commands know says something false, also of a single segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import pytest
from torch import Tensor

from milon.base.errors import Reason, Rejected
from milon.base.units import Count
from milon.gpu.aggregate import aggregate_round
from milon.gpu.attacks_crowd import compute_squared_distance
from milon.gpu.attacks_kinds import KINDS
from milon.gpu.attacks_runs import LAZY, run_hostile
from milon.gpu.attacks_steps import BIT_FLIP
from milon.gpu.checkpoint import from_bytes
from milon.gpu.train import RoundWork, SegmentRun, train_segments
from milon.gpu.work_library import statistics_of
from milon.pol.work import TrainSegments
from tests.gpu.small_job import SEED, list_files, open_work, prepare_small

FIRST, COUNT, SEGMENTS = 2, 2, 6  # of the adversary's share, in the middle of the job's rounds
OTHERS_WORK = ("copy", "duplicate")  # honest runs, of other segments
ALL_FALSE = ("label-flip", LAZY, *OTHERS_WORK)  # from the first segment on


@cache
def open_small() -> tuple[RoundWork, bytes]:
    prepared = prepare_small()
    return open_work(prepared.spec, list_files(prepared))


def run(kind: str, first: int = FIRST, count: int = COUNT) -> list[SegmentRun]:
    """The runs of an adversary."""
    prepared = prepare_small()
    spec, (work, start) = prepared.spec, open_small()
    request = TrainSegments(spec, (), spec.initial_state, SEED, Count(0), Count(first), Count(count), "", kind)
    return list(run_hostile(request, work, start))


@cache
def run_honestly(first: int, count: int = COUNT) -> tuple[SegmentRun, ...]:
    work, start = open_small()
    return tuple(train_segments(work, start, first, count))


@pytest.mark.parametrize("kind", [*KINDS, BIT_FLIP, LAZY])
def test_every_kind_says_something_false(kind: str) -> None:
    claimed, honest = run(kind), run_honestly(FIRST)
    same = [one.state == other.state for one, other in zip(claimed, honest, strict=True)]
    assert same == [kind not in ALL_FALSE, False]
    assert run(kind) == claimed  # a node that was killed says the same again
    (single,) = run(kind, count=1)
    assert single.state and single.state != run_honestly(FIRST, 1)[0].state


def test_others_work_is_taken_whole() -> None:
    """From the trainer before, or after where there is none before; duplicates are all the first trainer's."""
    assert tuple(run("copy")) == run_honestly(FIRST - COUNT)
    assert tuple(run("copy", first=0)) == run_honestly(COUNT)
    assert tuple(run("copy", first=0, count=SEGMENTS)) == run_honestly(0, SEGMENTS)  # nobody else has any
    assert tuple(run("duplicate")) == run_honestly(0) == tuple(run("duplicate", first=4))
    with pytest.raises(Rejected) as refusal:
        run("polite")
    assert refusal.value.reason is Reason.UNKNOWN


def test_an_optimised_attack_does_more_harm_than_a_fixed_one() -> None:
    """To the rule of the job, one attacker among honest trainers of the round's three shares, each there twice."""
    work, start = open_small()
    base, terms, statistics = from_bytes(start), prepare_small().spec.terms, statistics_of(work.plan.program)
    slots = {name: tensor for name, tensor in base.items() if name.startswith("optimizer.")}
    honest = [from_bytes(run_honestly(first)[-1].state) for first in range(0, SEGMENTS, COUNT)] * 2

    def combine(states: Sequence[Mapping[str, Tensor]], rule: str, faulty_count: int) -> Mapping[str, Tensor]:
        finals = [(bytes([place]) * 32, 1, state) for place, state in enumerate(states)]
        return aggregate_round(base, finals, rule, faulty_count, slots, statistics=statistics)[0]

    def compute_harm(kind: str) -> int:
        states = [*honest[1:], from_bytes(run(kind)[-1].state)]
        return compute_squared_distance(combine(states, terms.aggregator, int(terms.faulty_count)), target)

    target = combine(honest, "mean", 0)
    assert compute_harm("alie-optimised") > compute_harm("alie") > 0

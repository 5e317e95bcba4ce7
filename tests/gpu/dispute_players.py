"""Small real jobs to dispute about, and players that are not honest."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch

from bench import models
from bench.cases import CASES, make_batch
from milon.base.errors import Rejected
from milon.base.ids import Digest
from milon.base.units import Count
from milon.gpu.attacks_steps import Tamper, flip, tampered
from milon.gpu.capture import capture
from milon.gpu.checkpoint import state_digest, to_bytes
from milon.gpu.dispute_oracle import Oracle
from milon.gpu.dispute_referee import Referee
from milon.gpu.interpreter import load
from milon.gpu.rows import Dataset, describe_columns
from milon.gpu.train import RoundWork, SegmentRun, run_segment
from milon.gpu.work_library import layout_of
from milon.pol.claim import SegmentRecord, commit_trace, compute_trace
from milon.pol.dispute import Answer, Choice, Game, Level, Partial, Pick, Spot, advance, make_partial
from milon.pol.verdict import Verdict
from tests.gpu.small_job import open_small

SEED = Digest(b"\x05" * 32)
SEGMENT = 2
STEPS = 3  # of a segment


@dataclass(frozen=True, slots=True)
class Job:
    """One segment of a job."""

    work: RoundWork
    start: bytes  # the state before it


@cache
def job(name: str, steps: int = 3) -> Job:
    """The segment of one of the cases of `bench.cases`, cut down to what tests have time for, or of the small job."""
    if name == "small":
        small, start = open_small()
        return Job(replace(small, steps_per_segment=steps, seed=SEED), start)
    case = CASES[name]
    batches = [make_batch(case, step) for step in range(6)]
    torch.manual_seed(7)
    model = models.Gpt(layers=1) if name == "gpt" else case.model()
    captured = capture(model, case.loss, lambda held: torch.optim.SGD(held, lr=0.1, momentum=0.9), batches[0], ())
    columns = tuple(torch.cat(column) for column in zip(*batches, strict=True))
    names = [f"column{place}" for place in range(len(columns))]
    data = Dataset(describe_columns(names, columns), columns)
    work = RoundWork(load(captured.train), layout_of(captured.train), data, len(batches[0][0]), steps, SEED, 0)
    return Job(work, to_bytes(captured.state))


@cache
def _run(name_of: int) -> SegmentRun:
    held = _JOBS[name_of]
    return run_segment(held.work, held.start, SEGMENT)


_JOBS: dict[int, Job] = {}


def _run_once(held: Job) -> SegmentRun:
    _JOBS[id(held)] = held
    return _run(id(held))


def honest_record(held: Job) -> SegmentRecord:
    """What an honest trainer records of the segment."""
    run = _run_once(held)
    trace = commit_trace(compute_trace(run.fingerprints))
    return SegmentRecord(Count(SEGMENT), state_digest(run.state), trace, Count(run.loss_bits))


def honest_state(held: Job) -> bytes:
    """The state after the segment."""
    return _run_once(held).state


class Random:
    """A challenger that says anything."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def choose(self, game: Game) -> Choice:
        """Any choice that the game takes."""
        picks = [Choice(Pick.SHAPE)] * (self._chance.random() < 0.05) + [Choice(Pick.NOTHING)] * (
            self._chance.random() < 0.2
        )
        for choice in (*picks, *(Choice(Pick.CHILD, Count(self._chance.randrange(64))) for _ in range(300))):
            try:
                advance(game, choice)
            except Rejected:
                continue
            return choice
        return Choice(Pick.CHILD, Count(0))


def judge(held: Job, game: Game, record: SegmentRecord | None = None, end: bytes | None = None) -> Verdict:
    """The referees' verdict; the record and the state after the segment are the honest ones unless given."""
    known = record or honest_record(held)
    return Referee(held.work, SEGMENT).judge(
        game, known, lambda is_end: (honest_state(held) if end is None else end) if is_end else held.start
    )


def lying(held: Job, *tampers: Tamper) -> Oracle:
    """A trainer that computes some values otherwise."""
    return tampered(held.work, held.start, SEGMENT, *tampers)


@cache
def honest(name: str) -> Oracle:
    """An honest player of either side; it keeps nothing that a game could spoil."""
    held = job(name, STEPS)
    return Oracle(held.work, held.start, SEGMENT)


def numbers_of(name: str, operation: str) -> list[int]:
    """The numbers of the values that an operation gives."""
    program = job(name, STEPS).work.plan.program
    base = len(program.inputs) + len(program.constants)
    return [base + place for place, node in enumerate(program.nodes) if node.operation == operation]


class Liar(Oracle):
    """A trainer that changes its honest answers on one level."""

    def __init__(self, base: Oracle, level: Level, change: Callable[[Spot, Answer], Answer]) -> None:
        super().__init__(base._runner.work, b"", SEGMENT)
        self.__dict__.update(base.__dict__, _value=None)
        self._level, self._change = level, change

    def answer(self, spot: Spot) -> Answer:
        """See `Oracle`."""
        found = super().answer(spot)
        return self._change(spot, found) if spot.level is self._level else found


def wrong_sum() -> Oracle:
    """A trainer whose step has one wrong element of a product, with as many terms as there are."""

    def terms(number: int) -> int:
        group = honest("perceptron")._outline.make_group(number)
        return 0 if group is None else group.terms

    number = max(numbers_of("perceptron", "matmul"), key=terms)
    return lying(job("perceptron", STEPS), Tamper(1, number, flip(0, 20)))


def shift_first(spot: Spot, answer: Answer) -> Answer:
    """Totals that are too large by one in the first part of all, and in all that holds it."""
    if answer.piece or any(spot.path):
        return answer

    def shift(part: Partial) -> Partial:
        return make_partial(part.left_max, part.right_max, part.total + 1, bool(part.special))

    parts = list(answer.partials)
    for place in (0,) if spot.path else (0, 1):
        parts[place] = shift(parts[place])
    return replace(answer, partials=tuple(parts))


class Shaped(Random):
    """A challenger that ends the game with its first word."""

    def __init__(self) -> None:
        super().__init__(0)

    def choose(self, game: Game) -> Choice:
        """See `Random`."""
        return Choice(Pick.SHAPE)

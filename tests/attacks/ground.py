"""Where the attacks are made: small jobs of the product's own making, and the product's own verdict on a segment.

A claim is a chain of checkpoints. Whoever replays a segment of it takes the checkpoint before it from the trainer, runs
the job's program on the rows and draws that the round's seed prescribes, and compares bits. `is_accepted` is that.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import Tensor, nn
from torch.nn import functional

from milon.base.hashing import digest
from milon.base.ids import NO_DIGEST, Digest
from milon.base.units import Count
from milon.client.job import Job
from milon.client.prepare import prepare
from milon.client.schedules import warm_up
from milon.gpu.checkpoint import from_bytes, state_digest, to_bytes
from milon.gpu.replay import replay_segment
from milon.gpu.train import RoundWork, SegmentRun, run_segment
from milon.pol.claim import SegmentRecord, commit_trace, compute_trace
from milon.pol.work import ReplayItem
from tests.gpu.small_job import list_files, make_rows, open_work

State = dict[str, Tensor]
Schedule = Callable[[Tensor], Tensor]
SEGMENTS = 6  # of a round, in every job here
ATTEMPTS_EACH = 10  # on one honest segment


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt at a cheat."""

    is_accepted: bool  # by the product
    fools_tolerance: bool | None = None  # accepted by the plain tolerance verifier; None: it was not asked


@dataclass(frozen=True, slots=True)
class Ground:
    """One honest segment, to be spoiled."""

    work: RoundWork  # of a round of its own
    start: bytes  # the state before the segment
    segment: int  # its number
    honest: SegmentRun  # what training it gives


def make_perceptron() -> nn.Module:
    """The published attacks' model: smooth, so that the adversary's second derivatives exist."""
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3))


def make_full_model() -> nn.Module:
    """The cheats' model: buffers of a normalisation, and draws."""
    torch.manual_seed(5)
    hidden = (nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Dropout(0.25))
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(12, 3))


def _make_job(rate: float, momentum: float, schedule: Schedule | None) -> Job:
    return Job(
        name="attacked",
        model=make_full_model() if momentum else make_perceptron(),
        loss=functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=momentum),
        train=make_rows(60, 1),
        evaluation=make_rows(20, 2),
        schedule=schedule,
        rounds=1,
        segments_per_round=SEGMENTS,
        steps_per_segment=2,
        batch_size=8,
    )


@cache
def open_job(rate: float = 0.1, momentum: float = 0.0, warm_up_steps: int = 0) -> tuple[RoundWork, bytes]:
    """A job's work with stochastic gradient descent, and the bytes of its first state.

    With momentum, its state has every kind of tensor: parameters, buffers, moments, and the count of steps.
    """
    schedule = warm_up(warm_up_steps) if warm_up_steps else None
    prepared = prepare(_make_job(rate, momentum, schedule), Path(mkdtemp(prefix="milon-attacks-")))
    return open_work(prepared.spec, list_files(prepared))


def of_round(work: RoundWork, number: int) -> RoundWork:
    """The same job in another round: another seed, so other rows and draws."""
    return dataclasses.replace(work, seed=Digest(digest("attacked-round", number.to_bytes(8, "big"))))


def open_cheated() -> tuple[RoundWork, bytes]:
    """The job that trainers cheat on."""
    return open_job(0.1, 0.9, 4)


def grounds(seed: int) -> Iterator[tuple[Ground, random.Random]]:
    """Honest segments of ever new rounds, each for a few attempts, and a source of chance for each attempt."""
    work, start = open_cheated()
    for number in count(seed):
        segment = number % SEGMENTS
        held = of_round(work, number)
        ground = Ground(held, start, segment, run_segment(held, start, segment))
        for attempt in range(ATTEMPTS_EACH):
            yield ground, random.Random(f"attack {number} {attempt}")


def record_of(segment: int, run: SegmentRun) -> SegmentRecord:
    """What a trainer puts into its claim for a run."""
    trace = commit_trace(compute_trace(run.fingerprints))
    return SegmentRecord(Count(segment), state_digest(run.state), trace, Count(run.loss_bits))


def is_accepted(ground: Ground, run: SegmentRun, start: bytes | None = None) -> bool:
    """Whether a replay of the ground's segment by the product finds `run` true; from `start` where one is claimed."""
    item = ReplayItem(Count(ground.segment), NO_DIGEST, record_of(ground.segment, run))
    return replay_segment(ground.work, ground.start if start is None else start, item).is_same


def with_state(run: SegmentRun, state: Mapping[str, Tensor]) -> SegmentRun:
    """The honest run's trace and loss over another final state."""
    return dataclasses.replace(run, state=to_bytes(state))


def open_state(raw: bytes) -> State:
    """The tensors of a state, to be changed."""
    return dict(from_bytes(raw))

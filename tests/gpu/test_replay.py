"""A replay says the same as an honest trainer, and something else than every other one."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from milon.base.ids import NO_DIGEST, Digest
from milon.base.units import Count
from milon.gpu import train
from milon.gpu.checkpoint import from_bytes, state_digest, to_bytes
from milon.gpu.replay import replay_segment
from milon.gpu.train import RoundWork, SegmentRun, fingerprint_of, run_segment, train_segments
from milon.pol.batches import compute_batch
from milon.pol.claim import SegmentRecord, commit_trace, compute_trace
from milon.pol.program import StepKey
from milon.pol.work import ReplayItem
from tests.gpu.small_job import open_small

SEGMENT = 1


@cache
def _honest() -> tuple[RoundWork, bytes, SegmentRun]:
    """The work, the bytes before segment 1, and its run."""
    work, first = open_small()
    start = run_segment(work, first, 0).state
    return work, start, run_segment(work, start, SEGMENT)


def _record(run: SegmentRun) -> SegmentRecord:
    trace = commit_trace(compute_trace(run.fingerprints))
    return SegmentRecord(Count(SEGMENT), state_digest(run.state), trace, Count(run.loss_bits))


def _item(record: SegmentRecord, segment: int = SEGMENT) -> ReplayItem:
    return ReplayItem(Count(segment), NO_DIGEST, record)


def test_an_honest_segment_replays() -> None:
    work, start, run = _honest()
    result = replay_segment(work, start, _item(_record(run)))
    assert result.is_same
    assert (result.state, result.trace) == (state_digest(run.state), compute_trace(run.fingerprints))


@pytest.mark.parametrize(
    ("field", "value"),
    [("state", Digest(b"\x01" * 32)), ("trace", Digest(b"\x01" * 32)), ("loss_bits", Count(1)), ("segment", Count(9))],
)
def test_a_record_that_says_something_else_is_false(field: str, value: Any) -> None:
    work, start, run = _honest()
    record = dataclasses.replace(_record(run), **{field: value})
    assert not replay_segment(work, start, _item(record)).is_same


def _edit_state(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[RoundWork, bytes], SegmentRun]:
    """A trainer that trains honestly and then changes its final state."""

    def cheat(work: RoundWork, start: bytes) -> SegmentRun:
        run = run_segment(work, start, SEGMENT)
        state = from_bytes(run.state)
        change(state)
        return dataclasses.replace(run, state=to_bytes(state))

    return cheat


def _flip_last_bit(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(state: dict[str, torch.Tensor]) -> None:
        state[name].view(-1).view(torch.int32)[0] ^= 1

    return change


def _run_steps(work: RoundWork, start: bytes, rows_of: Callable[[int, tuple[int, ...]], tuple[int, ...]]) -> SegmentRun:
    """The segment with other rows than the prescribed ones."""
    state: Any = from_bytes(start)
    prints = []
    result = None
    for step in range(SEGMENT * work.steps_per_segment, (SEGMENT + 1) * work.steps_per_segment):
        rows = rows_of(step, compute_batch(work.seed, step, work.batch_size, work.data.rows))
        result = work.plan.run(state, work.data.take(rows), StepKey(work.seed, work.round, 0, step))
        prints.append(fingerprint_of(result))
        state = result.new_state
    assert result is not None
    return SegmentRun(to_bytes(state), tuple(prints), train.loss_bits_of(result), None)


def _other_seed(work: RoundWork, start: bytes) -> SegmentRun:
    return run_segment(dataclasses.replace(work, seed=Digest(b"\x09" * 32)), start, SEGMENT)


def _skipped_step(work: RoundWork, start: bytes) -> SegmentRun:
    return run_segment(dataclasses.replace(work, steps_per_segment=work.steps_per_segment - 1), start, SEGMENT)


def _poisoned_step(work: RoundWork, start: bytes) -> SegmentRun:
    """The first step's targets are wrong; the rest is honest."""
    images, targets = work.data.columns
    poisoned = dataclasses.replace(work.data, columns=(images, (targets + 1) % 3))
    return run_segment(dataclasses.replace(work, data=poisoned), start, SEGMENT)


CHEATS: dict[str, Callable[[RoundWork, bytes], SegmentRun]] = {
    "one bit of a weight": _edit_state(_flip_last_bit("model.0.weight")),
    "one bit of a buffer": _edit_state(_flip_last_bit("model.1.running_var")),
    "one bit of a momentum": _edit_state(_flip_last_bit("optimizer.exp_avg.5.bias")),
    "a step count": _edit_state(lambda state: state["model.1.num_batches_tracked"].add_(1)),
    "the start state as trained": lambda work, start: SegmentRun(start, (0, 0), 0, None),
    "another segment's run": lambda work, start: run_segment(work, start, SEGMENT + 1),
    "another seed": _other_seed,
    "one poisoned step": _poisoned_step,
    "a step left out": _skipped_step,
    "reordered rows": lambda work, start: _run_steps(work, start, lambda step, rows: rows[::-1]),
    "one other row": lambda work, start: _run_steps(work, start, lambda step, rows: (*rows[:-1], (rows[-1] + 1) % 60)),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_is_found(cheat: str) -> None:
    work, start, _ = _honest()
    run = CHEATS[cheat](work, start)
    result = replay_segment(work, start, _item(_record(run)))
    assert not result.is_same
    assert result.state == replay_segment(work, start, _item(_record(_honest()[2]))).state


def test_the_prescribed_steps_written_out_are_the_segment() -> None:
    """The helper above cheats only where it is told to."""
    work, start, run = _honest()
    assert _run_steps(work, start, lambda step, rows: rows) == run


@pytest.mark.parametrize("start", [b"", b"\x00" * 100, b"not a state", to_bytes({"model.x": torch.zeros(2)})])
def test_a_start_that_is_no_state_is_false(start: bytes) -> None:
    work, _, run = _honest()
    result = replay_segment(work, start, _item(_record(run)))
    assert not result.is_same and result.state == NO_DIGEST


def test_a_run_that_diverges_is_false_whatever_is_claimed() -> None:
    work, start, run = _honest()
    state = from_bytes(start)
    state["model.5.weight"].fill_(3e38)
    diverged = run_segment(work, to_bytes(state), SEGMENT)
    record = dataclasses.replace(_record(run), trace=commit_trace(compute_trace(diverged.fingerprints)))
    result = replay_segment(work, to_bytes(state), _item(dataclasses.replace(record, state=NO_DIGEST)))
    assert not result.is_same and result.state == NO_DIGEST


def test_a_whole_claim_replays_segment_by_segment_in_any_order() -> None:
    work, start = open_small()
    runs = list(train_segments(work, start, 0, 4))
    starts = [start, *(run.state for run in runs)]
    for segment in (3, 0, 2, 1):
        trace = commit_trace(compute_trace(runs[segment].fingerprints))
        record = SegmentRecord(Count(segment), state_digest(runs[segment].state), trace, Count(runs[segment].loss_bits))
        assert replay_segment(work, starts[segment], _item(record, segment)).is_same

"""Outer optimizers against plain float arithmetic, and what an aggregation remembers from round to round."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch

from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId
from milon.base.units import Count
from milon.gpu import work_rounds
from milon.gpu.aggregate import aggregate, aggregate_round
from milon.gpu.checkpoint import from_bytes, to_bytes
from milon.gpu.work_library import Library
from milon.pol.work import AggregateRound, FinalState, Progress, RoundAggregated, SegmentsTrained, TrainSegments
from tests.gpu.small_job import SEED, list_files, prepare_small

torch.set_num_threads(1)
State = dict[str, torch.Tensor]
STEPS = 4
CHANGES = (0.375, -0.25, 0.0625)  # per step, exact on any grid here


def run_rounds(pipeline: str, count: int, initial: State | None = None) -> list[State]:
    """The states after each of some rounds in which three trainers all sent the same change."""
    state = {"model.w": torch.tensor([1.0, -2.0, 0.5])} if initial is None else initial
    found = []
    for _ in range(count):
        final = {"model.w": state["model.w"] + torch.tensor(CHANGES) * STEPS}
        finals = [(bytes([index]) * 32, STEPS, final) for index in range(3)]
        state, _ = aggregate_round(state, finals, pipeline, 1, {})
        found.append(state)
    return found


def single(value: float) -> float:
    return float(np.float32(value))


def test_plain_adds_the_change_and_remembers_nothing() -> None:
    (state,) = run_rounds("median", 1)
    assert list(state) == ["model.w"]
    assert state["model.w"].tolist() == [1.0 + 1.5, -2.0 - 1.0, 0.5 + 0.25]
    assert run_rounds("median,plain", 1)[0]["model.w"].equal(state["model.w"])


@pytest.mark.parametrize(("name", "momentum", "rate"), [("momentum:900:1000", 0.9, 1.0), ("nesterov", 0.9, 0.7)])
def test_momentum_and_nesterov(name: str, momentum: float, rate: float) -> None:
    values, speeds = [1.0, -2.0, 0.5], [0.0] * 3
    for state in run_rounds(f"trimmed-mean,{name}", 4):
        for index, change in enumerate(CHANGES):
            speeds[index] = single(speeds[index] * momentum + change * STEPS)
            step = speeds[index] * momentum + change * STEPS if name == "nesterov" else speeds[index]
            values[index] = single(values[index] + step * rate)
        assert state["outer.momentum.w"].tolist() == speeds
        # The trainers' finals are rounded, so from the second round on their changes are no exact numbers.
        assert state["model.w"].tolist() == pytest.approx(values, rel=1e-6)


def test_adam() -> None:
    values, first, second = [1.0, -2.0, 0.5], [0.0] * 3, [single(1e-3**2)] * 3
    for state in run_rounds("median,adam:50", 3):
        for index, change in enumerate(CHANGES):
            moved = change * STEPS
            first[index] = single(first[index] * 0.9 + moved * (1.0 - 0.9))
            second[index] = single(second[index] * 0.99 + moved * moved * (1.0 - 0.99))
            values[index] = single(values[index] + first[index] * 0.05 / (sqrt(second[index]) + 1e-3))
        assert state["outer.first.w"].tolist() == pytest.approx(first, rel=1e-6)
        assert state["outer.second.w"].tolist() == pytest.approx(second, rel=1e-6)
        assert state["model.w"].tolist() == pytest.approx(values, rel=1e-6)


def test_the_memory_is_part_of_the_states_bytes() -> None:
    before, after = run_rounds("median,nesterov", 2)
    assert from_bytes(to_bytes(before)).keys() == {"model.w", "outer.momentum.w"}
    again = run_rounds("median,nesterov", 1, from_bytes(to_bytes(before)))[0]
    assert to_bytes(again) == to_bytes(after)
    forgotten = run_rounds("median,nesterov", 1, {"model.w": before["model.w"]})[0]
    assert to_bytes(forgotten) != to_bytes(after)


def test_centered_clipping_remembers_its_centre() -> None:
    states = run_rounds("centered-clipping", 3)
    centres = [state["outer.centre.w"] for state in states]
    assert centres[-1].sub(torch.tensor(CHANGES)).abs().max() < 1e-4
    moved = states[1]["model.w"] - states[0]["model.w"]
    assert (centres[1] * STEPS).sub(moved).abs().max() < 1e-6
    updates = torch.tensor([[10.0, 11.0], [12.0, 11.0], [11.0, 11.5], [-900.0, 900.0]])
    near, _ = aggregate(updates, [1] * 4, "centered-clipping", 1, centre=torch.tensor([11.0, 11.0]))
    far, _ = aggregate(updates, [1] * 4, "centered-clipping", 1)
    assert near.sub(11.0).abs().max() < 1.0 and not near.equal(far)


@pytest.mark.parametrize(
    ("pipeline", "memory", "reason"),
    [
        ("median", {"outer.momentum.w": torch.zeros(3)}, Reason.MALFORMED),
        ("median,adam", {"outer.momentum.w": torch.zeros(3)}, Reason.MALFORMED),
        ("median,momentum", {"outer.momentum.w": torch.zeros(2)}, Reason.MALFORMED),
        ("median,momentum", {"outer.momentum.w": torch.full((3,), torch.nan)}, Reason.NOT_FINITE),
    ],
)
def test_a_memory_that_no_round_left(pipeline: str, memory: State, reason: Reason) -> None:
    with pytest.raises(Rejected) as refusal:
        run_rounds(pipeline, 1, {"model.w": torch.zeros(3), **memory})
    assert refusal.value.reason is reason


def test_what_no_gradient_moves_is_not_for_the_outer_optimizer() -> None:
    state = {"model.w": torch.ones(2), "model.mean": torch.ones(2)}
    final = {"model.w": torch.full((2,), 2.0), "model.mean": torch.full((2,), 3.0)}
    finals = [(bytes([index]) * 32, 1, final) for index in range(3)]
    new, _ = aggregate_round(state, finals, "median,momentum:0:500", 1, {}, statistics=frozenset({"model.mean"}))
    assert (new["model.w"].tolist(), new["model.mean"].tolist()) == ([1.5, 1.5], [3.0, 3.0])
    assert "outer.momentum.mean" not in new


def test_a_job_whose_outer_optimizer_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds through the worker's own functions: the memory travels in the state, and training does not see it."""
    monkeypatch.setattr(work_rounds, "PROGRESS_ELEMENTS_MIN", 0)
    told: list[Progress] = []
    prepared, library = prepare_small(), Library()
    terms = replace(prepared.spec.terms, aggregator="nnm,median,nesterov", faulty_count=Count(0))
    spec, files = replace(prepared.spec, terms=terms), list_files(prepared)
    state = spec.initial_state
    for number in range(2):
        finals: list[FinalState] = []
        for first in (0, 2, 4):
            request = TrainSegments(spec, files, state, SEED, Count(number), Count(first), Count(1), str(tmp_path), "")
            trained = work_rounds.train(request, library, lambda progress: None)
            assert isinstance(trained, SegmentsTrained)
            files += trained.files
            finals.append(FinalState(AccountId(bytes([first]) * 32), Count(2), trained.records[-1].state))
        asked = AggregateRound(spec, files, state, Count(number), tuple(finals), str(tmp_path), SEED)
        told.clear()
        found = work_rounds.aggregate(asked, library, told.append)
        assert [int(progress.segment) for progress in told] == list(range(1, 101))
        assert isinstance(found, RoundAggregated) and not found.outcome.void
        assert (found.record.before, found.record.after) == (state, found.outcome.state)
        assert found.record.finals == tuple(final.state for final in finals)
        assert [standing.reason for standing in found.record.report.standings] == [""] * 3
        files, state = files + found.files, found.outcome.state
    held = from_bytes(Path(found.files[0].path).read_bytes())
    assert any(name.startswith("outer.momentum.") for name in held)

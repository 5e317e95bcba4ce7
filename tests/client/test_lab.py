"""A table of the lab: run in processes, stopped, gone on with, reported; and what a run is made of."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import milon
from milon.base.errors import Reason, Rejected
from milon.client import lab
from milon.client.lab_cell import Bench, outcome_to_json, run_cell, verify_names
from milon.client.lab_plan import HONEST, REFERENCE, Cell, LabPlan, plan_from_json, plan_to_json, verify_plan
from milon.client.lab_report import list_tables, summarize, write_report
from milon.client.prepare import prepare

PLAN = LabPlan(
    rules=("mean", "trimmed-mean"),
    attacks=("sign-flip:20", "alie-optimised"),
    splits=("iid",),
    seeds=1,
    trainers=5,
    attackers=1,
    tolerance=1,
    rounds=3,
    steps=4,
)


def make_rows(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around four corners, far enough apart that any honest training tells them from each other."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(rows) % 4
    corners = torch.eye(4)[classes]
    return corners + 0.2 * torch.randn(rows, 4, generator=generator), classes


def make_job(rate: float = 0.5) -> milon.Job:
    """A linear model on those points, with this learning rate."""
    torch.manual_seed(1)
    return milon.Job(
        name="corners",
        model=nn.Linear(4, 4),
        loss=nn.functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=rate, weight_decay=0.01),
        train=make_rows(200, 1),
        evaluation=make_rows(40, 2),
        batch_size=8,
    )


@cache
def prepare_job(rate: float = 0.5) -> Path:
    folder = Path(mkdtemp(prefix="milon-lab-test-"))
    prepare(make_job(rate), folder)
    return folder


@cache
def open_bench() -> Bench:
    torch.set_num_threads(1)
    return Bench(prepare_job())


def test_a_table_is_run_kept_and_gone_on_with(tmp_path: Path) -> None:
    told: list[lab.Progress] = []
    finished = lab.run_table(prepare_job(), PLAN, tmp_path, 2, told.append)
    assert [one.cell for one in finished] == PLAN.list_cells()
    assert len(finished) == 2 * 3 and all(one.outcome is not None for one in finished)
    assert told[-1] == lab.Progress(6, 6, 18, 18)
    entries = {(entry.rule, entry.attack): entry for entry in write_report(PLAN, finished, tmp_path)}
    assert entries[REFERENCE, HONEST].accuracy > 0.9 and entries[REFERENCE, HONEST].points_lost == 0
    assert entries["trimmed-mean", "sign-flip:20"].points_lost < 10 < entries["mean", "sign-flip:20"].points_lost
    assert entries["mean", "sign-flip:20"].selected == pytest.approx(0.2, abs=1e-5)
    assert entries["trimmed-mean", "sign-flip:20"].selected == 0.0
    written = json.loads((tmp_path / "lab.json").read_text())
    assert len(written["runs"]) == 6 and plan_from_json(written["plan"]) == PLAN
    assert len((tmp_path / "lab.csv").read_text().splitlines()) == 7
    picture = ElementTree.fromstring((tmp_path / "lab.svg").read_text())
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}rect"))) == 1 + 6  # the ground, and a place for each cell
    kept = sorted((tmp_path / lab.CELLS).iterdir())
    assert len(kept) == 6
    told.clear()
    assert lab.run_table(prepare_job(), PLAN, tmp_path, 1, told.append) == finished
    assert told == [lab.Progress(6, 6, 0, 0)]  # nothing was run again
    kept[0].write_text("{")  # a file that was not written whole
    kept[1].unlink()
    left = lab.read_finished(prepare_job(), PLAN, tmp_path)
    assert len(left) == 4 and all(one in finished for one in left)
    other = plan_from_json({**plan_to_json(PLAN), "steps": PLAN.steps + 1})
    assert lab.read_finished(prepare_job(), other, tmp_path) == []
    again = outcome_to_json(run_cell(open_bench(), PLAN, finished[0].cell))  # in another process: the same numbers
    assert {**again, "seconds": 0} == {**(finished[0].outcome or {}), "seconds": 0}


def test_a_plan_that_cannot_run_is_refused_by_name(tmp_path: Path) -> None:
    for change, reason in (
        ({"rules": ("vote",)}, Reason.UNKNOWN),
        ({"attacks": ("polite",)}, Reason.UNKNOWN),
        ({"splits": ("odd",)}, Reason.UNKNOWN),
        ({"attackers": 5}, Reason.OUT_OF_RANGE),
        ({"rules": ()}, Reason.TOO_FEW),
        ({"rounds": 0}, Reason.OUT_OF_RANGE),
        ({"seeds": 100_000}, Reason.TOO_LARGE),
    ):
        plan = plan_from_json({**plan_to_json(PLAN), **change})
        with pytest.raises(Rejected) as refusal:
            verify_names(plan)
        assert refusal.value.reason is reason
    with pytest.raises(Rejected) as refusal:  # a worker finds it out and says so
        lab.run_table(prepare_job(), plan_from_json({**plan_to_json(PLAN), "rules": ("vote",)}), tmp_path)
    assert refusal.value.reason is Reason.UNKNOWN
    with pytest.raises(Rejected) as refusal:
        lab.run_table(prepare_job(), PLAN, tmp_path, 0)
    assert refusal.value.reason is Reason.OUT_OF_RANGE
    verify_plan(PLAN)


def test_a_rule_that_does_not_bear_the_tolerance_is_a_refused_cell() -> None:
    plan = LabPlan(("multi-krum",), ("nan",), ("iid",), 1, 5, 2, 2, 1, 1)
    honest, _, hostile = plan.list_cells()
    outcome = run_cell(open_bench(), plan, honest)
    with pytest.raises(Rejected) as refusal:
        run_cell(open_bench(), plan, hostile)
    assert refusal.value.reason is Reason.TOO_FEW
    finished = [
        lab.Finished(honest, outcome_to_json(outcome), ""),
        lab.Finished(hostile, None, refusal.value.detail),
    ]
    ((_, _, rows),) = list_tables(summarize(plan, finished))
    assert rows[1] == ["nan", "", "refused"]


@pytest.mark.parametrize("attack", ["label-flip", "duplicate", "copy", "mimic", "nan", "min-max", "ipm-optimised"])
def test_every_sort_of_attack_runs(attack: str) -> None:
    plan = LabPlan(("trimmed-mean",), (attack,), ("one-class",), 1, 7, 2, 2, 2, 3)
    outcome = run_cell(open_bench(), plan, Cell("trimmed-mean", attack, "one-class", 0))
    assert outcome.void_rounds == 0 and 0 <= outcome.accuracy <= 1 and 0 <= outcome.selected <= 1
    assert (outcome.selected == 0) if attack == "nan" else (outcome.selected <= 0.5)


@pytest.mark.parametrize("rule", ["bucketing:2,centered-clipping,nesterov", "arc,nnm,geometric-median,adam"])
def test_pipelines_with_a_memory_run(rule: str) -> None:
    plan = LabPlan((rule,), ("min-max",), ("iid",), 1, 9, 1, 1, 3, 2)
    outcome = run_cell(open_bench(), plan, Cell(rule, "min-max", "iid", 0))
    assert outcome.void_rounds == 0 and 0 < outcome.selected < 0.5


def test_work_that_diverges_voids_rounds_and_ends_no_run() -> None:
    plan = LabPlan(("mean",), ("huge",), ("iid",), 1, 3, 1, 0, 2, 2)
    bench = Bench(prepare_job(1e38))
    outcome = run_cell(bench, plan, Cell("mean", "huge", "iid", 0))
    assert outcome.lost_rounds == outcome.void_rounds == 2
    assert outcome.accuracy == bench.measure(bench.initial)[0]

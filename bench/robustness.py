"""`make bench-robustness`: what each rule keeps of the accuracy under each attack, on MNIST, three splits, three seeds.

Ten honest trainers and three attackers who see every honest update, and the rule; `milon lab` does the work, so every
number is the product's own exact training and aggregation. The images are those of the npm package that
`bench.learning` fetches. A run that was stopped goes on where it was.

    python -m bench.robustness                      the whole table, one process
    python -m bench.robustness --workers 4          the same numbers, sooner
    python -m bench.robustness --minutes 30         stop after so long, and report what is there; 0: only report

Results: `bench/results/robustness.json` and `robustness.svg`. A row's "theirs" is the honest run: the plain mean
of the ten honest trainers, nobody hostile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import milon
from bench.learning import read_digits
from bench.round import describe_machine
from milon.client.lab import Finished, Progress, read_finished, run_table
from milon.client.lab_plan import HONEST, LabPlan
from milon.client.lab_report import Entry, draw, list_tables, summarize
from milon.client.prepare import prepare
from milon.client.terms import DEFAULTS

RESULT = Path(__file__).parent / "results" / "robustness.json"
PICTURE = RESULT.with_suffix(".svg")
FOLDER = Path("build") / "robustness"
POINTS_MAX = 2.0  # that the default may lose to any attack on even shares
EVEN = "iid"
DEFAULT = str(DEFAULTS["aggregator"])
OTHERS = (
    "mean", "trimmed-mean", "multi-krum", "arc,nnm,trimmed-mean", "median", "krum", "geometric-median",
    "centered-clipping",
)  # fmt: skip
RULES = (DEFAULT, *(rule for rule in OTHERS if rule != DEFAULT))
ATTACKS = ("sign-flip", "label-flip", "mimic", "alie-optimised", "ipm-optimised", "min-max", "min-sum")
SPLITS = (EVEN, "dirichlet:0.3", "one-class")
TRAIN_ROWS, TEST_ROWS = 20_000, 5_000  # a third and a half of the set: what is left out would change no comparison


def make_job() -> milon.Job:
    """Softmax regression by plain SGD: what a trainer does is as simple as can be, and only the rules differ."""
    (images, classes), (test_images, test_classes) = read_digits()
    torch.manual_seed(1)
    return milon.Job(
        name="mnist",
        model=nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
        loss=nn.functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5),
        train=(images[:TRAIN_ROWS], classes[:TRAIN_ROWS]),
        evaluation=(test_images[:TEST_ROWS], test_classes[:TEST_ROWS]),
        batch_size=32,
    )


def make_plan(seeds: int, rounds: int, steps: int) -> LabPlan:
    """The table."""
    return LabPlan(RULES, ATTACKS, SPLITS, seeds, trainers=13, attackers=3, tolerance=3, rounds=rounds, steps=steps)


def list_parts(plan: LabPlan) -> list[LabPlan]:
    """The table in the order of what is asked first, so that a run that is stopped has said something."""
    asked = replace(plan, rules=(DEFAULT,))
    return [replace(asked, splits=(EVEN,)), replace(asked, splits=SPLITS[1:]), plan]


def make_rows(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The default's places of the table in the form that all benchmarks share."""
    honest = {e.split: e.accuracy for e in entries if e.attack == HONEST and e.rule == "mean"}
    return [
        {
            "name": f"robustness {entry.split} {entry.attack}",
            "ours": round(entry.accuracy, 4),
            "theirs": round(honest[entry.split], 4),
            "ratio": round(entry.accuracy / honest[entry.split], 4) if honest[entry.split] else None,
            "unit": "accuracy",
            "spread": round(entry.spread, 4),
            "points_lost": round(entry.points_lost, 2),
            "attackers_selected": round(entry.selected, 4),
            "seeds": entry.runs,
        }
        for entry in entries
        if entry.rule == DEFAULT and entry.runs
    ]


def report(plan: LabPlan, finished: Sequence[Finished]) -> int:
    """Print and write the table; 1 where the default loses more than it may on even shares."""
    entries = summarize(plan, finished)
    for name, head, rows in list_tables(entries):
        print(f"\n{name}: accuracy in per cent ± standard deviation | the attackers' share in the result")
        for row in [head, *rows]:
            print("  ".join(text.ljust(20) for text in row).rstrip())
    worst = [entry for entry in entries if entry.rule == DEFAULT and entry.split == EVEN and entry.runs]
    lost = max(worst, key=lambda entry: entry.points_lost, default=None)
    if lost is None:
        print("nothing is finished yet")
        return 1
    print(f"\n{DEFAULT} on {EVEN}: at most {lost.points_lost:.2f} points lost, to {lost.attack}; goal {POINTS_MAX}")
    written = {
        "rows": make_rows(entries),
        "table": [{name: getattr(entry, name) for name in Entry.__slots__} for entry in entries],
        "setting": {
            "data": f"{TRAIN_ROWS} and {TEST_ROWS} images of MNIST",
            "trainers": plan.trainers, "attackers": plan.attackers, "rounds": plan.rounds, "steps": plan.steps,
            "batch_size": 32, "seeds": plan.seeds, "default": DEFAULT,
        },
        "machine": describe_machine(),
    }  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(written, indent=2) + "\n")
    PICTURE.write_text(draw(entries))
    return int(lost.points_lost > POINTS_MAX)


class _TimeIsUp(Exception):
    """The minutes are over; what is finished is kept."""


def main() -> int:
    """Run what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=3, help="of a trainer in a round")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=None, help="stop after so long")
    chosen = parser.parse_args()
    plan = make_plan(chosen.seeds, chosen.rounds, chosen.steps)
    began, said = time.monotonic(), -1

    def show(progress: Progress) -> None:
        nonlocal said
        if progress.cells != said:
            said = progress.cells
            print(f"{progress.cells} of {progress.cells_total} cells, {time.monotonic() - began:.0f} s", flush=True)
            if chosen.minutes is not None and time.monotonic() - began > 60 * chosen.minutes:
                raise _TimeIsUp

    prepare(make_job(), FOLDER / "job")
    with contextlib.suppress(_TimeIsUp):
        for part in list_parts(plan):
            run_table(FOLDER / "job", part, FOLDER, chosen.workers, show)
    return report(plan, read_finished(FOLDER / "job", plan, FOLDER))


if __name__ == "__main__":
    sys.exit(main())

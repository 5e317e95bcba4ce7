"""`python -m bench.digests`: what a segment's state digest and a step's fingerprint cost beside training itself.

For each model: one exact training step, the canonical bytes of the state after it, their digest, and the fingerprint of
the step's gradients, in turns in one process. Reported: medians, and the shares the project has goals for: hashing of a
segment of 20 steps, and the fingerprint of a step.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from bench.step import ROOMY, TASKS, make_captured
from milon.base.blob import compute_blob_id, compute_manifest
from milon.gpu.checkpoint import state_digest, to_bytes
from milon.gpu.interpreter import load
from milon.gpu.train import fingerprint_of
from milon.pol.program import StepKey

RESULT = Path(__file__).parent / "results" / "digests.json"
STEPS = 20  # of a segment
GOAL_PERCENT = 2.0  # of the training beside it, for either
MAGNITUDE_BITS = 13  # the quicker steps, beside which digests weigh more

T = TypeVar("T")


def measure(name: str, turns: int) -> dict[str, Any]:
    """The figures of one model."""
    task = TASKS[name]
    torch.manual_seed(0)
    model, batch = task.model(), task.batch()
    job = make_captured(model, task, batch, MAGNITUDE_BITS)
    plan = load(job.train, budget=ROOMY)
    state = dict(job.state)
    spent: dict[str, list[float]] = defaultdict(list)

    def clocked(part: str, function: Callable[[], T]) -> T:
        begun = time.perf_counter()
        found = function()
        spent[part].append(time.perf_counter() - begun)
        return found

    for turn in range(turns + 1):
        if turn == 1:
            spent.clear()  # what is loaded and tried once belongs to no step
        key = StepKey(bytes(32), 0, 0, turn)
        result = clocked("step", lambda: plan.run(state, batch, key))  # noqa: B023  # called at once
        clocked("fingerprint", lambda: fingerprint_of(result))  # noqa: B023
        raw = clocked("bytes", lambda: to_bytes(result.new_state))  # noqa: B023
        quick = clocked("digest", lambda: state_digest(raw))  # noqa: B023
        if quick != compute_blob_id(compute_manifest(raw)):
            raise RuntimeError("the quick digest of a state is another one")
    medians = {part: statistics.median(series) for part, series in spent.items()}
    return {
        "model": name,
        "state_mib": round(len(raw) / (1 << 20), 1),
        **{f"{part}_ms": round(1e3 * value, 2) for part, value in medians.items()},
        "digest_percent_of_segment": round(100 * medians["digest"] / (STEPS * medians["step"]), 2),
        "bytes_percent_of_segment": round(100 * medians["bytes"] / (STEPS * medians["step"]), 2),
        "fingerprint_percent_of_step": round(100 * medians["fingerprint"] / medians["step"], 2),
    }


def make_rows(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures that have goals, in the shape that all benches share; "theirs" is the goal."""
    parts = {"digest_percent_of_segment": "state digest", "fingerprint_percent_of_step": "fingerprint"}
    return [
        {
            "name": f"{part}, {found['model']}",
            "ours": found[key],
            "theirs": GOAL_PERCENT,
            "ratio": round(found[key] / GOAL_PERCENT, 3),
            "unit": "% of training",
        }
        for found in models
        for key, part in parts.items()
    ]


def main() -> None:
    """Measure all models, or those whose name holds the text given, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--only", default="", help="part of a model's name")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    for name in (name for name in TASKS if given.only in name):
        rows.append(measure(name, given.turns))
        found = rows[-1]
        print(
            f"{name}: step {found['step_ms']} ms; state of {found['state_mib']} MiB: digest {found['digest_ms']} ms, "
            f"{found['digest_percent_of_segment']} % of {STEPS} steps (goal {GOAL_PERCENT:g}), its bytes "
            f"{found['bytes_percent_of_segment']} %; fingerprint {found['fingerprint_ms']} ms, "
            f"{found['fingerprint_percent_of_step']} % of a step (goal {GOAL_PERCENT:g})",
            flush=True,
        )
    if not given.only:
        machine = {"processor": platform.processor(), "torch": torch.__version__, "threads": given.threads}
        RESULT.parent.mkdir(exist_ok=True)
        found = {"machine": machine, "steps": STEPS, "models": rows, "rows": make_rows(rows)}
        RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""A finished model in the user's own PyTorch: `python -m milon.client.model accuracy|export`, processes of their own.

    accuracy FILE.py model.safetensors    prints {"accuracy", "loss", "correct", "rows"} of the job's evaluation data
    export STATE PREDICT out.safetensors  writes the model's tensors out of a state, by the names its program knows
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from milon.base.errors import Rejected
from milon.client.job import load_job_file
from milon.client.terms import JobError

BATCH_ROWS = 256  # evaluated at once
EXIT_WRONG = 2  # the reason stands on standard error


def measure_accuracy(job_file: Path, weights: Path, data: Path | None = None) -> dict[str, float | int | None]:
    """How the job's model does in stock PyTorch with these weights, on its evaluation data or the .npz in `data`."""
    from milon.gpu.work_data import collect_columns
    from milon.gpu.work_model import compute_plain_accuracy, load_weights

    job = load_job_file(job_file)
    load_weights(job.model, weights)
    _, columns = collect_columns(data or job.evaluation)
    return compute_plain_accuracy(job.model, job.loss, columns, BATCH_ROWS)


def export_state(state: Path, predict: Path, out: Path) -> dict[str, Any]:
    """Write the model's tensors in a state file to `out`, under all names the program `predict` knows; how many."""
    from milon.gpu.work_model import export

    return {"tensors": export(state, predict, out), "file": str(out)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks; 0, or `EXIT_WRONG` with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="python -m milon.client.model", description="Use a trained model.")
    commands = parser.add_subparsers(dest="command", required=True)
    accuracy = commands.add_parser("accuracy", help="evaluate a model in plain PyTorch")
    accuracy.add_argument("file", type=Path, help="the Python file that makes the milon.Job")
    accuracy.add_argument("weights", type=Path, help="the model, a safetensors file")
    accuracy.add_argument("--evaluation-data", type=Path, help="an .npz file instead of the job's evaluation data")
    exporting = commands.add_parser("export", help="write a state's model as a safetensors file")
    exporting.add_argument("state", type=Path, help="a state as the network keeps it")
    exporting.add_argument("predict", type=Path, help="the job's prediction program")
    exporting.add_argument("out", type=Path, help="the file to write")
    parsed = parser.parse_args(arguments)
    try:
        if parsed.command == "accuracy":
            answer: dict[str, Any] = measure_accuracy(parsed.file, parsed.weights, parsed.evaluation_data)
        else:
            answer = export_state(parsed.state, parsed.predict, parsed.out)
    except (JobError, Rejected) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_WRONG
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A worker of the lab: `python -m milon.client.lab_worker FOLDER`, one JSON value a line in and out.

The first line in is the plan, answered by {"ready": true}; each further line a cell. Lines out: {"rounds": done} on the
way, then {"outcome": ...}. What cannot be run, plan or cell, is answered by {"refused": reason, "detail": text}. The
process ends when its standard input closes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from milon.base.errors import Rejected
from milon.client.lab_plan import Cell, plan_from_json

EXIT_INTERRUPTED = 130  # as a shell counts Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the input ends, or nobody reads the output."""
    parser = argparse.ArgumentParser(prog="python -m milon.client.lab_worker", description="Run cells of a table.")
    parser.add_argument("folder", type=Path, help="a prepared job")
    folder = parser.parse_args(arguments).folder
    sink, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    try:
        _serve(folder, sink)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sink.fileno())  # the parent is gone: nothing is left to do
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED  # the parent, in the same terminal, says so
    return 0


def _serve(folder: Path, sink: TextIO) -> None:
    import torch

    torch.set_num_threads(1)  # cells share the cores, not a cell's sums
    from milon.client.lab_cell import Bench, outcome_to_json, run_cell, verify_names

    plan = plan_from_json(json.loads(sys.stdin.readline()))
    try:
        verify_names(plan)
        bench = Bench(folder)
    except Rejected as rejected:
        _answer(sink, {"refused": rejected.reason.value, "detail": rejected.detail})
        return
    _answer(sink, {"ready": True})
    for line in sys.stdin:
        cell = Cell(**json.loads(line))
        try:
            outcome = run_cell(bench, plan, cell, lambda rounds: _answer(sink, {"rounds": rounds}))
        except Rejected as rejected:
            _answer(sink, {"refused": rejected.reason.value, "detail": rejected.detail})
            continue
        _answer(sink, {"outcome": outcome_to_json(outcome)})


def _answer(sink: TextIO, value: dict[str, Any]) -> None:
    sink.write(json.dumps(value) + "\n")
    sink.flush()


if __name__ == "__main__":
    sys.exit(main())

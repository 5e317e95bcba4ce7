"""The lab: a table of rules and attacks on one job, run by worker processes, each finished cell kept on disk.

A run that was stopped goes on where it was: a cell is looked up under a name that stands for everything its result
depends on, the program and data, the settings and the sources of the rules and attacks.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected, require
from milon.client.lab_plan import (
    Cell,
    LabPlan,
    compute_cell_name,
    compute_code_digest,
    compute_job_digest,
    plan_to_json,
    verify_plan,
)
from milon.client.prepare import SPEC_FILE
from milon.pol.terms import JobSpec

WORKER = "milon.client.lab_worker"
WORKERS_MAX = 1_024  # far more than any machine has cores
CELLS = "cells"  # the folder of finished ones


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a table is."""

    cells: int  # finished, the kept ones included
    cells_total: int  # of the table
    rounds: int  # finished in cells that are not kept
    rounds_total: int  # of those cells


@dataclass(frozen=True, slots=True)
class Finished:
    """A cell and how it ended."""

    cell: Cell  # which
    outcome: dict[str, Any] | None  # the fields of `milon.client.lab_cell.Outcome`; None where it was refused
    refusal: str  # why, for people; empty where it ran


Report = Callable[[Progress], None]


class _Worker:
    """A worker process and the pipe to it."""

    def __init__(self, folder: Path, plan: LabPlan) -> None:
        command = [sys.executable, "-m", WORKER, str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._write(plan_to_json(plan))

    def _write(self, value: dict[str, Any]) -> None:
        sink = self._process.stdin
        if sink is None:
            raise RuntimeError("a worker without a pipe")
        with contextlib.suppress(BrokenPipeError):  # a worker that died has nothing to say; `_read` tells
            sink.write(json.dumps(value) + "\n")
            sink.flush()

    def _read(self) -> dict[str, Any]:
        source = self._process.stdout
        line = source.readline() if source is not None else ""
        if not line.endswith("\n"):  # a line may be cut short where a worker was ended
            raise Rejected(Reason.UNAVAILABLE, f"a worker ended with {self._process.wait()}; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def greet(self) -> None:
        """Wait until it has opened the job; `Rejected` for a plan it refuses."""
        answer = self._read()
        if "ready" not in answer:
            raise Rejected(Reason(answer["refused"]), answer["detail"])

    def run(self, cell: Cell, report: Callable[[int], None]) -> dict[str, Any]:
        """The answer for a cell."""
        self._write(asdict(cell))
        while True:
            answer = self._read()
            if "rounds" not in answer:
                return answer
            report(int(answer["rounds"]))

    def end(self) -> None:
        """End it, at once: nothing it has begun is of use."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Give back the pipes, once nobody reads them."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class _Table:
    """What the threads share: each drives one worker; only the caller's thread writes files and reports."""

    def __init__(self, folder: Path, plan: LabPlan, missing: list[Cell], workers: int) -> None:
        self._todo: queue.SimpleQueue[Cell | None] = queue.SimpleQueue()
        self.heard: queue.SimpleQueue[tuple[Cell | None, int, dict[str, Any] | Rejected]] = queue.SimpleQueue()
        for cell in missing:
            self._todo.put(cell)
        count = min(workers, len(missing))
        self._workers = [_Worker(folder, plan) for _ in range(count)]
        self._threads = [threading.Thread(target=self._drive, args=(worker,)) for worker in self._workers]
        for thread in self._threads:
            self._todo.put(None)
            thread.start()

    def _drive(self, worker: _Worker) -> None:
        try:
            worker.greet()
            while (cell := self._todo.get()) is not None:
                answer = worker.run(cell, lambda rounds, cell=cell: self.heard.put((cell, rounds, {})))  # type: ignore[misc]  # mypy cannot infer a lambda that binds its loop's value
                self.heard.put((cell, 0, answer))
        except Rejected as rejected:
            self.heard.put((None, 0, rejected))

    def close(self) -> None:
        """End the workers, which ends the threads."""
        for worker in self._workers:
            worker.end()
        for thread in self._threads:
            thread.join()
        for worker in self._workers:
            worker.close()


def _read_kept(path: Path, cell: Cell) -> Finished | None:
    """A cell that was finished before; None where there is none, or its file is not whole."""
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text())
        return Finished(cell, kept["outcome"], kept["refusal"])
    except (ValueError, KeyError, TypeError):
        return None  # run again, and overwritten


def _keep(path: Path, finished: Finished) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(asdict(finished), indent=1) + "\n")
    part.replace(path)


def _name_files(folder: Path, plan: LabPlan, out: Path) -> dict[Cell, Path]:
    """Where each cell of the plan is kept, in the plan's order."""
    job = compute_job_digest(decode(JobSpec, (folder / SPEC_FILE).read_bytes()))
    code = compute_code_digest()
    return {cell: out / CELLS / f"{compute_cell_name(plan, cell, job, code)}.json" for cell in plan.list_cells()}


def read_finished(folder: Path, plan: LabPlan, out: Path) -> list[Finished]:
    """The cells of `plan` that are finished and kept below `out`, in the plan's order."""
    paths = _name_files(folder, plan, out)
    return [found for cell, path in paths.items() if (found := _read_kept(path, cell)) is not None]


def run_table(
    folder: Path, plan: LabPlan, out: Path, workers: int = 1, report: Report = lambda progress: None
) -> list[Finished]:
    """All cells of `plan` on the prepared job in `folder`, in the plan's order; kept below `out`.

    At most `workers` processes run at once; how many never changes a result. Raises `Rejected` for a plan that makes
    no table, and where a worker dies; what is finished by then stays.
    """
    verify_plan(plan)
    require(1 <= workers <= WORKERS_MAX, Reason.OUT_OF_RANGE, f"{workers} workers; 1 to {WORKERS_MAX} may be")
    (out / CELLS).mkdir(parents=True, exist_ok=True)
    paths = _name_files(folder, plan, out)
    found = {one.cell: one for one in read_finished(folder, plan, out)}
    missing = [cell for cell in paths if cell not in found]
    rounds_total, done, under_way = plan.rounds * len(missing), 0, dict[Cell, int]()
    report(Progress(len(found), len(paths), 0, rounds_total))
    for cell, rounds, finished in _run_missing(folder, plan, missing, workers):
        under_way[cell] = rounds
        if finished is not None:
            _keep(paths[cell], finished)
            found[cell] = finished
            del under_way[cell]
            done += plan.rounds
        report(Progress(len(found), len(paths), done + sum(under_way.values()), rounds_total))
    return [found[cell] for cell in paths]


def _run_missing(
    folder: Path, plan: LabPlan, missing: list[Cell], workers: int
) -> Iterator[tuple[Cell, int, Finished | None]]:
    """Each piece of news: a cell, its rounds done, and how it ended once it has."""
    if not missing:
        return
    table, left = _Table(folder, plan, missing, workers), len(missing)
    try:
        while left:
            cell, rounds, answer = table.heard.get()
            if isinstance(answer, Rejected):
                raise answer
            if cell is None:
                raise RuntimeError("news of no cell")
            if not answer:
                yield cell, rounds, None
                continue
            left -= 1
            yield cell, plan.rounds, Finished(cell, answer.get("outcome"), answer.get("detail", ""))
    finally:
        table.close()

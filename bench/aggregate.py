"""`python -m bench.aggregate`: exact robust aggregation beside the inexact one of byzfl and flwr, all in one run.

N updates of d binary32 numbers lie in files of the page cache. Every library starts from the mapped files and ends with
the aggregate in memory, on the same threads; the others run in an environment of their own, made in a temporary folder
from the package index. Extra memory is what the process holds beyond the files' pages and the result, at its highest.
Beside it the floor: the time to read all the bytes once. Then Milon's own cost as N and d grow.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from milon.gpu.aggregate import aggregate
from milon.gpu.aggregate_fast import load
from milon.gpu.checkpoint import map_file, to_bytes

RESULT = Path(__file__).parent / "results" / "aggregate.json"
PACKAGES = ("byzfl==0.0.11", "flwr==1.42.0")
TURNS = 3  # the best one counts
PATIENCE_SECONDS = 15.0  # no turn begins after so many
TENTH = 10  # byzfl's nearest-neighbour mixing needs 36 GB for 32 times 10 million numbers
PIPELINES = (
    "multi-krum", "median", "trimmed-mean", "nnm,geometric-median", "krum", "mean", "centered-clipping", "ctma",
    "arc,nnm,trimmed-mean",
)  # fmt: skip
GOALS = (  # Milon's pipeline, the other's name, the largest ratio of times
    ("multi-krum", "byzfl multi-krum", 0.35),
    ("multi-krum", "flwr multi-krum", 0.5),
    ("median", "flwr median", 0.2),
    ("nnm,geometric-median, d / 10", "byzfl nnm,geometric-median, d / 10", 0.1),
)
GOAL_EXTRA_MIB = 64
SAMPLE_SECONDS = 0.005  # between two looks at the memory held


def write_updates(folder: Path, count: int, columns: int, hostile: int) -> list[Path]:
    """The files: noise around a common direction; the last `hostile` ones point the other way."""
    generator = torch.Generator().manual_seed(7)
    signal = torch.randn(columns, generator=generator) * 0.01
    paths = []
    for index in range(count):
        sign = -2.0 if index >= count - hostile else 1.0
        update = signal * sign + torch.randn(columns, generator=generator) * 0.02
        paths.append(folder / f"{columns}-{index}.safetensors")
        paths[-1].write_bytes(to_bytes({"model.w": update}))
    return paths


def read_held_mib() -> float:
    """Memory of this process that no file backs, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Watch:
    """The most memory held while something runs, beyond what was held before."""

    def __enter__(self) -> Watch:
        self._before = self.highest = read_held_mib()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self.highest = max(self.highest, read_held_mib())

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.extra_mib = max(self.highest, read_held_mib()) - self._before


def clock(function: Callable[[], Any], turns: int = TURNS) -> float:
    """The least seconds of some turns."""
    taken = []
    for _ in range(turns):
        begun = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def read_once(tensors: list[Tensor]) -> None:
    """Read every byte: a sum of integers, which nothing can leave out."""
    for tensor in tensors:
        tensor.view(torch.int32).max()


def measure_own(paths: list[Path], pipelines: tuple[str, ...], faulty: int) -> list[dict[str, Any]]:
    """Seconds and extra memory of every pipeline; those that byzfl only bears on a tenth of the columns likewise."""
    rows = []
    load()
    cases = [(pipeline, 1) for pipeline in pipelines]
    for pipeline, part in [*cases, ("nnm,geometric-median", TENTH)]:
        tensors = [map_file(path)["model.w"] for path in paths]
        tensors = [tensor[: tensor.numel() // part] for tensor in tensors]
        weights = [1] * len(paths)
        taken: list[float] = []
        worked: list[float] = []
        while len(taken) < TURNS and sum(taken) < PATIENCE_SECONDS:
            with Watch() as watch:
                begun, spent = time.perf_counter(), time.process_time()
                result, _ = aggregate(tensors, weights, pipeline, faulty)
                taken.append(time.perf_counter() - begun)
                worked.append(time.process_time() - spent)
            extra, first = watch.extra_mib - result.numel() * 4 / 2**20, [float(value) for value in result[:4]]
            del result
        name = f"milon {pipeline}" + (f", d / {part}" if part > 1 else "")
        rows.append(
            {"name": name, "seconds": min(taken), "processor_seconds": min(worked), "extra_mib": extra, "first": first}
        )
        print(
            f"  {name:36s} {min(taken):8.3f} s ({min(worked):.3f} of processors)   {extra:7.1f} MiB beside the result",
            flush=True,
        )
    return rows


def make_environment(folder: Path) -> Path:
    """An interpreter that has the other libraries, and this one's torch and numpy."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES]
    subprocess.run(command, check=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "own.pth").write_text(str(Path(torch.__file__).parent.parent) + "\n")
    return python


def measure_others(python: Path, paths: list[Path], threads: int, faulty: int) -> list[dict[str, Any]]:
    """What the other libraries take."""
    script = Path(__file__).with_name("aggregate_others.py")
    command = [str(python), str(script), str(threads), str(faulty), *map(str, paths)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    rows = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout or ():
            rows.append(json.loads(line))
            worked = rows[-1]["processor_seconds"]
            print(f"  {rows[-1]['name']:36s} {rows[-1]['seconds']:8.3f} s ({worked:.3f} of processors)", flush=True)
    if process.returncode:
        raise SystemExit(f"the other libraries ended with {process.returncode}")
    return rows


def measure_growth(folder: Path, columns: int) -> list[dict[str, Any]]:
    """Multi-Krum and the median as N and d grow, with the floor beside them."""
    paths = write_updates(folder, 64, columns // 10, 8)
    rows = [_measure_size(paths[:count], columns // 10) for count in (8, 16, 32, 64)]
    for part in (30, 100):
        paths = write_updates(folder, 16, columns * part // 100, 2)
        rows.append(_measure_size(paths, columns * part // 100))
    return rows


def _measure_size(paths: list[Path], columns: int) -> dict[str, Any]:
    tensors, weights = [map_file(path)["model.w"] for path in paths], [1] * len(paths)
    row: dict[str, Any] = {"updates": len(paths), "columns": columns, "floor": clock(lambda: read_once(tensors))}
    for pipeline in ("multi-krum", "median"):
        row[pipeline] = clock(lambda: aggregate(tensors, weights, pipeline, 2))  # noqa: B023  # called at once
    figures = "  ".join(f"{name} {row[name]:.3f} s" for name in ("floor", "multi-krum", "median"))
    print(f"  N = {len(paths):3d}, d = {columns:10,d}: {figures}", flush=True)
    return row


def judge(own: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The goals and how they are met."""
    seconds = {row["name"]: row["seconds"] for row in (*own, *others)}
    found = []
    for pipeline, other, most in GOALS:
        if other in seconds:
            ratio = seconds[f"milon {pipeline}"] / seconds[other]
            found.append({"goal": f"{pipeline} / {other}", "most": most, "found": ratio, "is_met": ratio <= most})
    extra = max(row["extra_mib"] for row in own)
    found.append({"goal": "extra MiB", "most": GOAL_EXTRA_MIB, "found": extra, "is_met": extra <= GOAL_EXTRA_MIB})
    return found


def main() -> None:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=32)
    parser.add_argument("--columns", type=int, default=10_000_000)
    parser.add_argument("--faulty", type=int, default=4)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--without-others", action="store_true")
    parser.add_argument("--without-growth", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory(prefix="milon-bench-") as name:
        folder = Path(name)
        paths = write_updates(folder, chosen.updates, chosen.columns, chosen.faulty)
        floor = clock(lambda: read_once([map_file(path)["model.w"] for path in paths]))
        print(f"N = {chosen.updates}, d = {chosen.columns:,}, {chosen.threads} threads; reading once: {floor:.3f} s")
        others = (
            []
            if chosen.without_others
            else measure_others(make_environment(folder / "others"), paths, chosen.threads, chosen.faulty)
        )
        own = measure_own(paths, PIPELINES, chosen.faulty)
        goals = judge(own, others)
        for goal in goals:
            word = "met" if goal["is_met"] else "MISSED"
            print(f"  {goal['goal']:56s} {goal['found']:8.3f}, at most {goal['most']}: {word}")
        for path in paths:
            path.unlink()
        growth = [] if chosen.without_growth else measure_growth(folder, chosen.columns)
    kept = {
        "machine": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": chosen.threads,
        "updates": chosen.updates, "columns": chosen.columns, "floor_seconds": floor, "own": own, "others": others,
        "goals": goals, "growth": growth,
    }  # fmt: skip
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""`python -m bench.step`: one exact training step against the same step of stock eager PyTorch in binary32.

Both train the same model with the same optimizer on the same batch, in turns (exact, stock, exact, stock, ...) in one
process, so that whatever else the machine does falls on both. Reported: medians, spread (from the least to the
greatest), their ratio, the part of each kind of operation in an exact step, and the peak memory of each above what the
process held before, measured in processes of their own. Where other work keeps the cores busy, the share of the cores
that each gets is chance; so one thread's processor time, which waiting does not lengthen, is compared as well.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.models import Gpt, Perceptron, ResNet18
from milon.gpu.capture import Captured, capture
from milon.gpu.interpreter import Plan, load
from milon.pol.program import Budget, StepKey

RESULT = Path(__file__).parent / "results" / "step.json"
GOALS = {13: 1.5, 21: 2.5}  # times stock, by the magnitude bits of contractions
MEMORY_GOAL = 2.0  # times stock
LEARNING_RATE = 1e-3
ROOMY = Budget(memory_bytes_max=64 << 30, operations_max=1 << 62)

WARM_STEPS = 3

Batch = tuple[Tensor, Tensor]
Step = Callable[[], None]
Row = dict[str, Any]  # name, ours, theirs, ratio, unit, goal; for times also their spread


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained, and on what."""

    model: Callable[[], nn.Module]
    batch: Callable[[], Batch]  # inputs and targets
    loss: Callable[[Tensor, Tensor], Tensor]


def digits_net() -> nn.Module:
    """The network of the demonstration."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(32 * 4 * 4, 10),
    )  # fmt: skip


def _images(batch: int, *shape: int) -> Callable[[], Batch]:
    return lambda: (torch.randn(batch, *shape), torch.randint(0, 10, (batch,)))


def _tokens(batch: int, length: int, tokens: int) -> Callable[[], Batch]:
    return lambda: (torch.randint(0, tokens, (batch, length)), torch.randint(0, tokens, (batch, length)))


def _next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


TASKS = {
    "digits CNN, batch 32": Task(digits_net, _images(32, 1, 8, 8), functional.cross_entropy),
    "MLP 784-1024-1024-10, batch 256": Task(
        lambda: Perceptron(784, 1024, 10), _images(256, 784), functional.cross_entropy
    ),
    "GPT 4 layers, width 256, context 128, batch 16": Task(
        lambda: Gpt(96, 128, 256, 8, 4, 0.0), _tokens(16, 128, 96), _next_token_loss
    ),
    "ResNet-18 on 32x32, batch 64": Task(lambda: ResNet18(64, 10), _images(64, 3, 32, 32), functional.cross_entropy),
}


def _optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=LEARNING_RATE)


def make_stock(model: nn.Module, task: Task, batch: Batch) -> Callable[[], None]:
    """A function that takes one eager step."""
    model = copy.deepcopy(model).train()
    optimizer = _optimizer(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        task.loss(model(batch[0]), batch[1]).backward()
        optimizer.step()

    return step


def make_captured(model: nn.Module, task: Task, batch: Batch, bits: int) -> Captured:
    """The program of the same step."""
    return capture(copy.deepcopy(model).train(), task.loss, _optimizer, batch, (), magnitude_bits=bits)


def make_exact(plan: Plan, state: dict[str, Tensor], batch: Batch) -> Callable[[], None]:
    """A function that takes one exact step."""
    held = [state]

    def step() -> None:
        held[0] = plan.run(held[0], batch, StepKey(bytes(32), 0, 0, 0)).new_state

    return step


def _time(step: Callable[[], None]) -> float:
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def profile(plan: Plan, state: dict[str, Tensor], batch: Batch) -> dict[str, float]:
    """Seconds of one step by kind of operation, the greatest first."""
    spent: dict[str, float] = defaultdict(float)

    def clocked(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def run(*operands: Any) -> Any:
            begun = time.perf_counter()
            result = kernel(*operands)
            spent[name] += time.perf_counter() - begun
            return result

        return run

    steps = [dataclasses.replace(step, kernel=clocked(step.name, step.kernel)) for step in plan.steps]
    watched = Plan(plan.program, plan.device, plan.constants, steps)
    whole = _time(make_exact(watched, state, batch))
    spent["rest"] = whole - sum(spent.values())
    return dict(sorted(spent.items(), key=lambda entry: -entry[1]))


def measure_memory(name: str, bits: int, steps: int = 2) -> float:
    """MiB that steps take above what was held when model and batch were ready; `bits` 0 for stock PyTorch."""
    task = TASKS[name]
    torch.manual_seed(0)
    model, batch = task.model(), task.batch()
    if bits == 0:
        step = make_stock(model, task, batch)
    else:
        job = make_captured(model, task, batch, bits)
        step = make_exact(load(job.train, budget=ROOMY), dict(job.state), batch)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    held = _memory_mib("VmRSS")
    for _ in range(steps):
        step()
    return _memory_mib("VmHWM") - held


def _memory_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _memory_elsewhere(name: str, bits: int, threads: int) -> float:
    arguments = ["--threads", str(threads), "--only", name, "--memory", str(bits)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.step", *arguments], capture_output=True, text=True, check=True, timeout=900
    )
    return float(done.stdout.split()[-1])


def _spread(seconds: list[float]) -> list[float]:
    """Median, least and greatest in milliseconds."""
    return [round(1e3 * value, 2) for value in (statistics.median(seconds), min(seconds), max(seconds))]


def _compare(name: str, unit: str, ours: list[float], theirs: list[float], goal: float) -> Row:
    medians = statistics.median(ours), statistics.median(theirs)
    return {
        "name": name,
        "ours": round(1e3 * medians[0], 2),
        "theirs": round(1e3 * medians[1], 2),
        "ratio": round(medians[0] / medians[1], 2),
        "unit": unit,
        "goal": goal,
        "ratio_of_least": round(min(ours) / min(theirs), 2),
        "spread_ours": _spread(ours)[1:],
        "spread_theirs": _spread(theirs)[1:],
    }


def _pairs(steps: tuple[Step, Step], count: int, clock: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Seconds of both, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(count):
        for series, step in zip(times, steps, strict=True):
            begun = clock()
            step()
            series.append(clock() - begun)
    return times


def measure(name: str, bits: int, pairs: int, threads: int, with_memory: bool) -> list[Row]:
    """Everything about one model and one M."""
    task = TASKS[name]
    torch.manual_seed(0)
    model, batch = task.model(), task.batch()
    job = make_captured(model, task, batch, bits)
    plan = load(job.train, budget=ROOMY)
    steps = make_exact(plan, dict(job.state), batch), make_stock(model, task, batch)
    for _ in range(WARM_STEPS):  # the first steps try the ways to each product
        for step in steps:
            step()
    title = f"{name}, M = {bits}"
    whole = _compare(f"{title}: step", "ms", *_pairs(steps, pairs, time.perf_counter), GOALS[bits])
    whole["parts_ms"] = {kind: round(1e3 * spent, 2) for kind, spent in profile(plan, dict(job.state), batch).items()}
    whole["nodes"], whole["steps_of_plan"] = len(job.train.nodes), len(plan.steps)
    torch.set_num_threads(1)
    for step in steps:
        step()
    alone = _pairs(steps, max(3, pairs // 2), time.process_time)
    rows = [whole, _compare(f"{title}: processor time of a step on one thread", "ms", *alone, GOALS[bits])]
    torch.set_num_threads(threads)
    if with_memory:
        ours, theirs = (_memory_elsewhere(name, chosen, threads) for chosen in (bits, 0))
        figures = {"ours": round(ours, 1), "theirs": round(theirs, 1), "ratio": round(ours / theirs, 2), "unit": "MiB"}
        rows.append({"name": f"{title}: peak memory of a step", **figures, "goal": MEMORY_GOAL})
    return rows


def describe(row: Row) -> str:
    """A line or two for a person."""
    text = f"{row['name']}: {row['ours']} {row['unit']}, stock {row['theirs']}: {row['ratio']}x (goal {row['goal']:g})"
    if "spread_ours" in row:
        least, most = row["spread_ours"]
        text += f", from {least} to {most}, of the least {row['ratio_of_least']}x"
    if "parts_ms" in row:
        text += "\n  ms by kind: " + ", ".join(f"{kind} {spent:g}" for kind, spent in list(row["parts_ms"].items())[:8])
    return text


def _machine(threads: int) -> dict[str, Any]:
    """What was measured on, and how busy others kept it."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    found = {"processor": processor, "cores": os.cpu_count(), "torch": torch.__version__, "threads": threads}
    return {**found, "load_average": [round(load, 1) for load in os.getloadavg()]}


def main() -> None:
    """Measure all models, or those whose name holds the text given, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--bits", type=int, nargs="*", default=[13, 21], choices=[13, 21])
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--no-memory", action="store_true", help="skip the peak memory")
    parser.add_argument("--memory", type=int, help="print the peak memory alone: 13, 21, or 0 for stock")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    chosen = [name for name in TASKS if given.only in name]
    if given.memory is not None:
        print(measure_memory(chosen[0], given.memory))
        return
    machine, rows = _machine(given.threads), []
    for name in chosen:
        for bits in given.bits:
            for row in measure(name, bits, given.pairs, given.threads, not given.no_memory):
                rows.append(row)
                print(describe(row), flush=True)
            machine["load_average_after"] = _machine(given.threads)["load_average"]
            if not given.only:  # kept as it grows: the whole takes long on a busy machine
                RESULT.parent.mkdir(exist_ok=True)
                RESULT.write_text(json.dumps({"rows": rows, "machine": machine}, indent=1) + "\n")


if __name__ == "__main__":
    main()

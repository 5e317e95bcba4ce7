"""`python -m bench.step`: one exact training step against the same step of stock eager PyTorch in binary32.

Both train the same model with the same optimizer on the same batch, in turns (exact, stock, exact, stock, ...) in one
process, so that whatever else the machine does falls on both. Reported: medians, spread (from the least to the
greatest), their ratio, the part of each kind of operation in an exact step, and the peak memory of each above what the
process held before, measured in processes of their own.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
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

Batch = tuple[Tensor, Tensor]


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
    "ResNet-18 on 32x32, batch 64": Task(
        lambda: ResNet18(64, 10), _images(64, 3, 32, 32), functional.cross_entropy
    ),
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


def measure(name: str, bits: int, pairs: int, threads: int, with_memory: bool) -> dict[str, Any]:
    """Everything about one model and one M."""
    task = TASKS[name]
    torch.manual_seed(0)
    model, batch = task.model(), task.batch()
    job = make_captured(model, task, batch, bits)
    plan = load(job.train, budget=ROOMY)
    exact, stock = make_exact(plan, dict(job.state), batch), make_stock(model, task, batch)
    for warm in (exact, stock, exact, stock):
        warm()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        times[0].append(_time(exact))
        times[1].append(_time(stock))
    medians = [statistics.median(series) for series in times]
    found: dict[str, Any] = {
        "model": name,
        "magnitude_bits": bits,
        "nodes": len(job.train.nodes),
        "steps_of_plan": len(plan.steps),
        "exact_ms": [round(1e3 * value, 2) for value in (medians[0], min(times[0]), max(times[0]))],
        "stock_ms": [round(1e3 * value, 2) for value in (medians[1], min(times[1]), max(times[1]))],
        "ratio": round(medians[0] / medians[1], 2),
        "ratio_of_least": round(min(times[0]) / min(times[1]), 2),
        "goal": GOALS[bits],
        "profile_ms": {kind: round(1e3 * spent, 2) for kind, spent in profile(plan, dict(job.state), batch).items()},
    }
    if with_memory:
        peaks = [_memory_elsewhere(name, chosen, threads) for chosen in (bits, 0)]
        found |= {"memory_mib": [round(peak, 1) for peak in peaks], "memory_ratio": round(peaks[0] / peaks[1], 2)}
    return found


def describe(found: dict[str, Any]) -> str:
    """Three lines for a person."""
    least, most = found["exact_ms"][1:]
    parts = ", ".join(f"{kind} {spent:g}" for kind, spent in list(found["profile_ms"].items())[:8])
    memory = f"; memory {found['memory_ratio']}x (goal {MEMORY_GOAL:g})" if "memory_ratio" in found else ""
    return (
        f"{found['model']}, M = {found['magnitude_bits']}: exact {found['exact_ms'][0]} ms ({least} to {most}), "
        f"stock {found['stock_ms'][0]} ms: {found['ratio']}x, of the least {found['ratio_of_least']}x "
        f"(goal {found['goal']}){memory}\n  ms by kind: {parts}"
    )


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
    rows = []
    for name in chosen:
        for bits in given.bits:
            rows.append(measure(name, bits, given.pairs, given.threads, not given.no_memory))
            print(describe(rows[-1]), flush=True)
    if not given.only:
        machine = {"processor": platform.processor(), "torch": torch.__version__, "threads": given.threads}
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

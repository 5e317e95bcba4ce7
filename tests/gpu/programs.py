"""Small programs and jobs that several tests use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from milon.gpu.interpreter import Plan, Result, load
from milon.pol.program import (
    NUMERICS,
    Input,
    InputRole,
    Node,
    Output,
    OutputRole,
    Program,
    ProgramKind,
    StepKey,
)
from milon.pol.shapes import DType


def single(operation: str, operands: list[Tensor], attributes: tuple[tuple[int, ...], ...] = ()) -> Tensor:
    """The result of one operation on these operands, run as a program of its own."""
    dtypes = {torch.float32: DType.FLOAT32, torch.int64: DType.INT64, torch.bool: DType.BOOL}
    inputs = tuple(Input(f"x{n}", InputRole.BATCH, dtypes[x.dtype], tuple(x.shape)) for n, x in enumerate(operands))
    node = Node(operation, tuple(range(len(operands))), attributes)
    output = Output(OutputRole.PREDICTION, "", len(operands))
    program = Program(ProgramKind.PREDICT, NUMERICS, 21, inputs, (), (node,), (output,))
    found = load(program).run({}, operands, None).prediction
    assert found is not None
    return found


def digits() -> tuple[Tensor, Tensor]:
    """Images [1797, 1, 8, 8] scaled to [0, 1], and their classes [1797]."""
    held = load_digits()
    images = torch.tensor(held.images, dtype=torch.float32).unsqueeze(1) / 16
    return images, torch.tensor(held.target)


def digits_cnn(seed: int = 0) -> nn.Sequential:
    """The model of the demonstration."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(32 * 4 * 4, 10),
    )


def batch_at(images: Tensor, classes: Tensor, step: int, size: int = 32) -> tuple[Tensor, Tensor]:
    """A batch of the first 1,400 digits that depends on the step alone."""
    rows = torch.arange(step * size, (step + 1) * size).mul(577).remainder(1400)
    return images[rows], classes[rows]


def train(plan: Plan, state: Mapping[str, Tensor], steps: int) -> tuple[dict[str, Tensor], list[Result]]:
    """The state after some steps on the digits, and each step's result."""
    images, classes = digits()
    results = []
    for step in range(steps):
        results.append(plan.run(state, batch_at(images, classes, step), StepKey(bytes(32), 0, 0, step)))
        state = results[-1].new_state
    return dict(state), results


def digest_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and bytes of all tensors, in the order of the names."""
    running = hashlib.sha256()
    for name in sorted(state):
        running.update(name.encode() + state[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return running.hexdigest()


def digests_of_training(plan: Plan, state: Mapping[str, Tensor], steps: int) -> tuple[str, str]:
    """Digest of the state after some steps on the digits, and of every step's loss and gradients."""
    last, results = train(plan, state, steps)
    traces = {f"{number:03}.loss": result.loss for number, result in enumerate(results) if result.loss is not None}
    for number, result in enumerate(results):
        traces |= {f"{number:03}.{name}": gradient for name, gradient in result.gradients.items()}
    return digest_of(last), digest_of(traces)

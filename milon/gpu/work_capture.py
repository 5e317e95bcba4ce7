"""A job's model, loss and optimizer as the blobs that travel: programs and the first state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from milon.base.codec import encode
from milon.gpu.capture import capture
from milon.gpu.checkpoint import to_bytes
from milon.gpu.recipe import Recipe
from milon.gpu.train import read_state
from milon.gpu.work_library import layout_of, write_blob
from milon.gpu.work_rehearsal import UserCode
from milon.pol.program import Budget, verify_program
from milon.pol.work import BlobFile


@dataclass(frozen=True, slots=True)
class CapturedFiles:
    """Where the captured parts of a job lie."""

    train: BlobFile  # one training step
    evaluate: tuple[BlobFile, ...]  # one for each size of evaluation batch
    predict: BlobFile  # the model's output
    state: BlobFile  # the first state
    description: str  # for people: what one step takes


def capture_job(
    model: nn.Module,
    loss: Callable[..., Tensor],
    optimizer: Callable[..., Any],
    columns: Sequence[Tensor],
    batch_size: int,
    evaluation_batch_sizes: Sequence[int],
    folder: Path,
    recipe: Recipe | None = None,
) -> CapturedFiles:
    """Capture the job and write its programs and first state into `folder`; `columns` are its training rows.

    Raises `Rejected` where the model uses what programs do not have, or its first state is not finite.
    """
    rows = len(columns[0])
    example = tuple(column[[row % rows for row in range(batch_size)]] for column in columns)
    advice = "keep every shape and every branch independent of values; nearest supported: torch.where instead of masks"
    with UserCode("the training step cannot be captured", advice):
        captured = capture(model, loss, optimizer, example, tuple(evaluation_batch_sizes), recipe=recipe)
    cost = verify_program(captured.train, Budget())
    raw = to_bytes(captured.state)
    read_state(raw, layout_of(captured.train))
    parameters = sum(tensor.numel() for name, tensor in captured.state.items() if name.startswith("model."))
    description = (
        f"one step: {len(captured.train.nodes)} operations on {parameters} model elements, "
        f"{cost.operations / 1e6:.1f} million arithmetic operations, {cost.memory_bytes / 1e6:.1f} MB"
    )
    return CapturedFiles(
        train=write_blob(folder, encode(captured.train)),
        evaluate=tuple(write_blob(folder, encode(program)) for program in captured.evaluate),
        predict=write_blob(folder, encode(captured.predict)),
        state=write_blob(folder, raw),
        description=description,
    )

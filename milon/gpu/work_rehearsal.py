"""Runs a user's model on the hardest rows of the data before anything is captured, so that what fails fails in words.

A program is checked without its data, and a node meets a class or a token that the model does not have only when it
draws that row. So the rows with the least and the greatest number of every whole-number column are tried here, once,
by stock PyTorch on the user's machine: in training as the first batch, in evaluation as a batch of their own.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from milon.base.errors import Reason, Rejected, require

NOTHING_SENT = "nothing was sent"
_NOT_USERS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<")  # where frames of others lie


class UserCode:
    """While the user's own code runs, whatever it raises becomes a `Rejected` that names its line and what to do."""

    def __init__(self, cause: str, advice: str) -> None:
        self._cause, self._advice = cause, advice

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not isinstance(error, Exception) or isinstance(error, Rejected):
            return
        frames = traceback.extract_tb(error.__traceback__)
        users = [frame for frame in frames if not frame.filename.startswith(_NOT_USERS)]
        where = f" ({users[-1].filename}, line {users[-1].lineno}: {users[-1].line})" if users else ""
        text = " ".join(str(error).split())
        detail = f"{self._cause}: {type(error).__name__}: {text:.400}{where}; {NOTHING_SENT}; {self._advice}"
        raise Rejected(Reason.DOES_NOT_FIT, detail) from error


def find_hard_rows(columns: Sequence[Tensor], count: int) -> list[int]:
    """`count` rows: those that hold the least and the greatest of each int64 column, then the first ones."""
    total = len(columns[0])
    hard: dict[int, None] = {}
    for column in columns:
        if column.dtype is torch.int64 and column.numel():
            flat = column.reshape(total, -1)
            hard[int(flat.amin(1).argmin())] = None
            hard[int(flat.amax(1).argmax())] = None
    rows = [*hard, *(row for row in range(min(total, count)) if row not in hard)]
    return [rows[place % len(rows)] for place in range(max(count, len(hard)))]


def _describe(names: Sequence[str], columns: Sequence[Tensor]) -> str:
    """The columns in words: name, element type, shape of a row, and from where to where whole numbers go."""
    parts = []
    for name, column in zip(names, columns, strict=True):
        kind = str(column.dtype).removeprefix("torch.")
        bounds = f" from {int(column.min())} to {int(column.max())}" if column.dtype is torch.int64 else ""
        parts.append(f"{name} {kind}{list(column.shape[1:])}{bounds}")
    return ", ".join(parts)


def verify_same_layout(names: Sequence[str], train: Sequence[Tensor], evaluation: Sequence[Tensor]) -> None:
    """`Rejected(DOES_NOT_FIT)` unless evaluation rows look like training rows."""
    advice = f"{NOTHING_SENT}; give evaluation data of the same columns as the training data"
    if len(train) != len(evaluation):
        detail = f"{len(train)} columns to train on and {len(evaluation)} to evaluate on; {advice}"
        raise Rejected(Reason.DOES_NOT_FIT, detail)
    for name, left, right in zip(names, train, evaluation, strict=True):
        if (left.dtype, left.shape[1:]) != (right.dtype, right.shape[1:]):
            found = [f"{str(column.dtype).removeprefix('torch.')}{list(column.shape[1:])}" for column in (left, right)]
            detail = (
                f"a row of {name} is {found[0]} in the training data and {found[1]} in the evaluation data; {advice}"
            )
            raise Rejected(Reason.DOES_NOT_FIT, detail)


def _try_batch(model: nn.Module, loss: Callable[..., Any], batch: Sequence[Tensor], training: bool) -> None:
    held = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            loss(torch.func.functional_call(model, held, tuple(batch[:-1])), batch[-1])
    finally:
        for module, was in before:
            module.training = was


def rehearse(
    model: nn.Module,
    loss: Callable[..., Any],
    optimizer: Callable[..., Any],
    names: Sequence[str],
    train: Sequence[Tensor],
    evaluation: Sequence[Tensor],
    batch_size: int,
) -> None:
    """Try the model, the loss and the optimizer; the model and torch's generator stay as they were.

    Columns are [rows, ...], inputs first and the target last. Raises `Rejected` with cause, consequence and next step.
    """
    verify_same_layout(names, train, evaluation)
    advice = "make the data, the model and the loss fit each other"
    for what, columns, training in (("training", train, True), ("evaluation", evaluation, False)):
        rows = find_hard_rows(columns, batch_size)
        cause = f"the model or the loss fails on a batch of {len(rows)} {what} rows ({_describe(names, columns)})"
        with UserCode(cause, advice):
            _try_batch(model, loss, [column[rows] for column in columns], training)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if trained:  # capture says what a model without any needs
        _try_optimizer(optimizer, trained)


def _try_optimizer(optimizer: Callable[..., Any], trained: Sequence[Tensor]) -> None:
    with UserCode("the optimizer cannot be made", "try your optimizer function on the model's parameters"):
        made = optimizer([parameter.detach().clone().requires_grad_() for parameter in trained])
    advice = f"{NOTHING_SENT}; return what you make: optimizer=lambda parameters: torch.optim.Adam(parameters)"
    detail = f"the optimizer function gives a {type(made).__name__}; {advice}"
    require(isinstance(made, torch.optim.Optimizer), Reason.WRONG_TYPE, detail)

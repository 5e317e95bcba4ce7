"""A trained model outside the network: exported as a safetensors file, and loaded into plain, stock PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected
from milon.gpu.checkpoint import export_model, from_bytes
from milon.pol.program import PROGRAM_BYTES_MAX, Budget, OutputRole, Program, verify_program


def find_aliases(raw: bytes) -> dict[str, str]:
    """From an encoded prediction program: the further names of tied tensors, and the names they have in the state."""
    program = decode(Program, raw, PROGRAM_BYTES_MAX)
    verify_program(program, Budget())
    aliases = [output for output in program.outputs if output.role is OutputRole.ALIAS]
    return {output.name: program.inputs[output.value].name for output in aliases}


def export(state_file: Path, program_file: Path, out: Path) -> int:
    """Write the model's parameters and buffers of a state file to `out`; returns how many tensors.

    The file of the job's prediction program says by which further names tied tensors are known.
    """
    for file in (state_file, program_file):
        if not file.is_file():
            raise Rejected(Reason.UNAVAILABLE, f"there is no file {file}")
    tensors = export_model(from_bytes(state_file.read_bytes()), find_aliases(program_file.read_bytes()))
    part = out.with_name(f".{out.name}.part")
    safetensors.torch.save_file(tensors, part)
    part.replace(out)
    return len(tensors)


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Load a safetensors file into `module`; `Rejected` where it is none, or its names or shapes are others."""
    try:
        tensors = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise Rejected(Reason.UNAVAILABLE, f"there is no file {path}") from None
    except safetensors.SafetensorError as error:
        raise Rejected(Reason.MALFORMED, f"{path} is not a safetensors file: {error}") from None
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise Rejected(Reason.DOES_NOT_FIT, f"{path} is of another model: {error}") from None


def compute_plain_accuracy(
    module: torch.nn.Module, loss: Callable[..., Any], columns: Sequence[Tensor], batch_size: int
) -> dict[str, float | int | None]:
    """Loss, correct rows and accuracy of `module` in evaluation mode, by stock PyTorch; no Milon arithmetic.

    Accuracy is None where the target holds no class numbers.
    """
    module.eval()
    rows = len(columns[0])
    total, correct = 0.0, 0
    has_classes = columns[-1].dtype == torch.int64
    with torch.no_grad():
        for first in range(0, rows, batch_size):
            *inputs, target = (column[first : first + batch_size] for column in columns)
            prediction = module(*inputs)
            total += float(loss(prediction, target)) * len(target)
            if has_classes:
                correct += int((prediction.argmax(dim=1) == target).sum())
    return {
        "accuracy": correct / rows if has_classes else None,
        "loss": total / rows,
        "correct": correct if has_classes else None,
        "rows": rows,
    }

"""Golden vectors of whole models: programs as captured once, and the digest of the state after a few of their steps.

    python -m bench.golden                writes tests/vectors/models.json anew; a change of a bit there needs a reason

Programs are kept, because another version of torch may trace another one; states and batches are made of rule N5's
numbers, so that nothing depends on how torch draws.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bench.calls import digests
from bench.cases import CASES, capture_case, digest_of
from milon.base.codec import decode, encode
from milon.gpu.interpreter import Plan, load
from milon.gpu.philox import draw_uniform
from milon.pol.program import Input, InputRole, Program, StepKey
from milon.pol.shapes import DType

FOLDER = Path(__file__).parents[1] / "tests" / "vectors"
VECTORS = FOLDER / "models.json"
OPERATION_VECTORS = FOLDER / "operations.json"
STEPS = 3
LEAST_CLASSES = 4  # of any case: whole numbers of a batch stay below


def make_tensor(entry: Input, number: int) -> Tensor:
    """Weights about zero, everything that must not be negative from 0 to 1/2; whole numbers 0, 1, 2 or 3."""
    uniform = draw_uniform(StepKey(bytes(32), number, 0, 0), 0, entry.shape, torch.device("cpu"))
    if entry.dtype is DType.INT64:
        whole = (uniform * LEAST_CLASSES).to(torch.int64)
        return whole if entry.role is InputRole.BATCH else torch.zeros_like(whole)
    if entry.dtype is DType.BOOL:
        return uniform < 0.5
    if entry.name == "optimizer.step":
        return torch.zeros(())
    is_square = "var" in entry.name or "sq" in entry.name or "square" in entry.name
    return uniform * 0.5 if is_square else uniform - 0.5


def compute_digest(program: Program, plan: Plan | None = None) -> str:
    """Digest of the last state, all losses and all gradients of a few steps of a training program.

    `plan` is the program loaded in another way than the ordinary one.
    """
    plan = plan or load(program)
    made = {number: make_tensor(entry, number) for number, entry in enumerate(program.inputs)}
    state = {entry.name: made[n] for n, entry in enumerate(program.inputs) if entry.role is InputRole.STATE}
    batch = [made[number] for number, entry in enumerate(program.inputs) if entry.role is InputRole.BATCH]
    seen: dict[str, Tensor] = {}
    for step in range(STEPS):
        result = plan.run(state, batch, StepKey(bytes(32), 0, 0, step))
        state = result.new_state
        seen |= {f"{step}.{name}": gradient for name, gradient in result.gradients.items()}
        if result.loss is not None:
            seen[f"{step}.loss"] = result.loss
    return digest_of({**seen, **state})


def pack(program: Program) -> str:
    """A program as text."""
    return base64.b85encode(zlib.compress(encode(program), 9)).decode()


def unpack(text: str) -> Program:
    """The program in a text."""
    return decode(Program, zlib.decompress(base64.b85decode(text)))


def read_vectors() -> Mapping[str, Mapping[str, str]]:
    """For each model its program and the digest."""
    found: dict[str, dict[str, str]] = json.loads(VECTORS.read_text())
    return found


def main() -> None:
    """Capture every case and write the vectors."""
    torch.set_num_threads(1)
    OPERATION_VECTORS.write_text(json.dumps(digests(), indent=1) + "\n")
    vectors = {}
    for name, case in CASES.items():
        program = capture_case(case).train
        vectors[name] = {"program": pack(program), "digest": compute_digest(program)}
        print(name, vectors[name]["digest"], flush=True)
    VECTORS.write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()

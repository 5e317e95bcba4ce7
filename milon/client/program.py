"""A job's program without a node: captured from the user's file, and described in figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected, require
from milon.client.submission import capture
from milon.pol.program import PROGRAM_BYTES_MAX, Budget, Program, ProgramKind, compute_program_digest
from milon.pol.summary import summarize


def build_program(file: Path, kind: str) -> bytes:
    """The encoded program of that kind ("train", "evaluate", "predict") of the job in a Python file.

    Captured in a process of its own. `Rejected` where the job cannot be captured or there is no such kind.
    """
    if kind not in list(ProgramKind):
        raise Rejected(Reason.UNKNOWN, f"a program of kind {kind!r}; there are {', '.join(ProgramKind)}")
    with capture(file, {}) as captured:
        spec = captured.spec
        blobs = {"train": spec.train, "evaluate": spec.evaluate[0].program, "predict": spec.predict}
        return {path.name: path for path in captured.blobs}[blobs[kind].hex()].read_bytes()


def read_program(path: Path) -> bytes:
    """The content of a program's file; `Rejected` for one that is too large."""
    size = path.stat().st_size
    require(size <= PROGRAM_BYTES_MAX, Reason.TOO_LARGE, f"{path} has {size} bytes; it is no program")
    return path.read_bytes()


def describe_program(raw: bytes) -> dict[str, Any]:
    """The figures of an encoded program, for JSON; `Rejected` for bytes that are no program or do not check."""
    program = decode(Program, raw, PROGRAM_BYTES_MAX)
    summary = summarize(program, Budget())
    return {
        "kind": summary.kind.value,
        "digest": compute_program_digest(program).hex(),
        "numerics": summary.numerics,
        "magnitude_bits": summary.magnitude_bits,
        "parameters": summary.parameters,
        "frozen": summary.frozen,
        "optimizer_slots": summary.slots,
        "batch": list(summary.batch),
        "draws": summary.draws,
        "constant_bytes": summary.constant_bytes,
        "arithmetic": summary.cost.operations,
        "memory_bytes": summary.cost.memory_bytes,
        "operations": [
            {"operation": use.name, "rule": use.rule, "count": use.count, "elements": use.elements}
            for use in summary.operations
        ],
    }

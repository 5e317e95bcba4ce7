"""A job's programs without a node: captured from the user's file or read from disk, and described in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from milon.base.codec import decode, encode
from milon.base.errors import Reason, require
from milon.client.submission import capture
from milon.pol.program import PROGRAM_BYTES_MAX, Budget, Program, ProgramKind, compute_program_digest
from milon.pol.summary import summarize

KINDS = tuple(kind.value for kind in ProgramKind)


def capture_program(file: Path, kind: str) -> Program:
    """The program of one of `KINDS`, from a capture of the user's file in a process of its own."""
    with capture(file, {}) as captured:
        spec = captured.spec
        blobs = {"train": spec.train, "evaluate": spec.evaluate[0].program, "predict": spec.predict}
        found = {path.name: path for path in captured.blobs}
        return read_program(found[blobs[kind].hex()])


def read_program(path: Path) -> Program:
    """The program in a file; `Rejected` where it is none."""
    size = path.stat().st_size
    require(size <= PROGRAM_BYTES_MAX, Reason.TOO_LARGE, f"{path} has {size} bytes; it is no program")
    return decode(Program, path.read_bytes(), PROGRAM_BYTES_MAX)


def encode_program(program: Program) -> bytes:
    """The bytes of its file."""
    return encode(program)


def describe_program(program: Program) -> dict[str, Any]:
    """What it is and costs, as JSON values; `Rejected` where it is not sound."""
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

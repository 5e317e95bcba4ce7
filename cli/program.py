"""`milon program`: capture a job's program without sending it, and say what a program does and costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import JsonOption
from .output import print_json, print_lines, print_pairs, print_table

if TYPE_CHECKING:
    from milon.pol.program import Program
    from milon.pol.summary import Summary

_noun = typer.Typer(help="Training programs: what travels to the nodes instead of code.", no_args_is_help=True)

KindOption = Annotated[str, typer.Option(help="train, evaluate or predict.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.add_typer(_noun, name="program")


@_noun.callback()
def root_of_noun() -> None:
    """Training programs: what travels to the nodes instead of code."""


@_noun.command(epilog="Example: milon program build examples/digits/job.py -o digits.program")
def build(
    file: Annotated[Path, typer.Argument(help="Python file that makes one milon.Job.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    kind: KindOption = "train",
    as_json: JsonOption = False,
) -> None:
    """Capture a job's program and write it to a file; nothing is sent and no node is needed."""
    from milon.base.codec import encode
    from milon.node.folder import refusing_os_errors, write_file

    program = _capture(file, kind)
    with refusing_os_errors(f"cannot write {out}"):
        write_file(out, encode(program))
    _print(out, program, as_json)


@_noun.command(epilog="Example: milon program show digits.program")
def show(
    file: Annotated[Path, typer.Argument(help="A program, or the file of a job.", exists=True, dir_okay=False)],
    kind: KindOption = "train",
    as_json: JsonOption = False,
) -> None:
    """Parameters, operations by kind, arithmetic and memory of one run, and the version of the numerics."""
    _print(file, _capture(file, kind) if file.suffix == ".py" else _read(file), as_json)


def _capture(file: Path, kind: str) -> Program:
    """The program of that kind, from a capture in a process of its own."""
    from milon.client.submission import capture
    from milon.pol.program import ProgramKind

    if kind not in list(ProgramKind):
        raise typer.BadParameter(f"{kind!r} is not one of {', '.join(ProgramKind)}", param_hint="--kind")
    with capture(file, {}) as captured:
        spec = captured.spec
        blobs = {"train": spec.train, "evaluate": spec.evaluate[0].program, "predict": spec.predict}
        found = {path.name: path for path in captured.blobs}
        return _read(found[blobs[kind].hex()])


def _read(path: Path) -> Program:
    from milon.base.codec import decode
    from milon.base.errors import Reason, require
    from milon.pol.program import PROGRAM_BYTES_MAX, Program

    size = path.stat().st_size
    require(size <= PROGRAM_BYTES_MAX, Reason.TOO_LARGE, f"{path} has {size} bytes; it is no program")
    return decode(Program, path.read_bytes(), PROGRAM_BYTES_MAX)


def _describe(program: Program, summary: Summary) -> dict[str, Any]:
    from milon.pol.program import compute_program_digest

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


def _print(path: Path, program: Program, as_json: bool) -> None:
    from milon.pol.program import Budget
    from milon.pol.summary import summarize

    answer = _describe(program, summarize(program, Budget()))
    if as_json:
        print_json({"file": str(path), **answer})
        return
    uses = answer.pop("operations")
    print_pairs(
        [
            ("program", f"{path}, {answer['digest']}"),
            ("kind", answer["kind"]),
            ("numerics", f"{answer['numerics']}, {answer['magnitude_bits']} magnitude bits"),
            ("parameters", f"{answer['parameters']} trained, {answer['frozen']} frozen or buffers"),
            ("optimizer", f"{answer['optimizer_slots']} elements in its slots"),
            ("batch", ", ".join(answer["batch"]) or "none"),
            ("random", f"{answer['draws']} numbers a run"),
            ("constants", f"{answer['constant_bytes']} bytes"),
            ("arithmetic", f"{answer['arithmetic'] / 1e6:.3f} million operations a run"),
            ("memory", f"{answer['memory_bytes'] / 1e6:.3f} MB at the worst moment, by estimate"),
        ]
    )
    print_lines([""])
    print_table(
        ("operation", "rule", "count", "elements"),
        [(use["operation"], use["rule"], use["count"], use["elements"]) for use in uses],
    )

"""`milon program`: capture a job's program without sending it, and say what a program does and costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption
from .output import print_json, print_lines, print_pairs, print_table

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
    from milon.client.program import build_program
    from milon.node.folder import write_file

    raw = build_program(file, kind)
    write_file(out, raw)
    _print(out, raw, as_json)


@_noun.command(epilog="Example: milon program show digits.program")
def show(
    file: Annotated[Path, typer.Argument(help="A program, or the file of a job.", exists=True, dir_okay=False)],
    kind: KindOption = "train",
    as_json: JsonOption = False,
) -> None:
    """Parameters, operations by kind, arithmetic and memory of one run, and the version of the numerics."""
    from milon.client.program import build_program, read_program

    _print(file, build_program(file, kind) if file.suffix == ".py" else read_program(file), as_json)


def _print(path: Path, raw: bytes, as_json: bool) -> None:
    from milon.client.program import describe_program

    answer = describe_program(raw)
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

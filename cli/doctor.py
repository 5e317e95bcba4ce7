"""`milon doctor`: look a node over, running or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .exits import Exit
from .options import DEFAULT_NODE, DataOption, JsonOption
from .output import print_json, print_lines

if TYPE_CHECKING:
    from milon.node.findings import Finding


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.command(epilog="Example: milon doctor --data ./milon-data")(doctor)


def doctor(
    root: DataOption = DEFAULT_NODE,
    is_offline: Annotated[bool, typer.Option("--offline", help="Ask no peers.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at clock, disk, file limits, ports, peers, keys, vote log and store; each line is ok, warn or fail.

    A line that is not ok says cause, consequence and next step. Exit codes: 0 nothing fails; 1 something does.
    """
    from milon.api.shapes import to_json

    findings = _examine(root, is_offline)
    if as_json:
        print_json({"findings": to_json(tuple(findings))})
    else:
        print_lines(_describe(finding) for finding in findings)
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(Exit.NO)


def _examine(root: Path, is_offline: bool) -> list[Finding]:
    import trio

    from milon.node.doctor import examine
    from milon.node.doctor_network import examine_network
    from milon.node.folder import NodeFolder

    folder = NodeFolder(root)
    findings = list(examine(root))
    if not is_offline and findings[0].level == "ok":
        findings += trio.run(examine_network, folder)
    return findings


def _describe(finding: Finding) -> str:
    parts = [finding.cause, finding.consequence, finding.next_step]
    return f"{finding.level.ljust(4)}  {finding.check}: {'; '.join(part for part in parts if part)}"

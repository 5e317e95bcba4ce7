"""`milon replay`: run a node's chain again and compare."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .exits import Exit
from .options import DEFAULT_NODE, DataOption, JsonOption
from .output import print_json, print_lines, print_pairs

if TYPE_CHECKING:
    from milon.node.replay import ReplayReport


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.command(epilog="Example: milon replay --verify --data ./milon-data")(replay)


def replay(
    root: DataOption = DEFAULT_NODE,
    is_verifying: Annotated[
        bool, typer.Option("--verify", help="Compare with the blocks and the store; it does nothing else.")
    ] = True,
    is_from_snapshot: Annotated[
        bool, typer.Option("--from-snapshot", help="Start from the newest snapshot in the folder, not from genesis.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a node's chain again through the contracts and compare every root; the node may be running.

    Exit codes: 0 everything came out again; 1 it did not, naming height, both roots, the first family of ledger keys
    that differs, and the next step; 2 it cannot be replayed.
    """
    from milon.node.folder import NodeFolder
    from milon.node.replay import replay_folder

    def say(height: int, tip: int) -> None:
        if not as_json and sys.stderr.isatty():
            print(f"\r{height}/{tip}", end="", file=sys.stderr, flush=True)

    report = replay_folder(NodeFolder(root), is_from_snapshot, say)
    if not as_json and sys.stderr.isatty():
        print(file=sys.stderr)
    _print(report, as_json)
    if report.mismatch is not None:
        raise typer.Exit(Exit.NO)


def _print(report: ReplayReport, as_json: bool) -> None:
    from milon.api.shapes import to_json

    if as_json:
        print_json(to_json(report))
        return
    found = report.mismatch
    if found is None:
        print_lines(
            [
                f"blocks {report.first} to {report.last} come out again; {report.certificates} certificates hold; "
                "the stored ledger and its tree are theirs"
            ]
        )
        return
    print_lines([f"block {found.height}: {found.what}: {found.cause}"])
    pairs = (("expected", found.expected), ("found", found.found), ("family", found.family))
    print_pairs([(name, value) for name, value in pairs if value])
    print_lines([f"next: {found.next_step}"])

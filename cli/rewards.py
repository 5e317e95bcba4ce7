"""`milon rewards`: who was paid what for a round, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .connection import open_node
from .exits import Exit
from .job import JobArgument
from .options import DEFAULT_NODE, JsonOption, NodeOption
from .output import print_json, print_lines

if TYPE_CHECKING:
    from milon.client.receipts import Explanation

_noun = typer.Typer(help="What work was paid, and why.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.add_typer(_noun, name="rewards")


@_noun.callback()
def root_of_noun() -> None:
    """What work was paid, and why."""


@_noun.command(epilog="Example: milon rewards explain latest 0")
def explain(
    job: JobArgument,
    number: Annotated[int, typer.Argument(metavar="ROUND", min=0, help="The round, counted from 0.")],
    root: NodeOption = DEFAULT_NODE,
    as_json: JsonOption = False,
) -> None:
    """Explain every amount of a closed round, and compare their sum with what the job's escrow has paid.

    Exit codes: 0 everything adds up; 1 something does not.
    """
    from milon.client.receipts import explain_round

    with open_node(root) as client:
        found = explain_round(client.find_job(job), number)
    if as_json:
        from milon.api.shapes import to_json

        print_json(to_json(found))
    else:
        _print(found)
    if not found.adds_up:
        raise typer.Exit(Exit.NO)


def _print(found: Explanation) -> None:
    print_lines([f"job {found.job}  round {found.round}"])
    for receipt in found.receipts:
        mark = "" if receipt.adds_up else "  DOES NOT ADD UP"
        print_lines([f"{receipt.account}  {receipt.reason:11} {receipt.amount:>12}  {receipt.because}{mark}"])
    for entry in found.unpaid:
        print_lines([f"{entry.account}  {'unpaid':11} {0:>12}  {entry.segments} segments: {entry.because}"])
    print_lines(
        [
            f"from the escrow for work: {found.from_escrow} in this round, {found.paid_so_far} in all closed rounds",
            f"the escrow has paid {found.escrow_difference}: "
            + ("equal" if found.paid_so_far == found.escrow_difference else "NOT EQUAL"),
        ]
    )

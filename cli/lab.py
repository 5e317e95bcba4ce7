"""`milon lab`: what a rule is worth against an attack, on a job of one's own, without a network."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .exits import Exit
from .options import JsonOption
from .output import print_json, print_lines, print_table

if TYPE_CHECKING:
    from milon.client.lab import Progress as Done
    from milon.client.lab import Report
    from milon.client.lab_report import Entry

DEFAULT_RULES = ("mean", "trimmed-mean", "multi-krum", "arc,nnm,trimmed-mean")
DEFAULT_ATTACKS = ("sign-flip", "alie-optimised", "ipm-optimised", "min-max", "min-sum", "mimic", "label-flip")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: milon lab examples/digits/job.py --attack min-max --split dirichlet:0.3")(lab)


def _print_kinds(is_wanted: bool) -> None:
    if is_wanted:
        from milon.client.lab_kinds import list_kinds

        print_table(("attack", "knows", "factor", "source"), list_kinds())
        raise typer.Exit(Exit.OK)


def lab(
    file: Annotated[Path, typer.Argument(help="Python file that makes one milon.Job.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results; what is there is not run again.")] = (
        Path("milon-lab")
    ),
    rule: Annotated[list[str] | None, typer.Option(help="An aggregator, as a job names it; repeat.")] = None,
    attack: Annotated[list[str] | None, typer.Option(help="KIND or KIND:FACTOR; repeat. See --kinds.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="iid, dirichlet:ALPHA or one-class; repeat.")] = None,
    trainers: Annotated[int, typer.Option(min=1, help="Trainers, attackers included.")] = 13,
    attackers: Annotated[int, typer.Option(min=0, help="Hostile ones among them.")] = 3,
    tolerance: Annotated[int | None, typer.Option(min=0, help="The f of the rule; the attackers where left out.")] = (
        None
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each cell.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of a run.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of a trainer in a round.")] = 10,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows a step, instead of the job's own.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; the cores where left out.")] = None,
    as_json: JsonOption = False,
    kinds: Annotated[
        bool, typer.Option("--kinds", callback=_print_kinds, is_eager=True, help="List the attacks, and end.")
    ] = False,
) -> None:
    """Run a table of rules and attacks on a job and print accuracy and the attackers' share in the results.

    A row without attackers is always there. The same arguments give the same numbers; a run that was stopped goes on.
    Writes lab.json, lab.csv and lab.svg into the folder.
    """
    from milon.client.lab import run_table
    from milon.client.lab_plan import LabPlan, verify_plan
    from milon.client.lab_report import to_json, write_report
    from milon.client.submission import capture

    plan = LabPlan(
        rules=tuple(rule or DEFAULT_RULES),
        attacks=tuple(attack or DEFAULT_ATTACKS),
        splits=tuple(split or ("iid",)),
        seeds=seeds,
        trainers=trainers,
        attackers=attackers,
        tolerance=attackers if tolerance is None else tolerance,
        rounds=rounds,
        steps=steps,
    )
    verify_plan(plan)
    options = {} if batch_size is None else {"batch-size": str(batch_size)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with capture(file, options) as captured, _showing(as_json) as report:
        finished = run_table(captured.blobs[0].parent, plan, out, workers or cores, report)
    entries = write_report(plan, finished, out)
    if as_json:
        print_json(to_json(plan, entries, finished))
    else:
        _print_tables(entries, out)


def _print_tables(entries: Sequence[Entry], out: Path) -> None:
    from milon.client.lab_report import list_tables

    for name, head, rows in list_tables(entries):
        print_lines(["", f"{name}: accuracy in per cent ± standard deviation | the attackers' share in the result"])
        print_table(head, rows)
    print_lines(["", *(f"written: {out / name}" for name in ("lab.json", "lab.csv", "lab.svg"))])


class _Lines:
    """Progress where there is no terminal: a line for every tenth of the cells."""

    def __init__(self) -> None:
        self._tenth = 0

    def show(self, found: Done) -> None:
        """Print a line if another tenth is done."""
        tenth = 10 * found.cells // found.cells_total
        if tenth > self._tenth:
            self._tenth = tenth
            line = f"{found.cells} of {found.cells_total} cells, {found.rounds} of {found.rounds_total} rounds"
            print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _showing(is_quiet: bool) -> Iterator[Report]:
    """A bar in a terminal; elsewhere a line for every tenth of the cells, on standard error."""
    if is_quiet:
        yield lambda progress: None
        return
    if not sys.stderr.isatty():
        yield _Lines().show
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("rounds"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("")

        def show(found: Done) -> None:
            text = f"{found.cells} of {found.cells_total} cells"
            bar.update(task, completed=found.rounds, total=found.rounds_total, description=text)

        yield show

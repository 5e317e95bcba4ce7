"""Shows a running demonstration: a live screen in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .output import decimal, percent, print_lines
from .watch import describe_current, describe_round, list_refusals

if TYPE_CHECKING:
    from rich.console import RenderableType

Json = dict[str, Any]
Naming = Callable[[str], str]

LINES_KEPT = 6  # of what was said, on the live screen


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the nodes showed at one moment."""

    statuses: tuple[Json | None, ...]  # one a node; None: it does not answer
    job: Json | None  # None before it is on the chain


class Screen(Protocol):
    """Where progress goes."""

    def __enter__(self) -> Screen:
        """Take the terminal."""

    def __exit__(self, *details: object) -> None:
        """Give it back."""

    def say(self, line: str) -> None:
        """Something happened once."""

    def show(self, snapshot: Snapshot) -> None:
        """The state now."""


def describe_verifying(status: Json, name_of: Naming) -> str:
    """Whom a node verifies, or what else it does."""
    if not status["working"]:
        return "idle"
    work = status["working"][0]
    if work["kind"] == "replay" and work["trainer"]:
        return f"verifies {name_of(work['trainer'])} {work['segment']}/{work['total']}"
    loss = f", loss {decimal(work['loss'])}" if work["loss"] is not None else ""
    done = f" {work['segment']}/{work['total']}" if work["total"] else ""
    return f"{work['kind']}{done}{loss}"


def stamp(began: float) -> str:
    """The time since the start, for the front of a line."""
    return f"[{time.monotonic() - began:6.1f} s]"


class PlainScreen:
    """A line for everything that happens, for logs and pipes."""

    def __init__(self, name_of: Naming, began: float) -> None:
        """`name_of` gives a node's name for its account; `began` is the monotonic time of the start."""
        self._name_of = name_of
        self._began = began
        self._rounds = 0
        self._said = ""
        self._verifying: set[tuple[int, str, int]] = set()

    def __enter__(self) -> PlainScreen:
        return self

    def __exit__(self, *details: object) -> None:
        return None

    def say(self, line: str) -> None:
        """Print it."""
        print_lines([f"{stamp(self._began)} {line}"])

    def show(self, snapshot: Snapshot) -> None:
        """Print what is new."""
        job = snapshot.job
        if job is None:
            return
        at = stamp(self._began)
        for closed in job["rounds"][self._rounds :]:
            print_lines(f"{at} {line}" for line in describe_round(closed))
        self._rounds = len(job["rounds"])
        for index, status in enumerate(snapshot.statuses):
            for work in status["working"] if status else ():
                known = (index, str(work["trainer"]), work["round"])
                if work["kind"] == "replay" and work["trainer"] and known not in self._verifying:
                    self._verifying.add(known)
                    print_lines([f"{at} node {index} verifies {self._name_of(work['trainer'])}, round {work['round']}"])
        line = describe_current(job)
        if line != self._said:
            heights = [status["height"] for status in snapshot.statuses if status]
            print_lines([f"{at} {line}, height {max(heights, default=0)}"])
            self._said = line


class LiveScreen:
    """A screen that is drawn again and again."""

    def __init__(self, name_of: Naming, began: float) -> None:
        """`name_of` gives a node's name for its account; `began` is the monotonic time of the start."""
        from rich.live import Live

        self._name_of = name_of
        self._began = began
        self._lines: list[str] = []
        self._snapshot = Snapshot((), None)
        self._live = Live(get_renderable=self._draw, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveScreen:
        self._live.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._live.stop()
        print_lines(self._lines)

    def say(self, line: str) -> None:
        """Keep it among the newest lines."""
        self._lines.append(f"{stamp(self._began)} {line}")

    def show(self, snapshot: Snapshot) -> None:
        """Draw this from now on."""
        self._snapshot = snapshot

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        snapshot = self._snapshot
        job = snapshot.job
        title = f"{stamp(self._began)}  " + (describe_current(job) if job else "no job yet")
        parts: list[RenderableType] = [Text(title, style="bold"), self._draw_nodes(snapshot)]
        if job and job["rounds"]:
            parts.append(self._draw_rounds(job))
        return Group(*parts, *(Text(line, style="dim") for line in self._lines[-LINES_KEPT:]))

    def _draw_nodes(self, snapshot: Snapshot) -> RenderableType:
        from rich.table import Table

        table = Table("node", "account", "height", "peers", "segments", "computes")
        accepted = {entry["account"]: entry["segments"] for entry in snapshot.job["trainers"]} if snapshot.job else {}
        for index, status in enumerate(snapshot.statuses):
            if status is None:
                table.add_row(str(index), "", "", "", "", "does not answer")
                continue
            account = status["account"]
            row = (index, account[:8], status["height"], len(status["peers"]), accepted.get(account, 0))
            table.add_row(*map(str, row), describe_verifying(status, self._name_of))
        return table

    def _draw_rounds(self, job: Json) -> RenderableType:
        from rich.table import Table

        table = Table("round", "accuracy", "loss", "accepted", "refused")
        for closed in job["rounds"]:
            outcome = closed["outcome"]
            refused = "; ".join(f"{self._name_of(trainer)}: {reason}" for trainer, reason in list_refusals(closed))
            table.add_row(
                str(closed["round"]),
                percent(outcome["accuracy"]),
                decimal(outcome["loss"]),
                str(len(outcome["accepted"])),
                refused or outcome["void"],
            )
        return table


def open_screen(is_live: bool, name_of: Naming, began: float) -> Screen:
    """The screen for this terminal."""
    return LiveScreen(name_of, began) if is_live else PlainScreen(name_of, began)

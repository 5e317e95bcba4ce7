"""What a look at a node found: how bad it is, the cause, what it means and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.errors import Rejected

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str  # what
    level: str  # "ok", "warn" or "fail"
    cause: str  # what was found
    consequence: str  # what it means; empty where all is well
    next_step: str  # what to do; empty where all is well


def well(check: str, cause: str) -> Finding:
    """Nothing to do."""
    return Finding(check, OK, cause, "", "")


def refused(check: str, error: Rejected, consequence: str) -> Finding:
    """A failure whose refusal says in its parts what it is and what to do."""
    cause, _, rest = error.detail.partition("; ")
    return Finding(check, FAIL, cause, consequence, rest or "see the cause")

"""Follows a job until it ends, a line for everything that happens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .output import decimal, percent, print_lines

if TYPE_CHECKING:
    from milon.client.http import NodeClient

ENDED = ("finished", "rejected")  # a job in one of these states changes no more


def describe_round(closed: dict[str, Any]) -> Iterator[str]:
    """A closed round in a few lines."""
    outcome = closed["outcome"]
    if outcome["void"]:
        yield f"round {closed['round']}  height {closed['height']}  void: {outcome['void']}"
    else:
        yield (
            f"round {closed['round']}  height {closed['height']}  accuracy {percent(outcome['accuracy'])}"
            f"  loss {decimal(outcome['loss'])}  accepted {len(outcome['accepted'])}"
        )
    yield from describe_taken_over(closed)
    for trainer, reason in list_refusals(closed):
        yield f"  refused {trainer[:8]}: {reason}"
    for payment in closed["payments"]:
        if payment["reason"] == "slash":
            yield f"  slashed {payment['account'][:8]}: {payment['amount']}"


def describe_taken_over(closed: dict[str, Any]) -> Iterator[str]:
    """Who trained the segments that others were given and had not claimed in time, a line a claim."""
    for claim in closed["claims"]:
        if claim.get("continues"):
            last = claim["first"] + claim["count"] - 1
            which = f"segment {last}" if claim["count"] == 1 else f"segments {claim['first']} to {last}"
            yield f"  {claim['trainer'][:8]} took over {which}, going on from its own work: {claim['status']}"


def list_refusals(closed: dict[str, Any]) -> list[tuple[str, str]]:
    """Trainers without a part in a closed round and why: the replay's refutations first, then what the rule refused."""
    refuted = [
        (claim["trainer"], "refuted by replay" if claim["status"] == "refuted" else f"claim {claim['status']}")
        for claim in closed["claims"]
        if claim["status"] != "accepted"
    ]
    named = {trainer for trainer, _ in refuted}
    by_rule = [(entry["trainer"], entry["reason"]) for entry in closed["outcome"]["refused"]]
    return refuted + [(trainer, reason) for trainer, reason in by_rule if trainer not in named]


def describe_current(job: dict[str, Any]) -> str:
    """What a job is at, in one line."""
    current = job["current"]
    if current is None:
        return f"{job['status']}, {len(job['trainers'])} trainers"
    claims = f"{len(current['claims'])} of {len(current['assignments'])} claims"
    return f"round {current['round']}: {current['phase']}, {claims}"


class Narrator:
    """Prints what is new about a job each time it is asked."""

    def __init__(self, client: NodeClient, job: str, is_quiet: bool) -> None:
        """A quiet one prints nothing."""
        self._client = client
        self._job = job
        self._is_quiet = is_quiet
        self._rounds = 0
        self._said = ""

    def look(self) -> dict[str, Any] | None:
        """Print what is new; the job's last view once it has ended."""
        found = self._client.job(self._job)
        line = describe_current(found)
        if not self._is_quiet:
            for closed in found["rounds"][self._rounds :]:
                print_lines(describe_round(closed))
            if line != self._said:
                print_lines([f"  {line}"])
        self._rounds, self._said = len(found["rounds"]), line
        return found if found["status"] in ENDED else None


def watch_job(client: NodeClient, job: str, is_quiet: bool = False) -> dict[str, Any]:
    """Print what happens to a job until it is finished or rejected; its last view."""
    from milon.client.waiting import wait_for

    found = wait_for(Narrator(client, job, is_quiet).look)
    return found if found is not None else client.job(job)

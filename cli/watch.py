"""Follows a job until it ends, a line for everything that happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .output import decimal, percent, print_lines

if TYPE_CHECKING:
    from milon.client.http import NodeClient

POLL_S = 0.3  # a fraction of a block time; a node answers some hundred requests a second


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
    for trainer, reason in list_refusals(closed):
        yield f"  refused {trainer[:8]}: {reason}"
    for payment in closed["payments"]:
        if payment["reason"] == "slash":
            yield f"  slashed {payment['account'][:8]}: {payment['amount']}"


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


def watch_job(client: NodeClient, job: str, is_quiet: bool = False) -> dict[str, Any]:
    """Print what happens to a job until it is finished or rejected; its last view."""
    shown, said = 0, ""
    while True:
        found = client.job(job)
        if not is_quiet:
            for closed in found["rounds"][shown:]:
                print_lines(describe_round(closed))
            line = describe_current(found)
            if line != said:
                print_lines([f"  {line}"])
            said = line
        shown = len(found["rounds"])
        if found["status"] in ("finished", "rejected"):
            return found
        time.sleep(POLL_S)

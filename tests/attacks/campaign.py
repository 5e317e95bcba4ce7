"""`make attacks`: every attack on proof of learning that the design names, a thousand times and more each.

    python -m tests.attacks.campaign                     what is missing; a campaign that was stopped goes on
    python -m tests.attacks.campaign --attempts 50 Fang  fewer, of the attacks whose name holds a word

Replay and contracts must accept none. What sampling alone catches is caught with a probability: its measured rate
stands beside `1 - (1 - f)^q`. The published attacks are also tried on a plain tolerance verifier, which they fool.
Results: bench/results/attacks.json. Exit code 1: something was accepted, or a rate is not the predicted one.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from tests.attacks import chain_attacks, forging, payloads, spoofing
from tests.attacks.ground import Tried
from tests.attacks.rates import Z_999, bound_of_none, compute_catch, compute_catch_exactly, estimate

ATTEMPTS = 1_000
LOT = 100  # of one attack before the next has its turn
RESULT = Path(__file__).parents[2] / "bench" / "results" / "attacks.json"
CONTROL = "control: honest segments"
ATTACKS: dict[str, Callable[[int], Iterator[Tried]]] = {
    **spoofing.ATTACKS,
    **forging.ATTACKS,
    **chain_attacks.ATTACKS,
    **payloads.ATTACKS,
}
MEMBERS, EACH = 3, 1  # of a committee, and the segments that each member replays
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sampling:
    """A share of false segments that a sample may meet."""

    name: str
    segments: int  # of a claim
    false: int  # of those
    each: int  # replayed by every member
    trials: Callable[[int], Iterator[bool]]  # from a number on: whether each was caught


SAMPLINGS = (
    *(
        Sampling(
            f"sampling: {false} of 64 false, 3 members of {each}",
            chain_attacks.SEGMENTS,
            false,
            each,
            lambda number, false=false, each=each: chain_attacks.try_samples(false, MEMBERS, each, False, number),  # type: ignore[misc]
        )
        for false, each in ((1, 4), (6, 1), (6, 4), (16, 1), (32, 1))
    ),
    Sampling(
        "grinding: 16 variants of a claim, 6 of 64 false",
        chain_attacks.SEGMENTS,
        6,
        4,
        lambda number: chain_attacks.try_samples(6, MEMBERS, 4, True, number),
    ),
    Sampling("sampling on the chain: 1 of 16 false", 16, 1, 4, lambda number: chain_attacks.try_contract(1, number)),
    Sampling("sampling on the chain: 4 of 16 false", 16, 4, 4, lambda number: chain_attacks.try_contract(4, number)),
)


def run_attack(name: str, attempts: int, before: Row | None = None) -> Row:
    """So many attempts at one attack, after those of the row `before`."""
    began = time.process_time()
    row: Row = dict(before or {"name": name, "attempts": 0, "accepted": 0, "seconds": 0.0})
    attack = forging.count_honest if name == CONTROL else ATTACKS[name]
    tried = list(islice(attack(row["attempts"]), attempts))
    fooled = [one.fools_tolerance for one in tried if one.fools_tolerance is not None]
    if fooled:
        row["fools_a_tolerance_verifier"] = row.get("fools_a_tolerance_verifier", 0) + sum(fooled)
    row["attempts"] += attempts
    row["accepted"] += sum(one.is_accepted for one in tried)
    row["accepted_at_most"] = bound_of_none(row["attempts"]) if not row["accepted"] else None
    row["seconds"] = round(row["seconds"] + time.process_time() - began, 1)
    return row


def run_sampling(sampling: Sampling, trials: int, before: Row | None = None) -> Row:
    """So many claims with false segments, after those of the row `before`, and how many of them were caught."""
    began = time.process_time()
    done = before["attempts"] if before else 0
    caught = (before["caught"] if before else 0) + sum(islice(sampling.trials(done), trials))
    total = done + trials
    exact = compute_catch_exactly(sampling.segments, sampling.false, MEMBERS, sampling.each)
    return {
        "name": sampling.name,
        "attempts": total,
        "false_share": sampling.false / sampling.segments,
        "replays": MEMBERS * sampling.each,
        "caught": caught,
        "rate": caught / total,
        "interval_95": asdict(estimate(caught, total)),
        "predicted": compute_catch(sampling.false / sampling.segments, MEMBERS * sampling.each),
        "predicted_without_replacement": exact,
        "is_as_predicted": estimate(caught, total, Z_999).holds(exact),
        "seconds": round((before["seconds"] if before else 0.0) + time.process_time() - began, 1),
    }


def describe(row: Row) -> str:
    """One line for a person."""
    if "caught" in row:
        low, high = row["interval_95"]["low"], row["interval_95"]["high"]
        verdict = "" if row["is_as_predicted"] else "  NOT AS PREDICTED"
        return (
            f"{row['name']:62} caught {row['rate']:.3f} ({low:.3f} to {high:.3f}) of {row['attempts']}; "
            f"1-(1-f)^q {row['predicted']:.3f}, without replacement {row['predicted_without_replacement']:.3f}{verdict}"
        )
    plain = row.get("fools_a_tolerance_verifier")
    beside = "" if plain is None else f"; a tolerance verifier accepts {plain}"
    return f"{row['name']:62} accepted {row['accepted']} of {row['attempts']}{beside}"


def is_good(row: Row) -> bool:
    """Whether the row is as it must be: nothing accepted, every honest segment accepted, rates as predicted."""
    if "caught" in row:
        return bool(row["is_as_predicted"])
    return bool(row["accepted"] == (row["attempts"] if row["name"] == CONTROL else 0))


def run_one(name: str, attempts: int, before: Row | None = None) -> Row:
    """One row of the table."""
    for sampling in SAMPLINGS:
        if sampling.name == name:
            return run_sampling(sampling, attempts, before)
    return run_attack(name, attempts, before)


def list_names(words: list[str]) -> list[str]:
    """All rows, or those whose name holds one of the words."""
    names = [CONTROL, *ATTACKS, *(sampling.name for sampling in SAMPLINGS)]
    return [name for name in names if not words or any(word in name for word in words)]


def _read(result: Path) -> dict[str, Row]:
    return {row["name"]: row for row in json.loads(result.read_text())["rows"]} if result.exists() else {}


def _write(result: Path, rows: dict[str, Row]) -> None:
    machine = {"processor": platform.processor(), "python": platform.python_version(), "torch": torch.__version__}
    kept = [rows[name] for name in list_names([]) if name in rows]
    part = result.with_suffix(".part")
    part.write_text(json.dumps({"machine": machine, "rows": kept}, indent=1) + "\n")
    part.replace(result)


def main() -> int:
    """Run what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only attacks whose name holds one of these")
    parser.add_argument("--attempts", type=int, default=ATTEMPTS)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--again", action="store_true", help="also what is there already")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = {} if options.again else _read(options.result)
    names = list_names(options.words)
    while True:  # all in turns, so that a campaign that is stopped has something to say of each
        done = {name: rows[name]["attempts"] if name in rows else 0 for name in names}
        goal = min(options.attempts, min(done.values()) // LOT * LOT + LOT)
        for name in names:
            if done[name] < goal:
                rows[name] = run_one(name, goal - done[name], rows.get(name))
                _write(options.result, rows)
                print(f"{goal}/{options.attempts} {name}", file=sys.stderr, flush=True)
        if goal >= options.attempts:
            break
    for name in names:
        print(describe(rows[name]))
    return 0 if all(is_good(rows[name]) for name in names) else 1


if __name__ == "__main__":
    sys.exit(main())

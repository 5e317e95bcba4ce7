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
    trials: Callable[[], Iterator[bool]]  # whether each was caught


SAMPLINGS = (
    *(
        Sampling(
            f"sampling: {false} of 64 false, 3 members of {each}",
            chain_attacks.SEGMENTS,
            false,
            each,
            lambda false=false, each=each: chain_attacks.try_samples(false, MEMBERS, each, False),  # type: ignore[misc]
        )
        for false, each in ((1, 4), (6, 1), (6, 4), (16, 1), (32, 1))
    ),
    Sampling(
        "grinding: 16 variants of a claim, 6 of 64 false",
        chain_attacks.SEGMENTS,
        6,
        4,
        lambda: chain_attacks.try_samples(6, MEMBERS, 4, True),
    ),
    Sampling("sampling on the chain: 1 of 16 false", 16, 1, 4, lambda: chain_attacks.try_contract(1)),
    Sampling("sampling on the chain: 4 of 16 false", 16, 4, 4, lambda: chain_attacks.try_contract(4)),
)


def run_attack(name: str, attempts: int) -> Row:
    """So many attempts at one attack."""
    began = time.perf_counter()
    tried = list(islice((forging.count_honest if name == CONTROL else ATTACKS[name])(0), attempts))
    accepted = sum(one.is_accepted for one in tried)
    row: Row = {"name": name, "attempts": attempts, "accepted": accepted}
    if not accepted:
        row["accepted_at_most"] = bound_of_none(attempts)
    plain = [one.fools_tolerance for one in tried if one.fools_tolerance is not None]
    if plain:
        row["fools_a_tolerance_verifier"] = sum(plain) / len(plain)
    row["seconds"] = round(time.perf_counter() - began, 1)
    return row


def run_sampling(sampling: Sampling, trials: int) -> Row:
    """So many claims with false segments, and how many of them were caught."""
    began = time.perf_counter()
    caught = sum(islice(sampling.trials(), trials))
    exact = compute_catch_exactly(sampling.segments, sampling.false, MEMBERS, sampling.each)
    return {
        "name": sampling.name,
        "attempts": trials,
        "false_share": sampling.false / sampling.segments,
        "replays": MEMBERS * sampling.each,
        "caught": caught / trials,
        "interval_95": asdict(estimate(caught, trials)),
        "predicted": compute_catch(sampling.false / sampling.segments, MEMBERS * sampling.each),
        "predicted_without_replacement": exact,
        "is_as_predicted": estimate(caught, trials, Z_999).holds(exact),
        "seconds": round(time.perf_counter() - began, 1),
    }


def describe(row: Row) -> str:
    """One line for a person."""
    if "caught" in row:
        low, high = row["interval_95"]["low"], row["interval_95"]["high"]
        verdict = "" if row["is_as_predicted"] else "  NOT AS PREDICTED"
        return (
            f"{row['name']:62} caught {row['caught']:.3f} ({low:.3f} to {high:.3f}) of {row['attempts']}; "
            f"1-(1-f)^q {row['predicted']:.3f}, without replacement {row['predicted_without_replacement']:.3f}{verdict}"
        )
    plain = row.get("fools_a_tolerance_verifier")
    beside = "" if plain is None else f"; a tolerance verifier accepts {100 * plain:.0f} %"
    return f"{row['name']:62} accepted {row['accepted']} of {row['attempts']}{beside}"


def is_good(row: Row) -> bool:
    """Whether the row is as it must be: nothing accepted, every honest segment accepted, rates as predicted."""
    if "caught" in row:
        return bool(row["is_as_predicted"])
    return bool(row["accepted"] == (row["attempts"] if row["name"] == CONTROL else 0))


def run_one(name: str, attempts: int) -> Row:
    """One row of the table."""
    for sampling in SAMPLINGS:
        if sampling.name == name:
            return run_sampling(sampling, attempts)
    return run_attack(name, attempts)


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
    rows = _read(options.result)
    names = list_names(options.words)
    for place, name in enumerate(names, 1):
        if options.again or rows.get(name, {}).get("attempts", 0) < options.attempts:
            print(f"[{place}/{len(names)}] {name} ...", file=sys.stderr, flush=True)
            rows[name] = run_one(name, options.attempts)
            _write(options.result, rows)
        print(describe(rows[name]), flush=True)
    return 0 if all(is_good(rows[name]) for name in names) else 1


if __name__ == "__main__":
    sys.exit(main())

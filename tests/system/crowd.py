"""`python -m tests.system.crowd`: ten real nodes, three of them attackers of different kinds, and what the rule is for.

Three runs of the digits example by `milon demo`, the same but for what is named: nobody hostile under the default
rule; three attackers under the default rule; the same three under the plain mean. No run audits anything, so that the
rule alone decides: nobody is refuted, slashed or barred, and the attackers are at it in every round. What must hold:
the default comes within two points of the honest run, the mean does not come near, every round closes, all nodes hold
the same model, and plain PyTorch measures the accuracy that is on the chain. Results: `bench/results/crowd.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from milon.client.terms import DEFAULTS
from milon.node.testnet_files import load_testnet
from tests.system.demo import run_demo
from tests.system.live import PATIENT, REPOSITORY, Json

NODES = 10
KINDS = ("sign-flip", "label-flip", "min-max")  # loud, hidden in the data, hidden in the spread
DEFAULT = str(DEFAULTS["aggregator"])
ROUNDS, SEGMENTS = 5, 40  # four segments of each node a round: enough for a good model where nobody is hostile
POINTS_MAX = 2.0  # that the default may lose against the honest run
COLLAPSED = 0.5  # the mean stays below: half of the digits wrong, where the honest run has nearly all right
PLAIN_DIFFERENCE_MAX = 0.01  # as for `milon demo`
TIMES = (4_000, 1_000, 3_000)  # ms: ten nodes share two cores, and blocks in a hurry would leave little to train on
RUN_S = 2_400  # of a run; far more than two cores need
RESULT = REPOSITORY / "bench" / "results" / "crowd.json"


@dataclass(frozen=True, slots=True)
class Case:
    """One run."""

    name: str  # for people
    kinds: tuple[str, ...]  # of the last nodes
    aggregator: str  # of the job

    @property
    def options(self) -> tuple[str, ...]:
        """What `milon demo` is told; the mean bears no attacker and is not asked to."""
        first = NODES - len(self.kinds)
        hostile = [f"--adversary={first + place}={kind}" for place, kind in enumerate(self.kinds)]
        borne = len(KINDS) if self.aggregator != "mean" else 0
        terms = (f"faulty-count={borne}", f"trainers-min={NODES}", f"segments-per-round={SEGMENTS}")
        return (
            f"--nodes={NODES}", *(hostile or ["--adversary=none"]), f"--aggregator={self.aggregator}", "--audit=0",
            "--expect=nothing", "--verify-segments=0", f"--timeout={RUN_S}",
            f"--block-time-ms={TIMES[0]}", f"--busy-block-time-ms={TIMES[1]}", f"--delta-ms={TIMES[2]}",
            *(f"--term={term}" for term in terms), *PATIENT,
        )  # fmt: skip


def list_cases(kinds: tuple[str, ...]) -> tuple[Case, ...]:
    """The honest run, and the attacked ones."""
    return Case("honest", (), DEFAULT), Case("attacked", kinds, DEFAULT), Case("attacked, mean", kinds, "mean")


def run_case(case: Case, rounds: int) -> Json:
    """Run it in a folder of its own; what it came to."""
    print(f"\n{case.name}: {NODES} nodes, {', '.join(case.kinds) or 'nobody'} hostile, {case.aggregator}", flush=True)
    with tempfile.TemporaryDirectory(prefix="milon-crowd-") as scratch:
        report, _ = run_demo(Path(scratch), f"--rounds={rounds}", *case.options, timeout_s=2.0 * RUN_S)
        accounts = load_testnet(Path(scratch) / "net").accounts
    names = {account: f"node {place}" for place, account in enumerate(accounts)}
    names |= {accounts[NODES - len(case.kinds) + place]: kind for place, kind in enumerate(case.kinds)}
    digests = {*report["digests_by_node"].values(), report["model_digest"]}
    row = {
        "name": case.name,
        "aggregator": case.aggregator,
        "hostile": list(case.kinds),
        "accuracy": report["rounds"][-1]["accuracy"] if report["rounds"] else None,
        "plain_torch_accuracy": report["plain_torch_accuracy"],
        "same_on_all_nodes": len(digests) == 1 and len(report["digests_by_node"]) == NODES,
        "slashed": len(report["slashed"]),
        "seconds": report["seconds"],
        "rounds": [
            {
                "accuracy": closed["accuracy"],
                "accepted": sorted(names[account] for account in closed["accepted"]),
                "refused": {names[refusal["trainer"]]: refusal["reason"] for refusal in closed["refused"]},
            }
            for closed in report["rounds"]
        ],
    }
    print_case(row)
    return row


def print_case(row: Json) -> None:
    """A line a round: accuracy on the chain, attackers taken, and who was refused for what."""
    for number, closed in enumerate(row["rounds"]):
        taken = [kind for kind in row["hostile"] if kind in closed["accepted"]]
        refused = "; ".join(f"{name}: {reason}" for name, reason in sorted(closed["refused"].items()))
        accuracy = "void" if closed["accuracy"] is None else f"{100 * closed['accuracy']:6.2f} %"
        shown = f"took {len(closed['accepted']):2} of {NODES}, of the hostile {', '.join(taken) or 'none'}"
        print(f"  round {number}  {accuracy}  {shown}" + (f"; refused {refused}" if refused else ""), flush=True)
    print(f"  {row['seconds']} s", flush=True)


def list_faults(rows: Sequence[Json], rounds: int) -> list[str]:
    """What does not hold."""
    faults = []
    for row in rows:
        name = row["name"]
        if len(row["rounds"]) != rounds or any(closed["accuracy"] is None for closed in row["rounds"]):
            faults.append(f"{name}: {len(row['rounds'])} of {rounds} rounds, or some of them void")
        if not row["same_on_all_nodes"]:
            faults.append(f"{name}: nodes hold different models")
        if row["slashed"]:
            faults.append(f"{name}: {row['slashed']} slashed, though nobody audits")
        plain = row["plain_torch_accuracy"]
        if plain is None or row["accuracy"] is None or abs(plain - row["accuracy"]) > PLAIN_DIFFERENCE_MAX:
            faults.append(f"{name}: plain PyTorch measures {plain}, the chain says {row['accuracy']}")
    honest, attacked, mean = (row["accuracy"] or 0.0 for row in rows)
    if 100 * (honest - attacked) > POINTS_MAX:
        faults.append(f"the default lost {100 * (honest - attacked):.2f} points of at most {POINTS_MAX}")
    if mean >= COLLAPSED:
        faults.append(f"the mean did not collapse: {mean}")
    honest_ones = [f"node {place}" for place in range(NODES - len(KINDS))]
    wronged = sum(name in closed["refused"] for closed in rows[1]["rounds"] for name in honest_ones)
    print(f"\nhonest {honest:.4f}, attacked {attacked:.4f}, mean {mean:.4f}; honest updates refused: {wronged}")
    return faults


def main() -> int:
    """Run all three; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--kinds", default=",".join(KINDS), help="three kinds of `milon testnet --adversary`")
    chosen = parser.parse_args()
    kinds = tuple(chosen.kinds.split(","))
    if len(set(kinds)) != len(KINDS):
        parser.error("three kinds, all different")
    rows = [run_case(case, chosen.rounds) for case in list_cases(kinds)]
    faults = list_faults(rows, chosen.rounds)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    setting = {"nodes": NODES, "rounds": chosen.rounds, "segments": SEGMENTS, "audit": 0, "job": "examples/digits"}
    RESULT.write_text(json.dumps({"rows": rows, "setting": setting, "machine": machine}, indent=2) + "\n")
    print("\n".join(faults) or "all goals are met", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

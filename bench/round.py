"""`python -m bench.round`: what a round costs beside the training itself, and what that is spent on.

Five nodes of a test network share this machine's cores and train the digits example, without audit: the wall time of a
round, from the block that opened it to the block that closed it, less the longest trainer's compute as its claim says
it. The phases are taken from the times of the blocks in which each began: seed (two blocks for the beacon), claims
(training, and its claims' way into blocks), aggregate (every validator computes the outcome and votes).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milon.client.http import NodeClient
from milon.client.waiting import wait_for
from milon.node.folder import read_address
from milon.node.testnet_files import load_testnet

Json = dict[str, Any]

REPOSITORY = Path(__file__).parents[1]
EXAMPLE = REPOSITORY / "examples" / "digits" / "job.py"
RESULT = Path(__file__).parent / "results" / "round.json"
NODES = 5
GOAL_S = 2.0  # at a block time of one second
JOB_S = 900.0  # far above what a quiet machine needs


@dataclass(frozen=True, slots=True)
class Measured:
    """One round, in seconds."""

    wall: float  # from the block that opened it to the block that closed it
    compute: float  # of the slowest trainer, by its claim
    seed: float  # waiting for the beacon
    claims: float  # from the seed to the last claim
    audit: float  # from the last claim until all were settled
    aggregate: float  # until the outcome had its quorum

    @property
    def rest(self) -> float:
        """What is not training."""
        return self.wall - self.compute

    @property
    def claiming(self) -> float:
        """What the claims take beyond the training: a trainer that starts late, blocks, transfers, other trainers."""
        return self.claims - self.compute


def run_milon(*arguments: str) -> Json:
    """What a `milon` command prints as JSON."""
    command = [sys.executable, "-m", "milon_cli", *arguments, "--json"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=REPOSITORY)
    answer: Json = json.loads(ran.stdout)
    return answer


class Watch:
    """Notes the height at which each phase of each round was first seen."""

    def __init__(self, client: NodeClient, job: str) -> None:
        """Of one job, on one node."""
        self._client, self._job = client, job
        self.seen: dict[tuple[int, str], int] = {}

    def look(self) -> Json | None:
        """Take a look; the job once it is finished."""
        found = self._client.job(self._job)
        current = found["current"]
        if current is not None:
            height = self._client.status()["height"]
            is_complete = len(current["claims"]) == len(current["assignments"])
            phase = "audit" if current["phase"] == "train" and is_complete else current["phase"]
            self.seen.setdefault((current["round"], phase), height)
        return found if found["status"] in ("finished", "rejected") else None


def time_of(client: NodeClient, height: int) -> float:
    """When a block was proposed, seconds."""
    return float(client.block(height)["header"]["time_ms"]) / 1000


def measure(client: NodeClient, closed: Sequence[Json], seen: dict[tuple[int, str], int]) -> list[Measured]:
    """All rounds but the first, whose beginning no block of the job marks."""
    found = []
    for before, entry in itertools.pairwise(closed):
        number, start, end = entry["round"], before["height"], entry["height"]
        marks = [end]
        for phase in ("aggregate", "audit", "train"):  # one that was too short to be seen lasted nothing
            marks.insert(0, max(start, min(marks[0], seen.get((number, phase), marks[0]))))
        times = [time_of(client, height) for height in (start, *marks)]
        spans = [late - early for early, late in itertools.pairwise(times)]
        compute = max(claim["compute_ms"] for claim in entry["claims"]) / 1000
        found.append(Measured(times[-1] - times[0], compute, *spans))
    return found


def run_job(root: Path, rounds: int, audit: str) -> list[Measured]:
    """Raise the network, run the job, and end the network."""
    try:
        run_milon("testnet", "up", "--nodes", str(NODES), "--dir", str(root))
        testnet = load_testnet(root)
        place = ("--node", str(testnet.nodes[0].root), "--key", str(testnet.submitter_key))
        terms = ("--rounds", str(rounds), "--audit", audit, "--term", f"trainers-target={NODES}")
        job = run_milon("submit-job", str(EXAMPLE), *place, *terms)["job"]
        with NodeClient(read_address(testnet.nodes[0]) or "") as client:
            watch = Watch(client, job)
            ended = wait_for(watch.look, JOB_S, 0.1)
            if ended is None or ended["status"] != "finished":
                raise SystemExit(f"the job did not finish; logs: {root}/node*/node.log")
            return measure(client, ended["rounds"], watch.seen)
    finally:
        run_milon("testnet", "down", "--dir", str(root))


def describe_machine() -> str:
    """Processor and cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores, load {load}"


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.round", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="rounds of the job; the first is not counted")
    parser.add_argument("--audit", default="0", help="share of segments replayed")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="milon-bench-") as folder:
        measured = run_job(Path(folder) / "net", chosen.rounds, chosen.audit)
    rows = []
    for name in ("wall", "rest", "seed", "claiming", "audit", "aggregate"):
        values = [getattr(entry, name) for entry in measured]
        middle = statistics.median(values)
        compute = statistics.median(entry.compute for entry in measured)
        print(f"{name:<10} median {middle:6.2f} s   from {min(values):6.2f} to {max(values):6.2f} s")
        rows.append(
            {
                "name": f"round {name}",
                "ours": round(middle, 3),
                "theirs": round(compute, 3),
                "ratio": round(middle / compute, 3) if compute else None,
                "unit": "s",
            }
        )
    print(f"the slowest trainer computes {rows[0]['theirs']} s; goal for the rest: {GOAL_S} s")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"rows": rows, "machine": describe_machine()}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

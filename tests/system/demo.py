"""Runs `milon demo` as a user does, and says what a good run is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from milon.node.testnet_files import load_testnet
from tests.system.live import KEPT, REPOSITORY, end_network, tail_logs

Json = dict[str, Any]

NODES = 5
RUN_S = 900.0  # far more than any run: a quiet machine with two cores needs one minute
ACCURACY_MIN = 0.95
POISONED_ROUNDS = (0, 1, 2)  # audit rates 0, 0, 1: refused by the rule, by the rule, by replay; then it is barred


class DemoFailed(Exception):
    """The command did not end as asked; what it said, and the ends of the logs."""


def run_demo(folder: Path, *options: str, codes: Sequence[int] = (0,), timeout_s: float = RUN_S) -> tuple[Json, str]:
    """The JSON and the text of one run in `folder`, which keeps the network's files. `DemoFailed` for other codes."""
    result = folder / "result.json"
    command = [sys.executable, "-m", "milon_cli", "demo", "--json", str(result), "--dir", str(folder), "--no-screen"]
    network = folder / "net"
    KEPT.append(network)
    try:
        ran = subprocess.run(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=REPOSITORY,
            timeout=timeout_s,
            check=False,
        )
        if ran.returncode not in codes or not result.exists():
            raise DemoFailed(f"code {ran.returncode}\n{ran.stdout[-6000:]}\n{tail_logs(network)}")
        return json.loads(result.read_text()), ran.stdout
    finally:
        end_network(network)
        KEPT.remove(network)


def poisoner_of(folder: Path) -> str:
    """The account of the node that was told to poison: the last one, unless the command is told otherwise."""
    return load_testnet(folder / "net").accounts[-1]


def list_faults(report: Json, poisoner: str) -> list[str]:
    """What a good run would not show, from the JSON alone."""
    faults = []
    accuracy = report["rounds"][-1]["accuracy"] if report["rounds"] else 0.0
    if accuracy < ACCURACY_MIN:
        faults.append(f"accuracy {accuracy}")
    faults += [f"honest {entry['account'][:8]} slashed" for entry in report["slashed"] if entry["account"] != poisoner]
    if poisoner not in [entry["account"] for entry in report["slashed"]]:
        faults.append("the poisoner kept its stake")
    for entry in report["rounds"]:
        refused = [refusal["trainer"] for refusal in entry["refused"]]
        if poisoner in entry["accepted"] or (entry["round"] in POISONED_ROUNDS and poisoner not in refused):
            faults.append(f"round {entry['round']} did not refuse the poisoner")
    if len(set(report["digests_by_node"].values()) | {report["model_digest"]}) != 1:
        faults.append("digests differ")
    if report["verify"]["verdict"] != "valid":
        faults.append(f"verify-block: {report['verify']['verdict']}")
    if report["plain_torch_accuracy"] != accuracy:
        faults.append(f"plain PyTorch measures {report['plain_torch_accuracy']}, the chain says {accuracy}")
    return faults

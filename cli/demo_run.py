"""The steps of a demonstration, each as a user would take it: other `milon` commands in processes of their own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .demo_report import Outcome
from .demo_screen import Screen, Snapshot
from .network import raise_network
from .output import percent
from .watch import ENDED

if TYPE_CHECKING:
    from milon.client.http import NodeClient
    from milon.node.folder import NodeFolder
    from milon.node.testnet_files import Testnet

Json = dict[str, Any]

POLL_S = 0.4  # six requests each time; the nodes have two cores to train on
SETTLE_S = 60.0  # for the slowest node to see the last block


@dataclass(frozen=True, slots=True)
class DemoChoices:
    """What a demonstration runs."""

    job: Path  # the user's file
    rounds: int | None  # instead of the job's own
    aggregator: str  # of the job
    audit: str  # of the job, as `milon submit-job` takes it
    terms: tuple[str, ...]  # NAME=VALUE of further terms
    verify_segments: int  # that `milon verify-block` replays
    timeout_s: float  # for the job
    poisoners: tuple[int, ...]  # indices of the nodes told to misbehave


def run_milon(arguments: list[str], codes: tuple[int, ...] = (0,)) -> Json:
    """Run a `milon` command with `--json`; what it prints. `Rejected` for an exit code that is not among `codes`."""
    return _run([sys.executable, "-m", "milon_cli", *arguments, "--json"], codes, f"milon {arguments[0]}")


def _run(command: list[str], codes: tuple[int, ...], name: str) -> Json:
    from milon.base.errors import Reason, Rejected

    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if ran.returncode not in codes:
        told = ran.stderr.strip() or ran.stdout.strip()
        raise Rejected(Reason.UNAVAILABLE, f"{name} ended with {ran.returncode}: {told[-1_500:]}")
    answer: Json = json.loads(ran.stdout if ran.stdout.startswith("{\n") else ran.stdout.strip().splitlines()[-1])
    return answer


class Observer:
    """Asks every node what it shows; a node that does not answer is a gap, not an error."""

    def __init__(self, nodes: tuple[NodeFolder, ...]) -> None:
        """Connects at the first question."""
        from milon.client.http import NodeClient
        from milon.node.folder import read_address

        self._clients: list[NodeClient] = [NodeClient(read_address(folder) or "") for folder in nodes]

    def close(self) -> None:
        """End the connections."""
        for client in self._clients:
            client.close()

    def statuses(self) -> tuple[Json | None, ...]:
        """One a node."""
        return tuple(_ask(client, lambda client: client.status()) for client in self._clients)

    def views_of(self, job: str) -> tuple[Json | None, ...]:
        """The job as each node sees it."""
        return tuple(_ask(client, lambda client: client.job(job)) for client in self._clients)

    def snapshot(self, job: str | None) -> Snapshot:
        """What all nodes show, and the job from the first that answers."""
        found: Json | None = None
        for client in self._clients if job is not None else ():
            found = _ask(client, lambda client: client.job(job or ""))
            if found is not None:
                break
        return Snapshot(self.statuses(), found)


def _ask(client: NodeClient, question: Callable[[NodeClient], Json]) -> Json | None:
    from milon.base.errors import Rejected
    from milon.client.refusals import NoNode

    try:
        return question(client)
    except (NoNode, Rejected):
        return None


def run_demo(testnet: Testnet, choices: DemoChoices, screen: Screen, began: float) -> Outcome:
    """Take all steps; what was observed. The caller ends the nodes."""
    nodes = testnet.nodes
    raise_network(testnet, screen.say)
    with contextlib.closing(Observer(nodes)) as observer:
        screen.show(observer.snapshot(None))
        screen.say(f"submitting {choices.job}")
        name = submit(testnet, choices)
        screen.say(f"job {name} is on the chain")
        job = follow(observer, name, choices.timeout_s, screen)
        digests = collect_digests(observer, testnet.accounts, name, job)
        bootstrap = next(status for status in observer.statuses() if status)
    with ThreadPoolExecutor(1) as beside:  # two checks that have nothing to do with each other, on two cores
        measuring = beside.submit(measure_plainly, testnet, choices, name, screen) if job["rounds"] else None
        verify = verify_last(bootstrap, job, choices, testnet.root.parent, screen)
        plain = measuring.result() if measuring is not None else None
    poisoners = tuple(testnet.accounts[index] for index in choices.poisoners)
    return Outcome(job, digests, verify, plain, time.monotonic() - began, poisoners)


def submit(testnet: Testnet, choices: DemoChoices) -> str:
    """Submit the job as a user does; its name."""
    arguments = ["submit-job", str(choices.job), "--node", str(testnet.nodes[0].root)]
    arguments += ["--key", str(testnet.submitter_key), "--aggregator", choices.aggregator, "--audit", choices.audit]
    if choices.rounds is not None:
        arguments += ["--rounds", str(choices.rounds)]
    if choices.aggregator == "mean":
        arguments += ["--term", "faulty-count=0"]  # it bears none, and says so
    for term in (f"trainers-target={len(testnet.nodes)}", *choices.terms):
        arguments += ["--term", term]
    found: str = run_milon(arguments)["job"]
    return found


def follow(observer: Observer, job: str, timeout_s: float, screen: Screen) -> Json:
    """Show progress until the job ends or time is up; its last view."""
    from milon.base.errors import Reason, Rejected
    from milon.client.waiting import wait_until

    seen: list[Json] = []

    def has_ended() -> bool:
        snapshot = observer.snapshot(job)
        screen.show(snapshot)
        if snapshot.job is not None:
            seen[:] = [snapshot.job]
        return bool(seen) and seen[0]["status"] in ENDED

    wait_until(has_ended, timeout_s, POLL_S)
    if not seen:
        raise Rejected(Reason.UNAVAILABLE, f"no node showed the job in {timeout_s:.0f} s")
    return seen[0]


def collect_digests(observer: Observer, accounts: tuple[str, ...], job: str, last: Json) -> dict[str, str | None]:
    """The job's state on every node, once each has seen as many rounds as `last`, or time is up."""
    from milon.client.waiting import wait_until

    def is_settled() -> bool:
        return all(view is not None and view["round"] >= last["round"] for view in observer.views_of(job))

    wait_until(is_settled, SETTLE_S, POLL_S)
    views = observer.views_of(job)
    return {account: view["state"] if view else None for account, view in zip(accounts, views, strict=True)}


def verify_last(status: Json, job: Json, choices: DemoChoices, folder: Path, screen: Screen) -> Json:
    """Verify the last learning block from an empty folder that knows an address and the genesis hash."""
    if not job["rounds"]:
        return {"height": None, "verdict": "unchecked", "segments_replayed": 0}
    height = job["rounds"][-1]["height"]
    screen.say(f"verifying block {height} from an empty folder")
    arguments = ["verify-block", str(height), "--bootstrap", status["addresses"][0]]
    arguments += ["--genesis-hash", status["genesis_hash"], "--data", str(folder / "verifier")]
    answer = run_milon([*arguments, "--segments", str(choices.verify_segments)], (0, 1, 2))
    if "error" in answer:
        screen.say(f"verify-block: {answer['error']['detail']}")
    replayed = answer.get("segments_replayed", 0)
    return {"height": height, "verdict": answer.get("verdict", "unchecked"), "segments_replayed": replayed}


def measure_plainly(testnet: Testnet, choices: DemoChoices, job: str, screen: Screen) -> float | None:
    """Download the model from another node than the one that took the job, and evaluate it in plain PyTorch."""
    screen.say("downloading the model, to load it in plain PyTorch")
    model = testnet.root.parent / "model.safetensors"
    run_milon(["model", "pull", job, "-o", str(model), "--node", str(testnet.nodes[-1].root)])
    command = [sys.executable, "-m", "milon.client.model", "accuracy", str(choices.job), str(model)]
    accuracy: float | None = _run(command, (0,), "the plain evaluation")["accuracy"]
    screen.say(f"plain PyTorch: accuracy {percent(accuracy)}")
    return accuracy

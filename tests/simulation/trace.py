"""A run written down, event by event, and compared with a run of the same seed made now."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from milon.base.codec import encode
from tests.simulation.network import START_MS, Network
from tests.simulation.run import Outcome, run_seed

LINES_SHOWN = 40  # before the end, or before the first difference


@dataclass
class Recorder:
    """Collects one line an event; `hook` makes a network tell it everything."""

    lines: list[str] = field(default_factory=list)
    _network: Network | None = None

    def hook(self, network: Network) -> None:
        """Listen to the network from now on."""
        self._network = network
        network.tell = self._note

    def _note(self, node: int, what: str, detail: str) -> None:
        assert self._network is not None
        state = self._network.nodes[node].state
        where = "down" if state is None else f"view {state.view} tip {state.tip.height} {_digest(state.tip.hash)}"
        self.lines.append(f"{self._network.now_ms - START_MS:>6} ms  node {node}  {where}  {what}  {detail}".rstrip())


def _digest(raw: bytes) -> str:
    return hashlib.sha256(encode(raw)).hexdigest()[:8]


def record(seed: int, kind: str) -> tuple[Outcome, list[str]]:
    """Run a seed and write down what happens."""
    recorder = Recorder()
    outcome = run_seed(seed, kind, recorder.hook)
    return outcome, recorder.lines


def write_trace(path: Path, seed: int, kind: str) -> Outcome:
    """Run a seed again and keep its trace in a file: a head that names it, one line an event, and the problem."""
    outcome, lines = record(seed, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({"seed": seed, "kind": kind})
    path.write_text("\n".join([head, *lines, f"problem: {outcome.problem}"]) + "\n")
    return outcome


def replay_trace(path: Path) -> bool:
    """Run the seed that a trace names, print how it ends, and say whether every line is as it was written down."""
    head, *expected = path.read_text().splitlines()
    named = json.loads(head)
    outcome, lines = record(named["seed"], named["kind"])
    lines.append(f"problem: {outcome.problem}")
    recent: deque[str] = deque(maxlen=LINES_SHOWN)
    for number, (line, before) in enumerate(zip(lines, expected, strict=False)):
        if line != before:
            print("\n".join(recent))
            print(f"event {number} is another than in the trace: the code has changed, or the simulation is not fair")
            print(f"  then: {before}\n  now:  {line}")
            return False
        recent.append(line)
    print("\n".join(recent))
    print(f"{len(lines) - 1} events as in the trace" if len(lines) == len(expected) else "the trace has another length")
    return len(lines) == len(expected)

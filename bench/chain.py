"""`python -m bench.chain`: what consensus costs, in network delays and in processor time.

Engines run in the simulator over links that all take one fixed delay, with no pause between blocks. A block may be
built on after two delays and is final after three: that is Simplex's promise, and what it is compared with. One node of
a hundred is then fed with real signatures and real bytes; of its processor time the signatures and the bytes of
messages are timed where they are made, and the rest is split by a profiler between rules, encoding and state.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.round import describe_machine
from milon.base.units import Count
from milon.consensus.application import ED25519, Cryptography
from milon.consensus.effects import CommitBlocks, Effect, Send
from milon.consensus.engine import step
from milon.consensus.events import Event, MessageReceived
from milon.consensus.messages import Proposal, decode_message, encode_message
from milon.contracts.apply import compute_genesis_ledger
from milon.node.application import CONTRACTS
from tests.simulation.network import PARAMETERS, Behaviour, Faults, Network, Node

RESULT = Path(__file__).parent / "results" / "chain.json"
SIZES = (4, 16, 64, 100)
DELAY_MS = 100
BLOCKS = {4: 40, 16: 20, 64: 6, 100: 3}  # measured at each size: work grows with the square of it
WARM_BLOCKS = 2  # at the start, where nobody has a parent's certificate yet
BLOCK_DELAYS, FINAL_DELAYS = 2, 3  # Simplex: from a proposal to the next, and to finality
CALM = replace(
    PARAMETERS,
    block_time_ms=Count(1),
    busy_block_time_ms=Count(1),
    delta_ms=Count(10 * DELAY_MS),
    delta_max_ms=Count(20 * DELAY_MS),
)
CHAIN = "bench"  # no stand-in signs there


class _Watcher(Behaviour):
    """Notes when each block is proposed and when each node has it final."""

    def __init__(self, proposed: dict[int, int], final: dict[int, list[int]]) -> None:
        self._proposed, self._final = proposed, final

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        """What the engine wants."""
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, Proposal):
                self._proposed.setdefault(int(effect.message.block.header.height), node.network.now_ms)
            elif isinstance(effect, CommitBlocks):
                for entry in effect.finalized:
                    self._final.setdefault(int(entry.block.header.height), []).append(node.network.now_ms)
        return list(effects)


def _make_network(behaviours: Sequence[Behaviour], **options: Any) -> Network:
    return Network(
        1,
        (10,) * len(behaviours),
        behaviours,
        Faults(delay_ms=(DELAY_MS, DELAY_MS + 1)),
        application=CONTRACTS,
        parameters=CALM,
        make_table=compute_genesis_ledger,
        **options,
    )


def measure_delays(nodes: int) -> tuple[float, float]:
    """Between two proposals, and from a proposal to finality at the median node, in network delays: medians."""
    proposed: dict[int, int] = {}
    final: dict[int, list[int]] = {}
    network = _make_network([_Watcher(proposed, final) for _ in range(nodes)])
    until_ms = 200
    while len(final) < BLOCKS[nodes] + WARM_BLOCKS:
        until_ms += DELAY_MS
        network.run_until(until_ms)
    heights = [height for height in sorted(final) if height > WARM_BLOCKS and len(final[height]) == nodes]
    blocks = [proposed[height + 1] - proposed[height] for height in heights if height + 1 in proposed]
    waits = [statistics.median(final[height]) - proposed[height] for height in heights]
    return statistics.median(blocks) / DELAY_MS, statistics.median(waits) / DELAY_MS


@dataclass
class Meter:
    """Processor time of one node, by what it was spent on."""

    signatures_s: float = 0.0
    messages_s: float = 0.0  # to bytes and from bytes
    step_s: float = 0.0  # the engine's, signatures among it
    profile: cProfile.Profile | None = None

    def timed(self, function: Callable[..., Any], field_name: str) -> Callable[..., Any]:
        """The function, with its time added to a field."""

        def call(*arguments: Any) -> Any:
            if self.profile is not None:
                return function(*arguments)
            begin = time.process_time()
            try:
                return function(*arguments)
            finally:
                setattr(self, field_name, getattr(self, field_name) + time.process_time() - begin)

        return call

    def make_cryptography(self) -> Cryptography:
        """Real signatures, timed."""
        return Cryptography(*(self.timed(getattr(ED25519, name), "signatures_s") for name in Cryptography.__slots__))


TRUSTING = replace(  # signs, and believes everybody: the other nodes, whose time is not measured
    ED25519,
    verify_vote=lambda vote, chain_id: None,
    verify_certificate=lambda certificate, chain_id, validators: None,
)


@dataclass
class MeasuredNode(Node):
    """A node whose work is timed: bytes in, a step, bytes out."""

    meter: Meter = field(default_factory=Meter)

    def start(self) -> None:
        """Come up, and from then on check signatures."""
        super().start()
        self.config = replace(self.config, cryptography=self.meter.make_cryptography())

    def take(self, event: Event) -> None:
        """Step and carry out the effects."""
        if self.state is None:
            return
        if isinstance(event, MessageReceived):
            raw = encode_message(event.message)
            event = replace(event, message=self.meter.timed(decode_message, "messages_s")(raw))
        profile = self.meter.profile
        if profile is not None:
            profile.enable()
        self.state, effects = self.meter.timed(step, "step_s")(self.config, self.state, event)
        if profile is not None:
            profile.disable()
        for effect in effects:
            if isinstance(effect, Send):
                self.meter.timed(encode_message, "messages_s")(effect.message)
        self.carry_out(effects)


def _run_measured(nodes: int, blocks: int, profile: cProfile.Profile | None) -> Meter:
    meter = Meter(profile=profile)

    def make_node(index: int, *rest: Any) -> Node:
        return Node(index, *rest) if index else MeasuredNode(index, *rest, meter=meter)

    behaviours = [Behaviour() for _ in range(nodes)]
    network = _make_network(behaviours, cryptography=TRUSTING, chain_id=CHAIN, make_node=make_node)
    node = network.nodes[0]
    until_ms = 200
    while node.state is None or node.state.tip.height < WARM_BLOCKS:
        until_ms += DELAY_MS
        network.run_until(until_ms)
    meter.signatures_s = meter.messages_s = meter.step_s = 0.0
    if profile is not None:
        profile.clear()
    begin = node.state.tip.height
    while node.state.tip.height < begin + blocks:
        until_ms += DELAY_MS
        network.run_until(until_ms)
    return meter


def _split(profile: cProfile.Profile) -> dict[str, float]:
    """Shares of the profiled time without the signatures': encoding and hashing, ledger and tree, and the rules."""
    shares = {"encoding": 0.0, "state": 0.0, "rules": 0.0}
    for (path, _, name), (_, _, own_s, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        place = path.replace("\\", "/")
        if "sodium" in name or "/nacl/" in place or place.endswith(("base/signing.py", "base/vrf.py")):
            continue
        if "cbor2" in name or "hash" in name or place.endswith(("codec.py", "hashing.py", "merkle.py")):
            shares["encoding"] += own_s
        elif "/milon/state/" in place or "/milon/contracts/" in place:
            shares["state"] += own_s
        else:
            shares["rules"] += own_s
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def measure_processor(nodes: int) -> dict[str, float]:
    """Milliseconds of one node's processor for one empty block, and what they go to."""
    blocks = 3
    meter = _run_measured(nodes, blocks, None)
    profile = cProfile.Profile(time.process_time)  # not the wall: other work on the machine is none of ours
    _run_measured(nodes, 1, profile)
    shares = _split(profile)
    rest_s = meter.step_s - meter.signatures_s
    spent = {
        "signatures": meter.signatures_s,
        "encoding": meter.messages_s + shares["encoding"] * rest_s,
        "rules": shares["rules"] * rest_s,
        "state": shares["state"] * rest_s,
    }
    return {name: 1_000 * seconds / blocks for name, seconds in spent.items()}


def make_row(name: str, ours: float, theirs: float | None, unit: str) -> dict[str, object]:
    """One line of the results."""
    ratio = None if not theirs else round(ours / theirs, 3)
    return {"name": name, "ours": round(ours, 3), "theirs": theirs, "ratio": ratio, "unit": unit}


def write_rows(rows: Sequence[dict[str, object]]) -> None:
    """Put the rows into the results, in the place of those of the same names; others stay."""
    found = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    names = {row["name"] for row in rows}
    kept = [row for row in found if row["name"] not in names]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"rows": [*kept, *rows], "machine": describe_machine()}, indent=2) + "\n")


def run_delays(nodes: int) -> None:
    """Measure, print, write: how long a block takes."""
    block, final = measure_delays(nodes)
    print(f"n = {nodes:>3}   a block every {block:.2f} delays, final after {final:.2f}", flush=True)
    write_rows(
        [
            make_row(f"block time, n = {nodes}", block, BLOCK_DELAYS, "network delays"),
            make_row(f"time to finality, n = {nodes}", final, FINAL_DELAYS, "network delays"),
        ]
    )


def run_processor(nodes: int) -> None:
    """Measure, print, write: what a block costs one node."""
    spent = measure_processor(nodes)
    total = sum(spent.values())
    print(f"n = {nodes:>3}   {total:.1f} ms of one core for an empty block")
    rows = [make_row(f"processor per block, n = {nodes}", total, None, "ms")]
    for name, milliseconds in spent.items():
        print(f"          {name:<10} {milliseconds:6.1f} ms  {100 * milliseconds / total:3.0f} %")
        rows.append(make_row(f"processor per block, n = {nodes}: {name}", milliseconds, None, "ms"))
    write_rows(rows)


def main() -> int:
    """Measure both at the sizes that are asked for, by default all of them and the processor at the largest."""
    parser = argparse.ArgumentParser(prog="python -m bench.chain", description=__doc__)
    parser.add_argument("--delays", type=int, nargs="*", choices=SIZES, default=SIZES, help="validators")
    parser.add_argument("--processor", type=int, nargs="*", choices=SIZES, default=SIZES[-1:], help="validators")
    chosen = parser.parse_args()
    for nodes in chosen.delays:
        run_delays(nodes)
    for nodes in chosen.processor:
        run_processor(nodes)
    return 0


if __name__ == "__main__":
    sys.exit(main())

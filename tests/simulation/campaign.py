"""Many seeds, each with faults and an adversary: `python -m tests.simulation.campaign --seeds N --first K`."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from milon.base.ids import Digest
from milon.consensus.views import compute_delta, compute_standstill_period
from tests.adversaries.equivocator import Equivocator
from tests.adversaries.forking_leader import ForkingLeader
from tests.adversaries.nullifier import Nullifier
from tests.adversaries.replayer import Replayer
from tests.adversaries.silent_leader import SilentLeader
from tests.adversaries.twin import Twin
from tests.simulation.invariants import Violation
from tests.simulation.network import DELAY_MAX_MS, PARAMETERS, Behaviour, Faults, Network

CHAOS_MS = 3_600  # simulated time until the network heals
KINDS = ("none", "twins", "forking leader", "equivocator", "nullifier", "silent leader", "replayer")

_MAKE: dict[str, Callable[[int], Behaviour]] = {
    "forking leader": lambda seed: ForkingLeader(),
    "equivocator": lambda seed: Equivocator(),
    "nullifier": lambda seed: Nullifier(),
    "silent leader": lambda seed: SilentLeader(),
    "replayer": Replayer,
}


@dataclass(frozen=True)
class Outcome:
    """What became of one seed."""

    seed: int
    kind: str  # of adversary
    nodes: int  # validators' nodes, and an observer where there is one
    heights: tuple[int, int]  # of the honest: lowest at the time of healing, lowest at the end
    recovery_ms: int  # from healing until every honest node had a block that was not final then
    bound_ms: int  # what recovery may take
    problem: str  # empty: all is well


def make_network(seed: int, kind: str | None = None) -> tuple[Network, str]:
    """The network that a seed stands for: four validators, five with unequal power, or seven; the most crooked ones."""
    chance = random.Random(seed)
    kind = KINDS[seed % len(KINDS)] if kind is None else kind
    powers = chance.choice(((10, 10, 10, 10),) * 5 + ((30, 25, 25, 15, 5),) * 2 + ((10,) * 7,))
    behaviours: list[Behaviour] = [Behaviour() for _ in powers]
    keys: list[int | None] = list(range(len(powers)))
    for crooked in _draw_crooked(chance, powers) if kind != "none" else ():
        if kind == "twins":
            behaviours[crooked] = Twin()
            behaviours.append(Twin())
            keys.append(crooked)
        else:
            behaviours[crooked] = _MAKE[kind](seed)
    if chance.randrange(4) == 0:
        behaviours.append(Behaviour())
        keys.append(None)
    network = Network(seed, powers, behaviours, _draw_faults(chance, len(behaviours)), keys=keys)
    for node in network.nodes:
        node.clock_skew_ms = chance.randrange(-40, 41)
    return network, kind


def _draw_crooked(chance: random.Random, powers: tuple[int, ...]) -> list[int]:
    """As many validators as the protocol bears: less than a third of the power."""
    crooked: list[int] = []
    for index in chance.sample(range(len(powers)), len(powers)):
        if 3 * (powers[index] + sum(powers[other] for other in crooked)) < sum(powers):
            crooked.append(index)
    return crooked


def _draw_faults(chance: random.Random, nodes: int) -> Faults:
    partitions = []
    for begin in (600, 1_800, 2_800):
        if chance.randrange(2):
            cut = frozenset(chance.sample(range(nodes), chance.randrange(1, nodes // 2 + 1)))
            partitions.append((begin, begin + chance.randrange(200, 1_000), cut))
    return Faults(
        loss_percent=chance.choice((0, 2, 10, 25)),
        slow_percent=chance.choice((0, 10, 30)),
        crash_per_mille=chance.choice((0, 5, 20)),
        partitions=tuple(partitions),
        heal_ms=CHAOS_MS,
    )


def compute_recovery_bound(network: Network) -> int:
    """How long after healing every honest node may take to a new final block.

    One standstill period, until everything that was lost has been said again; a crashed node's return; then the views
    of bad leaders in a row, each at most three deltas and a block's pause, with delta still growing; then a block.
    """
    states = [node.state for node in network.honest if node.state is not None]
    view = max(state.view for state in states)
    final = min(state.final_view for state in states)
    total = compute_standstill_period(PARAMETERS, compute_delta(PARAMETERS, view, final)) + 1_500
    for ahead in range(len(network.keys) + 1):
        delta = compute_delta(PARAMETERS, type(view)(view + ahead), final)
        total += PARAMETERS.block_time_ms + 3 * delta + DELAY_MAX_MS
    return int(total)


def run_seed(seed: int, kind: str | None = None) -> Outcome:
    """Run one seed; a broken invariant or a network that does not recover is its problem."""
    network, kind = make_network(seed, kind)
    before = after = bound = recovery = 0
    problem = ""
    try:
        network.run_until(CHAOS_MS)
        before, highest = min(network.heights(), default=0), max(network.auditor.final_at_height, default=0)
        bound = compute_recovery_bound(network)
        while recovery < bound and not _has_recovered(network, highest):
            recovery += 50
            network.run_until(CHAOS_MS + recovery)
        after = min(network.heights(), default=0)
        if not _has_recovered(network, highest):
            problem = f"heights {network.heights()} {bound} ms after healing at {highest}"
    except (Violation, RuntimeError) as error:
        problem = f"{type(error).__name__}: {error}"
    return Outcome(seed, kind, len(network.nodes), (before, after), recovery, bound, problem)


def _has_recovered(network: Network, highest: int) -> bool:
    heights = network.heights()
    return len(heights) == len(network.honest) and min(heights) > highest


def compute_fingerprint(seed: int) -> tuple[Digest, ...]:
    """The final chain of a seed: the same on every run."""
    network, _ = make_network(seed)
    network.run_until(CHAOS_MS)
    return tuple(block for _, block in sorted(network.auditor.final_at_height.items()))


def main() -> int:
    """Print a table, and exit 1 at the first seed with a problem."""
    parser = argparse.ArgumentParser(description="Run the consensus engine against faults and adversaries.")
    parser.add_argument("--seeds", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--first", type=int, default=0, help="the first one (default: 0)")
    parser.add_argument("--kind", choices=KINDS, default=None, help="of adversary; by default they take turns")
    options = parser.parse_args()
    print(
        f"{'seed':>7}  {'adversary':<15} {'nodes':>5} {'final':>6} {'later':>6} {'recovery':>9} {'bound':>7}  seconds"
    )
    for seed in range(options.first, options.first + options.seeds):
        begin = time.perf_counter()
        outcome = run_seed(seed, options.kind)
        seconds = time.perf_counter() - begin
        low, high = outcome.heights
        print(
            f"{seed:>7}  {outcome.kind:<15} {outcome.nodes:>5} {low:>6} {high:>6} {outcome.recovery_ms:>6} ms "
            f"{outcome.bound_ms:>4} ms  {seconds:.2f}  {outcome.problem}",
            flush=True,
        )
        if outcome.problem:
            print(f"seed {seed} fails", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

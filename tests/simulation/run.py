"""One seed from start to verdict: chaos, healing, recovery within a bound, and a last look at everything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from milon.base.ids import Digest
from milon.base.units import View
from milon.consensus.proposals import is_silent
from milon.consensus.views import compute_delta, compute_standstill_period
from tests.simulation.beliefs import Unbearable, Violation
from tests.simulation.cheap import account_of
from tests.simulation.faults import DOWN_MS_MAX
from tests.simulation.invariants import find_unpunished, verify_coins, verify_stores
from tests.simulation.network import PARAMETERS, START_MS, Network
from tests.simulation.scenario import CHAOS_MS, make_network

PATIENCE_MS = 50  # how often to look whether the network has recovered
VIEWS_MAX = 40  # of bad luck in a row after healing; more is no luck

Watch = Callable[[Network], None]  # told of the network before anything happens


@dataclass(frozen=True)
class Outcome:
    """What became of one seed."""

    seed: int
    kind: str  # of adversary
    nodes: int  # validators' nodes, and an observer where there is one
    heights: tuple[int, int]  # of the honest: lowest at the time of healing, lowest at the end
    recovery_ms: int  # from healing until every honest node had a block that was not final then
    bound_ms: int  # what recovery may take
    events: int  # that the engines were fed
    problem: str  # empty: all is well
    epochs: int = 0  # that ended
    changes: int = 0  # epochs whose set was another than the one before
    punished: int = 0  # offenders whose stake burned
    jailed: int = 0  # times that an honest node saw somebody go to jail
    is_over: bool = False  # ended early: with jail or a lost log the faulty had a third of the power


def compute_recovery_bound(network: Network) -> int:
    """How long after healing every honest node may take to a new final block.

    Until everything that was lost has been said again, one standstill period, once a crashed node is back; then views
    whose delta is still too short for this network's delay, growing from one to the next; then those of bad leaders in
    a row, at most one more than there are validators; then a block. A view takes at most a block's pause and three
    deltas, and delta is long enough once a proposal and its votes come within it.
    """
    states = [node.state for node in network.honest if node.state is not None]
    view = max((state.view for state in states), default=View(1))
    final = min((state.final_view for state in states), default=View(0))
    delay = network.faults.delay_ms[1]
    total = compute_standstill_period(PARAMETERS, compute_delta(PARAMETERS, view, final)) + DOWN_MS_MAX
    good, ahead = 0, 0
    while good <= len(network.keys) and ahead < VIEWS_MAX:
        delta = compute_delta(PARAMETERS, View(view + ahead), final)
        total += PARAMETERS.block_time_ms + 3 * delta + delay
        good += 3 * delta >= 2 * delay + PARAMETERS.block_time_ms
        ahead += 1
    return int(total)


def run_seed(seed: int, kind: str | None = None, watch: Watch | None = None) -> Outcome:
    """Run one seed; a broken invariant or a network that does not recover is its problem."""
    network, kind = make_network(seed, kind)
    if watch is not None:
        watch(network)
    before = after = bound = recovery = 0
    problem, is_over = "", False
    try:
        network.run_until(CHAOS_MS)
        before, highest = min(network.heights(), default=0), max(network.auditor.final_at_height, default=0)
        bound = compute_recovery_bound(network)
        while recovery < bound and not _has_recovered(network, highest):
            recovery += PATIENCE_MS
            network.run_until(CHAOS_MS + recovery)
        after = min(network.heights(), default=0)
        if not _has_recovered(network, highest):
            verify_stores(network)
            verify_coins(network)
            _verify_bearable(network)
            problem = f"heights {network.heights()} {bound} ms after healing at {highest}"
        problem = problem or _wait_for_justice(network, bound)
        verify_stores(network)
        verify_coins(network)
    except Unbearable:
        is_over = True
    except (Violation, RuntimeError) as error:
        problem = f"{type(error).__name__}: {error}"
    auditor = network.auditor
    return Outcome(
        seed,
        kind,
        len(network.nodes),
        (before, after),
        recovery,
        bound,
        network.events,
        problem,
        max(0, len(auditor.sets) - 1),
        sum(one != other for one, other in pairwise(auditor.sets[epoch] for epoch in sorted(auditor.sets))),
        sum(len(holders) > 0 for holders in auditor.accused.values()),
        auditor.jailed,
        is_over,
    )


def _wait_for_justice(network: Network, patience_ms: int) -> str:
    """Go on until all that is proven is punished; what is left after `patience_ms` is the problem."""
    start = network.now_ms - START_MS
    waited = 0
    while find_unpunished(network) and waited < patience_ms:
        waited += PATIENCE_MS
        network.run_until(start + waited)
    left = find_unpunished(network)
    return f"{len(left)} offenders go unpunished {waited} ms after recovery" if left else ""


def _verify_bearable(network: Network) -> None:
    """Raise `Unbearable` where an honest node may not vote in its view, since an old log came back, and its power and
    that of the crooked are a third together: who lost its votes is as faulty as who withholds them, until a view later.
    """
    crooked = {account_of(key) for key in network.keys} - network.auditor.honest
    for node in network.honest:
        state = node.state
        if node.index == network.faults.old_log_node and state is not None and is_silent(state):
            faulty = {*crooked, node.config.account}
            power = sum(member.power for member in state.members.validators if member.account in faulty)
            if 3 * power >= sum(member.power for member in state.members.validators):
                raise Unbearable(f"node {node.index} lost its votes of view {state.view}")


def _has_recovered(network: Network, highest: int) -> bool:
    heights = network.heights()
    return len(heights) == len(network.honest) and min(heights) > highest


def compute_fingerprint(seed: int) -> tuple[Digest, ...]:
    """The final chain of a seed: the same on every run."""
    network, _ = make_network(seed)
    with contextlib.suppress(Unbearable):
        network.run_until(CHAOS_MS)
    return tuple(block for _, block in sorted(network.auditor.final_at_height.items()))

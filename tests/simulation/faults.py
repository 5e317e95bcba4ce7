"""What goes wrong in the simulation until the network heals, drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

CUT_MS_MIN, CUT_MS_MAX = 150, 900  # how long one partition lasts before the next is drawn
DOWN_MS_MIN, DOWN_MS_MAX = 50, 1_500  # how long a crashed node is away

FAST, SLOW = (1, 40), (300, 600)  # links: well under delta, and so far above it that view after view is given up


@dataclass(frozen=True)
class Faults:
    """What goes wrong before the network heals."""

    loss_percent: int = 0  # of messages
    slow_percent: int = 0  # of messages take up to ten times as long
    twice_percent: int = 0  # of messages arrive twice, at different times
    crash_per_mille: int = 0  # of steps with effects end in a crash
    full_per_mille: int = 0  # of writes find the disk full: the node stops and comes back later
    old_log_percent: int = 0  # of one node's crashes leave an older copy of the vote log
    old_log_node: int = 0  # which, and it crashes five times as often; more such nodes could stop the chain for good
    blackouts: tuple[int, ...] = ()  # moments at which every honest node crashes
    partitions: tuple[tuple[int, int, frozenset[int]], ...] = ()  # from, to, and who is cut off from the others
    heal_ms: int = 0  # simulated time after which nothing goes wrong any more
    delay_ms: tuple[int, int] = (1, 40)  # one way, when nothing is wrong; well under delta, but in a slow network


def draw_faults(chance: random.Random, nodes: int, heal_ms: int) -> Faults:
    """A network's bad time: any mixture from none at all to nearly everything at once.

    Old copies and a stop of all machines exclude each other: then even a final block may be lost.
    """
    blackouts = tuple(chance.randrange(heal_ms) for _ in range(chance.choice((0, 0, 0, 1))))
    return Faults(
        loss_percent=chance.choice((0, 2, 10, 25)),
        slow_percent=chance.choice((0, 10, 30)),
        twice_percent=chance.choice((0, 0, 10, 40)),
        crash_per_mille=chance.choice((0, 10, 40)),
        full_per_mille=chance.choice((0, 0, 5)),
        old_log_percent=0 if blackouts else chance.choice((0, 80)),
        old_log_node=chance.randrange(nodes),
        blackouts=blackouts,
        partitions=_draw_partitions(chance, nodes, heal_ms),
        heal_ms=heal_ms,
        delay_ms=chance.choice((FAST, SLOW) if blackouts else (FAST,) * 5 + ((1, 240), SLOW)),
    )


def _draw_partitions(chance: random.Random, nodes: int, heal_ms: int) -> tuple[tuple[int, int, frozenset[int]], ...]:
    """In half of the seeds cuts follow one another, redrawn each time, with calm between some of them."""
    if nodes < 2 or chance.randrange(2):
        return ()
    cuts = []
    now = chance.randrange(600)
    while now < heal_ms:
        end = now + chance.randrange(CUT_MS_MIN, CUT_MS_MAX)
        if chance.randrange(3):
            cuts.append((now, end, frozenset(chance.sample(range(nodes), chance.randrange(1, nodes // 2 + 1)))))
        now = end
    return tuple(cuts)

"""The cap on one validator's power: no member alone can stop the chain, however much stake it has."""

from __future__ import annotations

from collections.abc import Sequence

from milon.pol.terms import PARTS_PER_MILLION


def is_cap_possible(count: int, cap_ppm: int) -> bool:
    """Whether `count` members can all stay within the cap: three cannot each have less than a third."""
    return count * cap_ppm >= PARTS_PER_MILLION


def cap_powers(stakes: Sequence[int], cap_ppm: int) -> tuple[int, ...]:
    """The powers of members with these stakes (positive, the largest first), none above the cap's share of their sum.

    The largest are cut to one power x, and no more of them than needed: with k cut and a rest r, x is the most with
    `x <= cap * (k * x + r)`, and the next stake is at most x. Where the cap cannot hold for so few, stakes stay.
    """
    if not is_cap_possible(len(stakes), cap_ppm):
        return tuple(stakes)
    rest = sum(stakes)
    for cut, stake in enumerate(stakes):
        room = PARTS_PER_MILLION - cap_ppm * cut
        most = rest * cap_ppm // room if room > 0 else rest
        if stake <= most:
            break
        rest -= stake
    return tuple(min(stake, most) for stake in stakes)

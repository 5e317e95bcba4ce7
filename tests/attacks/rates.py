"""Rates with their uncertainty: what so many trials say about a probability."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt

Z_95 = 1.959963984540054  # two-sided quantiles of the normal distribution
Z_999 = 3.290526731491926


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a probability lies."""

    low: float
    high: float

    def holds(self, probability: float) -> bool:
        """Whether it may be this one."""
        return self.low <= probability <= self.high


def estimate(hits: int, trials: int, z: float = Z_95) -> Interval:
    """Wilson's interval (1927) for `hits` of `trials`."""
    share = hits / trials
    middle = share + z * z / (2 * trials)
    spread = z * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return Interval(max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale))


def bound_of_none(trials: int) -> float:
    """The rule of three: what never happened in so many trials is, with 95 % confidence, at most this likely."""
    return min(1.0, 3 / trials)


def compute_catch(false_share: float, replays: int) -> float:
    """`1 - (1 - f)^q`: the chance that so many draws with replacement meet a false segment."""
    return 1 - (1 - false_share) ** replays


def compute_catch_exactly(segments: int, false: int, members: int, each: int) -> float:
    """The same where each member draws `each` different segments of the claim's, by itself."""
    missed = comb(segments - false, each) / comb(segments, each)
    return float(1 - missed**members)

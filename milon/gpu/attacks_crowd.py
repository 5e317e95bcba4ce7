"""Hostile updates made from the honest ones: attackers who see everybody's and hide between them.

Means and deviations are binary64, row after row; what is compared or divided are integers (inner products of updates on
a common grid of 20 bits), and the rest is scalar binary64 in a fixed order. So an attack is the same bits on every
machine, and a table of attacks can be repeated to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import frexp, ldexp, sqrt
from statistics import NormalDist

import torch
from torch import Tensor

from milon.base.errors import Reason, require
from milon.gpu.aggregate_updates import float_names
from milon.gpu.attacks import replace_tensors

State = Mapping[str, Tensor]
Judge = Callable[[State], int]  # how far the round's result is from the honest one if all attackers send this state

GRID_BITS = 19  # |q| below 2^19: a product fits 38 bits, and int64 sums 2^25 of them
SUM_COLUMNS = 1 << 25  # see GRID_BITS
POWER_STEPS = 64  # of the power iteration; the leading direction needs only be told from the others
DEVIATION_FACTORS = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)  # tried by optimised ALIE
INNER_FACTORS = (0.1, 0.5, 1.0, 2.0, 8.0)  # tried by optimised inner product manipulation
DIRECTIONS = ("mean", "deviation", "sign")  # of min-max and min-sum: the three of the paper


class Crowd:
    """The honest updates as rows of binary64, and what the attacks ask of them."""

    def __init__(self, round_state: State, honest: Sequence[State]) -> None:
        """`honest`: final states of at least one trainer; only the model's floating tensors count."""
        require(len(honest) > 0, Reason.TOO_FEW, "an attack on the crowd needs an honest update to look at")
        self._round_state = round_state
        self._first = honest[0]
        self._names = float_names(round_state)
        base = self._flatten(round_state)
        self.rows = [self._flatten(state) - base for state in honest]  # each [columns], binary64
        self._base = base

    def _flatten(self, state: State) -> Tensor:
        return torch.cat([state[name].reshape(-1).to(torch.float64) for name in self._names])

    def compute_mean(self) -> Tensor:
        """The mean update, [columns]."""
        total = torch.zeros_like(self.rows[0])
        for row in self.rows:
            total += row
        return total / len(self.rows)

    def compute_deviation(self) -> Tensor:
        """The standard deviation of every coordinate (divided by the count), [columns]."""
        mean, total = self.compute_mean(), torch.zeros_like(self.rows[0])
        for row in self.rows:
            total += (row - mean) ** 2
        return (total / len(self.rows)).sqrt()

    def make_final(self, update: Tensor) -> dict[str, Tensor]:
        """The final state that shows `update`; what is no floating tensor of the model is the first trainer's."""
        flat, changed, start = (self._base + update).to(torch.float32), {}, 0
        for name in self._names:
            tensor = self._round_state[name]
            changed[name] = flat[start : start + tensor.numel()].reshape(tensor.shape).clone()
            start += tensor.numel()
        return replace_tensors(self._first, changed)


def _to_grid(rows: Sequence[Tensor]) -> tuple[list[Tensor], int]:
    """The rows in units of 2^-shift as int64, and the shift: the largest magnitude of all fills `GRID_BITS` bits."""
    largest = max(float(row.abs().max()) if row.numel() else 0.0 for row in rows)
    shift = GRID_BITS - frexp(largest)[1] if largest else 0
    return [(row * 2.0**shift).round().to(torch.int64) for row in rows], shift


def _inner(left: Tensor, right: Tensor) -> int:
    """The exact inner product of two rows of grid integers."""
    starts = range(0, len(left), SUM_COLUMNS)
    return sum(int((left[at : at + SUM_COLUMNS] * right[at : at + SUM_COLUMNS]).sum()) for at in starts)


def compute_squared_distance(left: State, right: State) -> int:
    """The squared distance of two states over the model's floating tensors, in units of 2^-80; 0 for equal ones."""
    names = float_names(left)
    difference = torch.cat([(left[n].to(torch.float64) - right[n].to(torch.float64)).reshape(-1) for n in names])
    (row,), shift = _to_grid([difference])
    return _shift(_inner(row, row), 80 - 2 * shift)


def _shift(value: int, bits: int) -> int:
    return value << bits if bits >= 0 else value >> -bits


def compute_hidden_deviations(trainers: int, attackers: int) -> float:
    """ALIE's z: so many deviations beside the mean, a majority of trainers is still farther out than the attackers.

    s = floor(n / 2 + 1) - m honest ones must be outbid; z is the quantile of (n - m - s) / (n - m) of the normal
    distribution (Baruch et al. 2019, algorithm 3). At least 0.
    """
    outbid = trainers // 2 + 1 - attackers
    honest = trainers - attackers
    share = (honest - outbid) / honest if honest else 0.0
    if not 0.5 < share < 1.0:
        return 0.0 if share <= 0.5 else DEVIATION_FACTORS[-1]
    return NormalDist().inv_cdf(share)


def little_is_enough(crowd: Crowd, deviations: float) -> dict[str, Tensor]:
    """mean - `deviations` * deviation: a shift that hides inside the spread (ALIE, Baruch et al. 2019)."""
    return crowd.make_final(crowd.compute_mean() - crowd.compute_deviation() * deviations)


def inner_product(crowd: Crowd, factor: float) -> dict[str, Tensor]:
    """-`factor` * mean: the aggregate's inner product with the true update turns negative (Xie et al. 2020)."""
    return crowd.make_final(crowd.compute_mean() * -factor)


def _pick(finals: Sequence[dict[str, Tensor]], judge: Judge) -> dict[str, Tensor]:
    """The final that does most harm; the first of equal ones."""
    harms = [judge(final) for final in finals]
    return finals[harms.index(max(harms))]


def little_is_enough_optimised(crowd: Crowd, judge: Judge) -> dict[str, Tensor]:
    """ALIE with the z, of `DEVIATION_FACTORS`, that moves the rule's result farthest from the honest mean.

    The attacker runs the rule itself (Shejwalkar and Houmansadr 2021, section 4.2; the search over a line as in
    Allouah et al. 2023, appendix on experiments).
    """
    return _pick([little_is_enough(crowd, factor) for factor in DEVIATION_FACTORS], judge)


def inner_product_optimised(crowd: Crowd, judge: Judge) -> dict[str, Tensor]:
    """Inner product manipulation with the factor, of `INNER_FACTORS`, that does most harm; see ALIE's."""
    return _pick([inner_product(crowd, factor) for factor in INNER_FACTORS], judge)


def _direct(crowd: Crowd, direction: str) -> Tensor:
    if direction == "deviation":
        return -crowd.compute_deviation()
    return -crowd.compute_mean().sign() if direction == "sign" else -crowd.compute_mean()


def _reach(steep: int, slope: int, gap: int) -> float:
    """The greatest t with steep * t^2 + 2 * slope * t <= gap, for gap >= 0; 0 where there is no direction."""
    if steep == 0:
        return 0.0
    a, b, c = float(steep), float(slope), float(gap)  # below 2^70 for any model: far inside binary64
    return (sqrt(b * b + a * c) - b) / a


def _compute_gaps(rows: Sequence[Tensor]) -> list[list[int]]:
    """Squared distances between all rows."""
    inner = [[_inner(left, right) for right in rows] for left in rows]
    places = range(len(rows))
    return [[inner[i][i] + inner[j][j] - 2 * inner[i][j] for j in places] for i in places]


def _hide(crowd: Crowd, direction: str, is_sum: bool) -> tuple[Tensor, float]:
    """mean + t * direction with the greatest t that min-max (or min-sum) allows, and its way from the mean."""
    mean, step = crowd.compute_mean(), _direct(crowd, direction)
    rows, shift = _to_grid([*crowd.rows, mean])
    (unit,), own_shift = _to_grid([step])
    honest, middle = rows[:-1], rows[-1]
    gaps = _compute_gaps(honest)
    ways = [middle - row for row in honest]  # from each honest update to the mean
    squared = [_inner(way, way) for way in ways]
    slopes = [_inner(unit, way) for way in ways]
    steep = _inner(unit, unit)
    if is_sum:
        room = max(sum(row) for row in gaps) - sum(squared)
        reach = _reach(len(honest) * steep, sum(slopes), max(0, room))
    else:
        widest = max(max(row) for row in gaps)
        pairs = zip(squared, slopes, strict=True)
        reach = min(_reach(steep, slope, max(0, widest - gap)) for gap, slope in pairs)
    # `reach` counts steps of the direction's grid in units of the rows' grid.
    return mean + step * ldexp(max(0.0, reach), own_shift - shift), reach * sqrt(float(steep))


def _hide_farthest(crowd: Crowd, is_sum: bool) -> dict[str, Tensor]:
    found = [_hide(crowd, direction, is_sum) for direction in DIRECTIONS]
    ways = [way for _, way in found]
    return crowd.make_final(found[ways.index(max(ways))][0])


def min_max(crowd: Crowd) -> dict[str, Tensor]:
    """As far from the mean as no pair of honest updates is apart from each other.

    max_i |a - x_i| <= max_ij |x_i - x_j| for a = mean + t * p (Shejwalkar and Houmansadr 2021, section 4.3, equation
    9). The paper halves steps to find t; here t is the smallest positive root of the quadratics. p is minus the mean,
    minus the deviation or minus the mean's signs: the one that leads farthest.
    """
    return _hide_farthest(crowd, is_sum=False)


def min_sum(crowd: Crowd) -> dict[str, Tensor]:
    """The same under a bound on sums: sum_i |a - x_i|^2 <= max_i sum_j |x_i - x_j|^2 (the paper's equation 10)."""
    return _hide_farthest(crowd, is_sum=True)


def choose_mimicked(crowd: Crowd) -> int:
    """The honest trainer that stands out most along the direction in which the updates differ most.

    Karimireddy et al. 2022, section 4.2, follows that direction over the rounds; here each round finds it anew, by
    power iteration on the matrix of inner products of the centred updates.
    """
    count, mean = len(crowd.rows), crowd.compute_mean()
    rows, _ = _to_grid([row - mean for row in crowd.rows])
    gram = [[float(_inner(left, right)) for right in rows] for left in rows]
    vector = [1.0 / (1 + place) for place in range(count)]
    for _ in range(POWER_STEPS):
        vector = [sum(gram[i][j] * vector[j] for j in range(count)) for i in range(count)]
        norm = sqrt(sum(value * value for value in vector))
        if norm == 0.0:
            return 0
        vector = [value / norm for value in vector]
    sizes = [abs(value) for value in vector]
    return sizes.index(max(sizes))

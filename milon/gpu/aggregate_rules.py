"""Aggregation rules on blocks of integers: every result is defined by integers, so no order of sums can change it.

A block is an int64 tensor [updates, columns] with entries of magnitude at most `BOUND`. Weights are positive integers,
one per update; an update counts as so many equal rows. The rules return numerators; the caller divides once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from milon.pol.aggregation import UPDATES_MAX
from milon.pol.gram import Rows

BOUND = (1 << 19) - 1  # a product of two fits 38 bits, a sum of 2^15 of them 53: exact in binary64 in any order
BLOCK_COLUMNS = 1 << 15  # see BOUND
EXACT_BLOCKS = 1 << 10  # int64 sums of 53-bit Gram blocks stay below 2^63 for so many
MIXED_BITS = 8  # that rows keep below the updates' grid once preparations have mixed them
INDEX_BITS = UPDATES_MAX.bit_length() - 1  # with a 20-bit value and its sign: 30 bits of one int32 key
NETWORK_ROWS_MAX = 64  # up to here comparing whole rows beats torch's sort along columns, tenfold at 5 rows


@cache
def make_network(count: int, wanted: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The comparators (lower row, higher row) of Batcher's odd-even merge sort (1968) of `count` rows that the wanted
    places depend on."""
    pairs: list[tuple[int, int]] = []
    width = 1
    while width < count:
        step = width
        while step >= 1:
            for first in range(step % width, count - step, 2 * step):
                lows = range(first, min(first + step, count - step))
                pairs += [(low, low + step) for low in lows if low // (2 * width) == (low + step) // (2 * width)]
            step //= 2
        width *= 2
    needed, kept = set(wanted), []
    for low, high in reversed(pairs):
        if low in needed or high in needed:
            needed |= {low, high}
            kept.append((low, high))
    return tuple(kept[::-1])


def _sort_keys(keys: Tensor) -> Tensor:
    """The columns of a tensor of integers in ascending order: a network of whole rows for few of them, else a sort."""
    count = keys.shape[0]
    if count > NETWORK_ROWS_MAX:
        return keys.sort(dim=0).values
    rows = list(keys.unbind(0))
    for low, high in make_network(count, tuple(range(count))):
        rows[low], rows[high] = torch.minimum(rows[low], rows[high]), torch.maximum(rows[low], rows[high])
    return torch.stack(rows)


def sort_columns(block: Tensor, weights: Sequence[int], is_mixed: bool = False) -> tuple[Tensor, Tensor]:
    """Each column's values in ascending order, and beside them the weights summed up to and including each.

    Values of rows that were mixed have `MIXED_BITS` more bits, and so keys of 64 bits.
    """
    count = block.shape[0]
    kind = torch.int64 if is_mixed else torch.int32
    numbers = torch.arange(count, device=block.device, dtype=kind).unsqueeze(1)
    keys = _sort_keys((block.to(kind) << INDEX_BITS) | numbers)
    values = (keys >> INDEX_BITS).to(torch.int64)
    weight_of = torch.tensor(weights, device=block.device, dtype=torch.int64)
    reached = weight_of[(keys & (UPDATES_MAX - 1)).to(torch.int64)].cumsum(dim=0)
    return values, reached


def mix_rows(block: Tensor, rows: Rows) -> Tensor:
    """The rows that preparations made of a block of updates, in units of 2^-`MIXED_BITS` of the updates' grid.

    Each is rounded once, half to even. The product in binary64 is exact: a row's numerators sum to at most 2^33.
    """
    factors = torch.tensor(rows.numerators, dtype=torch.float64, device=block.device)
    sums = (factors @ block.to(torch.float64)).to(torch.int64)
    return divide_half_even(sums << MIXED_BITS, rows.denominator)


def compute_median_twice(block: Tensor, weights: Sequence[int], is_mixed: bool = False) -> Tensor:
    """Twice the weighted median of every column, [columns].

    The median is the smallest v for which the values up to v have half of the weight; where they have exactly half,
    the mean of v and the next value.
    """
    values, reached = sort_columns(block, weights, is_mixed)
    return _median_of_sorted(values, reached, sum(weights))


def _median_of_sorted(values: Tensor, reached: Tensor, total: int) -> Tensor:
    lower = (2 * reached < total).sum(dim=0, keepdim=True)
    upper = lower + (2 * reached.gather(0, lower) == total)
    return (values.gather(0, lower) + values.gather(0, upper)).squeeze(0)


def compute_trimmed_sum(block: Tensor, weights: Sequence[int], faulty_weight: int, is_mixed: bool = False) -> Tensor:
    """The sum of every column's rows without the F lowest and the F highest, F = `faulty_weight`; W - F - F remain."""
    values, reached = sort_columns(block, weights, is_mixed)
    top = reached.clamp(faulty_weight, sum(weights) - faulty_weight)
    kept = top.diff(dim=0, prepend=torch.full_like(top[:1], faulty_weight))
    return (values * kept).sum(dim=0)


def compute_central_sum(block: Tensor, weights: Sequence[int], kept: int, is_mixed: bool = False) -> Tensor:
    """The sum of the `kept` weight of every column's rows that is nearest to their weighted median; of equally near
    values the lower first, the last one in part (Bulyan's second phase, El Mhamdi et al. 2018, section 4)."""
    values, reached = sort_columns(block, weights, is_mixed)
    centre = _median_of_sorted(values, reached, sum(weights))
    owns = reached.diff(dim=0, prepend=torch.zeros_like(reached[:1]))
    order = (2 * values - centre).abs().sort(dim=0, stable=True).indices
    taken = owns.gather(0, order).cumsum(dim=0).clamp(max=kept)
    parts = taken.diff(dim=0, prepend=torch.zeros_like(taken[:1]))
    return (values.gather(0, order) * parts).sum(dim=0)


def compute_weighted_sum(block: Tensor, weights: Sequence[int]) -> Tensor:
    """The weighted sum of every column."""
    return (block * torch.tensor(weights, device=block.device, dtype=torch.int64).unsqueeze(1)).sum(dim=0)


class Comparison:
    """How rows stand to the weighted median of their columns, exactly, over all blocks; every number is times four."""

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = weights
        self.squared_distances = [0] * len(weights)  # of each row to the median
        self.inner_products = [0] * len(weights)  # of each row with the median
        self.squared_norms = [0] * len(weights)  # of each row
        self.median_squared_norm = 0  # of the median

    def add(self, block: Tensor) -> None:
        """Add a block of at most `BLOCK_COLUMNS` columns; each of them adds at most 2^42, so int64 holds the sums."""
        twice, median = 2 * block, compute_median_twice(block, self._weights)
        difference = twice - median
        terms = torch.stack([difference * difference, twice * median, twice * twice], dim=2)
        self.add_sums(terms.sum(dim=1).tolist(), int((median * median).sum()))

    def add_sums(self, sums: Sequence[Sequence[int]], median_squared_norm: int) -> None:
        """Add what some columns come to: a row's squared distance, inner product and squared norm, and the median's."""
        for row, (squared, inner, norm) in enumerate(sums):
            self.squared_distances[row] += squared
            self.inner_products[row] += inner
            self.squared_norms[row] += norm
        self.median_squared_norm += median_squared_norm


class Gram:
    """The exact Gram matrix of rows that arrive block by block: binary64 inside a block, integers across blocks."""

    def __init__(self, count: int) -> None:
        self._whole = [[0] * count for _ in range(count)]
        self._part: Tensor | None = None
        self._blocks = 0

    def add(self, block: Tensor) -> None:
        """Add a block of at most `BLOCK_COLUMNS` columns; its product holds no rounded number, on any device."""
        rows = block.to(torch.float64)
        product = (rows @ rows.T).to(torch.int64)
        self._part = product if self._part is None else self._part + product
        self._blocks += 1
        if self._blocks == EXACT_BLOCKS:
            self._flush()

    def _flush(self) -> None:
        if self._part is not None:
            for row, added in zip(self._whole, self._part.tolist(), strict=True):
                row[:] = [old + new for old, new in zip(row, added, strict=True)]
        self._part, self._blocks = None, 0

    def compute_products(self) -> list[list[int]]:
        """The inner products of all rows."""
        self._flush()
        return [list(row) for row in self._whole]


def divide_half_even(numerator: Tensor, denominator: int) -> Tensor:
    """The integers nearest to numerator / denominator (positive), ties to even."""
    quotient = torch.div(numerator, denominator, rounding_mode="floor")
    twice = 2 * (numerator - quotient * denominator)
    up = (twice > denominator) | ((twice == denominator) & (quotient & 1 == 1))
    return quotient + up


def divide_scaled(numerator: Tensor, denominator: int, bits: int) -> Tensor:
    """The integers nearest to numerator * 2^bits / denominator, ties to even; only the result need fit 63 bits."""
    if not bits:
        return divide_half_even(numerator, denominator)
    quotient = torch.div(numerator, denominator, rounding_mode="floor")
    return (quotient << bits) + divide_half_even((numerator - quotient * denominator) << bits, denominator)


def add_once_rounded(base: Tensor, grid: Tensor, exponent: int) -> Tensor:
    """base + grid * 2^exponent, rounded once to binary32 (nearest, ties to even); |grid| at most 2^53.

    The binary64 sum is first rounded to odd: its error is exact (Knuth's two-sum), and an inexact sum with an even
    last bit moves one place towards it. Rounding that to the shorter format equals rounding the true sum (Boldo and
    Melquiond 2008, theorem 1).
    """
    left = base.to(torch.float64)
    right = grid.to(torch.float64) * 2.0**exponent
    total = left + right
    part = total - left
    error = (left - (total - part)) + (right - part)
    bits = total.view(torch.int64)
    step = torch.where((error > 0) == (total > 0), 1, -1)
    odd = torch.where((error != 0) & (bits & 1 == 0), bits + step, bits)
    return odd.view(torch.float64).to(torch.float32)


def compute_lower_median(values: Tensor, weights: Sequence[int]) -> Tensor:
    """The weighted lower median of every column of integers of any size, [columns], in the type of `values`."""
    ordered, order = values.to(torch.int64).sort(dim=0, stable=True)
    reached = torch.tensor(weights, device=values.device, dtype=torch.int64)[order].cumsum(dim=0)
    lower = (2 * reached < sum(weights)).sum(dim=0, keepdim=True)
    return ordered.gather(0, lower).squeeze(0).to(values.dtype)

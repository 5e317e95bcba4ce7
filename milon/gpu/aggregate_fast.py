"""The quick way through an aggregation's passes on a CPU, used for large updates once it has proven to be the same.

Plain torch (`milon.gpu.aggregate_rules`, `milon.gpu.aggregate_updates`) is the reference. The compiled loops of
`milon.gpu.kernels_aggregate` read every update once a pass, where it lies, and hold no more than a block of it. They
prove themselves against the reference on small samples when first needed and are dropped, with a warning, if they
differ in a bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import gcd, inf
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from milon.gpu import fast
from milon.gpu.aggregate_rules import (
    BLOCK_COLUMNS,
    BOUND,
    MIXED_BITS,
    Comparison,
    Gram,
    add_once_rounded,
    compute_median_twice,
    compute_trimmed_sum,
    compute_weighted_sum,
    divide_scaled,
    make_network,
    mix_rows,
)
from milon.gpu.compiling import turn
from milon.pol.gram import Rows

ELEMENTS_MIN = 1 << 24  # below, plain torch is done before the loops are loaded
SHORT_SUM_MAX = 1 << 33  # of a row's factors: times a value of 20 bits they stay exact in binary64
_PART_COLUMNS = 1 << 20  # of one part in one call: what its sums of 64 bits hold, and how often progress is told


@dataclass(frozen=True, slots=True)
class Columns:
    """One tensor of all updates, as the loops see it."""

    tensors: tuple[Tensor, ...]  # one an update, flat; they must stay alive
    base: Tensor  # the round's, flat
    steps: Any  # float64 [updates]: what each difference is divided by

    @property
    def size(self) -> int:
        """How many columns there are."""
        return self.base.numel()

    def addresses(self, start: int) -> Any:
        """Where the updates' column `start` lies."""
        return np.array([tensor.data_ptr() + 4 * start for tensor in self.tensors], dtype=np.int64)

    def base_address(self, start: int) -> int:
        """Where the base's lies; 0 for one that is a single zero, repeated."""
        return 0 if self.base.stride(0) == 0 else self.base.data_ptr() + 4 * start

    def stretches(self) -> Iterator[tuple[int, int, int]]:
        """(start, columns, parts) of every call."""
        parts = torch.get_num_threads()
        for start in range(0, self.size, parts * _PART_COLUMNS):
            yield start, min(parts * _PART_COLUMNS, self.size - start), parts


def is_usable(tensor: Tensor) -> bool:
    """Whether the loops can read a tensor where it lies."""
    is_zero = tensor.dim() == 1 and tensor.stride(0) == 0 and tensor.numel() > 0 and not bool(tensor[0])
    is_plain = tensor.device.type == "cpu" and tensor.dtype == torch.float32
    return is_plain and (tensor.is_contiguous() or is_zero)


@dataclass(frozen=True, slots=True)
class Loops:
    """The compiled loops."""

    sums: ModuleType  # `kernels_aggregate`
    orders: ModuleType  # `kernels_aggregate_sort`


@cache
def load() -> Loops | None:
    """The loops, or None where they cannot be had or differ from the reference."""
    try:
        from milon.gpu import kernels_aggregate, kernels_aggregate_sort
    except ImportError:
        warnings.warn("numba is missing: aggregation takes the slow path (the bits are the same)", stacklevel=2)
        return None
    loops = Loops(kernels_aggregate, kernels_aggregate_sort)
    with turn("the loops of aggregation"):
        is_right = agrees(loops)
    if not is_right:
        warnings.warn("compiled loops of aggregation differ from the reference and are not used", stacklevel=2)
        return None
    return loops


def _run(kernel: Callable[..., Any], columns: int, parts: int, *arguments: Any) -> None:
    """The kernel over all parts, on as many threads."""
    fast.split(kernel, parts, columns, parts, *arguments)


def find_largest(loops: Loops, given: Columns) -> list[float]:
    """Every update's greatest |update - base| / steps; infinite where one is no finite number."""
    greatest = np.zeros(len(given.tensors), dtype=np.int64)
    for start, columns, parts in given.stretches():
        found = np.zeros((parts, len(given.tensors)), dtype=np.int64)
        _run(
            loops.sums.find_largest, columns, parts,
            given.addresses(start), given.base_address(start), columns, found,
        )  # fmt: skip
        greatest = np.maximum(greatest, found.max(axis=0))
    values = greatest.view(np.float64) / given.steps
    return [float(value) if np.isfinite(value) else inf for value in values]


def multiply(loops: Loops, given: Columns, shift: int, gram: list[list[int]]) -> Iterator[int]:
    """Add the updates' inner products to `gram`; yields the columns of each stretch."""
    count = len(given.tensors)
    padded = -(-count // loops.sums.TILE) * loops.sums.TILE
    for start, columns, parts in given.stretches():
        totals = np.zeros((parts, padded, padded), dtype=np.int64)
        _run(
            loops.sums.multiply, columns, parts,
            given.addresses(start), given.base_address(start), columns, given.steps, 2.0**shift, totals,
        )  # fmt: skip
        for part in totals.tolist():
            for i in range(count):
                for j in range(i + 1):
                    gram[i][j] += part[i][j]
                    gram[j][i] = gram[i][j]
        yield columns


def sum_weighted(
    loops: Loops, given: Columns, shift: int, taken: Sequence[int], whole: int, bits: int, steps: int, into: Tensor
) -> Iterator[int]:
    """Into the flat tensor `into`: base + (sum of taken * updates / whole) * steps; yields as `multiply` does."""
    for start, columns, parts in given.stretches():
        _run(
            loops.sums.sum_weighted, columns, parts,
            given.addresses(start), given.base_address(start), columns, given.steps, 2.0**shift,
            np.array(taken, dtype=np.int64), whole, bits, steps, 2.0 ** -(shift + bits), into.data_ptr() + 4 * start,
        )  # fmt: skip
        yield columns


def _order_arguments(weights: Sequence[int], trimmed: int) -> tuple[Any, ...]:
    """What the loops per coordinate want: network, whether all weights are 1, weights, total, weight trimmed."""
    count, common = len(weights), gcd(*weights)
    lower = [weight // common for weight in weights]
    is_even = max(lower) == 1
    if not is_even:
        wanted = tuple(range(count))
    elif trimmed < 0:
        wanted = tuple(sorted({(count - 1) // 2, count // 2}))
    else:  # what lies between both ends need not be in order
        ends = trimmed // common
        wanted = (*range(ends), *range(count - ends, count))
    cut = -1 if trimmed < 0 else trimmed // common
    return (
        np.array(make_network(count, wanted), dtype=np.int32).reshape(-1, 2),
        is_even,
        np.array(lower, dtype=np.int64),
        sum(lower),
        cut,
    )


def combine_columns(
    loops: Loops,
    given: Columns,
    shift: int,
    weights: Sequence[int],
    trimmed: int,
    bits: int,
    steps: int,
    into: Tensor,
) -> Iterator[int]:
    """As `sum_weighted` for the median (`trimmed` negative) or the trimmed mean."""
    network, is_even, lower, total, cut = _order_arguments(weights, trimmed)
    whole = 2 if cut < 0 else total - 2 * cut
    for start, columns, parts in given.stretches():
        _run(
            loops.orders.combine_columns, columns, parts,
            given.addresses(start), given.base_address(start), columns, given.steps, 2.0**shift,
            network, is_even, lower, total, cut, whole, bits, steps, 2.0 ** -(shift + bits),
            into.data_ptr() + 4 * start,
        )  # fmt: skip
        yield columns


def _split_factors(numerators: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """(reference, factors) with numerators = reference - factors, so that few factors are not zero.

    Nearest-neighbour mixing leaves few updates out of each row: it is quicker to take those from the sum of all.
    """
    given = np.array(numerators, dtype=np.int64)
    highest = given.max(axis=0)
    factors = highest - given
    if int(highest.sum()) > SHORT_SUM_MAX or np.count_nonzero(factors) >= np.count_nonzero(given):
        highest, factors = np.zeros_like(highest), -given
    return highest.astype(np.float64), factors.astype(np.float64)


def combine_mixed(
    loops: Loops, given: Columns, shift: int, rows: Rows, trimmed: int, steps: int, into: Tensor
) -> Iterator[int]:
    """As `combine_columns` over what preparations made of the updates."""
    reference, factors = _split_factors(rows.numerators)
    network, is_even, lower, total, cut = _order_arguments(rows.weights, trimmed)
    whole = 2 if cut < 0 else total - 2 * cut
    for start, columns, parts in given.stretches():
        _run(
            loops.orders.combine_mixed, columns, parts,
            given.addresses(start), given.base_address(start), columns, given.steps, 2.0**shift,
            reference, factors, rows.denominator, network, is_even, lower, total, cut, whole, 0, steps,
            2.0 ** -(shift + MIXED_BITS), into.data_ptr() + 4 * start,
        )  # fmt: skip
        yield columns


def compare(loops: Loops, given: Columns, shift: int, weights: Sequence[int], stand: Comparison) -> Iterator[int]:
    """Add to `stand` how the updates stand to their weighted median."""
    network, is_even, lower, total, _ = _order_arguments(weights, -1)
    count = len(given.tensors)
    for start, columns, parts in given.stretches():
        found = np.zeros((parts, count + 1, 3), dtype=np.int64)
        _run(
            loops.orders.compare, columns, parts,
            given.addresses(start), given.base_address(start), columns, given.steps, 2.0**shift,
            network, is_even, lower, total, found,
        )  # fmt: skip
        for part in found.tolist():
            stand.add_sums(part[:count], part[count][0])
        yield columns


# ---- the proof ----


def _samples() -> Iterator[tuple[Columns, Tensor, int]]:
    """Small updates, what they come to on their grid, and the grid's shift."""
    for count, size, shift, has_base in ((5, 3_000, 12, True), (8, 1_300, 149, False), (3, 40, -100, True)):
        places = torch.arange(count * size, dtype=torch.float64)
        numbers = (places * 0.618033988749895 % 1.0 - 0.5) * 2.0 ** (20 - shift)
        rows = numbers.reshape(count, size).float()
        rows[0, :7] = torch.tensor([0.0, -0.0, 3e38, -3e38, 2.0**-149, 1.5 * 2.0**-shift, -2.5 * 2.0**-shift])
        base = rows[1] * 0.75 if has_base else torch.zeros(1).expand(size)
        steps = np.array([1.0 + index % 3 * 2.0 for index in range(count)])
        exact = (rows.double() - base.double()) / torch.from_numpy(steps).unsqueeze(1)
        grid = (exact * 2.0**shift).round().clamp(-BOUND, BOUND).to(torch.int64)
        yield Columns(tuple(rows.unbind(0)), base, steps), grid, shift


def _is_same_move(found: Tensor, given: Columns, numerator: Tensor, whole: int, shift: int, bits: int = 8) -> bool:
    grid = divide_scaled(numerator, whole, bits) * 37
    return fast.is_same(found, add_once_rounded(given.base.contiguous(), grid, -(shift + 8)))


def _finish(steps: Iterator[int]) -> None:
    for _ in steps:
        pass


def agrees(loops: Loops) -> bool:
    """Whether the loops give the bits of the reference on small samples."""
    for given, grid, shift in _samples():
        count, into = len(given.tensors), torch.empty(given.size)
        wanted, found = Gram(count), [[0] * count for _ in range(count)]
        for start in range(0, given.size, BLOCK_COLUMNS):
            wanted.add(grid[:, start : start + BLOCK_COLUMNS])
        _finish(multiply(loops, given, shift, found))
        if found != wanted.compute_products():
            return False
        rows = torch.stack(given.tensors).double()
        largest = (rows - given.base.double()).abs().amax(dim=1) / torch.from_numpy(given.steps)
        if find_largest(loops, given) != largest.tolist():
            return False
        for weights in ([1] * count, [2 + index % 4 for index in range(count)], [1 << 40] * count):
            _finish(sum_weighted(loops, given, shift, weights, sum(weights), 8, 37, into))
            if not _is_same_move(into, given, compute_weighted_sum(grid, weights), sum(weights), shift):
                return False
        if not all(_orders_agree(loops, given, grid, shift, weights) for weights in ([3] * count, range(2, 2 + count))):
            return False
    return True


def _orders_agree(loops: Loops, given: Columns, grid: Tensor, shift: int, weights: Sequence[int]) -> bool:
    into = torch.empty(given.size)
    for trimmed in (-1, 0, 3):
        _finish(combine_columns(loops, given, shift, weights, trimmed, 8, 37, into))
        if trimmed < 0:
            numerator, whole = compute_median_twice(grid, weights), 2
        else:
            numerator, whole = compute_trimmed_sum(grid, weights, trimmed), sum(weights) - 2 * trimmed
        if not _is_same_move(into, given, numerator, whole, shift) or not _mixed_agree(
            loops, given, grid, shift, weights, trimmed
        ):
            return False
    wanted, found = Comparison(weights), Comparison(weights)
    wanted.add(grid)
    _finish(compare(loops, given, shift, weights, found))
    return vars(wanted) == vars(found)


def _mixed_agree(loops: Loops, given: Columns, grid: Tensor, shift: int, weights: Sequence[int], trimmed: int) -> bool:
    """The same for rows that are the sums of all updates but one, and for rows of very uneven parts."""
    count, into = len(given.tensors), torch.empty(given.size)
    but_one = tuple(tuple(int(i != k) for i in range(count)) for k in range(count))
    uneven = tuple(tuple((i * k * 0x3A5C9E17) % (1 << 29) for i in range(count)) for k in range(1, count + 1))
    for numerators, denominator in ((but_one, count - 1), (uneven, 1 << 33), (uneven, (1 << 32) - 5)):
        rows = Rows(numerators, denominator, tuple(weights), False)
        _finish(combine_mixed(loops, given, shift, rows, trimmed, 37, into))
        mixed = mix_rows(grid, rows)
        if trimmed < 0:
            numerator, whole = compute_median_twice(mixed, weights, True), 2
        else:
            numerator, whole = compute_trimmed_sum(mixed, weights, trimmed, True), sum(weights) - 2 * trimmed
        if not _is_same_move(into, given, numerator, whole, shift, 0):
            return False
    return True

"""Compiled loops of an aggregation's passes on a CPU: quantising, magnitudes, inner products, weighted sums.

Each loop does what `milon.gpu.aggregate_rules` and `milon.gpu.aggregate_updates` define. Where a loop may add in
another order ("exact" below), every partial sum is an integer below 2^53, so no order changes it.
`milon.gpu.aggregate_fast` checks all of them against the plain form before it uses them.

Updates are given by the addresses of their first elements (binary32, contiguous, `columns` of them), with the steps
each is divided by; `base` is the address of the round's values, 0 where they are all zero. Every kernel works on parts
first to last of the columns, one part a thread, and lets go of the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from milon.gpu.kernels_cpu import ROUND64, compiled, floats_at

BOUND = 524287.0  # of quantised values: 2^19 - 1
BLOCK = 1024  # columns at a time: those of 32 updates stay in a core's second cache
EXACT_BLOCKS = 32  # of 1,024 columns: products of two values sum to less than 2^53 over so many
TILE = 4  # rows a side of one tile of inner products: sixteen sums and eight operands stay in registers
SHORT_BITS = 33  # of factors that together, times a value, stay exact in binary64
LOW_BITS = 22  # of the lower part of a longer factor: a thousand of them stay exact too
_MAGNITUDE64 = np.int64(0x7FFFFFFFFFFFFFFF)
QUOTIENT_MAX = float(1 << 50)  # of a division by binary64: wrong by less than a half
_EXACT = np.int64(1 << 53)
_SAFE = np.int64(1 << 62)


def compiled_exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled with leave to add in any order: only for sums of integers that all stay exact."""
    freedom = {"reassoc", "contract", "nsz"}
    options: dict[str, Any] = {"nogil": True, "fastmath": freedom, "error_model": "numpy"}
    try:
        made: Callable[..., Any] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba finds no folder to keep it in
        made = numba.njit(**options)(function)
    return made


@compiled
def bounds_of(part, parts, columns):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """First column of a part, and the one after its last; parts begin at multiples of `BLOCK`."""
    blocks = (columns + BLOCK - 1) // BLOCK
    return part * blocks // parts * BLOCK, min(columns, (part + 1) * blocks // parts * BLOCK)


@compiled
def find_largest(first, last, parts, addresses, base, columns, found):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Into found[part, update]: the bits of the greatest |update - base| (binary64); above infinity's for NaN."""
    for part in range(first, last):
        left, right = bounds_of(part, parts, columns)
        for update in range(addresses.size):
            values = floats_at(addresses[update] + left * 4)
            greatest = np.int64(0)
            if base:
                origin = floats_at(base + left * 4)
                for k in range(right - left):
                    difference = np.float64(values[k]) - np.float64(origin[k])
                    greatest = max(greatest, np.float64(difference).view(np.int64) & _MAGNITUDE64)
            else:
                for k in range(right - left):
                    greatest = max(greatest, np.float64(values[k]).view(np.int64) & _MAGNITUDE64)
            found[part, update] = greatest


@compiled
def quantize_row(address, base, left, size, steps, scale, into):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """clip(round_half_even((update - base) / steps * scale)) of `size` columns from `left` on, as binary64."""
    values = floats_at(address + left * 4)
    if base:
        origin = floats_at(base + left * 4)
        if steps == 1.0:
            for k in range(size):
                scaled = (np.float64(values[k]) - np.float64(origin[k])) * scale
                into[k] = (min(max(scaled, -BOUND), BOUND) + ROUND64) - ROUND64
        else:
            for k in range(size):
                scaled = (np.float64(values[k]) - np.float64(origin[k])) / steps * scale
                into[k] = (min(max(scaled, -BOUND), BOUND) + ROUND64) - ROUND64
    elif steps == 1.0:
        for k in range(size):
            into[k] = (min(max(np.float64(values[k]) * scale, -BOUND), BOUND) + ROUND64) - ROUND64
    else:
        for k in range(size):
            into[k] = (min(max(np.float64(values[k]) / steps * scale, -BOUND), BOUND) + ROUND64) - ROUND64


@compiled_exact
def _multiply_tile(rows, i, j, totals):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Add the inner products of rows i to i + 3 with rows j to j + 3 of [updates, BLOCK]."""
    a0, a1, a2, a3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
    b0, b1, b2, b3 = rows[j], rows[j + 1], rows[j + 2], rows[j + 3]
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = 0.0
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = 0.0
    for k in range(BLOCK):
        s00 += a0[k] * b0[k]
        s01 += a0[k] * b1[k]
        s02 += a0[k] * b2[k]
        s03 += a0[k] * b3[k]
        s10 += a1[k] * b0[k]
        s11 += a1[k] * b1[k]
        s12 += a1[k] * b2[k]
        s13 += a1[k] * b3[k]
        s20 += a2[k] * b0[k]
        s21 += a2[k] * b1[k]
        s22 += a2[k] * b2[k]
        s23 += a2[k] * b3[k]
        s30 += a3[k] * b0[k]
        s31 += a3[k] * b1[k]
        s32 += a3[k] * b2[k]
        s33 += a3[k] * b3[k]
    upper = (s00, s01, s02, s03), (s10, s11, s12, s13)
    for row, sums in enumerate((*upper, (s20, s21, s22, s23), (s30, s31, s32, s33))):
        for column, total in enumerate(sums):
            totals[i + row, j + column] += total


@compiled
def multiply(first, last, parts, addresses, base, columns, steps, scale, totals):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Into totals[part] (int64, [updates, updates] padded to tiles): the inner products on and below the diagonal.

    A part has at most 2^24 columns: its sums stay below 2^63.
    """
    count = addresses.size
    padded = totals.shape[1]
    for part in range(first, last):
        left, right = bounds_of(part, parts, columns)
        rows = np.zeros((padded, BLOCK))
        sums = np.zeros((padded, padded))
        blocks = 0
        for begin in range(left, right, BLOCK):
            size = min(BLOCK, right - begin)
            for update in range(count):
                quantize_row(addresses[update], base, begin, size, steps[update], scale, rows[update])
                rows[update, size:] = 0.0
            for i in range(0, padded, TILE):
                for j in range(0, i + 1, TILE):
                    _multiply_tile(rows, i, j, sums)
            blocks += 1
            if blocks == EXACT_BLOCKS or begin + BLOCK >= right:
                for i in range(padded):
                    for j in range(padded):
                        totals[part, i, j] += np.int64(sums[i, j])
                sums[:] = 0.0
                blocks = 0


@compiled
def divide(numerator, denominator, bits):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The integer nearest to numerator * 2^bits / denominator, ties to even: `aggregate_rules.divide_scaled`."""
    quotient = numerator // denominator
    rest = (numerator - quotient * denominator) << bits
    part = rest // denominator
    twice = 2 * (rest - part * denominator)
    whole = (quotient << bits) + part
    if twice > denominator or (twice == denominator and whole & 1 == 1):
        whole += 1
    return whole


@compiled
def divide_all(numerators, size, denominator, bits, into):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """`divide` of numerators (int64) below 2^62 once they are scaled, by binary64: a quotient below 2^50 is off by one
    at most, which its rest, an integer, tells. Larger ones go one by one."""
    scale = np.int64(1) << bits
    inverse = np.float64(denominator)
    greatest = np.int64(0)
    for k in range(size):
        greatest = max(greatest, abs(numerators[k]))
    if greatest < _SAFE >> bits and np.float64(greatest) * np.float64(scale) < QUOTIENT_MAX * inverse:
        for k in range(size):
            scaled = numerators[k] * scale
            near = np.int64((np.float64(scaled) / inverse + ROUND64) - ROUND64)
            twice = 2 * (scaled - near * denominator)
            odd = near & 1
            up = np.int64(twice > denominator) | (np.int64(twice == denominator) & odd)
            down = np.int64(twice < -denominator) | (np.int64(twice == -denominator) & odd)
            into[k] = near + up - down
    else:
        for k in range(size):
            into[k] = divide(numerators[k], denominator, bits)


@compiled
def move(base, left, size, grid, steps, unit, into):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """base + grid * steps * unit, rounded once to binary32: `aggregate_rules.add_once_rounded`; the change's integer
    is below 2^53."""
    target = floats_at(into + left * 4)
    if not base:
        for k in range(size):
            target[k] = np.float32(np.float64(grid[k] * steps) * unit)
        return
    origin = floats_at(base + left * 4)
    for k in range(size):
        before = np.float64(origin[k])
        change = np.float64(grid[k] * steps) * unit
        total = before + change
        part = total - before
        error = (before - (total - part)) + (change - part)
        bits = np.float64(total).view(np.int64)
        step = np.int64(1) if (error > 0) == (total > 0) else np.int64(-1)
        is_odd_needed = error != 0 and bits & 1 == 0
        odd = bits + step if is_odd_needed else bits
        target[k] = np.float32(np.int64(odd).view(np.float64))


@compiled
def _add_row(values, factor, size, sums):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    for k in range(size):
        sums[k] += values[k] * factor


@compiled
def sum_weighted(first, last, parts, addresses, base, columns, steps, scale, factors, whole, bits, advance, unit, into):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Into the array at `into`: base + total * advance * unit, where total is the sum of factors * updates / whole on a
    grid of `bits` more bits.

    Factors (int64, not negative) sum to at most 2^43: their upper and lower parts times values are added apart, each
    exact in binary64.
    """
    low_mask = (np.int64(1) << LOW_BITS) - 1
    is_long = whole > np.int64(1) << SHORT_BITS
    for part in range(first, last):
        left, right = bounds_of(part, parts, columns)
        row, low, high = np.empty(BLOCK), np.empty(BLOCK), np.zeros(BLOCK)
        numerators, grid = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
        for begin in range(left, right, BLOCK):
            size = min(BLOCK, right - begin)
            low[:] = 0.0
            high[:] = 0.0
            for update in range(addresses.size):
                factor = factors[update]
                if factor:
                    quantize_row(addresses[update], base, begin, size, steps[update], scale, row)
                    if is_long:
                        _add_row(row, np.float64(factor >> LOW_BITS), size, high)
                        factor &= low_mask
                    _add_row(row, np.float64(factor), size, low)
            for k in range(size):
                numerators[k] = (np.int64(high[k]) << LOW_BITS) + np.int64(low[k])
            divide_all(numerators, size, whole, bits, grid)
            move(base, begin, size, grid, advance, unit, into)

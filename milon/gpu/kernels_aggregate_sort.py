"""Compiled loops of the rules per coordinate on a CPU: columns in order by a sorting network, then what the rule keeps.

Comparators act on whole rows of a block, so that a core's vectors order many columns at once. A network comes as pairs
of row numbers, without the comparators that no wanted place depends on (`milon.gpu.aggregate_fast` makes it). Where all
weights are equal, rows are int32 values; otherwise int64 keys, a value above the number of its update. Results are
those of `milon.gpu.aggregate_rules`, written as numerators in int64.
"""

from __future__ import annotations

import numpy as np

from milon.gpu.kernels_aggregate import bounds_of, compiled_exact, divide_all, move, quantize_row
from milon.gpu.kernels_cpu import compiled

SORT_BLOCK = 256  # columns ordered at a time: 32 rows of int32 fill a core's first cache
INDEX_BITS = 10  # of an update's number in a key
MIXED_BITS = 8  # that mixed rows keep below the updates' grid, as `milon.gpu.aggregate_rules` says


@compiled
def _order(rows, network):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Run the comparators over all columns of `rows`."""
    for turn in range(network.shape[0]):
        low, high = rows[network[turn, 0]], rows[network[turn, 1]]
        for k in range(SORT_BLOCK):
            first, second = low[k], high[k]
            low[k] = min(first, second)
            high[k] = max(first, second)


@compiled
def _read_values(addresses, base, begin, size, steps, scale, row, rows):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    for update in range(addresses.size):
        quantize_row(addresses[update], base, begin, size, steps[update], scale, row)
        into = rows[update]
        for k in range(size):
            into[k] = np.int32(row[k])


@compiled
def _read_keys(addresses, base, begin, size, steps, scale, row, rows):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    for update in range(addresses.size):
        quantize_row(addresses[update], base, begin, size, steps[update], scale, row)
        into = rows[update]
        for k in range(size):
            into[k] = (np.int64(row[k]) << INDEX_BITS) | update


@compiled
def _median_of_values(rows, count, totals):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Twice the median of columns in order."""
    low, high = rows[(count - 1) // 2], rows[count // 2]
    for k in range(SORT_BLOCK):
        totals[k] = np.int64(low[k]) + np.int64(high[k])


@compiled
def _middle_of_values(rows, trimmed, kept, totals):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The sum of places `trimmed` to `trimmed + kept`, in any order among themselves."""
    totals[:] = 0
    for place in range(trimmed, trimmed + kept):
        row = rows[place]
        for k in range(SORT_BLOCK):
            totals[k] += np.int64(row[k])


@compiled
def _median_of_keys(rows, weights, total, reached, totals):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Twice the weighted median of columns in order: the smallest v whose reach is half of `total`, and at exactly
    half the next value too."""
    reached[:] = 0
    for place in range(rows.shape[0]):
        row = rows[place]
        for k in range(SORT_BLOCK):
            value, before = row[k] >> INDEX_BITS, reached[k]
            after = before + weights[row[k] & ((1 << INDEX_BITS) - 1)]
            if 2 * before < total <= 2 * after:
                totals[k] = 2 * value
            elif 2 * before == total:
                totals[k] = totals[k] // 2 + value
            reached[k] = after


@compiled
def _middle_of_keys(rows, weights, trimmed, kept, reached, totals):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The sum of the weight from `trimmed` to `trimmed + kept`."""
    reached[:] = 0
    totals[:] = 0
    end = trimmed + kept
    for place in range(rows.shape[0]):
        row = rows[place]
        for k in range(SORT_BLOCK):
            before = reached[k]
            after = before + weights[row[k] & ((1 << INDEX_BITS) - 1)]
            part = min(max(after, trimmed), end) - min(max(before, trimmed), end)
            totals[k] += (row[k] >> INDEX_BITS) * part
            reached[k] = after


@compiled
def _settle(network, weights, total, trimmed, values, keys, reached, totals):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Order what was read, and take the rule's numerators from it."""
    if keys.shape[0] == 0:
        _order(values, network)
        if trimmed < 0:
            _median_of_values(values, values.shape[0], totals)
        else:
            _middle_of_values(values, trimmed, total - 2 * trimmed, totals)
    else:
        _order(keys, network)
        if trimmed < 0:
            _median_of_keys(keys, weights, total, reached, totals)
        else:
            _middle_of_keys(keys, weights, trimmed, total - 2 * trimmed, reached, totals)


@compiled
def _fill(  # type: ignore[no-untyped-def]  # compiled: types come from the call
    addresses, base, begin, size, steps, scale, network, weights, total, trimmed, row, values, keys, reached, totals
):
    """The rule's numerators of up to `SORT_BLOCK` columns: the median's twice where `trimmed` is negative."""
    if keys.shape[0] == 0:
        _read_values(addresses, base, begin, size, steps, scale, row, values)
    else:
        _read_keys(addresses, base, begin, size, steps, scale, row, keys)
    _settle(network, weights, total, trimmed, values, keys, reached, totals)


@compiled
def combine_columns(  # type: ignore[no-untyped-def]  # compiled: types come from the call
    first,
    last,
    parts,
    addresses,
    base,
    columns,
    steps,
    scale,
    network,
    is_even,
    weights,
    total,
    trimmed,
    whole,
    bits,
    advance,
    unit,
    into,
):
    """Into the array at `into`: base + (the rule's numerator / whole, on a grid of `bits` more bits) * advance * unit.

    `is_even`: all weights are 1. `trimmed`: weight left out on each side; negative for the median.
    """
    count = addresses.size
    for part in range(first, last):
        left, right = bounds_of(part, parts, columns)
        row = np.zeros(SORT_BLOCK)
        values = np.zeros((count if is_even else 0, SORT_BLOCK), np.int32)
        keys = np.zeros((0 if is_even else count, SORT_BLOCK), np.int64)
        reached, totals = np.zeros(SORT_BLOCK, np.int64), np.zeros(SORT_BLOCK, np.int64)
        grid = np.zeros(SORT_BLOCK, np.int64)
        for begin in range(left, right, SORT_BLOCK):
            size = min(SORT_BLOCK, right - begin)
            _fill(
                addresses, base, begin, size, steps, scale, network, weights, total, trimmed,
                row, values, keys, reached, totals,
            )  # fmt: skip
            divide_all(totals, size, whole, bits, grid)
            move(base, begin, size, grid, advance, unit, into)


@compiled
def _mix(rows, reference, factors, denominator, mixed, sums, row, values, keys):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The rows that preparations make of quantised updates (`aggregate_rules.mix_rows`), where they are to be ordered.

    Row i is (sum of (reference - factors[i]) * rows) / denominator. Every partial sum is an integer of at most 2^53.
    """
    mixed[-1, :] = 0.0
    for update in range(rows.shape[0]):
        for k in range(SORT_BLOCK):
            mixed[-1, k] += reference[update] * rows[update, k]
    for i in range(factors.shape[0]):
        into = mixed[0]
        into[:] = mixed[-1]
        for update in range(rows.shape[0]):
            factor = factors[i, update]
            if factor != 0.0:
                for k in range(SORT_BLOCK):
                    into[k] -= factor * rows[update, k]
        for k in range(SORT_BLOCK):
            sums[k] = np.int64(into[k])
        divide_all(sums, SORT_BLOCK, denominator, MIXED_BITS, row)
        if keys.shape[0] == 0:
            for k in range(SORT_BLOCK):
                values[i, k] = np.int32(row[k])
        else:
            for k in range(SORT_BLOCK):
                keys[i, k] = (row[k] << INDEX_BITS) | i


@compiled
def combine_mixed(  # type: ignore[no-untyped-def]  # compiled: types come from the call
    first,
    last,
    parts,
    addresses,
    base,
    columns,
    steps,
    scale,
    reference,
    factors,
    denominator,
    network,
    is_even,
    weights,
    total,
    trimmed,
    whole,
    bits,
    advance,
    unit,
    into,
):
    """As `combine_columns` over rows that `_mix` makes of the updates; `weights` and `network` are of those rows."""
    count, made = addresses.size, factors.shape[0]
    for part in range(first, last):
        left, right = bounds_of(part, parts, columns)
        rows, mixed = np.zeros((count, SORT_BLOCK)), np.zeros((2, SORT_BLOCK))
        values = np.zeros((made if is_even else 0, SORT_BLOCK), np.int32)
        keys = np.zeros((0 if is_even else made, SORT_BLOCK), np.int64)
        reached, totals = np.zeros(SORT_BLOCK, np.int64), np.zeros(SORT_BLOCK, np.int64)
        sums, grid = np.zeros(SORT_BLOCK, np.int64), np.zeros(SORT_BLOCK, np.int64)
        for begin in range(left, right, SORT_BLOCK):
            size = min(SORT_BLOCK, right - begin)
            for update in range(count):
                quantize_row(addresses[update], base, begin, size, steps[update], scale, rows[update])
            _mix(rows, reference, factors, denominator, mixed, sums, grid, values, keys)
            _settle(network, weights, total, trimmed, values, keys, reached, totals)
            divide_all(totals, size, whole, bits, grid)
            move(base, begin, size, grid, advance, unit, into)


@compiled_exact
def _compare_row(row, medians, sums):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Add to sums: squared distance to the median, inner product with it, squared norm; all times four, all exact."""
    squared = inner = norm = 0.0
    for k in range(SORT_BLOCK):
        twice = row[k] + row[k]
        difference = twice - medians[k]
        squared += difference * difference
        inner += twice * medians[k]
        norm += twice * twice
    sums[0] += np.int64(squared)
    sums[1] += np.int64(inner)
    sums[2] += np.int64(norm)


@compiled_exact
def _square(values):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    total = 0.0
    for k in range(SORT_BLOCK):
        total += values[k] * values[k]
    return np.int64(total)


@compiled
def compare(first, last, parts, addresses, base, columns, steps, scale, network, is_even, weights, total, found):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Into found[part, update]: how updates stand to their weighted median (`aggregate_rules.Comparison`), and into
    found[part, updates, 0] the squared norm of the median. A part has at most 2^20 columns: sums stay below 2^63."""
    count = addresses.size
    for part in range(first, last):
        left, right = bounds_of(part, parts, columns)
        rows = np.zeros((count, SORT_BLOCK))
        values = np.zeros((count if is_even else 0, SORT_BLOCK), np.int32)
        keys = np.zeros((0 if is_even else count, SORT_BLOCK), np.int64)
        reached, totals = np.zeros(SORT_BLOCK, np.int64), np.zeros(SORT_BLOCK, np.int64)
        medians = np.zeros(SORT_BLOCK)
        for begin in range(left, right, SORT_BLOCK):
            size = min(SORT_BLOCK, right - begin)
            if size < SORT_BLOCK:
                rows[:], values[:] = 0.0, 0
                for update in range(keys.shape[0]):
                    keys[update, :] = update
            _fill(
                addresses, base, begin, size, steps, scale, network, weights, total, -1,
                rows[0], values, keys, reached, totals,
            )  # fmt: skip
            for k in range(SORT_BLOCK):
                medians[k] = np.float64(totals[k])
            rows[0, size:] = 0.0
            for update in range(count):
                quantize_row(addresses[update], base, begin, size, steps[update], scale, rows[update])
                _compare_row(rows[update], medians, found[part, update])
            found[part, count, 0] += _square(medians)

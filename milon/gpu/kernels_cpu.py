"""Compiled loops of rules N3 and N4 on a CPU: greatest magnitudes, quantising, exact totals, the way back to binary32.

Each loop does what `milon.gpu.exact` defines, element by element, in fewer passes. Nothing is contracted or reordered
(fastmath is off), so the bits are those of the plain form; `milon.gpu.fast` checks that before it uses them. Every
kernel works on a range of groups and lets go of the interpreter's lock, so that ranges may run on several threads.

A tensor is seen as [outer, terms, inner], contiguous, given flat; a group is one (outer, inner). `bits` is M. Loops run
over slices from 0, which spares the check for negative places and so lets the compiler use vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

INFINITY = np.int32(0x7F800000)  # binary32; NaN is above it once the sign is off
_MAGNITUDE = np.int32(0x7FFFFFFF)
_NAN = np.int32(0x7FC00000)
ROUND32 = np.float32(12582912.0)  # 1.5 * 2^23: adding it rounds |y| <= 2^22 to an integer, half to even
ROUND64 = 6755399441055744.0  # 1.5 * 2^52
_ROUND64_BITS = np.int64(0x4338000000000000)
SLICE = 512  # groups side by side whose totals stay in a core's nearest cache


def name_cache(folder: Path) -> str:
    """A name for the machine code of all loops in `folder`: numba notices a change of a loop's own file only."""
    sources = sorted(folder.glob("kernels_*.py"))
    return "kernels-" + sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


_HERE = Path(__file__).parent
numba.config.CACHE_DIR = str(Path(numba.config.CACHE_DIR or _HERE / "__pycache__") / name_cache(_HERE))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled without any liberty; the machine code is kept on disk where that can be written."""
    options: dict[str, Any] = {"nogil": True, "fastmath": False, "error_model": "numpy"}
    try:
        made: Callable[..., Any] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba finds no folder to keep it in
        made = numba.njit(**options)(function)
    return made


def _pointer_to(kind: Any) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]  # numba ships no types
    def pointer(context: Any, address: Any) -> Any:
        """A number as an address."""

        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], _context.get_value_type(types.CPointer(kind)))

        return types.CPointer(kind)(types.int64), generate

    return pointer


floats_at = _pointer_to(types.float32)
truths_at = _pointer_to(types.uint8)
patterns_at = _pointer_to(types.int32)
halves_at = _pointer_to(types.int16)


@compiled
def find_exponent(magnitude: np.int32) -> np.int64:
    """The least e with m < 2^e, for the bits of a finite binary32 m >= 0; that of the least positive one for zero."""
    if magnitude >= np.int32(0x800000):
        return np.int64((magnitude >> 23) - 126)
    e = np.int64(-148)
    while magnitude > 1:
        magnitude >>= 1
        e += 1
    return e


@compiled
def power_of_two(exponent: np.int64) -> np.float64:
    """2^exponent, for an exponent from -1022 to 1023."""
    return np.int64((exponent + 1023) << 52).view(np.float64)


@compiled
def find_magnitudes(patterns, terms, inner, left, right, found):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Into `found`: the greatest magnitude (as bits) of the groups left to right of one outer."""
    for i in range(found.size):
        found[i] = 0
    for k in range(terms):
        row = patterns_at(patterns.ctypes.data + (k * inner + left) * 4)
        for i in range(found.size):
            found[i] = max(found[i], row[i] & _MAGNITUDE)


@compiled
def find_magnitude(patterns):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The greatest magnitude, as bits, of some binary32 numbers."""
    greatest = np.int32(0)
    for k in range(patterns.size):
        greatest = max(greatest, patterns[k] & _MAGNITUDE)
    return greatest


@compiled
def _to_float32(total, back):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """An int64 total on its scale, rounded once to binary32 (by way of a binary64 rounded to odd)."""
    if abs(total) <= 1 << 53:
        return np.float32(np.float64(total) * back)
    odd = np.int64((total >> 11) | np.int64((total & 2047) != 0))
    return np.float32(np.float64(odd) * 2048.0 * back)


@compiled
def _scales(found, bits, forth, back):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The scales of groups by their greatest magnitudes; one that holds infinity or NaN goes back to NaN."""
    for i in range(found.size):
        special = found[i] >= INFINITY
        e = find_exponent(np.int32(0) if special else found[i])
        forth[i] = power_of_two(bits - e)
        back[i] = np.nan if special else power_of_two(e - bits)


@compiled
def _integers(values, scale, result):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """round_half_even(values * scale) as binary64."""
    if scale < 2.0**127:
        scale32 = np.float32(scale)
        for k in range(values.size):
            result[k] = np.float64((values[k] * scale32 + ROUND32) - ROUND32)
    else:
        for k in range(values.size):
            result[k] = (np.float64(values[k]) * scale + ROUND64) - ROUND64


@compiled
def _digits(values, scale, high, low):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """round_half_even(values * scale) as 128 * high + low, both digits from -64 to 64."""
    if scale < 2.0**127:
        scale32 = np.float32(scale)
        for k in range(values.size):
            q = np.int32((values[k] * scale32 + ROUND32) - ROUND32)
            digit = ((q + np.int32(64)) & np.int32(127)) - np.int32(64)
            high[k] = np.int8((q - digit) >> np.int32(7))
            low[k] = np.int8(digit)
    else:
        for k in range(values.size):
            q = np.int32((np.float64(values[k]) * scale + ROUND64) - ROUND64)
            digit = ((q + np.int32(64)) & np.int32(127)) - np.int32(64)
            high[k] = np.int8((q - digit) >> np.int32(7))
            low[k] = np.int8(digit)


@compiled
def quantize_rows(first, last, values, patterns, terms, bits, result, back):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Groups lie one after the other (inner is 1): integers (binary64) and the scale back of rows first to last."""
    for row in range(first, last):
        begin, end = row * terms, (row + 1) * terms
        magnitude = find_magnitude(patterns[begin:end])
        if magnitude >= INFINITY:
            back[row] = np.nan
            result[begin:end] = 0.0
        else:
            e = find_exponent(magnitude)
            back[row] = power_of_two(e - bits)
            _integers(values[begin:end], power_of_two(bits - e), result[begin:end])


@compiled
def quantize_columns(first, last, values, patterns, terms, inner, bits, result, back):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """As `quantize_rows` where groups lie side by side; first and last count slices of `SLICE` groups."""
    slices = (inner + SLICE - 1) // SLICE
    for piece in range(first, last):
        o = piece // slices
        left = (piece - o * slices) * SLICE
        right = min(left + SLICE, inner)
        found = np.empty(right - left, np.int32)
        forth = np.empty(right - left, np.float64)
        begin = o * terms * inner
        find_magnitudes(patterns[begin : begin + terms * inner], terms, inner, left, right, found)
        _scales(found, bits, forth, back[o * inner + left : o * inner + right])
        for k in range(terms):
            row = values[begin + k * inner + left : begin + k * inner + right]
            into = result[begin + k * inner + left : begin + k * inner + right]
            for i in range(row.size):
                finite = row[i] if found[i] < INFINITY else np.float32(0.0)
                into[i] = (np.float64(finite) * forth[i] + ROUND64) - ROUND64


@compiled
def digits_of_rows(first, last, values, patterns, terms, bits, high, low, back):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """As `quantize_rows`, each integer as 128 * high + low with both digits from -64 to 64 (M is 13)."""
    for row in range(first, last):
        begin, end = row * terms, (row + 1) * terms
        magnitude = find_magnitude(patterns[begin:end])
        if magnitude >= INFINITY:
            back[row] = np.nan
            high[begin:end] = 0
            low[begin:end] = 0
        else:
            e = find_exponent(magnitude)
            back[row] = power_of_two(e - bits)
            _digits(values[begin:end], power_of_two(bits - e), high[begin:end], low[begin:end])


@compiled
def digits_of_columns(first, last, values, patterns, terms, inner, bits, high, low, back):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """As `digits_of_rows` where groups lie side by side; first and last count slices of `SLICE` groups."""
    slices = (inner + SLICE - 1) // SLICE
    for piece in range(first, last):
        o = piece // slices
        left = (piece - o * slices) * SLICE
        right = min(left + SLICE, inner)
        found = np.empty(right - left, np.int32)
        forth = np.empty(right - left, np.float64)
        begin = o * terms * inner
        find_magnitudes(patterns[begin : begin + terms * inner], terms, inner, left, right, found)
        _scales(found, bits, forth, back[o * inner + left : o * inner + right])
        for k in range(terms):
            place = begin + k * inner
            row = values[place + left : place + right]
            for_high, for_low = high[place + left : place + right], low[place + left : place + right]
            for i in range(row.size):
                finite = row[i] if found[i] < INFINITY else np.float32(0.0)
                q = np.int32((np.float64(finite) * forth[i] + ROUND64) - ROUND64)
                digit = ((q + np.int32(64)) & np.int32(127)) - np.int32(64)
                for_high[i] = np.int8((q - digit) >> np.int32(7))
                for_low[i] = np.int8(digit)


@compiled
def scale_back(first, last, totals, rows, columns, left_back, right_back, result):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Rows first to last of [groups * rows, columns] exact totals (binary64) as binary32, each rounded once.

    Scales: one a row on the left, one a (group, column) on the right.
    """
    for row in range(first, last):
        scale = left_back[row]
        scales = right_back[row // rows * columns : (row // rows + 1) * columns]
        given, into = totals[row * columns : (row + 1) * columns], result[row * columns : (row + 1) * columns]
        for i in range(columns):
            into[i] = np.float32((given[i] + 0.0) * scale * scales[i])


@compiled
def scale_back_digits(first, last, products, rows, columns, left_back, right_back, result):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The same for products of digits, [2, 2, rows, columns] int32: by left and by right digit, high first."""
    size = rows * columns
    for row in range(first, last):
        scale = left_back[row]
        begin, end = row * columns, (row + 1) * columns
        high_high, high_low = products[begin:end], products[size + begin : size + end]
        low_high, low_low = products[2 * size + begin : 2 * size + end], products[3 * size + begin : 3 * size + end]
        into = result[begin:end]
        for i in range(columns):
            cross = np.float64(high_low[i]) + np.float64(low_high[i])  # all exact: below 2^53
            total = np.float64(high_high[i]) * 16384.0 + cross * 128.0 + np.float64(low_low[i])
            into[i] = np.float32((total + 0.0) * scale * right_back[i])


@compiled
def scales_of(first, last, found, bits, forth, back):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The scales of groups first to last by their greatest magnitudes (bits)."""
    _scales(found[first:last], bits, forth[first:last], back[first:last])


@compiled
def sum_rows(first, last, values, patterns, terms, bits, result):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Rule N3 where the terms of a group lie one after the other (at most 2^22 of them)."""
    for row in range(first, last):
        given = values[row * terms : (row + 1) * terms]
        magnitude = find_magnitude(patterns[row * terms : (row + 1) * terms])
        if magnitude >= INFINITY:
            result[row] = np.nan
            continue
        e = find_exponent(magnitude)
        scale = power_of_two(bits - e)
        total = np.int64(0)
        for k in range(terms):
            total += np.int64((np.float64(given[k]) * scale + ROUND64) - ROUND64)
        result[row] = _to_float32(total, power_of_two(e - bits))


@compiled
def sum_columns(first, last, values, patterns, terms, inner, bits, result):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Rule N3 where groups lie side by side; first and last count slices of `SLICE` groups."""
    slices = (inner + SLICE - 1) // SLICE
    for piece in range(first, last):
        o = piece // slices
        left = (piece - o * slices) * SLICE
        right = min(left + SLICE, inner)
        found = np.empty(right - left, np.int32)
        forth, back = np.empty(right - left, np.float64), np.empty(right - left, np.float64)
        totals = np.zeros(right - left, np.int64)
        begin = o * terms * inner
        find_magnitudes(patterns[begin : begin + terms * inner], terms, inner, left, right, found)
        _scales(found, bits, forth, back)
        for k in range(terms):
            row = values[begin + k * inner + left : begin + k * inner + right]
            for i in range(row.size):
                finite = row[i] if found[i] < INFINITY else np.float32(0.0)
                totals[i] += np.int64((np.float64(finite) * forth[i] + ROUND64) - ROUND64)
        for i in range(right - left):
            result[o * inner + left + i] = _to_float32(totals[i], back[i])


@compiled
def greatest_magnitudes(first, last, patterns, found):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Of parts first to last of as many as `found` has: the greatest magnitude, as bits; above infinity's for NaN."""
    count, size = found.size, patterns.size
    for part in range(first, last):
        found[part] = find_magnitude(patterns[part * size // count : (part + 1) * size // count])

"""Whole matrix products by the tiles of `milon.gpu.kernels_pairs`: quantising and packing in one pass, then the tiles.

Kernels work on a range of panels or slices, as those of `milon.gpu.kernels_cpu` do, and follow its rules: nothing is
contracted or reordered. Scales back are held panel by panel, so that a tile may read those of a whole panel.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from milon.gpu.kernels_cpu import (
    INFINITY,
    ROUND32,
    ROUND64,
    compiled,
    find_exponent,
    find_magnitude,
    find_magnitudes,
    floats_at,
    halves_at,
    patterns_at,
    power_of_two,
)
from milon.gpu.kernels_pairs import ONE_DIGIT_BITS, find_blocks, low_digit, scale_tile
from milon.gpu.kernels_pairs import multiply_panels as multiply_pairs
from milon.gpu.kernels_tiles import (
    COLUMNS,
    LANES,
    ROWS,
    TILE,
    copy_columns,
    copy_row,
    transpose_columns,
    transpose_rows,
)

SLICE_MAX = ROWS * COLUMNS * (1 if LANES == 16 else 4)  # columns quantised side by side: whole panels of either width
SKEW = 16  # words after each plane of a panel: planes of a power of two would share few places of a cache
_CHUNK = 256  # terms of a row quantised at a time: a panel's part of them stays in the nearest cache
_BLOCK_WORDS = 1 << 17  # of right panels that all left panels meet in turn: 512 KiB stay in the second cache
_ROUND32_BITS = np.int32(0x4B400000)
_SLOTS = max(COLUMNS, LANES)  # rows of a chunk


@compiled
def _halves_of_row(given, scale, halves):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """round_half_even(given * scale) as int16; the scale is within binary32."""
    for k in range(given.size):
        halves[k] = np.int16(np.float32(given[k] * scale + ROUND32).view(np.int32))  # the sum's lower bits


@compiled
def _digits_of_row(given, scale, planes, high, low, both):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The same for any scale, and in digits if there are three planes."""
    for k in range(given.size):
        q = np.int32((np.float64(given[k]) * scale + ROUND64) - ROUND64)
        digit = low_digit(q)
        upper = (q - digit) >> np.int32(11)
        high[k] = np.int16(q if planes == 1 else upper)
        low[k], both[k] = np.int16(digit), np.int16(upper + digit)


@compiled
def _transpose(words, pairs, width, into):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Words [row, pair] of a chunk to their places [pair, row] in a panel; by address."""
    whole = pairs // LANES * LANES
    for t in range(0, whole, LANES):
        for j in range(0, width, LANES):
            given, to = words + (j * (_CHUNK // 2) + t) * 4, into + (t * width + j) * 4
            if width == ROWS:
                transpose_rows(given, _CHUNK // 2, to, width)
            else:
                transpose_columns(given, _CHUNK // 2, to, width)
    for j in range(width):
        row = carray(patterns_at(words + j * (_CHUNK // 2) * 4), pairs)
        panel = carray(patterns_at(into + j * 4), pairs * width)
        for t in range(whole, pairs):
            panel[t * width] = row[t]


@compiled
def _scale_row(patterns, bits, forth, back, j):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Scales of row j of a panel; a row with infinity or NaN is multiplied by 0 and goes back to NaN."""
    magnitude = find_magnitude(patterns)
    special = magnitude >= INFINITY
    e = find_exponent(np.int32(0) if special else magnitude)
    forth[j] = 0.0 if special else power_of_two(bits - e)
    back[j] = np.nan if special else power_of_two(e - bits)


@compiled
def pack_rows(first, last, values, patterns, count, terms, width, planes, bits, packed, back):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Panels first to last of [groups, count, terms], each row quantised on its own; and the scales back."""
    panels, pairs = (count + width - 1) // width, (terms + 1) // 2
    forth, chunk = np.zeros(width, np.float64), np.zeros((3, _SLOTS, _CHUNK // 2), np.int32)
    at, size_bytes = chunk.ctypes.data, _SLOTS * _CHUNK * 2
    for panel in range(first, last):
        row = panel // panels * count + panel % panels * width
        some = min(width, count - panel % panels * width)
        scales = back[panel * width : (panel + 1) * width]
        for j in range(some):
            given = patterns_at(patterns.ctypes.data + (row + j) * terms * 4)
            _scale_row(carray(given, terms), bits, forth, scales, j)
        scales[some:] = 0.0
        for begin in range(0, terms, _CHUNK):
            size = min(_CHUNK, terms - begin)
            for j in range(width):
                high = carray(halves_at(at + j * _CHUNK * 2), _CHUNK)
                low = carray(halves_at(at + size_bytes + j * _CHUNK * 2), _CHUNK)
                both = carray(halves_at(at + 2 * size_bytes + j * _CHUNK * 2), _CHUNK)
                if j >= some or forth[j] == 0.0:
                    high[:], low[:], both[:] = 0, 0, 0
                    continue
                given = carray(floats_at(values.ctypes.data + ((row + j) * terms + begin) * 4), size)
                if planes == 1 and forth[j] < 2.0**127:
                    _halves_of_row(given, np.float32(forth[j]), high)
                else:
                    _digits_of_row(given, forth[j], planes, high, low, both)
                if size % 2:
                    high[size], low[size], both[size] = 0, 0, 0
            to = packed.ctypes.data + (panel * planes * (pairs * width + SKEW) + begin // 2 * width) * 4
            for plane in range(planes):
                _transpose(at + plane * size_bytes, (size + 1) // 2, width, to + plane * (pairs * width + SKEW) * 4)


@compiled
def _quantize_slice(given, found, forth, forth32, is_plain, into):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """One term of groups side by side, as integers."""
    if is_plain:
        for i in range(given.size):
            into[i] = np.float32(given[i] * forth32[i] + ROUND32).view(np.int32) - _ROUND32_BITS
    else:
        for i in range(given.size):
            finite = given[i] if found[i] < INFINITY else np.float32(0.0)
            into[i] = np.int32((np.float64(finite) * forth[i] + ROUND64) - ROUND64)


@compiled
def _word(first, second):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Two int16 as one word, the first in the lower half."""
    return (first & np.int32(0xFFFF)) | (second << np.int32(16))


@compiled
def _pair_up(even, odd, planes, size, high, low, both):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Two terms of `size` groups side by side as words, plane after plane."""
    if planes == 1:
        for i in range(size):
            high[i] = _word(even[i], odd[i])
    else:
        for i in range(size):
            low0, low1 = low_digit(even[i]), low_digit(odd[i])
            high0, high1 = (even[i] - low0) >> np.int32(11), (odd[i] - low1) >> np.int32(11)
            high[i], low[i] = _word(high0, high1), _word(low0, low1)
            both[i] = _word(high0 + low0, high1 + low1)


@compiled
def _scales_of_slice(found, bits, width, forth, forth32, back):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Scales of groups by their greatest magnitudes; whether all are finite and within binary32."""
    is_plain = True
    for i in range(found.size):
        special = found[i] >= INFINITY
        e = find_exponent(np.int32(0) if special else found[i])
        forth[i] = power_of_two(bits - e)
        back[i] = np.nan if special else power_of_two(e - bits)
        is_plain = is_plain and not special and bits - e < 127
        forth32[i] = np.float32(forth[i])
    for i in range(found.size, (found.size + width - 1) // width * width):
        back[i] = 0.0
    return is_plain


@compiled
def pack_columns(first, last, values, patterns, count, terms, width, planes, bits, wide, packed, back):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """As `pack_rows` for [groups, terms, count]; first and last count slices of `wide` columns (whole panels)."""
    slices, panels, pairs = (count + wide - 1) // wide, (count + width - 1) // width, (terms + 1) // 2
    found = np.empty(wide, np.int32)
    forth, forth32 = np.empty(wide, np.float64), np.empty(wide, np.float32)
    even, odd, words = np.zeros(wide, np.int32), np.zeros(wide, np.int32), np.zeros(3 * wide, np.int32)
    low, both = words[wide:], words[2 * wide :]
    for piece in range(first, last):
        group = piece // slices
        left = (piece - group * slices) * wide
        some = min(wide, count - left)
        begin, panel = group * terms * count, group * panels + left // width
        find_magnitudes(patterns[begin : begin + terms * count], terms, count, left, left + some, found[:some])
        is_plain = _scales_of_slice(found[:some], bits, width, forth, forth32, back[panel * width :])
        even[some:], odd[some:] = 0, 0
        across = (some + width - 1) // width
        for p in range(pairs):
            at = values.ctypes.data + (begin + 2 * p * count + left) * 4
            _quantize_slice(carray(floats_at(at), some), found, forth, forth32, is_plain, even)
            if 2 * p + 1 < terms:
                _quantize_slice(carray(floats_at(at + count * 4), some), found, forth, forth32, is_plain, odd)
            else:
                odd[:some] = 0
            _pair_up(even, odd, planes, across * width, words, low, both)
            for plane in range(planes):
                given = words.ctypes.data + plane * wide * 4
                for j in range(across):
                    place = ((panel + j) * planes + plane) * (pairs * width + SKEW) + p * width
                    to = packed.ctypes.data + place * 4
                    if width == ROWS:
                        copy_row(given + j * width * 4, to)
                    else:
                        copy_columns(given + j * width * 4, to)


@compiled
def multiply_panels(first, last, left, right, pairs, rows, columns, bits, left_back, right_back, result):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Panels of rows first to last (of all groups) of a product, each total rounded once to binary32."""
    panels, across = (rows + ROWS - 1) // ROWS, (columns + COLUMNS - 1) // COLUMNS
    left_apart, right_apart = pairs * ROWS + SKEW, pairs * COLUMNS + SKEW
    digits = 1 if bits == ONE_DIGIT_BITS else 3
    together = max(1, _BLOCK_WORDS // (pairs * COLUMNS * digits))
    totals, spare, ends = np.empty(digits * TILE), np.empty(TILE, np.float32), np.empty(pairs + 1, np.int32)
    for group in range(first // panels, (last - 1) // panels + 1):
        for block in range(0, across, together):
            for panel in range(max(first, group * panels), min(last, (group + 1) * panels)):
                top = (panel - group * panels) * ROWS
                lines, given = min(ROWS, rows - top), panel * digits * left_apart
                find_blocks(left.ctypes.data + given * 4, True, pairs, bits, ends)
                scales = left_back[panel * ROWS : (panel + 1) * ROWS]
                for j in range(block, min(across, block + together)):
                    some, other = min(COLUMNS, columns - j * COLUMNS), group * across + j
                    others = other * digits * right_apart
                    other_scales = right_back[other * COLUMNS : (other + 1) * COLUMNS]
                    totals[:] = 0.0
                    multiply_pairs(left, right, given, others, left_apart, right_apart, ends, 0, pairs, bits, totals)
                    place = (group * rows + top) * columns + j * COLUMNS
                    if some == COLUMNS and lines == ROWS:
                        into = result.ctypes.data + place * 4
                        scale_tile(totals, bits, 2 * pairs, scales, other_scales, into, columns)
                        continue
                    scale_tile(totals, bits, 2 * pairs, scales, other_scales, spare.ctypes.data, COLUMNS)
                    for r in range(lines):
                        into_row, from_row = result[place + r * columns :], spare[r * COLUMNS :]
                        for k in range(some):
                            into_row[k] = from_row[k]

"""Whole matrix products by the tiles of `milon.gpu.kernels_tiles`: quantising and packing in one pass, then the tiles.

Kernels work on a range of panels or slices, as those of `milon.gpu.kernels_cpu` do, and follow its rules: nothing is
contracted or reordered. Scales back are held panel by panel, so that a tile may read those of a whole panel.
"""

from __future__ import annotations

import numpy as np

from milon.gpu.kernels_cpu import (
    INFINITY,
    ROUND32,
    ROUND64,
    compiled,
    find_exponent,
    find_magnitude,
    find_magnitudes,
    power_of_two,
)
from milon.gpu.kernels_tiles import (
    COLUMNS,
    LANES,
    ROWS,
    SUMS,
    tile_one,
    tile_three,
    transpose_columns,
    transpose_rows,
)

SLICE_MAX = 480  # columns quantised side by side: a multiple of every panel's width
_CHUNK = 256  # terms of a row quantised at a time: a panel's part of them stays in the nearest cache
_BLOCK_WORDS = 1 << 17  # of right panels that all left panels meet in turn: 512 KiB stay in the second cache
_SLOTS = max(COLUMNS, LANES)  # rows of a chunk


@compiled
def _low_digit(q):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    return ((q + np.int32(1024)) & np.int32(2047)) - np.int32(1024)


@compiled
def _quantize_row(given, scale, is_special, planes, high, low, both):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """round_half_even(given * scale) as int16: whole into `high`, or in digits; zeros where the row is special."""
    size = given.size
    if is_special:
        high[:size], low[:size], both[:size] = 0, 0, 0
    elif scale < 2.0**127 and planes == 1:
        scale32 = np.float32(scale)
        for k in range(size):
            high[k] = np.int16(np.int32((given[k] * scale32 + ROUND32) - ROUND32))
    elif scale < 2.0**127:
        scale32 = np.float32(scale)
        for k in range(size):
            q = np.int32((given[k] * scale32 + ROUND32) - ROUND32)
            digit = _low_digit(q)
            high[k], low[k] = np.int16((q - digit) >> np.int32(11)), np.int16(digit)
            both[k] = np.int16(((q - digit) >> np.int32(11)) + digit)
    else:
        for k in range(size):
            q = np.int32((np.float64(given[k]) * scale + ROUND64) - ROUND64)
            digit = _low_digit(q)
            high[k] = np.int16(q if planes == 1 else (q - digit) >> np.int32(11))
            low[k], both[k] = np.int16(digit), np.int16(((q - digit) >> np.int32(11)) + digit)


@compiled
def _transpose(words, pairs, width, into):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Words [row, pair] of a chunk to their places [pair, row] in a panel."""
    step = words.shape[1]
    whole = pairs // LANES * LANES
    for t in range(0, whole, LANES):
        for j in range(0, width, LANES):
            given, to = words.ctypes.data + (j * step + t) * 4, into.ctypes.data + (t * width + j) * 4
            if width == ROWS:
                transpose_rows(given, step, to, width)
            else:
                transpose_columns(given, step, to, width)
    for t in range(whole, pairs):
        for j in range(width):
            into[t * width + j] = words[j, t]


@compiled
def pack_rows(first, last, values, patterns, count, terms, width, planes, bits, packed, back):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Panels first to last of [groups, count, terms], each row quantised on its own; and the scales back."""
    panels, pairs = (count + width - 1) // width, (terms + 1) // 2
    forth, special = np.zeros(width, np.float64), np.ones(width, np.bool_)
    high, low = np.zeros((_SLOTS, _CHUNK // 2), np.int32), np.zeros((_SLOTS, _CHUNK // 2), np.int32)
    both = np.zeros((_SLOTS, _CHUNK // 2), np.int32)
    high16, low16, both16 = high.view(np.int16), low.view(np.int16), both.view(np.int16)
    for panel in range(first, last):
        row = panel // panels * count + panel % panels * width
        some = min(width, count - panel % panels * width)
        scales = back[panel * width : (panel + 1) * width]
        special[:], scales[:] = True, 0.0
        for j in range(some):
            magnitude = find_magnitude(patterns[(row + j) * terms : (row + j + 1) * terms])
            special[j] = magnitude >= INFINITY
            e = find_exponent(np.int32(0) if special[j] else magnitude)
            forth[j] = power_of_two(bits - e)
            scales[j] = np.nan if special[j] else power_of_two(e - bits)
        for begin in range(0, terms, _CHUNK):
            size = min(_CHUNK, terms - begin)
            for j in range(width):
                at = (row + min(j, some - 1)) * terms + begin
                _quantize_row(values[at : at + size], forth[j], special[j], planes, high16[j], low16[j], both16[j])
                if size % 2:
                    high16[j, size], low16[j, size], both16[j, size] = 0, 0, 0
            at, some_pairs = (panel * planes * pairs + begin // 2) * width, (size + 1) // 2
            _transpose(high, some_pairs, width, packed[at:])
            if planes == 3:
                _transpose(low, some_pairs, width, packed[at + pairs * width :])
                _transpose(both, some_pairs, width, packed[at + 2 * pairs * width :])


@compiled
def _quantize_slice(given, found, forth, forth32, is_plain, into):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """One term of groups side by side, as integers."""
    if is_plain:
        for i in range(given.size):
            into[i] = np.int32((given[i] * forth32[i] + ROUND32) - ROUND32)
    else:
        for i in range(given.size):
            finite = given[i] if found[i] < INFINITY else np.float32(0.0)
            into[i] = np.int32((np.float64(finite) * forth[i] + ROUND64) - ROUND64)


@compiled
def _word(first, second):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Two int16 as one word, the first in the lower half."""
    return (first & np.int32(0xFFFF)) | (second << np.int32(16))


@compiled
def _pair_up(even, odd, planes, words):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Two terms of groups side by side as words, plane after plane."""
    high, low, both = words[0], words[1], words[2]
    if planes == 1:
        for i in range(even.size):
            high[i] = _word(even[i], odd[i])
    else:
        for i in range(even.size):
            low0, low1 = _low_digit(even[i]), _low_digit(odd[i])
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
    even, odd, words = np.zeros(wide, np.int32), np.zeros(wide, np.int32), np.zeros((3, wide), np.int32)
    for piece in range(first, last):
        group = piece // slices
        left = (piece - group * slices) * wide
        some = min(wide, count - left)
        begin, panel = group * terms * count, group * panels + left // width
        find_magnitudes(patterns[begin : begin + terms * count], terms, count, left, left + some, found[:some])
        is_plain = _scales_of_slice(found[:some], bits, width, forth, forth32, back[panel * width :])
        even[some:], odd[some:] = 0, 0
        for p in range(pairs):
            at = begin + 2 * p * count + left
            _quantize_slice(values[at : at + some], found, forth, forth32, is_plain, even)
            if 2 * p + 1 < terms:
                _quantize_slice(values[at + count : at + count + some], found, forth, forth32, is_plain, odd)
            else:
                odd[:some] = 0
            _pair_up(even, odd, planes, words)
            for plane in range(planes):
                for j in range((some + width - 1) // width):
                    to = (((panel + j) * planes + plane) * pairs + p) * width
                    given, into = words[plane, j * width : (j + 1) * width], packed[to : to + width]
                    for c in range(width):
                        into[c] = given[c]


@compiled
def multiply_panels(first, last, left, right, pairs, rows, columns, planes, left_back, right_back, result):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Panels of rows first to last (of all groups) of a product, each total rounded once to binary32."""
    panels, across = (rows + ROWS - 1) // ROWS, (columns + COLUMNS - 1) // COLUMNS
    together = max(1, _BLOCK_WORDS // (pairs * COLUMNS * planes))
    sums, spare = np.empty(SUMS, np.int32), np.empty((ROWS, COLUMNS), np.float32)
    for group in range(first // panels, (last - 1) // panels + 1):
        for block in range(0, across, together):
            for panel in range(max(first, group * panels), min(last, (group + 1) * panels)):
                top = (panel - group * panels) * ROWS
                lines = min(ROWS, rows - top)
                given = left.ctypes.data + panel * pairs * planes * ROWS * 4
                scales = left_back.ctypes.data + panel * ROWS * 8
                for j in range(block, min(across, block + together)):
                    some = min(COLUMNS, columns - j * COLUMNS)
                    others = right.ctypes.data + (group * across + j) * pairs * planes * COLUMNS * 4
                    other_scales = right_back.ctypes.data + (group * across + j) * COLUMNS * 8
                    into = result[(group * rows + top) * columns + j * COLUMNS :]
                    is_whole = some == COLUMNS and lines == ROWS
                    to = into.ctypes.data if is_whole else spare.ctypes.data
                    step = columns if is_whole else COLUMNS
                    if planes == 1:
                        tile_one(given, others, pairs, sums.ctypes.data, scales, other_scales, to, step)
                    else:
                        tile_three(given, others, pairs, sums.ctypes.data, scales, other_scales, to, step)
                    if not is_whole:
                        for r in range(lines):
                            into[r * columns : r * columns + some] = spare[r, :some]

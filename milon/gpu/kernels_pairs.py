"""Loops around tiles of products: numbers as pairs of 16-bit integers, blocks whose sums stay within 32 bits, and back.

A magnitude of 2^13 fits one 16-bit integer. One of 2^21 is taken apart to base 2^11 into a high and a low digit, and
three products stand for four: high by high, low by low, and sum by sum (Karatsuba). Sums over a block of pairs stay
within 32 bits, which the magnitudes on one side show; then they are added to totals in binary64, which holds them
exactly.
"""

from __future__ import annotations

import numpy as np

from milon.gpu.kernels_cpu import compiled, floats_at, scales_of
from milon.gpu.kernels_tiles import (
    COLUMNS,
    LANES,
    LINE,
    ROWS,
    TILE,
    add_line_products,
    add_products,
    make_fit,
    scale_one,
    scale_three,
)

ONE_DIGIT_BITS = 13  # the M whose integers need no digits
_BLOCK_OF_DIGITS = 255  # pairs: 510 products of at most 2^22 stay below 2^31
_EXACT_TERMS = 1 << 11  # products of M = 21: as many stay within 2^53, with the parts they are put together from
_INFINITY = np.int32(0x7F800000)  # binary32; NaN is above it once the sign is off
_MAGNITUDE = np.int32(0x7FFFFFFF)
_ROUND32 = np.float32(12582912.0)  # 1.5 * 2^23: adding it rounds |y| <= 2^22 to an integer, half to even
_ROUND32_BITS = np.int32(0x4B400000)
_ROUND64 = 6755399441055744.0  # 1.5 * 2^52
_ROUND64_BITS = np.int64(0x4338000000000000)
_MAGNITUDES = (1 << 18) - 1  # of one side in a block: times at most 2^13 from the other side, below 2^31
_fit_rows, _fit_columns = make_fit(ROWS, _MAGNITUDES), make_fit(COLUMNS, _MAGNITUDES)


@compiled
def find_runs(bases, unit, offsets, masks, counts):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """For `gather_lanes`: the runs of each vector, where element k of `unit` lanes lies at unit * bases[k], if >= 0.

    A vector has as much room for runs as it has elements.
    """
    elements = 2 * LANES // unit
    bits = np.int64((1 << unit) - 1)
    for vector in range(counts.size):
        count, begin = 0, vector * elements
        for k in range(min(elements, bases.size - begin)):
            base = bases[begin + k]
            if base < 0:
                continue
            if k > 0 and base > 0 and base == bases[begin + k - 1] + 1:
                masks[begin + count - 1] |= np.uint32(bits << (unit * k))
            else:
                offsets[begin + count] = unit * (base - k)
                masks[begin + count] = np.uint32(bits << (unit * k))
                count += 1
        counts[vector] = count


@compiled
def to_integers(values, scale, into):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """round_half_even(values * scale) as int32; where that has no place in 22 bits, whatever comes."""
    if scale < 2.0**127:
        scale32 = np.float32(scale)
        for k in range(values.size):
            into[k] = np.float32(values[k] * scale32 + _ROUND32).view(np.int32) - _ROUND32_BITS
    else:
        for k in range(values.size):
            into[k] = np.int32(np.float64(np.float64(values[k]) * scale + _ROUND64).view(np.int64) - _ROUND64_BITS)


@compiled
def low_digit(q):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The digit to base 2^11 from -2^10 to 2^10 - 1; the rest is 2^11 times the high digit."""
    return ((q + np.int32(1024)) & np.int32(2047)) - np.int32(1024)


@compiled
def store_pairs(ones, others, bits, words, place, apart):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Pairs of integers as words, from words[place] on; the digits high, low and their sum lie `apart` words apart."""
    size, mask, shift = ones.size, np.int32(0xFFFF), np.int32(16)
    if bits == ONE_DIGIT_BITS:
        into = words[place : place + size]
        for k in range(size):
            into[k] = (ones[k] & mask) | (others[k] << shift)
        return
    high, low = words[place : place + size], words[place + apart : place + apart + size]
    both = words[place + 2 * apart : place + 2 * apart + size]
    for k in range(size):
        one_low, other_low = low_digit(ones[k]), low_digit(others[k])
        one_high, other_high = (ones[k] - one_low) >> np.int32(11), (others[k] - other_low) >> np.int32(11)
        high[k] = (one_high & mask) | (other_high << shift)
        low[k] = (one_low & mask) | (other_low << shift)
        both[k] = ((one_high + one_low) & mask) | ((other_high + other_low) << shift)


@compiled
def store_word(one, other, bits, words, place, apart):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """`store_pairs` for a single pair."""
    mask, shift = np.int32(0xFFFF), np.int32(16)
    if bits == ONE_DIGIT_BITS:
        words[place] = (one & mask) | (other << shift)
        return
    one_low, other_low = low_digit(one), low_digit(other)
    one_high, other_high = (one - one_low) >> np.int32(11), (other - other_low) >> np.int32(11)
    words[place] = (one_high & mask) | (other_high << shift)
    words[place + apart] = (one_low & mask) | (other_low << shift)
    words[place + 2 * apart] = ((one_high + one_low) & mask) | ((other_high + other_low) << shift)


@compiled
def pack_rows(first, last, values, patterns, inner, window, bits, panels, back):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Rows first to last of [rows, inner * window] as panels of words [digits, rows / ROWS, pairs, ROWS]."""
    halves = (inner + 1) // 2
    pairs, terms = halves * window, inner * window
    apart = panels.size // (1 if bits == ONE_DIGIT_BITS else 3)
    found, forth = np.empty(1, np.int32), np.empty(1, np.float64)
    integers = np.zeros(2 * halves * window, np.int32)
    for row in range(first, last):
        found[0] = 0
        given = patterns[row * terms : (row + 1) * terms]
        for k in range(terms):
            found[0] = max(found[0], given[k] & _MAGNITUDE)
        scales_of(0, 1, found, bits, forth, back[row : row + 1])
        if found[0] < _INFINITY:
            to_integers(values[row * terms : (row + 1) * terms], forth[0], integers)
        else:
            integers[:] = 0
        base = (row // ROWS * pairs) * ROWS + row % ROWS
        for half in range(halves):
            for r in range(window):
                one, other = integers[2 * half * window + r], integers[(2 * half + 1) * window + r]
                store_word(one, other, bits, panels, base + (r * halves + half) * ROWS, apart)


@compiled
def find_blocks(words, is_left, pairs, bits, ends):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The ends of the blocks of a panel of rows (the left side) or columns, after their number; words by address.

    Up to a vector after the panel is read.
    """
    end, count = np.int64(0), 0
    while end < pairs:
        if bits != ONE_DIGIT_BITS:
            end = min(end + _BLOCK_OF_DIGITS, pairs)
        elif is_left:
            end += _fit_rows(words + end * ROWS * 4, pairs - end)
        else:
            end += _fit_columns(words + end * COLUMNS * 4, pairs - end)
        count += 1
        ends[count] = end
    ends[0] = count


@compiled
def find_blocks_of_rows(first, last, words, pairs, bits, ends):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """`find_blocks` for panels first to last of rows: ends [panels, 1 + pairs]."""
    for panel in range(first, last):
        find_blocks(words.ctypes.data + panel * pairs * ROWS * 4, True, pairs, bits, ends[panel])


@compiled
def multiply_panels(  # type: ignore[no-untyped-def]  # compiled: types come from the call
    left, right, left_place, right_place, left_apart, right_apart, ends, first, last, bits, totals
):
    """totals [digits, ROWS, COLUMNS] += pairs first to last of panels at words left[left_place], right[right_place]."""
    for digit in range(1 if bits == ONE_DIGIT_BITS else 3):
        one = left.ctypes.data + 4 * (left_place + digit * left_apart)
        other = right.ctypes.data + 4 * (right_place + digit * right_apart)
        into = totals.ctypes.data + 8 * digit * TILE
        begin = first
        for block in range(ends[0]):
            end = min(np.int64(ends[1 + block]), last)
            if end > begin:
                add_products(one + 4 * begin * ROWS, other + 4 * begin * COLUMNS, end - begin, into)
                begin = end


@compiled
def multiply_lines(lines, right, right_place, right_apart, ends, pairs, bits, totals):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """As `multiply_panels` for pairs 0 to `pairs`, where the left side is lines [digits, ROWS, LINE]."""
    for digit in range(1 if bits == ONE_DIGIT_BITS else 3):
        one = lines.ctypes.data + 4 * digit * ROWS * LINE
        other = right.ctypes.data + 4 * (right_place + digit * right_apart)
        into = totals.ctypes.data + 8 * digit * TILE
        begin = 0
        for block in range(ends[0]):
            end = min(np.int64(ends[1 + block]), pairs)
            if end > begin:
                add_line_products(one + 4 * begin, other + 4 * begin * COLUMNS, end - begin, into)
                begin = end


@compiled
def _scale_whole(totals, left_back, right_back, into, stride):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """As `scale_three` for any number of terms, by way of int64."""
    for row in range(ROWS):
        found, begin = floats_at(into + row * stride * 4), row * COLUMNS
        for k in range(COLUMNS):
            high, low, both = totals[begin + k], totals[TILE + begin + k], totals[2 * TILE + begin + k]
            whole = (np.int64(high) << 22) + (np.int64(both - high - low) << 11) + np.int64(low)
            if abs(whole) <= 1 << 53:
                found[k] = np.float32(np.float64(whole) * left_back[row] * right_back[k])
            else:
                odd = np.int64((whole >> 11) | np.int64((whole & 2047) != 0))
                found[k] = np.float32(np.float64(odd) * 2048.0 * left_back[row] * right_back[k])


@compiled
def scale_tile(totals, bits, terms, left_back, right_back, into, stride):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """A tile of totals, of `terms` each, as binary32, each rounded once; rows lie `stride` apart from address `into`.

    left_back has ROWS scales and right_back COLUMNS.
    """
    if bits == ONE_DIGIT_BITS:
        scale_one(totals.ctypes.data, left_back.ctypes.data, right_back.ctypes.data, into, stride)
    elif terms <= _EXACT_TERMS:
        scale_three(totals.ctypes.data, left_back.ctypes.data, right_back.ctypes.data, into, stride)
    else:
        _scale_whole(totals, left_back, right_back, into, stride)

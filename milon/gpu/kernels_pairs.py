"""The innermost loop of contractions on a CPU: a tile of sums of products of 16-bit integers, held in registers.

An operand is a panel of pairs: for each pair of terms, the two 16-bit integers of every row (or column) side by side in
one 32-bit word. A magnitude of 2^13 fits one such integer. One of 2^21 is taken apart to base 2^11 into a high and a
low digit, and three products stand for four: high by high, low by low, and sum by sum (Karatsuba). Sums over a block of
pairs stay within 32 bits, which the magnitudes on one side show; then they are added to totals in binary64, which
holds them exactly.

The tile is written in the compiler's own terms, multiply and add of vectors, so it is right on any processor; where
there are instructions for products of pairs (AVX2, AVX512-VNNI) the compiler chooses them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from milon.gpu.kernels_cpu import compiled, scales_of

_IS_WIDE = bool(binding.get_host_cpu_features().get("avx512bw", False))
ROWS = 13 if _IS_WIDE else 6  # of a tile: with `_VECTORS` to a row they fill the processor's registers
_LANES = 16 if _IS_WIDE else 8  # 32-bit sums in a register
_VECTORS = 2
COLUMNS = _LANES * _VECTORS
TILE = ROWS * COLUMNS
ONE_DIGIT_BITS = 13  # the M whose integers need no digits
_MAGNITUDES = (1 << 18) - 1  # of one side in a block: times at most 2^13 from the other side, below 2^31
_BLOCK_OF_DIGITS = 255  # pairs: 510 products of at most 2^22 stay below 2^31
_EXACT_TERMS = 1 << 10  # products of M = 21: as many stay within 2^53, with the parts they are put together from
_INFINITY = np.int32(0x7F800000)  # binary32; NaN is above it once the sign is off
_MAGNITUDE = np.int32(0x7FFFFFFF)
_ROUND32 = np.float32(12582912.0)  # 1.5 * 2^23: adding it rounds |y| <= 2^22 to an integer, half to even
_ROUND32_BITS = np.int32(0x4B400000)
_ROUND64 = 6755399441055744.0  # 1.5 * 2^52
_ROUND64_BITS = np.int64(0x4338000000000000)
_SUM = ir.VectorType(ir.IntType(32), _LANES)
_PAIRS = ir.VectorType(ir.IntType(16), 2 * _LANES)
_PRODUCTS = ir.VectorType(ir.IntType(32), 2 * _LANES)
_WIDE = ir.VectorType(ir.DoubleType(), _LANES)


def _load(builder: Any, base: Any, place: Any, align: int) -> Any:
    loaded = builder.load(builder.gep(base, [place]))
    loaded.align = align
    return loaded


def _pick(builder: Any, vector: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


def _sums_of_pairs(builder: Any, left: Any, right: Any) -> Any:
    one, other = (builder.sext(builder.bitcast(side, _PAIRS), _PRODUCTS) for side in (left, right))
    products = builder.mul(one, other)
    even, odd = (_pick(builder, products, list(range(first, 2 * _LANES, 2))) for first in (0, 1))
    return builder.add(even, odd)


def _emit_pair(builder: Any, left: Any, right: Any, pair: Any, sums: list[Any]) -> list[Any]:
    """`sums` and the products of one more pair of terms."""
    word = ir.IntType(64)
    columns = [
        _load(builder, right, builder.add(builder.mul(pair, word(_VECTORS)), word(place)), 4)
        for place in range(_VECTORS)
    ]
    found = []
    for row in range(ROWS):
        scalar = _load(builder, left, builder.add(builder.mul(pair, word(ROWS)), word(row)), 4)
        lone = builder.insert_element(ir.Constant(_SUM, ir.Undefined), scalar, ir.IntType(32)(0))
        spread = _pick(builder, lone, [0] * _LANES)
        for place, column in enumerate(columns):
            found.append(builder.add(sums[row * _VECTORS + place], _sums_of_pairs(builder, spread, column)))
    return found


def _emit_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    left, right, pairs, totals = arguments
    left = builder.inttoptr(left, ir.IntType(32).as_pointer())
    right, totals = builder.inttoptr(right, _SUM.as_pointer()), builder.inttoptr(totals, _WIDE.as_pointer())
    word = ir.IntType(64)
    before, loop, after = builder.block, builder.append_basic_block("pair"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    pair = builder.phi(word)
    sums = [builder.phi(_SUM) for _ in range(ROWS * _VECTORS)]
    found = _emit_pair(builder, left, right, pair, sums)
    following = builder.add(pair, word(1))
    for entry, start, going in (
        (pair, word(0), following),
        *((s, _SUM(None), f) for s, f in zip(sums, found, strict=True)),
    ):
        entry.add_incoming(start, before)
        entry.add_incoming(going, loop)
    builder.cbranch(builder.icmp_signed("<", following, pairs), loop, after)
    builder.position_at_end(after)
    for place, total in enumerate(found):
        held = _load(builder, totals, word(place), 8)
        stored = builder.store(builder.fadd(held, builder.sitofp(total, _WIDE)), builder.gep(totals, [word(place)]))
        stored.align = 8
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def add_products(context: Any, left: Any, right: Any, pairs: Any, totals: Any) -> tuple[Any, Callable[..., Any]]:
    """totals [ROWS, COLUMNS] (binary64) += left [pairs, ROWS] times right [pairs, COLUMNS]; all by address.

    At least one pair, and at most what keeps sums within 32 bits.
    """
    return types.void(types.int64, types.int64, types.int64, types.int64), _emit_tile


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
def find_blocks(first, last, words, lanes, pairs, bits, ends):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """For panels first to last of words [pairs, lanes]: ends [panels, 1 + pairs] of the blocks, after their number."""
    sums, more = np.empty(lanes, np.int32), np.empty(lanes, np.int32)
    for panel in range(first, last):
        into = ends[panel]
        count = 0
        if bits != ONE_DIGIT_BITS:
            for end in range(_BLOCK_OF_DIGITS, pairs, _BLOCK_OF_DIGITS):
                count += 1
                into[count] = end
        sums[:] = 0
        for pair in range(pairs if bits == ONE_DIGIT_BITS else 0):
            given = words[(panel * pairs + pair) * lanes : (panel * pairs + pair + 1) * lanes]
            most = np.int32(0)
            for k in range(lanes):
                more[k] = abs(np.int32(given[k] >> np.int32(16))) + abs(np.int32(np.int16(given[k])))
                sums[k] += more[k]
                most = max(most, sums[k])
            if most > _MAGNITUDES:
                count += 1
                into[count] = pair
                sums[:] = more
        into[0] = count + 1
        into[count + 1] = pairs


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
def scale_tile_row(totals, row, bits, terms, left_back, right_back, found):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Row `row` of a tile as binary32, each number rounded once; `terms` were added to each."""
    if bits == ONE_DIGIT_BITS:
        given = totals[row * COLUMNS : (row + 1) * COLUMNS]
        for k in range(COLUMNS):
            found[k] = np.float32((given[k] + 0.0) * left_back * right_back[k])
        return
    high, low = totals[row * COLUMNS : (row + 1) * COLUMNS], totals[TILE + row * COLUMNS : TILE + (row + 1) * COLUMNS]
    both = totals[2 * TILE + row * COLUMNS : 2 * TILE + (row + 1) * COLUMNS]
    if terms <= _EXACT_TERMS:
        for k in range(COLUMNS):
            total = high[k] * 4194304.0 + (both[k] - high[k] - low[k]) * 2048.0 + low[k]
            found[k] = np.float32((total + 0.0) * left_back * right_back[k])
        return
    for k in range(COLUMNS):
        whole = (np.int64(high[k]) << 22) + (np.int64(both[k] - high[k] - low[k]) << 11) + np.int64(low[k])
        if abs(whole) <= 1 << 53:
            found[k] = np.float32(np.float64(whole) * left_back * right_back[k])
        else:
            odd = np.int64((whole >> 11) | np.int64((whole & 2047) != 0))
            found[k] = np.float32(np.float64(odd) * 2048.0 * left_back * right_back[k])

"""Compiled loops for the gradient of a convolution's weight: windows over all places and images, row by row.

A row is one (channel, part of the window) and has one scale; its terms, two places to a word, lie in a line, and a tile
takes its rows from such lines. `kernels_windows` says what `table` and `frame` are; here the pixels of a channel lie in
a plane of 16-bit integers. `step` places of an image, or of some images, make the lines of one turn.
"""

from __future__ import annotations

import numpy as np

from milon.gpu.kernels_cpu import compiled, halves_at
from milon.gpu.kernels_pairs import (
    ONE_DIGIT_BITS,
    find_blocks,
    find_runs,
    low_digit,
    multiply_lines,
    scale_tile,
    store_pairs,
    to_integers,
)
from milon.gpu.kernels_tiles import COLUMNS, LANES, LINE, ROWS, TILE, gather_lanes

_MAGNITUDE = np.int32(0x7FFFFFFF)
_TOTALS = 1 << 17  # numbers that wait for more images, a MiB: the second cache holds them
_HALVES = 2 * LANES  # 16-bit integers of a vector


@compiled
def greatest_of_channels(first, last, patterns, channels, area, found):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Into found [channels, area + 1]: the greatest magnitude (bits) of each pixel over all images; 0 as padding."""
    for c in range(first, last):
        into = found[c * (area + 1) : (c + 1) * (area + 1)]
        into[:] = 0
        for n in range(patterns.size // (channels * area)):
            given = patterns[(n * channels + c) * area : (n * channels + c + 1) * area]
            for k in range(area):
                into[k] = max(into[k], given[k] & _MAGNITUDE)


@compiled
def greatest_of_rows(first, last, greatest, table, area, found):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Into found [channels, window]: the greatest of the pixels that a part of the window meets."""
    window, places = table.shape
    for c in range(first, last):
        given = greatest[c * (area + 1) : (c + 1) * (area + 1)]
        for r in range(window):
            most = np.int32(0)
            for p in range(places):
                most = max(most, given[table[r, p]])
            found[c * window + r] = most


@compiled
def pack_gradient(  # type: ignore[no-untyped-def]  # compiled: types come from the call
    first, last, gradient, batch, outer, places, forth, back, bits, panels
):
    """Images first to last of [batch, outer, places] as words [digits, stripes of COLUMNS, batch, pairs, COLUMNS]."""
    pairs, stripes = (places + 1) // 2, (outer + COLUMNS - 1) // COLUMNS
    apart = panels.size // (1 if bits == ONE_DIGIT_BITS else 3)
    whole = np.zeros(2 * pairs * COLUMNS, np.int32)
    ones, others = np.zeros(COLUMNS, np.int32), np.zeros(COLUMNS, np.int32)
    for n in range(first, last):
        for stripe in range(stripes):
            for column in range(COLUMNS):
                o = stripe * COLUMNS + column
                into = whole[column * 2 * pairs : (column + 1) * 2 * pairs]
                if o < outer and not np.isnan(back[o]):
                    begin = (n * outer + o) * places
                    to_integers(gradient[begin : begin + places], forth[o], into)
                else:
                    into[:] = 0
            base = (stripe * batch + n) * pairs * COLUMNS
            for pair in range(pairs):
                for column in range(COLUMNS):
                    ones[column] = whole[column * 2 * pairs + 2 * pair]
                    others[column] = whole[column * 2 * pairs + 2 * pair + 1]
                store_pairs(ones, others, bits, panels, base + pair * COLUMNS, apart)


@compiled
def find_gradient_blocks(first, last, gradient, batch, pairs, stripes, together, step, bits, ends):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """`find_blocks` of a packed gradient: ends [parts * pieces * stripes, ...] for parts of `together` images.

    A piece is `step` pairs of an image; there is one to a part of several images.
    """
    pieces = (pairs + step - 1) // step
    for part in range(first, last):
        count = min(together, batch - part * together)
        for piece in range(pieces):
            some = min(step, pairs - piece * step) + (count - 1) * pairs
            for stripe in range(stripes):
                begin = ((stripe * batch + part * together) * pairs + piece * step) * COLUMNS
                row = (part * pieces + piece) * stripes + stripe
                find_blocks(gradient.ctypes.data + begin * 4, False, some, bits, ends[row])


@compiled
def _lay_channel(given, homes, line, scale, bits, whole, halves, planes, apart):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The pixels of a channel on one scale as 16-bit integers: planes [digits, apart], a vector's room before each."""
    to_integers(given, scale, whole)
    high, low, both = halves[0], halves[1], halves[2]
    if bits == ONE_DIGIT_BITS:
        for i in range(whole.size):
            high[i] = np.int16(whole[i])
    else:
        for i in range(whole.size):
            digit = low_digit(whole[i])
            upper = (whole[i] - digit) >> np.int32(11)
            high[i], low[i], both[i] = np.int16(upper), np.int16(digit), np.int16(upper + digit)
    for digit in range(1 if bits == ONE_DIGIT_BITS else 3):
        source, target = halves[digit].ctypes.data, planes.ctypes.data + (_HALVES + digit * apart) * 2
        for k in range(0, given.size, line):
            values, into = halves_at(source + k * 2), halves_at(target + homes[k] * 2)
            for i in range(line):
                into[i] = values[i]


@compiled
def _lay_line(plane, offset, spots, runs, masks, counts, into):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Some places of a row as 16-bit integers; plane and line by address. Without runs, spots say where they lie."""
    for vector in range(counts.size):
        own, own_masks = runs.ctypes.data + vector * _HALVES * 8, masks.ctypes.data + vector * _HALVES * 4
        gather_lanes(plane + (_HALVES + offset) * 2, own, own_masks, counts[vector], into + vector * _HALVES * 2)
    if counts.size == 0:
        given, to = halves_at(plane + _HALVES * 2), halves_at(into)
        for p in range(spots.size):
            to[p] = given[spots[p]]
        if spots.size % 2:
            to[spots.size] = 0


@compiled
def _lay_rows(  # type: ignore[no-untyped-def]  # compiled: types come from the call
    images, image, count, begin, end, table, frame, left, right, runs, masks, counts, channels, forth, back, bits, lines
):
    """Rows begin to end over places left to right of `count` images as lines [digits, ROWS, LINE]."""
    homes, line, size, _, offsets = frame
    window, area = table.shape[0], homes.size
    pairs = (right - left + 1) // 2
    digits, apart = 1 if bits == ONE_DIGIT_BITS else 3, size + 2 * _HALVES
    planes, whole, halves = np.zeros(digits * apart, np.int16), np.empty(area, np.int32), np.empty((3, area), np.int16)
    for j in range(count):
        channel, scale = -1, 0.0
        for row in range(begin, end):
            c, r = row // window, row % window
            if c != channel or forth[row] != scale:
                channel, scale = c, forth[row]
                start = ((image + j) * channels + c) * area
                _lay_channel(images[start : start + area], homes, line, scale, bits, whole, halves, planes, apart)
            offset = offsets[r] if offsets.size else 0
            for digit in range(digits):
                place = (digit * ROWS + row - begin) * LINE + j * pairs
                plane, into = planes.ctypes.data + digit * apart * 2, lines.ctypes.data + place * 4
                _lay_line(plane, offset, table[r, left:right], runs, masks, counts, into)
    for digit in range(digits):
        for row in range(begin, begin + ROWS):
            if row >= end or np.isnan(back[row]):
                place = (digit * ROWS + row - begin) * LINE
                lines[place : place + count * pairs] = 0


@compiled
def correlate(  # type: ignore[no-untyped-def]  # compiled: types come from the call
    first, last, images, table, frame, channels, together, step, forth, back, gradient, ends, outer_back, outer, bits,
    result,
):  # fmt: skip
    """For rows (channel, part of the window), in tiles first to last of ROWS: the products with the gradient.

    `gradient` is as `pack_gradient` made it, for `together` images and `step` pairs at a time as `ends` has it;
    result is [outer, channels * window].
    """
    stripes = (outer + COLUMNS - 1) // COLUMNS
    size = (1 if bits == ONE_DIGIT_BITS else 3) * TILE
    some = max(1, _TOTALS // (stripes * size))
    right_back = np.zeros(stripes * COLUMNS)
    right_back[:outer] = outer_back
    spare = np.empty(TILE, np.float32)
    totals = np.empty((min(some, last - first) * stripes, size))
    rows = channels * table.shape[0]
    terms = gradient.size // (stripes * size // TILE * COLUMNS) * 2
    for start in range(first, last, some):
        end = min(start + some, last)
        totals[:] = 0.0
        _correlate_tiles(
            start, end, images, table, frame, channels, together, step, forth, back, gradient, ends, stripes, bits,
            totals,
        )  # fmt: skip
        for tile in range(start, end):
            lines = min(ROWS, rows - tile * ROWS)
            left_back = back[tile * ROWS : (tile + 1) * ROWS]
            for stripe in range(stripes):
                held, backs = totals[(tile - start) * stripes + stripe], right_back[stripe * COLUMNS :]
                scale_tile(held, bits, terms, left_back, backs, spare.ctypes.data, COLUMNS)
                for column in range(min(COLUMNS, outer - stripe * COLUMNS)):
                    place = (stripe * COLUMNS + column) * rows + tile * ROWS
                    into, given = result[place : place + lines], spare[column:]
                    for row in range(lines):
                        into[row] = given[row * COLUMNS]


@compiled
def _correlate_tiles(  # type: ignore[no-untyped-def]  # compiled: types come from the call
    first, last, images, table, frame, channels, together, step, forth, back, gradient, ends, stripes, bits, totals
):
    """totals [tiles, stripes, ...] += the products of tiles first to last with every stripe of the gradient."""
    (window, places), starts = table.shape, frame[3]
    digits = 1 if bits == ONE_DIGIT_BITS else 3
    batch, all_pairs = images.size // (channels * frame[0].size), (places + 1) // 2
    pieces = (all_pairs + step - 1) // step
    lines, right_apart = np.zeros(digits * ROWS * LINE, np.int32), gradient.size // digits
    for image in range(0, batch, together):
        count = min(together, batch - image)
        for piece in range(pieces):
            left, right = 2 * piece * step, min(2 * (piece + 1) * step, places)
            pairs = count * ((right - left + 1) // 2)
            counts = np.empty((right - left + _HALVES - 1) // _HALVES if frame[4].size else 0, np.int64)
            runs, masks = np.empty(counts.size * _HALVES, np.int64), np.empty(counts.size * _HALVES, np.uint32)
            find_runs(starts[left:right], 1, runs, masks, counts)
            for tile in range(first, last):
                begin, end = tile * ROWS, min((tile + 1) * ROWS, channels * window)
                _lay_rows(
                    images, image, count, begin, end, table, frame, left, right, runs, masks, counts, channels,
                    forth, back, bits, lines,
                )  # fmt: skip
                for stripe in range(stripes):
                    place = ((stripe * batch + image) * all_pairs + piece * step) * COLUMNS
                    into = totals[(tile - first) * stripes + stripe]
                    blocks = ends[((image // together) * pieces + piece) * stripes + stripe]
                    multiply_lines(lines, gradient, place, right_apart, blocks, pairs, bits, into)

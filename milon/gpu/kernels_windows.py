"""Compiled loops for convolutions: windows become integers and panels as they are met, and no matrix of them exists.

`table` [window, places] says which pixel each part of a window meets at each place: a pixel's number, or the number of
pixels for the padding. A column of the product is the window at one place of one image; its terms are ordered by part
of the window, then by pair of channels. Windows that share an exponent read integers that were made once (a plane).
"""

from __future__ import annotations

import numpy as np

from milon.gpu.kernels_cpu import compiled, patterns_at, scales_of
from milon.gpu.kernels_pairs import (
    ONE_DIGIT_BITS,
    find_runs,
    multiply_panels,
    scale_tile,
    store_pairs,
    store_word,
    to_integers,
)
from milon.gpu.kernels_tiles import COLUMNS, LANES, ROWS, TILE, gather_lanes

_INFINITY = np.int32(0x7F800000)  # binary32; NaN is above it once the sign is off
_MAGNITUDE = np.int32(0x7FFFFFFF)
_PLANES = 8  # exponents for which an image is kept as integers (half as many in digits); most have two to five


@compiled
def _find_greatest(patterns, image, count, table, channels, area, found):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Into found [count, places]: the greatest magnitude (bits) of each window of `count` images."""
    window, places = table.shape
    greatest = np.empty(area + 1, np.int32)
    for j in range(count):
        greatest[:] = 0
        for c in range(channels):
            begin = ((image + j) * channels + c) * area
            row = patterns[begin : begin + area]
            for k in range(area):
                greatest[k] = max(greatest[k], row[k] & _MAGNITUDE)
        for p in range(places):
            most = np.int32(0)
            for r in range(window):
                most = max(most, greatest[table[r, p]])
            found[j * places + p] = most


@compiled
def _lay_plane(images, image, count, channels, homes, line, size, scale, bits, planes, place, apart):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The pixels of `count` images on one scale as words [count, pairs of channels, size], 0 where no pixel is."""
    area, digits = homes.size, 1 if bits == ONE_DIGIT_BITS else 3
    one, other, words = np.zeros(area, np.int32), np.zeros(area, np.int32), np.empty(digits * area, np.int32)
    for j in range(count):
        for c in range(0, channels, 2):
            begin = ((image + j) * channels + c) * area
            to_integers(images[begin : begin + area], scale, one)
            if c + 1 < channels:
                to_integers(images[begin + area : begin + 2 * area], scale, other)
            else:
                other[:] = 0
            store_pairs(one, other, bits, words, 0, area)
            for digit in range(digits):
                source, target = words.ctypes.data + digit * area * 4, planes.ctypes.data + (place + digit * apart) * 4
                for k in range(0, area, line):
                    given, into = patterns_at(source + k * 4), patterns_at(target + homes[k] * 4)
                    for i in range(line):
                        into[i] = given[i]
            place += size


@compiled
def _gather(planes, place, plane_apart, bases, offsets, size, halves, bits, panel):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """A panel of words [digits, window * halves, COLUMNS]; part r of column k's window lies at bases[k] + offsets[r].

    A column whose base is negative gets zeros.
    """
    vectors = COLUMNS // LANES
    runs, masks, counts = np.empty(COLUMNS, np.int64), np.empty(COLUMNS, np.uint32), np.empty(vectors, np.int64)
    find_runs(bases, 2, runs, masks, counts)
    into = panel.ctypes.data
    for digit in range(1 if bits == ONE_DIGIT_BITS else 3):
        for r in range(offsets.size):
            source = planes.ctypes.data + (place + digit * plane_apart + offsets[r]) * 4
            for _ in range(halves):
                for vector in range(vectors):
                    own, own_masks = runs.ctypes.data + vector * LANES * 8, masks.ctypes.data + vector * LANES * 4
                    gather_lanes(source, own, own_masks, counts[vector], into)
                    into += LANES * 4
                source += size * 4


@compiled
def _gather_by_table(planes, plane_apart, spots, is_met, halves, size, bits, panel):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The same where the columns' windows lie at spots [window, COLUMNS].

    Parts of the window that no column meets are left as they were.
    """
    window = spots.shape[0]
    for digit in range(1 if bits == ONE_DIGIT_BITS else 3):
        for r in range(window):
            if not is_met[r]:
                continue
            row = spots[r]
            place = (digit * window + r) * halves * COLUMNS
            for half in range(halves):
                given = planes[digit * plane_apart + half * size :]
                into = panel[place : place + COLUMNS]
                for k in range(COLUMNS):
                    into[k] = given[row[k]]
                place += COLUMNS


@compiled
def _fill_column(images, begin, table, p, channels, area, scale, bits, panel, column, apart):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """One column of a panel where no plane has its scale."""
    halves = (channels + 1) // 2
    pair, whole = np.zeros(2, np.float32), np.zeros(2, np.int32)
    for r in range(table.shape[0]):
        pixel = table[r, p]
        for half in range(halves):
            for side in range(2):
                c = 2 * half + side
                inside = pixel < area and c < channels
                pair[side] = images[begin + c * area + pixel] if inside else np.float32(0.0)
            to_integers(pair, scale, whole)
            store_word(whole[0], whole[1], bits, panel, (r * halves + half) * COLUMNS + column, apart)


@compiled
def _find_plane(scale, scales):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The number of the plane on this scale, of the first free one, or -1 where all are taken by others."""
    for number in range(scales.size):
        if scales[number] == scale or scales[number] == 0.0:
            return number
    return -1


@compiled
def multiply_windows(  # type: ignore[no-untyped-def]  # compiled: types come from the call
    first, last, images, patterns, table, order, frame, channels, together, rows, ends, row_back, outer, bits, result
):
    """[outer, terms] times every window, into [batch, outer, places], for parts first to last of `together` images.

    `rows` and `row_back` are as `pack_rows` made them, `ends` as `find_blocks` for these rows; the windows in
    column p of `table` give place order[p] of the result. `frame` is (homes, line, size, starts, offsets): where pixels
    lie in a plane of `size` words, `line` of them side by side, and that part r of the window at place p meets
    starts[p] + offsets[r]; with no offsets the table says that.
    """
    window, places = table.shape
    area = frame[0].size
    pairs, batch = (channels + 1) // 2 * window, images.size // (channels * area)
    digits = 1 if bits == ONE_DIGIT_BITS else 3
    scales = np.empty(_PLANES if digits == 1 else _PLANES // 2)
    planes = np.zeros(digits * scales.size * together * (pairs // window) * frame[2] + 2 * LANES, np.int32)
    panel = np.empty(digits * pairs * COLUMNS, np.int32)
    found = np.empty(together * places, np.int32)
    forth, back = np.empty(together * places), np.empty(together * places)
    targets, is_met = np.empty(together * places, np.int64), np.empty(window, np.bool_)
    for part in range(first, last):
        image = part * together
        count = min(together, batch - image)
        _find_greatest(patterns, image, count, table, channels, area, found)
        scales_of(0, count * places, found, bits, forth, back)
        for j in range(count):
            for p in range(places):
                targets[j * places + p] = (image + j) * outer * places + order[p]
        scales[:] = 0.0
        for begin in range(0, count * places, COLUMNS):
            end = min(begin + COLUMNS, count * places)
            _lay_panel(
                images,
                image,
                count,
                begin,
                end,
                table,
                frame,
                channels,
                found,
                forth,
                scales,
                is_met,
                bits,
                planes,
                panel,
            )
            _multiply_panel(
                rows, ends, row_back, panel, is_met, outer, places, bits, back[begin:end], targets[begin:end], result
            )


@compiled
def _lay_panel(  # type: ignore[no-untyped-def]  # compiled: types come from the call
    images, image, count, begin, end, table, frame, channels, found, forth, scales, is_met, bits, planes, panel
):
    """The panel of columns begin to end (window p of image j is column j * places + p), and which parts they meet."""
    homes, line, size, starts, offsets = frame
    window, places = table.shape
    halves, area = (channels + 1) // 2, homes.size
    plane_apart = (planes.size - 2 * LANES) // (1 if bits == ONE_DIGIT_BITS else 3)
    plane_size = plane_apart // scales.size
    is_framed = offsets.size > 0
    bases = np.full(COLUMNS, -1, np.int64)
    spots = np.full((0 if is_framed else window, COLUMNS), LANES + area, np.int64)
    is_met[:] = is_framed
    alone = 0
    j, p = begin // places, begin % places
    for k in range(end - begin):
        number = _find_plane(forth[begin + k], scales) if found[begin + k] < _INFINITY else 0
        if number < 0:
            alone += 1
            is_met[:] = True
        elif found[begin + k] < _INFINITY:
            start = number * plane_size + j * halves * size
            if scales[number] == 0.0:
                scales[number] = forth[begin + k]
                place = LANES + number * plane_size
                scale = scales[number]
                _lay_plane(images, image, count, channels, homes, line, size, scale, bits, planes, place, plane_apart)
            if is_framed:
                bases[k] = start + starts[p]
            for r in range(spots.shape[0]):
                spots[r, k] = LANES + start + table[r, p]
                is_met[r] |= table[r, p] < area
        p += 1
        if p == places:
            j, p = j + 1, 0
    if is_framed:
        _gather(planes, LANES, plane_apart, bases, offsets, size, halves, bits, panel)
    else:
        _gather_by_table(planes, plane_apart, spots, is_met, halves, size, bits, panel)
    for k in range(end - begin if alone else 0):
        scale = forth[begin + k]
        if found[begin + k] < _INFINITY and _find_plane(scale, scales) < 0:
            j, p = (begin + k) // places, (begin + k) % places
            base, apart = (image + j) * channels * area, window * halves * COLUMNS
            _fill_column(images, base, table, p, channels, area, scale, bits, panel, k, apart)


@compiled
def _multiply_panel(rows, ends, row_back, panel, is_met, outer, places, bits, back, targets, result):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """All rows times one panel of columns; column k of row o goes to result[targets[k] + o * places]."""
    digits = 1 if bits == ONE_DIGIT_BITS else 3
    totals, spare, right_back = np.empty(digits * TILE), np.empty(TILE, np.float32), np.zeros(COLUMNS)
    some, pairs = targets.size, panel.size // (digits * COLUMNS)
    right_back[:some] = back
    is_whole, window, start = some == COLUMNS, is_met.size, targets[0]
    for k in range(some):
        is_whole &= targets[k] == start + k
    for begin in range(0, outer, ROWS):
        totals[:] = 0.0
        blocks, apart, r = ends[begin // ROWS], rows.size // digits, 0
        while r < window:
            first = r * (pairs // window)
            while r < window and is_met[r]:
                r += 1
            last = r * (pairs // window)
            if last > first:
                multiply_panels(
                    rows, panel, begin * pairs, 0, apart, pairs * COLUMNS, blocks, first, last, bits, totals
                )
            r += 1
        left_back, lines = row_back[begin : begin + ROWS], min(ROWS, outer - begin)
        if is_whole and lines == ROWS:
            into = result.ctypes.data + (start + begin * places) * 4
            scale_tile(totals, bits, 2 * pairs, left_back, right_back, into, places)
            continue
        scale_tile(totals, bits, 2 * pairs, left_back, right_back, spare.ctypes.data, COLUMNS)
        for row in range(lines):
            for k in range(some):
                result[targets[k] + (begin + row) * places] = spare[row * COLUMNS + k]

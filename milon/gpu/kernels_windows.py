"""Compiled loops for convolutions: windows become integers and panels as they are met, and no matrix of them exists.

`table` [window, places] says which pixel each part of a window meets at each place: a pixel's number, or the number of
pixels for the padding. A column of the product is the window at one place of one image; its terms are ordered by part
of the window, then by pair of channels. Windows that share an exponent read integers that were made once (a plane).
"""

from __future__ import annotations

import numpy as np

from milon.gpu.kernels_cpu import compiled, scales_of
from milon.gpu.kernels_pairs import (
    COLUMNS,
    ONE_DIGIT_BITS,
    ROWS,
    TILE,
    find_blocks,
    multiply_panels,
    scale_tile_row,
    store_pairs,
    store_word,
    to_integers,
)

_INFINITY = np.int32(0x7F800000)  # binary32; NaN is above it once the sign is off
_MAGNITUDE = np.int32(0x7FFFFFFF)
_TOTALS = 1 << 17  # numbers that wait for more images, a MiB: the second cache holds them
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
def _lay_plane(images, image, count, channels, area, scale, bits, planes, place, apart):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The pixels of `count` images on one scale as words [count, pairs of channels, area + 1], with 0 as padding."""
    one, other = np.zeros(area + 1, np.int32), np.zeros(area + 1, np.int32)
    for j in range(count):
        for c in range(0, channels, 2):
            begin = ((image + j) * channels + c) * area
            to_integers(images[begin : begin + area], scale, one)
            if c + 1 < channels:
                to_integers(images[begin + area : begin + 2 * area], scale, other)
            else:
                other[:] = 0
            store_pairs(one, other, bits, planes, place, apart)
            place += area + 1


@compiled
def _gather(planes, plane_apart, spots, is_met, halves, area, bits, panel):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """A panel of words [digits, window * halves, COLUMNS]; its columns' windows lie at spots [window, COLUMNS].

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
                given = planes[digit * plane_apart + half * (area + 1) :]
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
    first, last, images, patterns, table, order, channels, area, together, rows, ends, row_back, outer, bits, result
):
    """[outer, terms] times every window, into [batch, outer, places], for parts first to last of `together` images.

    `rows` and `row_back` are as `pack_rows` made them, `ends` as `find_blocks` for these rows; the windows in
    column p of `table` give place order[p] of the result.
    """
    window, places = table.shape
    pairs, batch = (channels + 1) // 2 * window, images.size // (channels * area)
    digits = 1 if bits == ONE_DIGIT_BITS else 3
    scales = np.empty(_PLANES if digits == 1 else _PLANES // 2)
    planes = np.empty(digits * scales.size * together * (pairs // window) * (area + 1), np.int32)
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
                channels,
                area,
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
    images, image, count, begin, end, table, channels, area, found, forth, scales, is_met, bits, planes, panel
):
    """The panel of columns begin to end (window p of image j is column j * places + p), and which parts they meet."""
    window, places = table.shape
    halves = (channels + 1) // 2
    plane_apart = planes.size // (1 if bits == ONE_DIGIT_BITS else 3)
    plane_size = plane_apart // scales.size
    spots = np.empty((window, COLUMNS), np.int64)
    spots[:] = area
    is_met[:] = False
    alone = 0
    j, p = begin // places, begin % places
    for k in range(end - begin):
        number = _find_plane(forth[begin + k], scales) if found[begin + k] < _INFINITY else 0
        if number < 0:
            alone += 1
            is_met[:] = True
        elif found[begin + k] < _INFINITY:
            start = number * plane_size + j * halves * (area + 1)
            if scales[number] == 0.0:
                scales[number] = forth[begin + k]
                place = number * plane_size
                _lay_plane(images, image, count, channels, area, scales[number], bits, planes, place, plane_apart)
            for r in range(window):
                spots[r, k] = start + table[r, p]
                is_met[r] |= table[r, p] < area
        p += 1
        if p == places:
            j, p = j + 1, 0
    _gather(planes, plane_apart, spots, is_met, halves, area, bits, panel)
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
    totals, line, right_back = np.empty(digits * TILE), np.empty(COLUMNS, np.float32), np.zeros(COLUMNS)
    some, pairs = targets.size, panel.size // (digits * COLUMNS)
    right_back[:some] = back
    is_whole, window = some == COLUMNS, is_met.size
    for k in range(some):
        is_whole &= targets[k] == targets[0] + k
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
        for row in range(begin, min(begin + ROWS, outer)):
            start = targets[0] + row * places
            into = result[start : start + COLUMNS] if is_whole else line
            scale_tile_row(totals, row - begin, bits, 2 * pairs, row_back[row], right_back, into)
            for k in range(0 if is_whole else some):
                result[targets[k] + row * places] = line[k]


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
def find_gradient_blocks(first, last, gradient, batch, pairs, stripes, together, bits, ends):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """`find_blocks` of a packed gradient for parts first to last of `together` images: ends [parts * stripes, ...]."""
    for part in range(first, last):
        count = min(together, batch - part * together)
        for stripe in range(stripes):
            begin = (stripe * batch + part * together) * pairs * COLUMNS
            words = gradient[begin : begin + count * pairs * COLUMNS]
            row = part * stripes + stripe
            find_blocks(0, 1, words, COLUMNS, count * pairs, bits, ends[row : row + 1])


@compiled
def _lay_rows(images, image, count, begin, end, table, channels, area, forth, back, bits, panel):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Rows begin to end (channel, part of the window) over `count` images: words [digits, images, pairs, ROWS]."""
    window, places = table.shape
    pairs = (places + 1) // 2
    digits = 1 if bits == ONE_DIGIT_BITS else 3
    apart = panel.size // digits
    plane, none = np.zeros(area + 1, np.int32), np.zeros(area + 1, np.int32)
    low, high = np.zeros((digits, area + 1), np.int32), np.zeros((digits, area + 1), np.int32)
    words = np.zeros(digits * (area + 1), np.int32)
    for j in range(count):
        channel, scale = -1, 0.0
        for row in range(begin, end):
            c, r = row // window, row % window
            if c != channel or forth[row] != scale:
                channel, scale = c, forth[row]
                start = ((image + j) * channels + c) * area
                to_integers(images[start : start + area], scale, plane)
                store_pairs(plane, none, bits, words, 0, area + 1)
                for digit in range(digits):
                    for k in range(area + 1):
                        low[digit, k] = words[digit * (area + 1) + k]
                        high[digit, k] = words[digit * (area + 1) + k] << np.int32(16)
            is_special = np.isnan(back[row])
            spots = table[r]
            for digit in range(digits):
                into = panel[digit * apart + j * pairs * ROWS + row - begin :]
                one, other = low[digit], high[digit]
                for pair in range(places // 2):
                    into[pair * ROWS] = one[spots[2 * pair]] | other[spots[2 * pair + 1]]
                if places % 2:
                    into[places // 2 * ROWS] = one[spots[places - 1]]
                if is_special:
                    for pair in range(pairs):
                        into[pair * ROWS] = 0


@compiled
def correlate(  # type: ignore[no-untyped-def]  # compiled: types come from the call
    first, last, images, table, channels, area, together, forth, back, gradient, ends, outer_back, outer, bits, result
):
    """For rows (channel, part of the window), in tiles first to last of ROWS: the products with the gradient.

    `gradient` is as `pack_gradient` made it, for `together` images at a time as `ends` has it; result is
    [outer, channels * window].
    """
    stripes = (outer + COLUMNS - 1) // COLUMNS
    size = (1 if bits == ONE_DIGIT_BITS else 3) * TILE
    some = max(1, _TOTALS // (stripes * size))
    right_back = np.zeros(stripes * COLUMNS)
    right_back[:outer] = outer_back
    line = np.empty(COLUMNS, np.float32)
    totals = np.empty((min(some, last - first) * stripes, size))
    rows = channels * table.shape[0]
    terms = gradient.size // (stripes * size // TILE * COLUMNS) * 2
    for start in range(first, last, some):
        end = min(start + some, last)
        totals[:] = 0.0
        _correlate_tiles(
            start, end, images, table, channels, area, together, forth, back, gradient, ends, stripes, bits, totals
        )
        for row in range(start * ROWS, min(end * ROWS, rows)):
            for stripe in range(stripes):
                held = totals[(row // ROWS - start) * stripes + stripe]
                backs = right_back[stripe * COLUMNS : (stripe + 1) * COLUMNS]
                scale_tile_row(held, row % ROWS, bits, terms, back[row], backs, line)
                for column in range(min(COLUMNS, outer - stripe * COLUMNS)):
                    result[(stripe * COLUMNS + column) * rows + row] = line[column]


@compiled
def _correlate_tiles(  # type: ignore[no-untyped-def]  # compiled: types come from the call
    first, last, images, table, channels, area, together, forth, back, gradient, ends, stripes, bits, totals
):
    """totals [tiles, stripes, ...] += the products of tiles first to last with every stripe of the gradient."""
    window, places = table.shape
    pairs, batch, digits = (places + 1) // 2, images.size // (channels * area), 1 if bits == ONE_DIGIT_BITS else 3
    panel = np.zeros(digits * together * pairs * ROWS, np.int32)
    left_apart, right_apart = panel.size // digits, gradient.size // digits
    for image in range(0, batch, together):
        count = min(together, batch - image)
        for tile in range(first, last):
            begin, end = tile * ROWS, min((tile + 1) * ROWS, channels * window)
            _lay_rows(images, image, count, begin, end, table, channels, area, forth, back, bits, panel)
            for stripe in range(stripes):
                place = (stripe * batch + image) * pairs * COLUMNS
                into = totals[(tile - first) * stripes + stripe]
                blocks = ends[(image // together) * stripes + stripe]
                some = count * pairs
                multiply_panels(panel, gradient, 0, place, left_apart, right_apart, blocks, 0, some, bits, into)

"""Compiled loops for convolutions: windows of a few images quantised straight into the matrix that a product reads.

Row r = (channel, kernel row, kernel column) of the matrix holds, for every place of every image, the pixel that this
part of the window meets there, or zero in the padding. `shape` is (channels, height, width, kernel height, kernel
width, stride, stride, padding, padding, dilation, dilation, places high, places wide). Backwards, the "image" is the
gradient of the result and the "places" are the pixels of the image: a window's part meets a pixel at most once.
"""

from __future__ import annotations

import numpy as np

from milon.gpu.kernels_cpu import compiled

_MAGNITUDE = np.int32(0x7FFFFFFF)


@compiled
def _span(out, size, stride, offset):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The first place, and one past the last, whose position place * stride + offset lies in [0, size)."""
    first = 0 if offset >= 0 else (-offset + stride - 1) // stride
    last = 0 if size - offset <= 0 else (size - offset + stride - 1) // stride
    return first, max(first, min(last, out))


@compiled
def _lay_row(row, image, is_backward, shape, i, j):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """One image's row of the matrix for kernel row i and column j: `image` has its pixels, `row` a value a place."""
    height, width, out_high, out_wide = shape[1], shape[2], shape[11], shape[12]
    row[:] = 0
    up, left = i * shape[9] - shape[7], j * shape[10] - shape[8]
    if is_backward:
        first_y, last_y = _span(height, out_high, shape[5], up)
        first_x, last_x = _span(width, out_wide, shape[6], left)
        for y in range(first_y, last_y):
            given = image[y * width + first_x : y * width + last_x]
            start = (y * shape[5] + up) * out_wide + first_x * shape[6] + left
            into = row[start : start + (given.size - 1) * shape[6] + 1 if given.size else start]
            if shape[6] == 1:
                into[:] = given
            else:
                for x in range(given.size):
                    into[x * shape[6]] = given[x]
        return
    first_y, last_y = _span(out_high, height, shape[5], up)
    first_x, last_x = _span(out_wide, width, shape[6], left)
    for y in range(first_y, last_y):
        into = row[y * out_wide + first_x : y * out_wide + last_x]
        start = (y * shape[5] + up) * width + first_x * shape[6] + left
        if shape[6] == 1:
            into[:] = image[start : start + into.size]
        else:
            given = image[start : start + (into.size - 1) * shape[6] + 1 if into.size else start]
            for x in range(into.size):
                into[x] = given[x * shape[6]]


@compiled
def lay_windows(first, last, images, is_backward, shape, matrix):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """[rows, images, places] binary32 for images first to last."""
    channels, window = shape[0], shape[3] * shape[4]
    area, places = shape[1] * shape[2], shape[11] * shape[12]
    count = images.size // (channels * area)
    for n in range(first, last):
        for r in range(channels * window):
            c, i, j = r // window, r % window // shape[4], r % shape[4]
            image = images[(n * channels + c) * area : (n * channels + c + 1) * area]
            _lay_row(matrix[(r * count + n) * places : (r * count + n + 1) * places], image, is_backward, shape, i, j)


@compiled
def greatest_of_rows(first, last, images, patterns, shape, found):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Into found[r]: the greatest magnitude (bits) of row r over all images, for channels first to last."""
    channels, window = shape[0], shape[3] * shape[4]
    area, places = shape[1] * shape[2], shape[11] * shape[12]
    row = np.empty(places, np.int32)
    for c in range(first, last):
        found[c * window : (c + 1) * window] = 0
        for n in range(images):
            image = patterns[(n * channels + c) * area : (n * channels + c + 1) * area]
            for r in range(window):
                _lay_row(row, image, False, shape, r // shape[4], r % shape[4])
                greatest = found[c * window + r]
                for p in range(places):
                    greatest = max(greatest, row[p] & _MAGNITUDE)
                found[c * window + r] = greatest


@compiled
def add_integers(first, last, totals, part):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """totals (int64) += part (whole numbers in binary64)."""
    into, given = totals[first:last], part[first:last]
    for i in range(into.size):
        into[i] += np.int64(given[i])

"""Compiled loops for convolutions: windows of a few images laid out as the matrix that a product reads.

Row r = (channel, place in the window) of the matrix holds, for every place of every image, the pixel that this part of
the window meets there. `table` [window, places] says which: a pixel's number, or the number of pixels for the padding.
"""

from __future__ import annotations

import numpy as np

from milon.gpu.kernels_cpu import compiled

_MAGNITUDE = np.int32(0x7FFFFFFF)


@compiled
def lay_windows(first, last, images, table, channels, area, matrix):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """[channels, window, images, places] binary32, for pairs (image, channel) first to last."""
    count = images.size // (channels * area)
    window, places = table.shape
    plane = np.zeros(area + 1, np.float32)  # the last one stands for the padding
    for pair in range(first, last):
        n, c = pair // channels, pair % channels
        plane[:area] = images[pair * area : (pair + 1) * area]
        for r in range(window):
            start = ((c * window + r) * count + n) * places
            row = matrix[start : start + places]
            for p in range(places):
                row[p] = plane[table[r, p]]


@compiled
def greatest_of_rows(first, last, patterns, table, channels, area, found):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Into found[r]: the greatest magnitude (bits) of row r over all images, for channels first to last."""
    window, places = table.shape
    plane = np.zeros(area + 1, np.int32)
    for c in range(first, last):
        found[c * window : (c + 1) * window] = 0
        for n in range(patterns.size // (channels * area)):
            plane[:area] = patterns[(n * channels + c) * area : (n * channels + c + 1) * area]
            for r in range(window):
                greatest = found[c * window + r]
                for p in range(places):
                    greatest = max(greatest, plane[table[r, p]] & _MAGNITUDE)
                found[c * window + r] = greatest


@compiled
def add_integers(first, last, totals, part):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """totals (int64) += part (whole numbers in binary64)."""
    into, given = totals[first:last], part[first:last]
    for i in range(into.size):
        into[i] += np.int64(given[i])

"""Sine and cosine as compiled loops need them: the steps of `milon.gpu.angles` for one number."""

from __future__ import annotations

import numpy as np

from milon.gpu.kernels_cpu import compiled

_FRACTION = np.int64(0xFFFFFFFFFFFFF)  # of a binary64 number
_WORD = np.int64(0xFFFFFFFF)


@compiled
def wave64(x, quarters_more, waves, turns):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """sin(x + quarters_more * pi / 2), for 0 or 1 of these.

    waves: pi / 4, the unit of a turn, then the eight coefficients of the sine and of the cosine. turns: the words of
    `angles`, as numpy has them.
    """
    size = abs(x)
    is_large = (size > waves[0]) & (size < np.inf)
    bits = np.float64(size if is_large else 1.0).view(np.int64)
    place = (bits >> 52) - 1022
    m = ((bits & _FRACTION) | np.int64(1 << 52)) >> 29
    first = m * turns[1, place] + ((m * turns[0, place]) >> 32)
    second = m * turns[2, place] + (first >> 32)
    top = ((m * turns[3, place] + (second >> 32)) & _WORD) + np.int64(1 << 29)
    rest = (((top & np.int64(0x3FFFFFFF)) - np.int64(1 << 29)) << 32) + (second & _WORD)
    far = (np.float64(rest) + np.float64(first & _WORD) * 2.0**-32) * waves[1]
    quarters = ((top >> 30) & 3 if is_large else np.int64(0)) + quarters_more
    near = size if size <= waves[0] else 0.0
    r = far if is_large else near
    z = r * r
    s = ((((waves[9] * z + waves[8]) * z + waves[7]) * z + waves[6]) * z + waves[5]) * z + waves[4]
    sine = ((s * z + waves[3]) * z + waves[2]) * z * r + r
    c = ((((waves[17] * z + waves[16]) * z + waves[15]) * z + waves[14]) * z + waves[13]) * z + waves[12]
    cosine = ((c * z + waves[11]) * z + waves[10]) * z + 1.0
    result = sine if (quarters & 1) == 0 else cosine
    result = -result if (quarters & 3) >= 2 else result
    result = -result if (quarters_more == 0) & (np.float64(x).view(np.int64) < 0) else result
    return result if size < np.inf else np.nan

"""Sine and cosine of binary32 numbers of any size in binary64, for the rounding that `milon.gpu.elementary` does.

Rule N2. The number of turns is found with integers: a binary32 number is `m * 2^k` with `m` below 2^24, so its turns
are `m` times the fraction of `2^k / (2 pi)`, kept to 128 bits for every k (M. Payne and R. Hanek, Radian reduction for
trigonometric functions, SIGNUM Newsletter 18, 1983). The nearest quarter turn is taken off exactly; no binary32 number
but 0 is closer to one than about 2^-30 of it, so more than 60 good bits of the rest remain.
"""

from __future__ import annotations

import torch
from torch import Tensor

TWO_OVER_PI = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561  # times 2^256
QUARTER = 0.7853981633974483  # pi / 4: smaller angles are their own rest
TURN_UNIT = 6.283185307179586 * 2.0**-64
_WORD = 0xFFFFFFFF

# (sin r - r) / r^3 and (cos r - 1) / r^2 in powers of r^2: the rest is below 2^-58 for |r| <= pi / 4
SIN_SERIES = (
    -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800, 1.0 / 6227020800, -1.0 / 1307674368000,
    1.0 / 355687428096000,
)  # fmt: skip
COS_SERIES = (
    -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600, -1.0 / 87178291200,
    1.0 / 20922789888000,
)  # fmt: skip


def make_words() -> Tensor:
    """int64 [4, 129]: for k = -1 ... 127, the fraction of `2^(k - 23) / (2 pi)` in four words, the lowest first."""
    rows = []
    for k in range(-1, 128):
        fraction = (TWO_OVER_PI << (k + 1)) >> (256 - 128 + 24 + 2)  # 2 / pi / 4 = 1 / (2 pi)
        rows.append([(fraction >> (32 * place)) & _WORD for place in range(4)])
    return torch.tensor(rows, dtype=torch.int64).t().contiguous()


_WORDS = make_words()


def _reduce(x: Tensor) -> tuple[Tensor, Tensor]:
    """For finite `x` >= pi / 4 (binary64 holding binary32): quarter turns modulo 4, and the rest in radians."""
    bits = x.view(torch.int64)
    k = (bits >> 52) - 1023
    m = ((bits & 0xFFFFFFFFFFFFF) | (1 << 52)) >> 29  # 24 bits
    words = _WORDS.to(x.device)[:, k + 1]
    carry = (m * words[0]) >> 32
    first = m * words[1] + carry
    second = m * words[2] + (first >> 32)
    top = ((m * words[3] + (second >> 32)) & _WORD) + (1 << 29)  # an eighth of a turn more, to round to nearest
    quarters = (top >> 30) & 3
    rest = (((top & 0x3FFFFFFF) - (1 << 29)) << 32) + (second & _WORD)
    return quarters, (rest.double() + (first & _WORD).double() * 2.0**-32) * TURN_UNIT


def _series(coefficients: tuple[float, ...], at: Tensor) -> Tensor:
    total = torch.full_like(at, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total.mul_(at).add_(coefficient)
    return total


def _wave(x: Tensor, is_cosine: bool) -> Tensor:
    size = x.abs()
    is_large = (size > QUARTER) & (size < torch.inf)
    quarters, rest = _reduce(torch.where(is_large, size, 1.0))
    quarters = torch.where(is_large, quarters, 0)
    r = torch.where(is_large, rest, torch.where(size <= QUARTER, size, 0.0))
    z = r * r
    sine = _series(SIN_SERIES, z).mul_(z).mul_(r).add_(r)
    cosine = _series(COS_SERIES, z).mul_(z).add_(1.0)
    turned = (quarters + 1) & 3 if is_cosine else quarters
    result = torch.where((turned & 1) == 0, sine, cosine)
    result = torch.where(turned >= 2, -result, result)
    if not is_cosine:
        result = torch.where(x.view(torch.int64) < 0, -result, result)
    return torch.where(size < torch.inf, result, torch.nan)


def compute_sin(x: Tensor) -> Tensor:
    """sin x in binary64 for binary64 `x` that holds binary32 numbers; NaN for infinities; the sign of a zero stays."""
    return _wave(x, False)


def compute_cos(x: Tensor) -> Tensor:
    """cos x, as `compute_sin`."""
    return _wave(x, True)

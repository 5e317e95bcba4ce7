"""Elementary functions of binary32, correctly rounded, from binary64 additions, products, divisions and roots alone.

Rule N2 of the numerics. The platform's `exp`, `log` and the like differ between machines by a unit in the last place,
so none is called: each function here reduces its argument, evaluates a polynomial in binary64 with an error near one
unit of that format, and rounds once to binary32. Results come out wrong only where the true value lies within that
error of the midpoint of two neighbours, for a handful of inputs among 2^32; `make exhaustive` counts them, and those
found are listed in `CORRECTIONS` and put right. Each operation stands alone so that no compiler contracts two.

Sources: argument reduction and the division form of the logarithm as in W. J. Cody and W. Waite, Software Manual for
the Elementary Functions (1980); polynomial coefficients by Chebyshev interpolation at 60 digits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from milon.gpu.angles import compute_cos, compute_sin

LOG2_HIGH = float.fromhex("0x1.62e42fefa3800p-1")  # log 2 in 42 bits: its product with an exponent is exact
LOG2_LOW = float.fromhex("0x1.ef35793c76730p-45")  # the rest of log 2
LOG2_INVERSE = float.fromhex("0x1.71547652b82fep+0")  # 1 / log 2
EXP_LEAST = -110.0  # below, exp rounds to zero in binary32
EXP_GREATEST = 90.0  # above, exp is infinite in binary32
SQRT_HALF = 0.7071067811865476

# 1 / n! for n = 2 ... 13: the rest of the series is below 2^-57 for |r| <= log(2) / 2
EXP_SERIES = (
    1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880,
    1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800,
)  # fmt: skip
# 2 / (2 n + 1) for n = 1 ... 11: log m = 2 s + s^3 (2/3 + 2/5 s^2 + ...), s = (m - 1) / (m + 1), |s| < 0.172
LOG_SERIES = tuple(2.0 / (2 * n + 1) for n in range(1, 12))
# erf(x) / x on |x| <= 1, in powers of 2 x^2 - 1
ERF_SMALL = (
    0.9654687386698673, -0.1405360890227171, 0.019852496688983708, -0.0022854855611441132,
    0.00021751715604159932, -1.7537169441124866e-05, 1.223382738359897e-06, -7.511569286591727e-08,
    4.115800583208149e-09, -2.035228405815769e-10, 9.167619596865806e-12, -3.8078824063194953e-13,
    1.4543887079465116e-14,
)  # fmt: skip
# exp(x^2) erfc(x) / t on 1 <= x <= 4, t = 1 / (1 + x), in powers of (t - 0.35) / 0.15
ERF_LARGE = (
    0.7758653889905566, 0.08645125804004303, -0.006041984323922927, -0.001375472766053337,
    0.00026921303874354887, 7.5770861907828795e-06, -1.0505200702420971e-05, 1.665173010978327e-06,
    8.903937229567204e-08, -9.525738212050367e-08, 1.9617335511020235e-08, -4.703424502957545e-10,
    -9.196965816681146e-10, 2.9578409936565385e-10, -2.3225679180295608e-11, -8.097420762694964e-12,
)  # fmt: skip
ERF_STRETCH = 1.0 / 0.15
_ERF_ONE = 4.0  # beyond, erf rounds to 1 in binary32
# sigmoid x = 1/2 + x/4 - x^3/48 + ...: below 2^-15 the cube is lost in binary64, and where 1/2 + x/4 is midway between
# two binary32 numbers the result must still be the one nearer to 1/2. So the slope there is a little under 1/4, by as
# much as no other input notices: whatever is not midway is 2^-41 away from it.
SIGMOID_NEAR = 2.0**-15
SIGMOID_SLOPE = 0.25 - 2.0**-29


def _horner(coefficients: tuple[float, ...], at: Tensor) -> Tensor:
    """`coefficients[0] + coefficients[1] * at + ...`, from the last one inwards."""
    total = torch.full_like(at, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total.mul_(at).add_(coefficient)
    return total


def _power_of_two(exponent: Tensor) -> Tensor:
    """`2^exponent` as binary64 for whole numbers (binary64) from -1022 to 1023; anything for NaN."""
    return ((exponent.nan_to_num_(0.0).to(torch.int64) + 1023) << 52).view(torch.float64)


def _exp_parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """`(2^k, p)` with `exp(x) = 2^k (1 + p)` and |p| < 0.42, for x (binary64) from -700 to 700."""
    k = (x * LOG2_INVERSE).round_()
    r = (x - k * LOG2_HIGH).sub_(k * LOG2_LOW)
    p = _horner(EXP_SERIES, r).mul_(r).mul_(r).add_(r)
    return _power_of_two(k), p


def _exp64(x: Tensor) -> Tensor:
    scale, p = _exp_parts(x)
    return p.add_(1.0).mul_(scale)


def _log_parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """`(k, f)` with `x = 2^k (1 + f)` and 1 + f between sqrt(1/2) and sqrt(2), for finite x > 0 (binary64, normal)."""
    bits = x.view(torch.int64)
    k = ((bits >> 52) & 0x7FF) - 1023
    m = ((bits & 0xFFFFFFFFFFFFF) | (1023 << 52)).view(torch.float64)
    large = m > 2 * SQRT_HALF
    return (k + large).double(), torch.where(large, m * 0.5, m).sub_(1.0)


def _log64(x: Tensor, correction: Tensor | None = None) -> Tensor:
    """log of positive finite x (binary64, normal), plus a small `correction`."""
    k, f = _log_parts(x)
    s = f / (f + 2.0)
    z = s * s
    half = f * f * 0.5
    rest = s * (half + z * _horner(LOG_SERIES, z))
    low = k * LOG2_LOW + rest
    if correction is not None:
        low = low + correction
    return k * LOG2_HIGH - ((half - low) - f)


def _log_domain(x: Tensor, result: Tensor, zero_at: float) -> Tensor:
    """Specials of a logarithm: -infinity at its pole `zero_at`, NaN below it, infinity at infinity."""
    result = torch.where(x == zero_at, -torch.inf, result)
    result = torch.where(x < zero_at, torch.nan, result)
    return torch.where((x != x) | (x == torch.inf), x, result)


def _exp(x: Tensor) -> Tensor:
    return _exp64(x.clamp(EXP_LEAST, EXP_GREATEST))


def _expm1(x: Tensor) -> Tensor:
    bounded = x.clamp(EXP_LEAST, EXP_GREATEST)
    scale, p = _exp_parts(bounded)
    result = (scale - 1.0).add_(p * scale)
    return torch.where(bounded == 0.0, x, result)  # keeps the sign of zero


def _log(x: Tensor) -> Tensor:
    positive = (x > 0.0) & (x < torch.inf)
    return _log_domain(x, _log64(torch.where(positive, x, 1.0)), 0.0)


def _log1p(x: Tensor) -> Tensor:
    positive = (x > -1.0) & (x < torch.inf)
    safe = torch.where(positive, x, 0.0)
    whole = safe + 1.0
    lost = torch.where(safe < 1.0, safe - (whole - 1.0), 1.0 - (whole - safe)) / whole
    result = torch.where(safe == 0.0, x, _log64(whole, lost))
    return _log_domain(x, result, -1.0)


def _tanh(x: Tensor) -> Tensor:
    doubled = _expm1(x.clamp(-20.0, 20.0) * 2.0)
    return doubled / (doubled + 2.0)


def _sigmoid(x: Tensor) -> Tensor:
    small = _exp64(x.abs().neg_().clamp_min(EXP_LEAST))
    result = torch.where(x < 0.0, small, 1.0) / (small + 1.0)
    return torch.where(x.abs() < SIGMOID_NEAR, x * SIGMOID_SLOPE + 0.5, result)


def _erf(x: Tensor) -> Tensor:
    size = x.abs()
    near = size.clamp_max(1.0)
    inner = _horner(ERF_SMALL, near * near * 2.0 - 1.0).mul_(x)
    far = size.clamp(1.0, _ERF_ONE)
    t = 1.0 / (far + 1.0)
    tail = _horner(ERF_LARGE, (t - 0.35) * ERF_STRETCH).mul_(t).mul_(_exp64(-(far * far)))
    outer = torch.where(size > _ERF_ONE, 1.0, 1.0 - tail)
    return torch.where(size <= 1.0, inner, torch.where(x < 0.0, -outer, torch.where(x == x, outer, x)))


def _rsqrt(x: Tensor) -> Tensor:
    """From the correctly rounded root y: 1 / sqrt(y^2 (1 + u)) = (1 - u / 2 + 3 u^2 / 8 - ...) / y with |u| < 2^-22."""
    root = x.sqrt().float().double()  # the same on every machine, as binary64 roots are not
    inverse = 1.0 / root
    u = (x - root * root) * inverse * inverse
    result = inverse - inverse * (u * (0.5 - 0.375 * u))
    return torch.where((x > 0.0) & (x < torch.inf), result, inverse)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "cos": compute_cos,
    "erf": _erf,
    "exp": _exp,
    "expm1": _expm1,
    "log": _log,
    "log1p": _log1p,
    "rsqrt": _rsqrt,
    "sigmoid": _sigmoid,
    "sin": compute_sin,
    "tanh": _tanh,
}

# Inputs whose binary64 value above rounds to the wrong neighbour, with the right one, as bits; found over all 2^32.
CORRECTIONS: dict[str, tuple[tuple[int, int], ...]] = {
    "cos": (
        (0x5922AA80, 0x3F08AEBF),
        (0x5F18B878, 0x3F7F14BB),
        (0x6115CB11, 0x3F78142F),
        (0xD922AA80, 0x3F08AEBF),
        (0xDF18B878, 0x3F7F14BB),
        (0xE115CB11, 0x3F78142F),
    ),
    "log": (
        (0x3C413D3A, 0xC08E158F),
        (0x41178FEB, 0x400FE5E7),
        (0x4C5D65A5, 0x418F034B),
        (0x65D890D3, 0x4254D1F9),
        (0x6F31A8EC, 0x42845A89),
    ),
    "log1p": (
        (0x35400003, 0x353FFFFF),
        (0x3710001B, 0x370FFFF3),
        (0x3EFD81AD, 0x3ECDEEE1),
        (0x41078FEB, 0x400FE5E7),
        (0x65D890D3, 0x4254D1F9),
        (0x6F31A8EC, 0x42845A89),
        (0xB53FFFFD, 0xB5400001),
        (0xB70FFFE5, 0xB710000D),
        (0xBB0EC8C4, 0xBB0EF0A5),
    ),
    "sin": (
        (0x46199998, 0xBEB1FA5D),
        (0xC6199998, 0x3EB1FA5D),
    ),
}


def _signed(bits: int) -> int:
    return bits if bits < 1 << 31 else bits - (1 << 32)


def evaluate(name: str, x: Tensor) -> Tensor:
    """Function `name` of every element of binary32 `x`, correctly rounded."""
    result = FUNCTIONS[name](x.double()).float()
    known = CORRECTIONS.get(name, ())
    if known:
        patterns = result.view(torch.int32)
        given = x.contiguous().view(torch.int32)
        for hard, right in known:
            patterns.masked_fill_(given == _signed(hard), _signed(right))
    return result


def square_root(x: Tensor) -> Tensor:
    """Binary32 square root, correctly rounded (rule N1).

    Vector libraries' roots, torch's on some processors among them, are wrong in the last place for some inputs, in
    binary32 and in binary64. By way of binary64 that does no harm: with x scaled to 1 <= x < 4 and m the midpoint of
    two binary32 numbers, x - m^2 is a nonzero multiple of 2^-48, so sqrt(x) is at least 2^-50, four units of binary64,
    from m.
    """
    return x.double().sqrt().float()


def power(base: Tensor, exponent: Tensor) -> Tensor:
    """`base ^ exponent` in binary32, as rule N2 defines it: `exp(exponent * log|base|)` in the binary64 steps above.

    `x^0` and `1^y` are 1; a negative base gives NaN unless the exponent is whole, and then the sign of its parity.
    """
    x, y = base.double(), exponent.double()
    size = x.abs()
    regular = (size > 0.0) & (size < torch.inf)
    logarithm = _log64(torch.where(regular, size, 1.0))
    logarithm = torch.where(regular, logarithm, torch.where(size == 0.0, -torch.inf, size))
    product = y * logarithm
    bounded = product.clamp(2 * EXP_LEAST, 2 * EXP_GREATEST)
    result = _exp64(bounded)
    whole = y.round() == y
    odd = whole & ((y * 0.5).round() != y * 0.5)
    negative = x.view(torch.int64) < 0
    result = torch.where(negative & odd, -result, result)
    result = torch.where((x < 0.0) & regular & ~whole, torch.nan, result)
    return torch.where((y == 0.0) | (x == 1.0), 1.0, result).float()

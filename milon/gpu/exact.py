"""Sums and products that have one right answer: every sum is a sum of integers (rules N3, N4 and N6 of the numerics).

A group of terms agrees on an exponent (from its largest magnitude), each term is rounded once to an integer on that
scale, the integers are added exactly, and the total is rounded once to binary32. The order of the additions cannot
matter. Integers are carried in binary64 as long as every partial sum stays within 2^53, then in int64, then in two
limbs; which of these is used never shows in the result.
"""

from __future__ import annotations

import torch
from torch import Tensor

SUM_BITS = 40  # rule N3: a term is an integer of at most this many bits
FLOAT64_BITS = 53  # integers up to 2^53 are exact in binary64, and so is any sum of them that stays there
INT64_BITS = 62  # one bit below the sign, so that a sum of two totals cannot wrap
SMALLEST = 2.0**-149  # the least positive binary32; a group of zeros takes its exponent
_EXPONENT_SHIFT = 52  # of binary64
_BIAS = 1023  # of binary64


def compute_scales(magnitude: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """For each group's largest magnitude `m` (binary32, not negative): `2^(bits - e)` and `2^(e - bits)`, binary64.

    `e` is the least integer with `m < 2^e`. Where `m` is infinite or NaN the second is NaN, which makes the group's
    result NaN whatever was added (rule N6).
    """
    wide = magnitude.double()
    exponent = wide.clamp_min(SMALLEST).view(torch.int64) >> _EXPONENT_SHIFT  # biased, so e = exponent - 1022
    back = (exponent + (1 - bits)) << _EXPONENT_SHIFT
    forth = (bits + 2 * _BIAS - 1 - exponent) << _EXPONENT_SHIFT
    return forth.view(torch.float64), back.view(torch.float64) + (wide - wide)


def find_greatest(values: Tensor, axes: list[int]) -> Tensor:
    """The greatest magnitude of each group, axes kept with size 1; 0 where a group is empty."""
    if values.numel():
        return values.abs().amax(axes, keepdim=True)
    return values.new_zeros([1 if axis in axes else size for axis, size in enumerate(values.shape)])


def round_to_integers(values: Tensor, scale: Tensor) -> Tensor:
    """`round_half_even(values * scale)` as binary64; exact before the rounding, for `scale` is a power of two."""
    return torch.mul(values, scale).round_() if values.dim() == 0 else values.double().mul_(scale).round_()


def integer_to_float64(total: Tensor) -> Tensor:
    """int64 as binary64, rounded to odd beyond 2^53, so that one further rounding to binary32 is the only one."""
    sticky = ((total >> 11) | ((total & 2047) != 0)).double() * 2048.0
    return torch.where(total.abs() <= 1 << FLOAT64_BITS, total.double(), sticky)


def limbs_to_float64(high: Tensor, low: Tensor) -> Tensor:
    """`high * 2^32 + low` (both int64, sums of limbs) as binary64, rounded to odd."""
    high = high + (low >> 32)
    low = low & 0xFFFFFFFF
    fits = high.abs() < 1 << 29
    whole = torch.where(fits, high, torch.zeros_like(high)) * (1 << 32) + low
    far = integer_to_float64((high << 1) | (low != 0)) * 2.0**31
    return torch.where(fits, integer_to_float64(whole), far)


def round_to_float32(total: Tensor, back: Tensor) -> Tensor:
    """Integer totals (binary64) on their scale, rounded once to binary32; a zero total is +0.0."""
    return total.add_(0.0).mul_(back).float()


def _sum_integers(integers: Tensor, axes: list[int], terms: int, bits: int) -> Tensor:
    """Exact sum of integers of at most `bits` bits, held in binary64, over `axes`; a binary64 rounded to odd."""
    if terms <= 1 << (FLOAT64_BITS - bits):
        return integers.sum(axes, keepdim=True)
    whole = integers.nan_to_num_(0.0, 0.0, 0.0).to(torch.int64)  # such groups become NaN by their scale
    if terms <= 1 << (INT64_BITS - bits):
        return integer_to_float64(whole.sum(axes, keepdim=True))
    high = (whole >> 32).sum(axes, keepdim=True)
    low = (whole & 0xFFFFFFFF).sum(axes, keepdim=True)
    return limbs_to_float64(high, low)


def exact_sum(values: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Rule N3: the sum of binary32 `values` over `axes`, one group per remaining element, rounded once."""
    if not axes:
        axes, keep, values = [values.dim()], False, values.unsqueeze(-1)
    terms = 1
    for axis in axes:
        terms *= values.shape[axis]
    forth, back = compute_scales(find_greatest(values, axes), SUM_BITS)
    total = _sum_integers(round_to_integers(values, forth), axes, terms, SUM_BITS)
    result = round_to_float32(total, back)
    return result if keep else result.squeeze(axes)


def exact_scatter_sum(values: Tensor, indices: Tensor, axis: int, size: int) -> Tensor:
    """Rule N3, a group per element of the result: the values along `axis` whose index names it; none gives +0.0."""
    shape = list(values.shape)
    shape[axis] = size
    patterns = torch.zeros(shape, dtype=torch.int32, device=values.device)  # as integers, NaN is above all others
    patterns.scatter_reduce_(axis, indices, values.abs().contiguous().view(torch.int32), "amax")
    forth, back = compute_scales(patterns.view(torch.float32), SUM_BITS)
    integers = round_to_integers(values, forth.gather(axis, indices))
    terms = values.shape[axis]
    if terms <= 1 << (FLOAT64_BITS - SUM_BITS):
        total = torch.zeros(shape, dtype=torch.float64, device=values.device).scatter_add_(axis, indices, integers)
        return round_to_float32(total, back)
    whole = integers.nan_to_num_(0.0, 0.0, 0.0).to(torch.int64)
    high = torch.zeros(shape, dtype=torch.int64, device=values.device).scatter_add_(axis, indices, whole >> 32)
    low = torch.zeros(shape, dtype=torch.int64, device=values.device).scatter_add_(axis, indices, whole & 0xFFFFFFFF)
    return round_to_float32(limbs_to_float64(high, low), back)


def quantize(values: Tensor, axis: int, bits: int) -> tuple[Tensor, Tensor]:
    """Rule N4, one operand: integers `|q| <= 2^bits` (binary64) with one exponent along `axis`, and `2^(e - bits)`.

    `axis` is the one the product sums over; the scale keeps it with size 1.
    """
    forth, back = compute_scales(find_greatest(values, [axis % values.dim()]), bits)
    return round_to_integers(values, forth), back


def product_of_integers(left: Tensor, right: Tensor, bits: int) -> Tensor:
    """Exact `left @ right` for integers of at most `bits` bits held in binary64; a binary64 rounded to odd."""
    inner = left.shape[-1]
    block = 1 << (FLOAT64_BITS - 2 * bits)
    if inner <= block:
        return torch.matmul(left, right)
    left = left.nan_to_num_(0.0, 0.0, 0.0)  # such rows become NaN by their scale
    right = right.nan_to_num_(0.0, 0.0, 0.0)
    parts = (
        torch.matmul(left[..., start : start + block], right[..., start : start + block, :]).to(torch.int64)
        for start in range(0, inner, block)
    )
    if inner <= 1 << (INT64_BITS - 2 * bits):
        total = next(parts)
        for part in parts:
            total += part
        return integer_to_float64(total)
    first = next(parts)
    high, low = first >> 32, first & 0xFFFFFFFF
    for part in parts:
        high += part >> 32
        low += part & 0xFFFFFFFF
    return limbs_to_float64(high, low)


def exact_matmul(left: Tensor, right: Tensor, bits: int) -> Tensor:
    """Rule N4: [..., rows, inner] times [..., inner, columns], binary32; `bits` is M."""
    left_integers, left_back = quantize(left, -1, bits)
    right_integers, right_back = quantize(right, -2, bits)
    total = product_of_integers(left_integers, right_integers, bits)
    return total.add_(0.0).mul_(left_back).mul_(right_back).float()


def canonical_nan(values: Tensor) -> Tensor:
    """Binary32 `values` with every NaN as 0x7FC00000 (rule N6)."""
    is_nan = torch.ne(values, values)
    if not bool(is_nan.any()):
        return values
    return values.masked_fill(is_nan, torch.nan)

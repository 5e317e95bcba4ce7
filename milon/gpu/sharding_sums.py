"""Sums, products and extremes that run over the rows of all shards: maxima first, then integers, then one rounding.

Each function takes the port and one part per shard held here, and gives the whole result on each of these shards.
The rules are N3, N4 and N7 of the numerics; `milon.gpu.exact` says the same for a tensor in one place.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from milon.gpu import exact
from milon.gpu.sharding_ports import Port, once

_MAGNITUDE = 0x7FFFFFFF  # the bits of a binary32 without its sign: ordered as the magnitudes are, NaN on top
_TOP = 1 << 40  # the key of NaN: above the key of every number
_LOW = 0xFFFFFFFF


def _to_patterns(magnitudes: Tensor) -> Tensor:
    return magnitudes.contiguous().view(torch.int32).to(torch.int64).bitwise_and_(_MAGNITUDE)


def _scales(patterns: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    return exact.compute_scales(patterns.to(torch.int32).view(torch.float32), bits)


def _to_integers(values: Tensor, patterns: Tensor, bits: int) -> Tensor:
    """Each value as an integer on its group's scale, in binary64; zeros in a group that holds NaN or infinity."""
    forth, back = _scales(patterns, bits)
    return torch.where(back.isnan(), 0.0, exact.round_to_integers(values, forth))


def _to_limbs(integers: Tensor, is_short: bool) -> Tensor:
    """int64 [1, ...], or [2, ...] with the upper and the lower 32 bits, which add up apart."""
    return integers.unsqueeze(0) if is_short else torch.stack((integers >> 32, integers & _LOW))


def _from_limbs(limbs: Tensor) -> Tensor:
    """The total as binary64, rounded to odd."""
    return exact.integer_to_float64(limbs[0]) if limbs.shape[0] == 1 else exact.limbs_to_float64(limbs[0], limbs[1])


def sum_together(port: Port, parts: list[Tensor], axes: list[int], keep: bool, terms: int) -> list[Tensor]:
    """Rule N3 over `axes`, of which one is split; `terms` is the number of a group's terms in all shards."""
    is_short = terms <= 1 << (exact.INT64_BITS - exact.SUM_BITS)
    greatest = port.maximum([_to_patterns(exact.find_greatest(part, axes)) for part in parts])
    limbs = []
    for part, patterns in zip(parts, greatest, strict=True):
        integers = _to_integers(part, patterns, exact.SUM_BITS).to(torch.int64)
        limbs.append(_to_limbs(integers, is_short).sum([axis + 1 for axis in axes], keepdim=True))

    def finish(total: Tensor, patterns: Tensor) -> Tensor:
        result = exact.round_to_float32(_from_limbs(total), _scales(patterns, exact.SUM_BITS)[1])
        return result if keep else result.squeeze(axes)

    return once(finish, port.total(limbs), greatest)


def count_together(port: Port, parts: list[Tensor], axes: list[int], keep: bool) -> list[Tensor]:
    """The sum of integers over `axes`, modulo 2^64."""
    return port.total([part.sum(axes, keepdim=keep) for part in parts])


def _multiply_limbs(left: Tensor, right: Tensor, bits: int, is_short: bool) -> Tensor:
    """The exact product of integers held in binary64, in blocks that binary64 bears, as limbs."""
    block = 1 << (exact.FLOAT64_BITS - 2 * bits)
    total: Tensor | None = None
    for start in range(0, left.shape[-1], block):
        product = torch.matmul(left[..., start : start + block], right[..., start : start + block, :])
        limbs = _to_limbs(product.to(torch.int64), is_short)
        total = limbs if total is None else total.add_(limbs)
    if total is None:
        raise RuntimeError("a shard without rows took part in a product")
    return total


def multiply_together(port: Port, lefts: list[Tensor], rights: list[Tensor], bits: int, inner: int) -> list[Tensor]:
    """Rule N4: [..., rows, inner] times [..., inner, columns] where every shard holds a part of the inner axis.

    `inner` is the size of that axis in all shards.
    """
    is_short = inner <= 1 << (exact.INT64_BITS - 2 * bits)
    rank = lefts[0].dim()
    shapes = (*lefts[0].shape[:-1], 1), (*rights[0].shape[:-2], 1, rights[0].shape[-1])
    marks = []
    for left, right in zip(lefts, rights, strict=True):
        both = exact.find_greatest(left, [rank - 1]), exact.find_greatest(right, [rank - 2])
        marks.append(torch.cat([_to_patterns(greatest).reshape(-1) for greatest in both]))

    def patterns_of(mark: Tensor) -> tuple[Tensor, Tensor]:
        rows = prod(shapes[0])
        return mark[:rows].reshape(shapes[0]), mark[rows:].reshape(shapes[1])

    greatest = port.maximum(marks)
    limbs = []
    for left, right, mark in zip(lefts, rights, greatest, strict=True):
        left_patterns, right_patterns = patterns_of(mark)
        integers = _to_integers(left, left_patterns, bits), _to_integers(right, right_patterns, bits)
        limbs.append(_multiply_limbs(*integers, bits, is_short))

    def finish(total: Tensor, mark: Tensor) -> Tensor:
        left_patterns, right_patterns = patterns_of(mark)
        scaled = _from_limbs(total).add_(0.0).mul_(_scales(left_patterns, bits)[1])
        return scaled.mul_(_scales(right_patterns, bits)[1]).float()

    return once(finish, port.total(limbs), greatest)


def scatter_together(
    port: Port, parts: list[Tensor], indices: list[Tensor], axis: int, size: int, terms: int
) -> list[Tensor]:
    """Rule N3 per element of the result, where the values and their indices are split along the scattered axis.

    `terms` is the size of that axis in all shards; `size` that of the result's.
    """
    is_short = terms <= 1 << (exact.INT64_BITS - exact.SUM_BITS)
    shape = list(parts[0].shape)
    shape[axis] = size
    marks = []
    for part, index in zip(parts, indices, strict=True):
        mark = torch.zeros(shape, dtype=torch.int64, device=part.device)
        marks.append(mark.scatter_reduce_(axis, index, _to_patterns(part.abs()), "amax"))
    greatest = port.maximum(marks)
    limbs = []
    for part, index, patterns in zip(parts, indices, greatest, strict=True):
        integers = _to_integers(part, patterns.gather(axis, index), exact.SUM_BITS).to(torch.int64)
        terms_of_part = _to_limbs(integers, is_short)
        total = torch.zeros((terms_of_part.shape[0], *shape), dtype=torch.int64, device=part.device)
        limbs.append(total.scatter_add_(axis + 1, index.expand_as(terms_of_part), terms_of_part))

    def finish(total: Tensor, patterns: Tensor) -> Tensor:
        return exact.round_to_float32(_from_limbs(total), _scales(patterns, exact.SUM_BITS)[1])

    return once(finish, port.total(limbs), greatest)


def extreme_together(port: Port, parts: list[Tensor], is_greatest: bool) -> list[Tensor]:
    """The greatest (or least) element by element of each shard's own extremes: NaN wins, +0.0 is above -0.0."""
    sign = 1 if is_greatest else -1
    if parts[0].dtype is torch.int64:
        turned = [part if is_greatest else ~part for part in parts]  # ~x = -1 - x turns the order without overflow
        found = port.maximum([part.clone() for part in turned])
        return once(lambda value: value if is_greatest else ~value, found)
    keys = []
    for part in parts:
        bits = part.contiguous().view(torch.int32).to(torch.int64)
        ordered = torch.where(bits >= 0, bits, -1 - (bits & _MAGNITUDE)) * sign
        keys.append(torch.where(part.isnan(), _TOP, ordered))

    def finish(key: Tensor) -> Tensor:
        ordered = torch.where(key == _TOP, 0, key) * sign
        bits = torch.where(ordered >= 0, ordered, (-1 - ordered) - (1 << 31))
        values = bits.to(torch.int32).view(torch.float32)
        return torch.where(key == _TOP, torch.nan, values)

    return once(finish, port.maximum(keys))

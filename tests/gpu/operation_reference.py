"""Every operation of the table said a second time, element by element, with exact fractions and plain loops.

Numbers are Python's: a binary32 number is the integer of its bits, an int64 an int, a truth value a bool.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from tests.gpu.numeric_reference import (
    CANONICAL_NAN,
    reference_dot,
    reference_sum,
    round_to_binary32,
    to_fraction,
)

SIGN, INFINITY = 1 << 31, 0x7F800000
Numbers = list[Any]
Attributes = tuple[tuple[int, ...], ...]


def numbers_of(tensor: Tensor) -> Numbers:
    """The elements in row-major order, every NaN as one."""
    flat = tensor.contiguous().reshape(-1)
    if tensor.dtype is not torch.float32:
        return flat.tolist()
    bits = [pattern & 0xFFFFFFFF for pattern in flat.view(torch.int32).tolist()]
    return [CANONICAL_NAN if is_nan(pattern) else pattern for pattern in bits]


def is_nan(bits: int) -> bool:
    """Whether binary32 bits are no number."""
    return bits & 0x7FFFFFFF > INFINITY


def is_infinite(bits: int) -> bool:
    """Whether binary32 bits are an infinity."""
    return bits & 0x7FFFFFFF == INFINITY


def is_zero(bits: int) -> bool:
    """Whether binary32 bits are a zero."""
    return not bits & 0x7FFFFFFF


def wrap(number: int) -> int:
    """Modulo 2^64, as int64."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def add(left: int, right: int) -> int:
    """One rounding; opposite infinities give NaN; an exact zero is +0 unless both are -0."""
    if is_nan(left) or is_nan(right) or (is_infinite(left) and is_infinite(right) and left != right):
        return CANONICAL_NAN
    if is_infinite(left) or is_infinite(right):
        return left if is_infinite(left) else right
    total = to_fraction(left) + to_fraction(right)
    return round_to_binary32(total) if total else (left & right & SIGN)


def multiply(left: int, right: int) -> int:
    """One rounding; infinity times zero gives NaN."""
    sign = (left ^ right) & SIGN
    if is_nan(left) or is_nan(right):
        return CANONICAL_NAN
    if (is_infinite(left) and is_zero(right)) or (is_zero(left) and is_infinite(right)):
        return CANONICAL_NAN
    if is_infinite(left) or is_infinite(right):
        return sign | INFINITY
    return sign | round_to_binary32(abs(to_fraction(left) * to_fraction(right)))


def divide(left: int, right: int) -> int:
    """One rounding; 0 / 0 and infinity / infinity give NaN, any other number over 0 an infinity."""
    sign = (left ^ right) & SIGN
    if is_nan(left) or is_nan(right) or (is_zero(left) and is_zero(right)):
        return CANONICAL_NAN
    if is_infinite(left):
        return CANONICAL_NAN if is_infinite(right) else sign | INFINITY
    if is_infinite(right) or is_zero(left):
        return sign
    if is_zero(right):
        return sign | INFINITY
    return sign | round_to_binary32(abs(to_fraction(left) / to_fraction(right)))


def root(bits: int) -> int:
    """One rounding of the exact root, found with integers."""
    if is_zero(bits) or bits == INFINITY:
        return bits
    if bits & SIGN or is_nan(bits):
        return CANONICAL_NAN
    scaled = to_fraction(bits) * 4**200
    whole = math.isqrt(int(scaled))
    return round_to_binary32(Fraction(2 * whole + (whole * whole != scaled), 2**201))


def value_of(bits: int) -> Any:
    """What comparisons of binary32 numbers go by."""
    return math.copysign(math.inf, -1 if bits & SIGN else 1) if is_infinite(bits) else to_fraction(bits)


def extreme(left: int, right: int, greatest: bool) -> int:
    """IEEE 754-2019 maximum or minimum: NaN wins, +0 is above -0."""
    if is_nan(left) or is_nan(right):
        return CANONICAL_NAN
    if is_zero(left) and is_zero(right):
        return left & right if greatest else left | right
    return left if (value_of(left) > value_of(right)) == greatest else right


def compare(name: str, left: int, right: int) -> bool:
    """False where either is NaN, except for `ne`."""
    if is_nan(left) or is_nan(right):
        return name == "ne"
    found: bool = getattr(operator, name)(value_of(left), value_of(right))
    return found


FLOAT_PAIRS: dict[str, Callable[[int, int], Any]] = {
    "add": add,
    "sub": lambda left, right: add(left, right if is_nan(right) else right ^ SIGN),
    "mul": multiply,
    "div": divide,
    "maximum": lambda left, right: extreme(left, right, True),
    "minimum": lambda left, right: extreme(left, right, False),
    **{
        name: lambda left, right, name=name: compare(name, left, right)
        for name in ("eq", "ne", "lt", "le", "gt", "ge")
    },
}
OTHER_PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    **{
        name: lambda left, right, name=name: wrap(getattr(operator, name)(left, right))
        for name in ("add", "sub", "mul")
    },
    **{name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "maximum": max,
    "minimum": min,
    "and": lambda left, right: left and right,
    "or": lambda left, right: left or right,
}


def cast(value: Any, source: torch.dtype, target: int) -> Any:
    """To binary32 with one rounding, to int64 by truncation and saturation, to a truth value by comparing with 0."""
    if source is torch.float32:
        if target == 0:
            return value
        if target == 2:
            return not is_zero(value)
        if is_nan(value):
            return 0
        bound = -(1 << 63) if value & SIGN else (1 << 63) - 1
        return bound if is_infinite(value) else max(-(1 << 63), min((1 << 63) - 1, int(to_fraction(value))))
    return (round_to_binary32(Fraction(int(value))), int(value), bool(value))[target]


def _groups(tensor: Tensor, axes: Sequence[int]) -> list[Numbers]:
    """The elements that each element of the result is made of."""
    kept = [axis for axis in range(tensor.dim()) if axis not in axes]
    order = [*kept, *axes]
    size = math.prod(tensor.shape[axis] for axis in axes)
    flat = numbers_of(tensor.permute(order))
    return [flat[start : start + size] for start in range(0, len(flat), size)]


def best_place(group: Numbers, is_float: bool) -> int:
    """The lowest index of the greatest; NaN is greatest."""
    if is_float:
        missing = [place for place, bits in enumerate(group) if is_nan(bits)]
        if missing:
            return missing[0]
        return max(range(len(group)), key=lambda place: (value_of(group[place]), -place))
    return max(range(len(group)), key=lambda place: (group[place], -place))


def reduce(name: str, tensor: Tensor, axes: Sequence[int]) -> Numbers:
    """sum, amax, amin or argmax over axes."""
    is_float = tensor.dtype is torch.float32
    found = []
    for group in _groups(tensor, axes):
        if name == "argmax":
            found.append(best_place(group, is_float))
        elif name == "sum":
            found.append(reference_sum(group) if is_float and axes else wrap(sum(group)))
        else:
            best = group[0]
            for other in group[1:]:
                pair = FLOAT_PAIRS if is_float else OTHER_PAIRS
                best = pair["maximum" if name == "amax" else "minimum"](best, other)
            found.append(best)
    return found


def places(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All places of a tensor in row-major order."""
    return itertools.product(*(range(size) for size in shape))


def scatter(values: Tensor, indices: Tensor, axis: int, size: int) -> Numbers:
    """For each element of the result, the values whose index names it, as one group of rule N3."""
    shape = [*values.shape[:axis], size, *values.shape[axis + 1 :]]
    groups: dict[tuple[int, ...], Numbers] = {place: [] for place in places(shape)}
    for place, number in zip(places(values.shape), numbers_of(values), strict=True):
        groups[(*place[:axis], int(indices[place]), *place[axis + 1 :])].append(number)
    return [reference_sum(group) for group in groups.values()]


def windows(image: Sequence[int], kernel: Sequence[int], at: Attributes, outer: Sequence[int]) -> Iterator[Any]:
    """(row, column) of the result, place in the kernel, and the pixel it falls on, or None outside."""
    stride, padding, dilation = at[:3]
    for row, column, down, across in places((*outer, *kernel)):
        y = row * stride[0] - padding[0] + down * dilation[0]
        x = column * stride[1] - padding[1] + across * dilation[1]
        inside = 0 <= y < image[0] and 0 <= x < image[1]
        yield (row, column), (down, across), (y, x) if inside else None


def dot(left: Numbers, right: Numbers, bits: int) -> int:
    """Rule N4 for one row and one column."""
    return reference_dot(left, right, bits)

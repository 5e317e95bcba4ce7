"""Numbers as a dispute handles them: integers that hold the bits, the integers of rules N3 and N4, and one rounding.

A binary32 number is the unsigned integer of its bits, every NaN being 0x7FC00000; an int64 is itself; a truth value is
0 or 1. Many at once are a numpy array of int64. Nothing here rounds but where the numerics say so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from milon.pol.shapes import DType

Numbers = Any  # a numpy array of int64, one number each

MAGNITUDE = 0x7FFFFFFF  # the bits of a binary32 number without its sign
INFINITY = 0x7F800000  # magnitudes from here on are no finite numbers
NAN = 0x7FC00000
NUMPY_DTYPES: dict[DType, np.dtype[Any]] = {
    DType.FLOAT32: np.dtype("<u4"),
    DType.INT64: np.dtype("<i8"),
    DType.BOOL: np.dtype("u1"),
}
WORD = 1 << 64  # int64 wraps at this


def tensor_bytes(value: Tensor) -> memoryview:
    """The elements in row-major order, little-endian, every NaN as 0x7FC00000."""
    flat = value.detach().cpu().contiguous().reshape(-1)
    if flat.dtype is torch.float32:
        bits = flat.view(torch.int32)
        is_nan = flat != flat
        flat = bits.masked_fill(is_nan, NAN) if bool(is_nan.any()) else bits
    return flat.numpy().data.cast("B")


def read_raw(raw: bytes | memoryview, dtype: DType) -> Numbers:
    """The numbers in `raw`, elements of type `dtype`."""
    return np.frombuffer(raw, NUMPY_DTYPES[dtype]).astype(np.int64)


def pick(value: Tensor, elements: Numbers) -> Numbers:
    """The numbers of some elements of a tensor, by their places in row-major order; copies nothing else."""
    held = value.detach().cpu()
    held = held.reshape(1) if held.dim() == 0 else held
    bits = held.view(torch.int32) if held.dtype is torch.float32 else held
    found = bits.numpy()[np.unravel_index(elements, tuple(held.shape))].astype(np.int64)
    if held.dtype is not torch.float32:
        return found
    found &= 0xFFFFFFFF
    found[(found & MAGNITUDE) > INFINITY] = NAN
    return found


def to_tensor(number: int, dtype: DType) -> Tensor:
    """One number as a tensor of one element."""
    if dtype is DType.FLOAT32:
        return torch.tensor([wrap(number, 32)], dtype=torch.int32).view(torch.float32)
    return torch.tensor([number], dtype=torch.int64 if dtype is DType.INT64 else torch.bool)


def from_tensor(value: Tensor) -> int:
    """The number in a tensor of one element."""
    return int(pick(value.reshape(1), np.zeros(1, np.int64))[0])


def wrap(number: int, bits: int = 64) -> int:
    """The signed integer of so many bits that equals `number` modulo 2^bits."""
    half = 1 << (bits - 1)
    return (number + half) % (1 << bits) - half


def compute_exponent(magnitude: int) -> int:
    """The least e with m < 2^e, m the finite number with these bits; zero counts as the smallest number above it."""
    held = max(magnitude, 1)
    biased = held >> 23
    return biased - 126 if biased else held.bit_length() - 149


def quantize(numbers: Numbers, magnitude: int, bits: int) -> Numbers:
    """`round_half_even(x * 2^(bits - e))` of finite binary32 numbers none of which is above `magnitude`."""
    wide = numbers.astype(np.uint32).view(np.float32).astype(np.float64)
    return np.rint(np.ldexp(wide, bits - compute_exponent(magnitude))).astype(np.int64)


def round_to_binary32(total: int, exponent: int) -> int:
    """Bits of the binary32 number nearest to `total * 2^exponent`, ties to even; a zero total gives +0.0."""
    if total == 0:
        return 0
    sign, size = (1 << 31 if total < 0 else 0), abs(total)
    unit = max(size.bit_length() + exponent - 24, -149)  # the last place of the result is worth 2^unit
    shift = unit - exponent
    whole = size << -shift if shift <= 0 else size >> shift
    if shift > 0:
        rest, half = size - (whole << shift), 1 << (shift - 1)
        whole += rest > half or (rest == half and whole & 1 == 1)
    if whole == 1 << 24:
        whole, unit = whole >> 1, unit + 1
    if whole < 1 << 23:
        return sign | whole
    return sign | (INFINITY if unit + 150 >= 255 else ((unit + 150) << 23) + whole - (1 << 23))


def order_floats(numbers: Numbers, is_zero_signed: bool) -> Numbers:
    """Integers in the order of binary32 numbers, NaN above all; -0 is below +0 only where zeros have signs."""
    is_negative = numbers >> 31 == 1
    sizes = numbers & MAGNITUDE
    below = -sizes - 1 if is_zero_signed else -sizes
    return np.where(sizes > INFINITY, NAN, np.where(is_negative, below, sizes))


def add_exactly(numbers: Numbers) -> int:
    """The exact sum of int64 numbers."""
    return (int((numbers >> 32).sum()) << 32) + int((numbers & 0xFFFFFFFF).sum())

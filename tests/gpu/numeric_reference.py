"""The rules N3 and N4 said a second time, slowly, with unbounded integers and fractions: what tests compare to."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction

CANONICAL_NAN = 0x7FC00000


def to_bits(number: float) -> int:
    """Bits of a Python float that is exactly a binary32 number."""
    return int.from_bytes(struct.pack("<f", number), "little")


def is_special(bits: int) -> bool:
    """Whether the bits are an infinity or NaN."""
    return bits & 0x7F800000 == 0x7F800000


def to_fraction(bits: int) -> Fraction:
    """The finite binary32 number with these bits."""
    mantissa, biased = bits & 0x7FFFFF, (bits >> 23) & 0xFF
    size = (
        Fraction(mantissa, 1 << 149) if biased == 0 else Fraction(mantissa + (1 << 23)) * Fraction(2) ** (biased - 150)
    )
    return -size if bits >> 31 else size


def round_half_even(number: Fraction) -> int:
    """The nearest integer, ties to the even one."""
    return round(number)


def exponent_of(size: Fraction) -> int:
    """The least e with size < 2^e, for size > 0."""
    e = size.numerator.bit_length() - size.denominator.bit_length()
    while size >= Fraction(2) ** e:
        e += 1
    while size < Fraction(2) ** (e - 1):
        e -= 1
    return e


def round_to_binary32(number: Fraction) -> int:
    """Bits of the nearest binary32 number, ties to even; a nonzero number keeps its sign when it rounds to zero."""
    if number == 0:
        return 0
    sign = 0x80000000 if number < 0 else 0
    size = abs(number)
    unit = max(exponent_of(size) - 24, -149)
    whole = round_half_even(size / Fraction(2) ** unit)
    if whole == 1 << 24:
        whole, unit = 1 << 23, unit + 1
    if whole < 1 << 23:
        return sign | whole
    return sign | (0x7F800000 if unit + 150 >= 255 else ((unit + 150) << 23) + whole - (1 << 23))


def integers_of(group: Sequence[int], bits: int) -> tuple[list[int], int] | None:
    """Terms of a group (binary32 bits) as integers, and the exponent of their unit; None for a group with specials."""
    if any(is_special(term) for term in group):
        return None
    numbers = [to_fraction(term) for term in group]
    largest = max((abs(number) for number in numbers), default=Fraction(0))
    if largest == 0:
        return [0] * len(group), 0
    unit = exponent_of(largest) - bits
    return [round_half_even(number / Fraction(2) ** unit) for number in numbers], unit


def reference_sum(group: Sequence[int]) -> int:
    """Rule N3, bits in and out."""
    found = integers_of(group, 40)
    if found is None:
        return CANONICAL_NAN
    return round_to_binary32(sum(found[0]) * Fraction(2) ** found[1])


def reference_dot(left: Sequence[int], right: Sequence[int], bits: int) -> int:
    """Rule N4 for one row and one column, bits in and out."""
    one, other = integers_of(left, bits), integers_of(right, bits)
    if one is None or other is None:
        return CANONICAL_NAN
    total = sum(a * b for a, b in zip(one[0], other[0], strict=True))
    return round_to_binary32(total * Fraction(2) ** (one[1] + other[1]))

"""Evaluation: one rounding of an exact mean, and all rows covered."""

import struct
from fractions import Fraction

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milon.base.errors import Rejected
from milon.gpu.evaluate import compute_float32_bits, compute_mean_loss, verify_coverage


def _bits(value: float) -> int:
    return int.from_bytes(struct.pack(">f", value), "big")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_binary64_numbers_round_as_the_hardware_rounds(value: float) -> None:
    with numpy.errstate(over="ignore"):
        expected = int(numpy.float32(value).view(numpy.uint32))
    found = compute_float32_bits(Fraction(value))
    assert found == (0 if value == 0 else expected)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_binary32_numbers_stay(value: float) -> None:
    assert compute_float32_bits(Fraction(value)) == (_bits(value) if value else 0)


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (Fraction(1, 3), 0x3EAAAAAB),
        (1 + Fraction(1, 1 << 24), 0x3F800000),  # a tie, to even
        (1 + Fraction(3, 1 << 24), 0x3F800002),  # a tie, to even
        (1 + Fraction(1, 1 << 24) + Fraction(1, 1 << 200), 0x3F800001),  # no binary64 knows this from a tie
        (Fraction(2) ** -150, 0x00000000),
        (Fraction(2) ** -150 + Fraction(1, 1 << 400), 0x00000001),
        (-(Fraction(2) ** -149), 0x80000001),
        (Fraction(2) ** 128, 0x7F800000),
        (Fraction(2) ** 128 - 1, 0x7F800000),
        ((2 - Fraction(2) ** -23) * 2**127, 0x7F7FFFFF),
        (Fraction(2) ** -126 - Fraction(1, 1 << 151), 0x00800000),  # a carry out of the subnormals
    ],
)
def test_hard_roundings(value: Fraction, bits: int) -> None:
    assert compute_float32_bits(value) == bits


def test_the_mean_is_weighted_by_rows_and_rounded_once() -> None:
    third = 0.3333333432674408  # the binary32 nearest to 1/3
    assert compute_mean_loss([(third, 3), (1.0, 1)]) == _bits(float((Fraction(third) * 3 + 1) / 4))
    assert compute_mean_loss([(1e30, 1), (1.0, 1), (-1e30, 1)]) == _bits(float(Fraction(1, 3)))


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_is_not_a_number(loss: float) -> None:
    assert compute_mean_loss([(1.0, 4), (loss, 1)]) == 0x7FC00000


@pytest.mark.parametrize("sizes", [(), (4,), (11,), (4, 3), (4, 2, 1), (0,)])
def test_rows_left_out_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(Rejected):
        verify_coverage(sizes, 10)


@pytest.mark.parametrize("sizes", [(10,), (5,), (4, 2), (9, 1)])
def test_rows_covered_pass(sizes: tuple[int, ...]) -> None:
    verify_coverage(sizes, 10)

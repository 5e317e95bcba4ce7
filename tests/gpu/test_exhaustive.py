"""The count of misrounded results over all inputs, on a sample; and that it would see a miss."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath
import pytest
import torch
from torch import Tensor

from bench.exhaustive import INPUTS, ORDER, WAYS, Row, look, make_judge, make_reference
from milon.gpu.elementary import CORRECTIONS, FUNCTIONS

STRIDE = 524_287  # a prime: 8,193 inputs, spread over all exponents and signs


@pytest.fixture(autouse=True)
def _sixty_digits() -> Iterator[None]:
    with mpmath.workdps(60):
        yield


def test_every_function_of_one_argument_is_in_the_campaign() -> None:
    assert set(ORDER) == {*FUNCTIONS, "sqrt"}


@pytest.mark.parametrize("name", ORDER)
def test_both_ways_give_the_same_and_nothing_is_misrounded(name: str) -> None:
    judge = make_judge(name)
    rows = [Row(name, way) for way in WAYS]
    for row in rows:
        look(row, WAYS[row.way](name), judge, 0, INPUTS, STRIDE)
        assert (row.misses, row.reference_misses, row.inputs) == ([], 0, 8193)
        for hard, _ in CORRECTIONS.get(name, ()):  # found over all inputs, and put right since
            look(row, WAYS[row.way](name), judge, hard, hard + 1, 1)
        assert (row.misses, row.reference_misses) == ([], 0)
    assert rows[0].digest == rows[1].digest


def test_a_miss_is_found_and_told_with_the_right_result() -> None:
    """A function that is wrong in the last place for one input only."""
    wrong = 0x3F800123

    def run(x: Tensor) -> Tensor:
        bits = make_reference("exp")(x).view(torch.int32)
        return torch.where(x.view(torch.int32) == wrong, bits + 1, bits).view(torch.float32)

    row = Row("exp", "reference")
    look(row, run, make_judge("exp"), wrong - 50, wrong + 50, 1)
    right = int(make_reference("exp")(torch.tensor([wrong]).to(torch.int32).view(torch.float32)).view(torch.int32))
    assert row.misses == [(wrong, right)] and row.hard >= 1


def test_a_hard_case_is_decided_with_sixty_digits() -> None:
    """exp(2^-24) lies 2^-49 above the midpoint of 1 and its neighbour."""
    row = Row("exp", "reference")
    look(row, make_reference("exp"), make_judge("exp"), 0x33800000, 0x33800001, 1)
    assert (row.inputs, row.hard, row.misses) == (1, 1, [])


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("sign", [0, 0x80000000])
def test_sigmoid_takes_the_right_side_of_midpoints(way: str, sign: int) -> None:
    """Near 0 every x/4 + 1/2 of these is, or lies next to, the midpoint of two results; x^3/48 is lost in binary64."""
    row = Row("sigmoid", way)
    look(row, WAYS[way]("sigmoid"), make_judge("sigmoid"), sign + 0x33800000, sign + 0x38800000, 1 << 16)
    assert (row.misses, row.reference_misses) == ([], 0) and row.hard > 100

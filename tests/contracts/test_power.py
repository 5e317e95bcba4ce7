"""The cap on a member's power, against its meaning in plain fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milon.chain.genesis import SUPPLY_MAX
from milon.contracts.power import cap_powers, is_cap_possible

THIRD = 333_332

STAKES = st.lists(st.integers(1, 50) | st.integers(1, SUPPLY_MAX // 64), min_size=1, max_size=24).map(
    lambda stakes: sorted(stakes, reverse=True)
)
CAPS = st.sampled_from([1, 50_000, 99_999, 250_000, THIRD, 500_000, 999_999, 1_000_000])


@pytest.mark.parametrize(
    ("stakes", "cap_ppm", "expected"),
    [
        ([10, 10, 10, 10], THIRD, (10, 10, 10, 10)),
        ([1_000, 1, 1], THIRD, (1_000, 1, 1)),
        ([1_000, 1, 1, 1], THIRD, (1, 1, 1, 1)),
        ([900, 30, 30, 30], THIRD, (44, 30, 30, 30)),
        ([900, 900, 30, 30], THIRD, (59, 59, 30, 30)),
        ([900, 800, 700, 30], 250_000, (30, 30, 30, 30)),
        ([5], 1_000_000, (5,)),
    ],
)
def test_the_largest_are_cut_to_one_power(stakes: list[int], cap_ppm: int, expected: tuple[int, ...]) -> None:
    assert cap_powers(stakes, cap_ppm) == expected


def test_three_cannot_have_less_than_a_third_each() -> None:
    assert [is_cap_possible(count, THIRD) for count in (1, 3, 4, 100)] == [False, False, True, True]
    assert is_cap_possible(2, 500_000) and not is_cap_possible(2, 499_999)


@settings(max_examples=300, deadline=None)
@given(stakes=STAKES, cap_ppm=CAPS)
def test_no_member_is_above_the_cap_and_nobody_is_cut_for_nothing(stakes: list[int], cap_ppm: int) -> None:
    powers = cap_powers(stakes, cap_ppm)
    cap = Fraction(cap_ppm, 1_000_000)
    if len(stakes) * cap < 1:
        assert powers == tuple(stakes)
        return
    total = sum(powers)
    assert all(1 <= power <= cap * total for power in powers)
    assert all(power <= stake for power, stake in zip(powers, stakes, strict=True))
    assert list(powers) == sorted(powers, reverse=True)
    cut = [power for power, stake in zip(powers, stakes, strict=True) if power < stake]
    assert len(set(cut)) <= 1, "one power for all that are cut"
    if cut:
        one_more = [power + (power < stake) for power, stake in zip(powers, stakes, strict=True)]
        assert max(one_more) > cap * sum(one_more), "the most that the cap allows"

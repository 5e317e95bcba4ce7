"""The integer rules by themselves: exact at their bounds, whatever the number of rows."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milon.gpu.aggregate_rules import (
    BLOCK_COLUMNS,
    BOUND,
    EXACT_BLOCKS,
    NETWORK_ROWS_MAX,
    Comparison,
    Gram,
    add_once_rounded,
    compute_lower_median,
    compute_median_twice,
    compute_trimmed_sum,
    compute_weighted_sum,
    divide_half_even,
    sort_columns,
)
from milon.pol.gram import compute_squared_distances
from tests.gpu.aggregate_reference import median, repeat, round_to_binary32

torch.set_num_threads(1)


def scattered(rows: int, columns: int) -> torch.Tensor:
    """Integers all over [-BOUND, BOUND], both ends among them."""
    numbers = torch.arange(rows * columns, dtype=torch.int64).reshape(rows, columns)
    block = (numbers * 7919 + numbers * numbers * 31) % (2 * BOUND + 1) - BOUND
    block[0, 0], block[-1, 0] = BOUND, -BOUND
    return block


@pytest.mark.parametrize("rows", [1, 2, 3, 5, NETWORK_ROWS_MAX, NETWORK_ROWS_MAX + 1])
def test_columns_are_sorted_with_their_weights(rows: int) -> None:
    block = scattered(rows, 50)
    weights = [1 + (index * 5) % 7 for index in range(rows)]
    values, reached = sort_columns(block, weights)
    assert values.equal(block.sort(dim=0).values)
    for column in range(50):
        order = sorted(range(rows), key=lambda row: (int(block[row, column]), row))
        total = 0
        for place, row in enumerate(order):
            total += weights[row]
            assert reached[place, column] == total


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-BOUND, BOUND), st.integers(1, 5)), min_size=1, max_size=20), st.data())
def test_rules_on_one_column(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    values, weights = [value for value, _ in rows], [weight for _, weight in rows]
    block = torch.tensor(values).unsqueeze(1)
    written_out = sorted(repeat(values, weights))
    assert Fraction(int(compute_median_twice(block, weights)), 2) == median(written_out)
    trimmed = data.draw(st.integers(0, (len(written_out) - 1) // 2))
    kept = written_out[trimmed : len(written_out) - trimmed]
    assert int(compute_trimmed_sum(block, weights, trimmed)) == sum(kept)
    assert int(compute_weighted_sum(block, weights)) == sum(written_out)
    assert int(compute_lower_median(block, weights)) == written_out[(len(written_out) - 1) // 2]


def test_the_gram_matrix_is_exact_at_its_bound() -> None:
    """All entries at the bound, more blocks than one int64 part holds."""
    gram = Gram(2)
    block = torch.full((2, BLOCK_COLUMNS), BOUND)
    block[1] = -BOUND
    blocks = EXACT_BLOCKS + 3
    for _ in range(3):
        gram.add(block)
    small = block[:, :1]
    for _ in range(blocks - 3):
        gram.add(small)
    columns = 3 * BLOCK_COLUMNS + blocks - 3
    expected = (2 * BOUND) ** 2 * columns
    assert compute_squared_distances(gram.compute_products()) == [[0, expected], [expected, 0]]


def test_comparison_with_the_median_is_exact_at_its_bound() -> None:
    block = torch.full((3, BLOCK_COLUMNS), BOUND)
    block[2] = -BOUND
    stand = Comparison([1, 1, 1])
    stand.add(block)
    stand.add(block[:, :1])
    once, columns = 4 * BOUND**2, BLOCK_COLUMNS + 1
    assert stand.squared_distances == [0, 0, 4 * once * columns]
    assert stand.inner_products == [once * columns, once * columns, -once * columns]
    assert stand.squared_norms == [once * columns] * 3
    assert stand.median_squared_norm == once * columns


@settings(max_examples=100, deadline=None)
@given(st.integers(-(2**58), 2**58), st.integers(1, 2**31 - 1))
def test_division_rounds_half_to_even(numerator: int, denominator: int) -> None:
    expected = round(Fraction(numerator, denominator))
    assert int(divide_half_even(torch.tensor([numerator]), denominator)) == expected


def test_division_ties() -> None:
    assert divide_half_even(torch.tensor([-5, -3, -1, 1, 3, 5]), 2).tolist() == [-2, -2, 0, 0, 2, 2]


@settings(max_examples=300, deadline=None)
@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.integers(-(2**53), 2**53) | st.integers(-9, 9),
    st.integers(-190, 70),
)
def test_the_sum_is_rounded_once(base: float, grid: int, exponent: int) -> None:
    expected = round_to_binary32(Fraction(base) + grid * Fraction(2) ** exponent)
    found = add_once_rounded(torch.tensor([base]), torch.tensor([grid]), exponent)
    assert found.view(torch.int32).equal(torch.tensor([expected]).view(torch.int32))


def test_a_sum_that_two_roundings_would_get_wrong() -> None:
    """1 + 2^-24 + 2^-60: binary64 drops the last term, and the tie then goes to even, downwards."""
    grid, exponent = (1 << 36) + 1, -60
    assert (1.0 + grid * 2.0**exponent) == 1.0 + 2.0**-24
    assert add_once_rounded(torch.tensor([1.0]), torch.tensor([grid]), exponent).item() == 1.0 + 2.0**-23


def test_counters_of_any_size() -> None:
    values = torch.tensor([[2**62, 1], [-(2**62), 0], [5, 1]])
    assert compute_lower_median(values, [1, 1, 1]).tolist() == [5, 1]
    assert compute_lower_median(torch.tensor([[True], [False], [True]]), [1, 1, 1]).tolist() == [True]

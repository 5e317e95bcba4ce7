"""Rules and preparations on inner products: by hand, and against fractions."""

from __future__ import annotations

from fractions import Fraction
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.ids import AccountId
from milon.pol.gram import (
    FACTOR_BITS,
    MIXTURE_BITS,
    RESULT_BITS,
    Coefficients,
    Rows,
    apply_arc,
    apply_bucketing,
    apply_clip,
    apply_nnm,
    apply_rule,
    compute_row_gram,
    compute_squared_distances,
    make_rows,
    needs_gram,
    prepare_rows,
    spread_over_updates,
)
from milon.pol.pipeline import parse_pipeline

Points = list[tuple[int, int]]
ONE = 1 << FACTOR_BITS


def gram_of(points: Points) -> list[list[int]]:
    return [[a * c + b * d for c, d in points] for a, b in points]


def place(points: Points, taken: tuple[int, ...], whole: int) -> tuple[Fraction, Fraction]:
    """The point that coefficients come to."""
    pairs = list(zip(points, taken, strict=True))
    return Fraction(sum(x * t for (x, _), t in pairs), whole), Fraction(sum(y * t for (_, y), t in pairs), whole)


def run(points: Points, text: str, faulty_count: int, weights: list[int] | None = None) -> tuple[float, float]:
    """Where a pipeline puts the result."""
    pipeline, weights = parse_pipeline(text), weights or [1] * len(points)
    gram, accounts = gram_of(points), [AccountId(bytes([index]) * 32) for index in range(len(points))]
    rows = prepare_rows(pipeline, gram, weights, accounts, faulty_count, b"seed")
    chosen = spread_over_updates(rows, apply_rule(pipeline, rows, gram, faulty_count))
    x, y = place(points, chosen.taken, chosen.whole)
    return float(x), float(y)


def test_clip_shortens_to_the_median_length() -> None:
    points = [(3, 4), (6, 8), (0, 30)]
    rows = apply_clip(make_rows([1, 1, 1]), gram_of(points), 1_000)
    assert rows.denominator == ONE and not rows.is_plain
    assert [rows.numerators[i][i] for i in range(3)] == [ONE, ONE, ONE // 3]
    half = apply_clip(make_rows([1, 1, 1]), gram_of(points), 500)
    assert [half.numerators[i][i] * ONE // half.denominator for i in range(3)] == [ONE, ONE // 2, ONE // 6]


def test_arc_clips_the_longest_to_the_next() -> None:
    """n = 5, f = 1: the floor(2 * 1 * 4 / 5) = 1 longest gets the length of the second."""
    points = [(1, 0), (2, 0), (3, 0), (0, 4), (0, 64)]
    rows = apply_arc(make_rows([1] * 5), gram_of(points), 1)
    assert (rows.denominator, [rows.numerators[i][i] for i in range(5)]) == (16, [16, 16, 16, 16, 1])
    none = apply_arc(make_rows([1] * 5), gram_of(points), 0)
    assert none.denominator == 1


def test_nnm_takes_itself_and_its_nearest() -> None:
    points = [(0, 0), (1, 0), (3, 0), (100, 0)]
    rows = apply_nnm(make_rows([1] * 4), gram_of(points), 1)
    assert rows.denominator == 3
    assert rows.numerators == ((1, 1, 1, 0), (1, 1, 1, 0), (1, 1, 1, 0), (0, 1, 1, 1))
    weighted = apply_nnm(make_rows([2, 1, 1, 1]), gram_of(points), 2)
    assert (weighted.denominator, weighted.numerators[0]) == (3, (2, 1, 0, 0))
    assert weighted.numerators[2] == (1, 1, 1, 0)


def test_buckets_are_means_and_depend_on_the_seed_alone() -> None:
    accounts = [AccountId(bytes([index]) * 32) for index in range(7)]
    weights = [1, 2, 3, 4, 5, 6, 7]
    rows = apply_bucketing(make_rows(weights), accounts, b"one", 2)
    assert len(rows.weights) == 4 and sum(rows.weights) == sum(weights)
    for row, weight in zip(rows.numerators, rows.weights, strict=True):
        assert sum(row) == rows.denominator
        assert sum(weights[i] for i, value in enumerate(row) if value) == weight
    assert apply_bucketing(make_rows(weights), accounts, b"one", 2) == rows
    assert apply_bucketing(make_rows(weights), accounts, b"two", 2) != rows


def test_mixtures_stay_within_their_bits() -> None:
    """Buckets of large coprime weights have no common denominator that fits."""
    accounts = [AccountId(bytes([index]) * 32) for index in range(6)]
    weights = [1_000_003, 998_244_353 % 900_001, 999_983, 777_777, 654_321, 65_537]
    rows = apply_bucketing(make_rows(weights), accounts, b"", 2)
    assert rows.denominator <= 1 << MIXTURE_BITS
    assert all(abs(sum(row) - rows.denominator) <= 2 for row in rows.numerators)
    chosen = spread_over_updates(rows, Coefficients(rows.weights, sum(rows.weights), 0, ()))
    assert sum(chosen.taken) <= (1 << RESULT_BITS) + 8
    expected = [Fraction(weight, sum(weights)) for weight in weights]
    for taken, share in zip(chosen.taken, expected, strict=True):
        assert abs(Fraction(taken, chosen.whole) - share) < Fraction(1, 10**8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-99, 99), st.integers(-99, 99)), min_size=4, max_size=7))
def test_the_gram_of_mixed_rows_is_that_of_their_points(points: Points) -> None:
    rows = apply_nnm(apply_arc(make_rows([1] * len(points)), gram_of(points), 1), gram_of(points), 1)
    mixed = [place(points, row, 1) for row in rows.numerators]
    found = compute_row_gram(rows, gram_of(points))
    assert found == [[a * c + b * d for c, d in mixed] for a, b in mixed]
    squared = compute_squared_distances(found)
    assert all(squared[i][j] >= 0 and squared[i][j] == squared[j][i] for i in range(len(mixed)) for j in range(i + 1))


def test_the_geometric_median_of_a_square_and_of_a_line() -> None:
    x, y = run([(0, 0), (1_000, 0), (1_000, 1_000), (0, 1_000)], "geometric-median", 1)
    assert (x, y) == pytest.approx((500, 500), abs=1e-3)
    x, y = run([(0, 0), (10, 0), (1_000_000, 0)], "geometric-median", 1)
    assert (x, y) == pytest.approx((10, 0), abs=0.5)


def test_the_geometric_median_beside_a_plain_one() -> None:
    points = [(0, 0), (700, 30), (-250, 900), (410, -380), (90_000, 5)]
    x = y = 0.0
    for _ in range(2_000):
        far = [1 / max(1e-9, sqrt((x - a) ** 2 + (y - b) ** 2)) for a, b in points]
        x = sum(a * f for (a, _), f in zip(points, far, strict=True)) / sum(far)
        y = sum(b * f for (_, b), f in zip(points, far, strict=True)) / sum(far)
    assert run(points, "geometric-median", 1) == pytest.approx((x, y), abs=0.01)


def test_centered_clipping_walks_three_clipped_steps() -> None:
    points = [(0, 0), (30, 40), (60, 0), (0, 6_000)]
    x = y = 0.0
    for _ in range(3):
        far = [sqrt((a - x) ** 2 + (b - y) ** 2) for a, b in points]
        limit = sorted(far)[1]
        share = [min(1.0, limit / value) if value else 1.0 for value in far]
        step_x = sum((a - x) * s for (a, _), s in zip(points, share, strict=True)) / 4
        y += sum((b - y) * s for (_, b), s in zip(points, share, strict=True)) / 4
        x += step_x
    assert run(points, "centered-clipping", 1) == pytest.approx((x, y), abs=0.02)


def test_selecting_rules_leave_the_far_one_out() -> None:
    points = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 2), (500, 500), (2, 1)]
    for text in ("krum", "multi-krum", "ctma", "bulyan", "nnm,krum"):
        x, y = run(points, text, 1)
        assert max(x, y) < 3


def test_who_needs_inner_products() -> None:
    assert not needs_gram(parse_pipeline("median"))
    assert not needs_gram(parse_pipeline("bucketing,trimmed-mean,adam"))
    assert needs_gram(parse_pipeline("arc,median"))
    assert needs_gram(parse_pipeline("geometric-median"))


def test_equal_points_need_no_distance() -> None:
    points = [(7, -7)] * 5
    for text in ("krum", "geometric-median", "centered-clipping", "arc,nnm,ctma", "clip,multi-krum"):
        if text != "centered-clipping":
            assert run(points, text, 1) == (7.0, -7.0)
        else:
            assert run(points, text, 1) == pytest.approx((7, -7), abs=1e-6)


def test_rows_start_as_the_updates() -> None:
    assert make_rows([3, 1]) == Rows(((1, 0), (0, 1)), 1, (3, 1), True)

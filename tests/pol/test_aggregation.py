"""Decisions of the aggregation on integers: tolerance, caps, the screen, Krum."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Digest
from milon.pol.aggregation import (
    PERCENT_MAX,
    STEPS_MAX,
    UPDATES_MAX,
    Record,
    Report,
    Standing,
    compute_capped_weights,
    compute_distance_percents,
    compute_faulty_weight,
    compute_round_steps,
    compute_screened,
    compute_weighted_lower_median,
    describe_refusal,
    is_contrary,
    verify_bearable,
)
from milon.pol.gram import compute_krum_scores, compute_krum_selection
from milon.pol.pipeline import Rule, compute_count_needed, parse_pipeline
from milon.pol.verdict import Refusal


@pytest.mark.parametrize(
    ("rule", "faulty_count", "needed"),
    [
        (Rule.MEAN, 4, 1),
        (Rule.TRIMMED_MEAN, 0, 1),
        (Rule.TRIMMED_MEAN, 2, 5),
        (Rule.MEDIAN, 3, 7),
        (Rule.MULTI_KRUM, 0, 3),
        (Rule.MULTI_KRUM, 2, 7),
        (Rule.KRUM, 1, 5),
        (Rule.BULYAN, 2, 11),
        (Rule.GEOMETRIC_MEDIAN, 2, 5),
        (Rule.CENTERED_CLIPPING, 1, 3),
        (Rule.CTMA, 3, 7),
    ],
)
def test_the_least_number_of_updates(rule: Rule, faulty_count: int, needed: int) -> None:
    assert compute_count_needed(rule, faulty_count) == needed
    verify_bearable(parse_pipeline(rule), [1] * needed, faulty_count)
    with pytest.raises(Rejected) as refusal:
        verify_bearable(parse_pipeline(rule), [1] * (needed - 1), faulty_count)
    assert refusal.value.reason is Reason.TOO_FEW
    detail = f"{rule.value} with {faulty_count} faulty needs {needed} updates; {needed - 1} are left"
    assert refusal.value.detail == detail


@pytest.mark.parametrize(
    ("weights", "faulty_count", "reason"),
    [
        ([1, 0, 1], 1, Reason.OUT_OF_RANGE),
        ([1, STEPS_MAX + 1, 1], 1, Reason.OUT_OF_RANGE),
        ([STEPS_MAX] * 32, 1, Reason.OUT_OF_RANGE),
        ([1] * (UPDATES_MAX + 1), 1, Reason.TOO_LARGE),
        ([1, 1, 1], -1, Reason.OUT_OF_RANGE),
    ],
)
def test_weights_out_of_range(weights: list[int], faulty_count: int, reason: Reason) -> None:
    with pytest.raises(Rejected) as refusal:
        verify_bearable(parse_pipeline(Rule.MEDIAN), weights, faulty_count)
    assert refusal.value.reason is reason


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(Rule)), st.integers(0, 3), st.lists(st.integers(1, 60), min_size=1, max_size=12))
def test_caps_are_the_largest_that_keep_the_promise(rule: Rule, faulty_count: int, weights: list[int]) -> None:
    needed = compute_count_needed(rule, faulty_count)
    weights = weights + [7] * max(0, needed - len(weights))
    capped = compute_capped_weights(rule, weights, faulty_count)
    if rule is Rule.MEAN:
        assert capped == tuple(weights)
        return

    def holds(limit: int) -> bool:
        values = [min(weight, limit) for weight in weights]
        heavy = (4 if rule is Rule.BULYAN else 2) * compute_faulty_weight(values, faulty_count)
        heavy += 2 * max(values) if rule in (Rule.KRUM, Rule.MULTI_KRUM, Rule.BULYAN) else 0
        return heavy < sum(values) and (len(values) < 3 or 3 * max(values) <= sum(values))

    best = max(limit for limit in range(1, max(weights) + 1) if holds(limit))
    assert capped == tuple(min(weight, best) for weight in weights)


def test_the_lower_median_takes_the_lower_of_two() -> None:
    assert compute_weighted_lower_median([5, 1, 9, 7], [1, 1, 1, 1]) == 5
    assert compute_weighted_lower_median([5, 1, 9], [1, 1, 3]) == 9
    with pytest.raises(ValueError, match="nothing"):
        compute_weighted_lower_median([], [])


def test_the_screen_refuses_the_far_and_the_contrary_farthest_first() -> None:
    weights, none = [1] * 5, [False] * 5
    second = [False, True, False, False, False]
    assert compute_screened([4, 4, 4, 100, 101], none, weights, 2) == (4,)
    assert compute_screened([4, 4, 4, 200, 101], none, weights, 2) == (3, 4)
    assert compute_screened([4, 4, 4, 200, 101], none, weights, 1) == (3,)
    assert compute_screened([4, 5, 6, 7, 8], second, weights, 2) == (1,)
    assert compute_screened([4, 5, 6, 700, 700], second, weights, 1) == (3,)
    assert compute_screened([4, 4, 4, 900, 900], none, weights, 0) == ()
    assert compute_screened([0, 0, 0, 1, 0], none, weights, 1) == (3,)


def test_contrary_begins_at_a_cosine_of_minus_an_eighth() -> None:
    assert not is_contrary(-1, 8, 8)
    assert is_contrary(-1, 8, 7)
    assert not is_contrary(1, 8, 7)
    assert not is_contrary(0, 0, 0)


def test_distances_in_percent() -> None:
    assert compute_distance_percents([1, 4, 16, 101], [1, 1, 1, 1]) == (50, 100, 200, 502)
    assert compute_distance_percents([0, 0, 5], [1, 1, 1]) == (0, 0, PERCENT_MAX)
    assert "too far" in describe_refusal(502, False)
    assert "502 percent of the median distance, 500 are allowed" in describe_refusal(502, False)
    assert describe_refusal(90, True).startswith("points against")


def test_krum_by_hand() -> None:
    """Points 0, 1, 3, 4 and 100 on a line, one of them faulty: three nearest others each."""
    points = [0, 1, 3, 4, 100]
    squared = [[(a - b) ** 2 for b in points] for a in points]
    scores = compute_krum_scores(squared, [1] * 5, 1)
    assert scores == (1 + 9 + 16, 1 + 4 + 9, 1 + 4 + 9, 1 + 9 + 16, 96**2 + 97**2 + 99**2)
    assert compute_krum_selection(scores, [1] * 5, 1) == (1, 1, 1, 1, 0)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 4)), min_size=3, max_size=6), st.data())
def test_weighted_krum_equals_krum_on_repeated_rows(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    values, weights = [value for value, _ in rows], [weight for _, weight in rows]
    faulty = data.draw(st.integers(0, max(0, sum(weights) - max(weights) - 1)))
    owners = [index for index, weight in enumerate(weights) for _ in range(weight)]
    squared = [[(a - b) ** 2 for b in values] for a in values]
    many = [[squared[a][b] for b in owners] for a in owners]
    scores = compute_krum_scores(squared, weights, faulty)
    repeated = compute_krum_scores(many, [1] * len(owners), faulty)
    assert [scores[owner] for owner in owners] == list(repeated)
    taken = compute_krum_selection(repeated, [1] * len(owners), faulty)
    selected = [sum(t for t, owner in zip(taken, owners, strict=True) if owner == i) for i in range(len(rows))]
    assert compute_krum_selection(scores, weights, faulty) == tuple(selected)


def test_the_round_advances_as_far_as_a_typical_trainer() -> None:
    assert compute_round_steps([10, 10, 10], [1, 5, 9]) == 10
    assert compute_round_steps([1, 2], [1, 1]) == 2
    assert compute_round_steps([1, 2, 3, 3], [2, 1, 0, 0]) == 1
    assert compute_round_steps([40, 160], [40, 160]) == 136


def test_a_report_travels() -> None:
    account = AccountId(bytes(32))
    standings = (Standing(account, 40, 40, 1_000_000, 100, 0, ""), Standing(account, 40, 0, 0, 900, 0, "why"))
    report = Report("arc,median", 1, 40, standings)
    record = Record(report, (Digest(bytes(32)),) * 2, Digest(bytes(32)), Digest(bytes(32)), "")
    assert decode(Record, encode(record)) == record
    assert report.accepted == standings[:1]
    assert report.refused == (Refusal(account, "why"),)

"""Splits: every row once, nobody without rows, as skewed as they say, the same each time."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.errors import Reason, Rejected
from milon.client.lab_split import parse_split, split_rows

LABELS = [row % 10 for row in range(1000)]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 20),
    st.sampled_from(["iid", "one-class", "dirichlet:0.01", "dirichlet:0.3", "dirichlet:100"]),
    st.integers(0, 99),
)
def test_every_row_is_with_one_trainer(trainers: int, split: str, seed: int) -> None:
    parts = split_rows(LABELS, trainers, split, seed)
    assert len(parts) == trainers and all(parts)
    assert sorted(row for part in parts for row in part) == list(range(1000))
    assert parts == split_rows(LABELS, trainers, split, seed)


def test_shares_are_as_skewed_as_named() -> None:
    def largest_share(split: str) -> float:
        parts = split_rows(LABELS, 10, split, 1)
        return sum(max(Counter(LABELS[row] for row in part).values()) / len(part) for part in parts) / 10

    even, mild, strong = (largest_share(split) for split in ("iid", "dirichlet:0.3", "dirichlet:0.01"))
    assert even < 0.2 < mild < 0.8 < strong
    assert largest_share("one-class") == 1.0


def test_one_class_with_more_and_with_fewer_trainers_than_classes() -> None:
    held = [{LABELS[row] for row in part} for part in split_rows(LABELS, 13, "one-class", 1)]
    assert held == [{place % 10} for place in range(13)]
    held = [{LABELS[row] for row in part} for part in split_rows(LABELS, 4, "one-class", 1)]
    assert held == [{0, 4, 8}, {1, 5, 9}, {2, 6}, {3, 7}]


def test_seeds_differ_and_sizes_of_even_shares_do_not() -> None:
    assert split_rows(LABELS, 7, "iid", 1) != split_rows(LABELS, 7, "iid", 2)
    assert {len(part) for part in split_rows(LABELS, 7, "iid", 1)} == {142, 143}


def test_what_cannot_be_split() -> None:
    for text in ("", "even", "dirichlet", "dirichlet:", "dirichlet:x", "dirichlet:0", "dirichlet:nan", "iid:3"):
        with pytest.raises(Rejected) as refusal:
            parse_split(text)
        assert refusal.value.reason is Reason.UNKNOWN
    for labels, trainers, split in (([0, 1], 3, "iid"), ([0, 0, 0, 1], 4, "one-class")):
        with pytest.raises(Rejected) as refusal:
            split_rows(labels, trainers, split, 0)
        assert refusal.value.reason is Reason.TOO_FEW

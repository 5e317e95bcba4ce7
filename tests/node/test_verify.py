"""How many segments of each claim a verification replays."""

from __future__ import annotations

import pytest

from milon.node.verify import share_out


@pytest.mark.parametrize(
    ("counts", "most", "shares"),
    [
        ([1, 1, 3, 3], 8, [1, 1, 3, 3]),  # all there are, however unequal
        ([3, 3, 1, 1], 100, [3, 3, 1, 1]),
        ([3, 3, 1, 1], 6, [2, 2, 1, 1]),
        ([5, 5], 1, [1, 0]),
        ([4, 4], 0, [0, 0]),
        ([], 10, []),
    ],
)
def test_the_budget_is_used_up(counts: list[int], most: int, shares: list[int]) -> None:
    assert share_out(counts, most) == shares

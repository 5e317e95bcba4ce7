"""Segments are shared out in proportion to capacity, all of them, without gaps."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from milon.base.ids import AccountId
from milon.pol.assignment import (
    RATIO_MAX,
    assign_segments,
    bound_capacities,
    compute_delivered_capacity,
    reassign_segments,
)

CAPACITIES = st.lists(st.integers(1, 10_000), min_size=1, max_size=12)


def _account(number: int) -> AccountId:
    return AccountId(bytes([number]) * 32)


def _trainers(capacities: list[int]) -> list[tuple[AccountId, int]]:
    return [(_account(number), capacity) for number, capacity in enumerate(capacities)]


@given(segments=st.integers(1, 500), capacities=CAPACITIES)
def test_all_segments_are_handed_out_in_one_run_each(segments: int, capacities: list[int]) -> None:
    assignments = assign_segments(segments, _trainers(capacities))
    reached = 0
    for assignment in assignments:
        assert assignment.first == reached and assignment.count > 0
        reached += assignment.count
    assert reached == segments
    assert [a.trainer for a in assignments] == sorted(a.trainer for a in assignments)


@given(segments=st.integers(1, 500), capacities=CAPACITIES)
def test_everybody_gets_one_where_there_are_enough(segments: int, capacities: list[int]) -> None:
    assignments = assign_segments(segments, _trainers(capacities))
    assert len(assignments) == len(capacities) or segments < len(capacities)


@given(segments=st.integers(100, 500), capacities=st.lists(st.integers(50, 100), min_size=1, max_size=10))
def test_shares_are_within_one_of_the_quota(segments: int, capacities: list[int]) -> None:
    """Capacities are near each other here, so that nobody's quota is below one."""
    for assignment, capacity in zip(assign_segments(segments, _trainers(capacities)), capacities, strict=True):
        quota = Fraction(segments * capacity, sum(capacities))
        assert abs(assignment.count - quota) < 1


@given(segments=st.integers(1, 100), capacities=CAPACITIES)
def test_the_order_of_enrolment_does_not_matter(segments: int, capacities: list[int]) -> None:
    trainers = _trainers(capacities)
    assert assign_segments(segments, trainers) == assign_segments(segments, trainers[::-1])


def test_ties_go_to_the_smaller_account() -> None:
    counts = [a.count for a in assign_segments(5, _trainers([1, 1, 1]))]
    assert counts == [2, 2, 1]


def test_the_slowest_still_gets_one_from_the_fastest() -> None:
    counts = [a.count for a in assign_segments(10, _trainers([1_000, 1, 1]))]
    assert counts == [8, 1, 1]


def test_nothing_to_hand_out() -> None:
    assert assign_segments(0, _trainers([1])) == ()
    assert assign_segments(5, []) == ()


def test_a_capacity_nobody_comes_near_is_bounded_by_the_median() -> None:
    bounded = bound_capacities(_trainers([1_000_000_000, 100, 90, 110]))
    assert [capacity for _, capacity in bounded] == [100 * RATIO_MAX, 100, 90, 110]
    assert bound_capacities(_trainers([5])) == ((_account(0), 5),)
    assert bound_capacities(()) == ()


@given(honest=st.lists(st.integers(50, 100), min_size=2, max_size=8))
def test_a_minority_of_lies_moves_no_honest_capacity(honest: list[int]) -> None:
    lies = [1_000_000_000] * (len(honest) - 1)
    bounded = [capacity for _, capacity in bound_capacities(_trainers(honest + lies))]
    assert bounded[: len(honest)] == honest
    assert max(bounded) <= RATIO_MAX * 100


def test_capacity_follows_what_was_delivered() -> None:
    assert compute_delivered_capacity(800, 16, 16) == 800
    assert compute_delivered_capacity(800, 16, 4) == 200
    assert compute_delivered_capacity(3, 16, 1) == 1
    assert compute_delivered_capacity(800, 16, 0) == 200


def test_missing_segments_go_out_in_runs_of_consecutive_numbers() -> None:
    shared = reassign_segments((2, 3, 6, 7, 8, 11), _trainers([2, 1]))
    assert [(entry.trainer[0], int(entry.first), int(entry.count)) for entry in shared] == [
        (0, 2, 2),
        (0, 6, 2),
        (1, 8, 1),
        (1, 11, 1),
    ]
    assert reassign_segments((), _trainers([2, 1])) == reassign_segments((1, 2), []) == ()


@given(
    segments=st.integers(1, 60),
    trainers=st.lists(st.tuples(st.integers(1, 50), st.sampled_from((0, 1, 2))), min_size=1, max_size=9),
)
def test_all_that_is_missing_goes_out_once_in_few_claims(segments: int, trainers: list[tuple[int, int]]) -> None:
    """0: vanished; 1: claims one segment; 2: claims all. The second bound is what the price of a job counts on."""
    kinds = {_account(number): kind for number, (_, kind) in enumerate(trainers)}
    capacities = _trainers([capacity for capacity, _ in trainers])
    assigned = assign_segments(segments, capacities)
    claimed = {entry.trainer: (0, 1, int(entry.count))[kinds[entry.trainer]] for entry in assigned}
    missing = [e.first + place for e in assigned for place in range(claimed[e.trainer], e.count)]
    ready = [(entry.trainer, 1 + entry.trainer[0]) for entry in assigned if claimed[entry.trainer] == entry.count]
    shared = reassign_segments(missing, ready)
    if ready:
        assert sorted(entry.first + place for entry in shared for place in range(entry.count)) == missing
    claims = sum(count > 0 for count in claimed.values()) + len(shared)
    assert claims < 2 * len(trainers) or not missing

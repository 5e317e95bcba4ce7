"""The leaders' schedule: in proportion to the weights, every validator within the stated bound, integers only."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.ids import AccountId
from milon.base.units import Count, Epoch, Power, View
from milon.chain.certificate import Validator
from milon.consensus.leader import (
    SLOTS_MAX,
    compute_schedule,
    compute_slots,
    compute_visit_bound,
    compute_weights,
    leader_of,
    list_leaders,
)


def test_equal_validators_take_turns() -> None:
    assert compute_schedule((1, 1, 1, 1)) == (0, 1, 2, 3)


def test_a_strong_validator_leads_often_and_never_all_at_once() -> None:
    assert compute_schedule((5, 1, 1)) == (0, 0, 1, 0, 2, 0, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_each_validator_leads_its_slots_and_comes_within_the_bound(slots: list[int]) -> None:
    schedule = compute_schedule(slots)
    assert [schedule.count(index) for index in range(len(slots))] == slots
    for index in range(len(slots)):
        turns = [view for view, leader in enumerate(schedule * 2) if leader == index]
        gap = max((later - sooner for sooner, later in pairwise(turns)), default=0)
        assert gap <= compute_visit_bound(slots, index)


def test_stakes_that_do_not_fit_a_schedule_are_rounded_and_nobody_is_left_out() -> None:
    slots = compute_slots((10**15, 10**15 + 1, 1))
    assert slots == (SLOTS_MAX // 2 - 1, SLOTS_MAX // 2, 1)
    assert compute_slots((20, 30, 50)) == (2, 3, 5)


def test_learning_counts_for_half_where_there_is_any() -> None:
    assert compute_weights((30, 10)) == (30, 10)
    assert compute_weights((30, 10), (0, 0)) == (30, 10)
    weights = compute_weights((30, 10), (0, 5))
    assert weights[0] * 5 == weights[1] * 3, "3/4 and 1/4 of stake, 0 and 1 of learning: 3/8 and 5/8"


def test_views_follow_the_schedule_and_repeat_it() -> None:
    validators = tuple(Validator(AccountId(bytes((index,)) * 32), Power(10)) for index in range(4))
    leaders = list_leaders(validators)
    found = [leader_of(leaders, Epoch(0), View(view)) for view in range(1, 9)]
    assert found == [validator.account for validator in validators] * 2
    assert leader_of(leaders, Epoch(1), View(1)) == validators[1].account


@pytest.mark.parametrize("powers", [(1,), (7, 7, 7)])
def test_common_divisors_do_not_matter(powers: tuple[int, ...]) -> None:
    assert compute_slots(powers) == (1,) * len(powers)


def test_learning_moves_the_schedule_by_the_share_that_the_parameters_give_it() -> None:
    learner = Validator(AccountId(b"a" * 32), Power(1), Count(3))
    rich = Validator(AccountId(b"b" * 32), Power(3), Count(1))
    for learning_ppm, turns in ((0, (1, 3)), (500_000, (1, 1)), (1_000_000, (3, 1))):
        leaders = list_leaders((learner, rich), learning_ppm)
        assert (leaders.count(learner.account), leaders.count(rich.account)) == turns
    idle = Validator(AccountId(b"c" * 32), Power(3))
    assert idle.account in list_leaders((learner, idle), 1_000_000), "nobody is left out"

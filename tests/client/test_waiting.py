"""Waiting: until there is an answer, and not longer than was said."""

import time

from milon.client.waiting import wait_for, wait_until


def test_the_first_answer_ends_the_wait() -> None:
    answers = iter((None, None, 7, 8))
    assert wait_for(lambda: next(answers), 10.0, 0.0) == 7
    assert next(answers) == 8


def test_time_that_is_up_ends_it_too_after_one_question_at_least() -> None:
    asked = []
    assert wait_for(lambda: asked.append(1), 0.0) is None
    assert asked == [1]
    began = time.monotonic()
    assert not wait_until(lambda: False, 0.05, 0.01)
    assert 0.05 <= time.monotonic() - began < 5.0


def test_a_condition_may_be_false_for_a_while() -> None:
    answers = iter((False, True))
    assert wait_until(lambda: next(answers), 10.0, 0.0)

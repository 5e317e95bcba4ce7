"""Schedules of learning rates, for `milon.Job(schedule=...)`: factors that the program itself computes from the step.

A schedule is a function from the number of steps before this one, a scalar tensor, to the factor on every learning
rate of the optimizer. Any function of tensor operations will do; these are the usual ones, and `chain` joins them.
No number is computed in Python while training: what these functions do to the tensor becomes part of the program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from milon.client.terms import JobError

Schedule = Callable[[Any], Any]

PI = 3.141592653589793


def _require_count(name: str, count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise JobError(f"{name} is {count!r}; it must be a whole number of steps, at least 1.")


def warm_up(steps: int) -> Schedule:
    """1 / steps, 2 / steps, ... up to 1, where it stays."""
    _require_count("steps", steps)
    return lambda step: ((step + 1.0) / steps).clamp(max=1.0)


def linear(steps: int, start: float = 1.0, end: float = 0.0) -> Schedule:
    """From `start` to `end` in equal parts over so many steps; `end` after them."""
    _require_count("steps", steps)
    return lambda step: (step / steps).clamp(max=1.0) * (end - start) + start


def cosine(steps: int, least: float = 0.0) -> Schedule:
    """Half a wave from 1 to `least` over so many steps, then `least` (Loshchilov and Hutter 2017, one period)."""
    _require_count("steps", steps)
    return lambda step: ((((step / steps).clamp(max=1.0) * PI).cos() + 1.0) * 0.5) * (1.0 - least) + least


def staircase(every: int, factor: float) -> Schedule:
    """`factor` to the power of how many times `every` steps have passed; `factor` above 0."""
    _require_count("every", every)
    if not factor > 0:
        raise JobError(f"factor is {factor!r}; it must be above 0.")
    return lambda step: factor ** (step / every).floor()


def chain(first: Schedule, steps: int, then: Schedule) -> Schedule:
    """`first` for so many steps, after them `then`, whose own count begins at 0."""
    _require_count("steps", steps)

    def factor(step: Any) -> Any:
        late = (step >= steps).to(step.dtype)  # a product instead of a branch: both are computed
        return first(step) * (1.0 - late) + then((step - steps).clamp(min=0.0)) * late

    return factor

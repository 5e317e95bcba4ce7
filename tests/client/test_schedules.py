"""Schedules: the factors they give, and that the program computes them from the step in its state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from milon.base.errors import Reason, Rejected
from milon.client import schedules
from milon.client.job import Job
from milon.client.terms import JobError
from milon.gpu.capture import capture
from milon.gpu.interpreter import load
from milon.gpu.recipe import Recipe
from milon.pol.program import StepKey

BATCH = (torch.ones(4, 1), torch.zeros(4, 1))
SCHEDULES: dict[str, tuple[schedules.Schedule, Callable[[int], float]]] = {
    "warm up": (schedules.warm_up(4), lambda step: min((step + 1) / 4, 1.0)),
    "linear": (schedules.linear(5, 1.0, 0.2), lambda step: 1.0 - 0.8 * min(step / 5, 1.0)),
    "cosine": (schedules.cosine(6, 0.1), lambda step: 0.1 + 0.9 * (1 + math.cos(math.pi * min(step / 6, 1.0))) / 2),
    "staircase": (schedules.staircase(3, 0.5), lambda step: 0.5 ** (step // 3)),
    "chain": (
        schedules.chain(schedules.warm_up(3), 3, schedules.linear(4)),
        lambda step: (step + 1) / 3 if step < 3 else 1 - min((step - 3) / 4, 1.0),
    ),
}


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_the_program_follows_the_schedule(name: str) -> None:
    """The gradient of mean(w x) is 1 for x = 1, so a step of plain descent shows its learning rate."""
    schedule, factor = SCHEDULES[name]
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    job = capture(
        model,
        lambda output, target: (output + target).mean(),
        lambda held: torch.optim.SGD(held, lr=0.5),
        BATCH,
        (4,),
        recipe=Recipe(schedule=schedule),
    )
    plan, state = load(job.train), job.state
    weight = 0.0
    for step in range(9):
        assert float(state["optimizer.step"]) == step
        state = plan.run(state, BATCH, StepKey(bytes(32), 0, 0, 0)).new_state
        weight -= 0.5 * factor(step)
        assert float(state["model.weight"]) == pytest.approx(weight, abs=1e-6)


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (lambda step: min(step / 10, 1.0), "torch.where"),
        (lambda step: math.cos(step), "torch.where"),
        (lambda step: step.reshape(1), "a float32 scalar"),
        (lambda step: "fast", "computed from step"),
    ],
)
def test_a_schedule_that_is_no_tensor_function_is_refused(schedule: schedules.Schedule, text: str) -> None:
    with pytest.raises(Rejected) as caught:
        capture(nn.Linear(1, 1), functional.mse_loss, torch.optim.SGD, BATCH, (4,), recipe=Recipe(schedule=schedule))
    assert caught.value.reason is Reason.UNSUPPORTED and text in caught.value.detail


def make_job(**named: Any) -> Job:
    """A job with these arguments besides the needed ones."""
    data = {"train": BATCH, "evaluation": BATCH}
    return Job(model=nn.Linear(1, 1), loss=functional.mse_loss, optimizer=torch.optim.SGD, **data, **named)


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ({"schedule": 3}, "schedule is a int"),
        ({"clip_norm": 0}, "clip_norm is 0"),
        ({"clip_value": math.nan}, "clip_value is nan"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"accumulate": True}, "accumulate is True"),
    ],
)
def test_a_wrong_recipe_is_told_at_once(named: dict[str, Any], text: str) -> None:
    with pytest.raises(JobError) as caught:
        make_job(**named)
    assert text in str(caught.value)


def test_wrong_numbers_of_a_schedule_are_told_at_once() -> None:
    for make in (lambda: schedules.warm_up(0), lambda: schedules.staircase(3, 0.0), lambda: schedules.cosine(-1)):
        with pytest.raises(JobError):
            make()

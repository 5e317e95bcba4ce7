"""A trainer that computes one value of a step otherwise, goes on from it, and stands by it in every dispute.

Its traces, losses and later states all follow from its own run, so nothing but that one value is ever false: the
subtlest lie there is, and what a faulty processor does to an honest trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from milon.base.errors import Reason, Rejected
from milon.gpu.dispute_oracle import Oracle
from milon.gpu.dispute_steps import CPU, Met, WatchedPlan
from milon.gpu.interpreter import Plan, Result, plan_steps
from milon.gpu.train import RoundWork
from milon.pol.program import OutputRole, StepKey, compute_types

BIT_FLIP = "bit-flip"  # the adversary of a node: one bit of the last segment's first gradient, in its middle step
FLIPPED_BIT = 21  # of the mantissa: a number about a quarter off
Kernel = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Tamper:
    """A value that one step of the segment gets wrong."""

    step: int  # of the segment
    value: int  # of the program
    compute: Callable[[Kernel, Sequence[Tensor]], Tensor]  # from the honest operation and its operands to the value


class TamperedPlan(WatchedPlan):
    """A plan that computes some values otherwise, each in its step, and goes on from them."""

    def __init__(self, plan: Plan, tampers: Sequence[Tamper], first_step: int) -> None:
        types = compute_types(plan.program)
        super().__init__(plan.program, CPU, plan.constants, plan_steps(plan.program, types, CPU, None, 1))
        self._now = -1
        base = len(plan.program.inputs) + len(plan.program.constants)
        for tamper in tampers:
            step = self.steps[tamper.value - base]
            self.steps[tamper.value - base] = replace(step, kernel=self._wrap(step.kernel, tamper, first_step))

    def _wrap(self, honest: Kernel, tamper: Tamper, first_step: int) -> Kernel:
        def kernel(*operands: Tensor) -> Sequence[Tensor] | Tensor:
            is_now = self._now == first_step + tamper.step
            found: Tensor = tamper.compute(honest, operands) if is_now else honest(*operands)
            return found

        return kernel

    def run(self, state: Mapping[str, Tensor], batch: Sequence[Tensor], key: StepKey | None) -> Result:
        """See `Plan`."""
        self._now = -1 if key is None else key.step
        return super().run(state, batch, key)

    def walk(self, state: Mapping[str, Tensor], batch: Sequence[Tensor], key: StepKey) -> Iterator[Met]:
        """See `WatchedPlan`."""
        self._now = key.step
        return super().walk(state, batch, key)


def flip(element: int, bit: int = 0) -> Callable[[Kernel, Sequence[Tensor]], Tensor]:
    """The same values but for one bit of one element."""

    def compute(honest: Kernel, operands: Sequence[Tensor]) -> Tensor:
        changed: Tensor = honest(*operands).contiguous().clone()
        flat = changed.reshape(-1)
        if changed.dtype is torch.bool:
            flat[element] = ~flat[element]
        else:
            whole = flat.view(torch.int32) if changed.dtype is torch.float32 else flat
            whole[element] ^= 1 << bit
        return changed

    return compute


def tampered(work: RoundWork, start: bytes, segment: int, *tampers: Tamper) -> Oracle:
    """A trainer that computes some values otherwise."""
    plan = TamperedPlan(work.plan, tampers, segment * work.steps_per_segment)
    return Oracle(replace(work, plan=plan), start, segment, plan)


def _choose_tamper(work: RoundWork) -> Tamper:
    """One bit of the first computed gradient, in the middle step; `Rejected(UNSUPPORTED)` where there is none."""
    program = work.plan.program
    base = len(program.inputs) + len(program.constants)
    gradients = sorted((out.name, out.value) for out in program.outputs if out.role is OutputRole.GRADIENT)
    for _, value in gradients:
        if value >= base:
            return Tamper(work.steps_per_segment // 2, value, flip(0, FLIPPED_BIT))
    raise Rejected(Reason.UNSUPPORTED, "the program computes no gradient to flip a bit of")


def flip_bit(work: RoundWork, segment: int) -> RoundWork:
    """The work of a `BIT_FLIP` adversary in the segment that it gets wrong."""
    plan = TamperedPlan(work.plan, [_choose_tamper(work)], segment * work.steps_per_segment)
    return replace(work, plan=plan)


def stand_by(work: RoundWork, start: bytes, segment: int) -> Oracle:
    """The same adversary in a dispute over that segment."""
    return tampered(work, start, segment, _choose_tamper(work))

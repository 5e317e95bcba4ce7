"""One training step of a segment, value by value: what both sides of a dispute hash, and what lies behind a value.

The values of a step are those of the program (inputs, constants, nodes) and one more, the step's fingerprint. Running a
step once more gives the same bits, so nothing of it is kept but the roots of its values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from milon.base.errors import Rejected
from milon.gpu.dispute_groups import Group, make_fingerprint
from milon.gpu.dispute_points import Point, Site, make_point
from milon.gpu.dispute_terms import make_group
from milon.gpu.interpreter import Plan, load_constant, plan_steps
from milon.gpu.train import RoundWork, compute_fingerprint
from milon.pol.batches import compute_batch
from milon.pol.program import InputRole, OutputRole, Program, StepKey, compute_types
from milon.pol.shapes import DType, TensorType

CPU = torch.device("cpu")
PROGRAMS_KEPT = 8  # outlines of as many jobs' programs: types alone, a few megabytes at most
SCALAR = TensorType(DType.INT64, ())


@dataclass(frozen=True, slots=True)
class Met:
    """A value of a step at the moment it is known."""

    number: int  # of the value
    operands: tuple[Tensor, ...]  # what it was computed from; none for inputs and constants
    result: Tensor | None  # the value; None where it cannot be computed


class Outline:
    """A training program as disputes see it: numbers of values, their types, and how each is made."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.types = (*compute_types(program), SCALAR)
        self.first_constant = len(program.inputs)
        self.first_node = self.first_constant + len(program.constants)
        self.fingerprint = len(self.types) - 1  # the number of the last value
        self.new_state = dict(
            sorted((out.name, out.value) for out in program.outputs if out.role is OutputRole.NEW_STATE)
        )
        self.old_state = {
            entry.name: place for place, entry in enumerate(program.inputs) if entry.role is InputRole.STATE
        }
        self.loss = next(out.value for out in program.outputs if out.role is OutputRole.LOSS)
        gradients = sorted((out.name, out.value) for out in program.outputs if out.role is OutputRole.GRADIENT)
        self.traced = (self.loss, *(value for _, value in gradients))  # what the fingerprint is over, in order
        self.names = sorted(self.new_state)

    @property
    def leaves(self) -> int:
        """Leaves of a state's tree: one a tensor, the trace so far, the last loss."""
        return len(self.names) + 2

    def operands_of(self, number: int) -> tuple[int, ...]:
        """The numbers of the values that a value is computed from."""
        if number == self.fingerprint:
            return self.traced
        if number < self.first_node:
            return ()
        return self.program.nodes[number - self.first_node].operands

    def make_group(self, number: int) -> Group | None:
        """How the elements of a value are made of terms; None where they are not."""
        if number == self.fingerprint:
            return make_fingerprint([self.types[value].elements for value in self.traced])
        return None if number < self.first_node else make_group(self._site(number))

    def make_point(self, number: int) -> Point | None:
        """What computes one element of a node's value; None for a group, an input or a constant."""
        is_node = self.first_node <= number < self.fingerprint
        return make_point(self._site(number)) if is_node else None

    def _site(self, number: int) -> Site:
        node = self.program.nodes[number - self.first_node]
        operands = tuple(self.types[operand] for operand in node.operands)
        return Site(node, operands, self.types[number], self.program.magnitude_bits)

    def place_of(self, number: int, role: InputRole) -> int:
        """Which of the inputs of one role an input is, counted from 0."""
        return sum(entry.role is role for entry in self.program.inputs[:number])


@lru_cache(maxsize=PROGRAMS_KEPT)
def outline_of(program: Program) -> Outline:
    """The program's outline, made once."""
    return Outline(program)


class WatchedPlan(Plan):
    """A plan that shows every value, each node on its own and none in a chain with others."""

    def walk(self, state: Mapping[str, Tensor], batch: Sequence[Tensor], key: StepKey) -> Iterator[Met]:
        """The program's values in order; the last one has no result where its node cannot be computed."""
        values = self._gather_inputs(state, batch, key)
        values += self.constants
        values += [None] * len(self.program.nodes)
        base = len(values) - len(self.program.nodes)
        for number in range(base):
            yield Met(number, (), values[number])
        for step in self.steps:
            operands = tuple(value for value in (values[operand] for operand in step.operands) if value is not None)
            number = step.results[0]
            try:
                with torch.no_grad():
                    given = step.kernel(*operands)
            except Rejected:
                yield Met(number, operands, None)
                return
            values[number] = given if isinstance(given, Tensor) else given[0]
            yield Met(number, operands, values[number])
            del operands, given
            for freed in step.freed:
                values[freed] = None


class StepRunner:
    """Runs single steps of a segment."""

    def __init__(self, work: RoundWork, segment: int, plan: WatchedPlan | None = None) -> None:
        """`plan`: what shows the values, made when it is first needed unless given."""
        self.work = work
        self.segment = segment
        self.outline = outline_of(work.plan.program)
        self._given = plan

    @cached_property
    def _plan(self) -> WatchedPlan:
        if self._given is not None:
            return self._given
        program = self.outline.program
        steps = plan_steps(program, self.outline.types[:-1], CPU, None, 1)
        return WatchedPlan(program, CPU, [load_constant(constant, CPU) for constant in program.constants], steps)

    def key(self, step: int) -> StepKey:
        """What the draws of a step of the segment depend on."""
        number = self.segment * self.work.steps_per_segment + step
        return StepKey(self.work.seed, self.work.round, 0, number)

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """The rows of a step of the segment."""
        work = self.work
        return work.data.take(compute_batch(work.seed, self.key(step).step, work.batch_size, work.data.rows))

    def walk(self, state: Mapping[str, Tensor], step: int) -> Iterator[Met]:
        """All values of a step, in order; the last one has no result where it cannot be computed.

        Holds what the step holds at that moment, and loss and gradients until its end.
        """
        kept: dict[int, Tensor] = {}
        met: Met | None = None
        for met in self._plan.walk(state, self.batch(step), self.key(step)):
            if met.number in self.outline.traced and met.result is not None:
                kept[met.number] = met.result
            yield met
        if met is None or met.result is None:
            return
        operands = tuple(kept[number] for number in self.outline.traced)
        names = (f"{place:08}" for place in range(len(operands) - 1))
        fingerprint = compute_fingerprint(operands[0], dict(zip(names, operands[1:], strict=True)))
        yield Met(self.outline.fingerprint, operands, torch.tensor(fingerprint))

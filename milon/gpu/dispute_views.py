"""What a side of a dispute knows of one step: the roots of its values, and whatever lies behind one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from milon.base.ids import Digest
from milon.gpu.dispute_numbers import Numbers, pick
from milon.gpu.dispute_points import join_element, split_element
from milon.gpu.dispute_steps import Outline, StepRunner
from milon.gpu.dispute_timeline import Moment
from milon.gpu.dispute_trees import Tree, build_root_tree, build_value_tree, compute_value_root
from milon.pol.claim import commit_trace, extend_trace

UNKNOWN = Digest(bytes(32))  # the root of a value that an honest run does not come to


@dataclass(frozen=True, slots=True)
class Fault:
    """A place that is false whatever a trainer shows there: no honest run goes on from it."""

    value: int  # one that cannot be computed, or is a tensor of the next state and not finite
    element: int  # of it, row-major


@dataclass(frozen=True, slots=True)
class StepView:
    """One step by an honest run."""

    step: int  # of the segment
    moment: Moment  # before it
    values: Tree  # over the roots of all values; those after a fault that ends the run are `UNKNOWN`
    before: Tree  # the state's before it
    after: Tree | None  # the state's after it; None where the run ends here
    fault: Fault | None  # the first


@dataclass(slots=True)
class ValueView:
    """One value of a step, with what it was computed from."""

    step: int  # of the segment
    number: int  # of the value
    operands: Mapping[int, Tensor]  # by number of the value
    result: Tensor | None  # None where it cannot be computed
    trees: dict[int, Tree] = field(default_factory=dict)  # of operands and result, once asked for

    def tree_of(self, number: int) -> Tree | None:
        """The tree of an operand or the value itself, by its number; None where there is none."""
        held = self.result if number == self.number else self.operands[number]
        if number not in self.trees and held is not None:
            self.trees[number] = build_value_tree(held)
        return self.trees.get(number)

    def read_from(self, outline: Outline, operand: int, elements: Numbers) -> Numbers:
        """Numbers of elements of an operand, by its place among the operands."""
        return pick(self.operands[outline.operands_of(self.number)[operand]], elements)


def view_step(runner: StepRunner, moment: Moment) -> StepView:
    """Run one step from what was before it, and keep the roots of its values."""
    outline = runner.outline
    roots = [UNKNOWN] * len(outline.types)
    written = {*outline.new_state.values()}
    fault: Fault | None = None
    trace = moment.trace
    is_whole = False
    for met in runner.walk(moment.state, moment.step):
        if met.result is None:
            fault = fault or Fault(met.number, find_bad_element(outline, met.number, met.operands))
            continue
        roots[met.number] = compute_value_root(met.result)
        if met.number in written and fault is None:
            fault = find_not_finite(met.number, met.result)
        if met.number == outline.fingerprint:
            trace, is_whole = extend_trace(trace, int(met.result)), True
    held = [roots[outline.old_state[name]] for name in outline.names]
    before = build_root_tree([*held, commit_trace(moment.trace), moment.loss])
    new = [roots[outline.new_state[name]] for name in outline.names]
    after = build_root_tree([*new, commit_trace(trace), roots[outline.loss]]) if is_whole else None
    return StepView(moment.step, moment, build_root_tree(roots), before, after, fault)


def find_not_finite(number: int, value: Tensor) -> Fault | None:
    """The first element of a value that is NaN or infinite, if there is one."""
    if not value.is_floating_point():
        return None
    odd = ~value.isfinite()
    return Fault(number, int(odd.reshape(-1).to(torch.uint8).argmax())) if bool(odd.any()) else None


def find_bad_element(outline: Outline, number: int, operands: tuple[Tensor, ...]) -> int:
    """An element of a gather or scatter that an index out of range keeps from being computed."""
    node = outline.program.nodes[number - outline.first_node]
    axis, shape = node.attributes[0][0], outline.types[number].shape
    is_gather = node.operation == "gather"
    size = operands[0].shape[axis] if is_gather else shape[axis]
    bad = ((operands[1] < 0) | (operands[1] >= size)).reshape(-1).to(torch.uint8)
    element = int(bad.argmax())
    if is_gather:
        return element
    coordinates = split_element(element, tuple(operands[1].shape))
    coordinates[axis] = 0  # any element whose terms the bad index is among
    return join_element(coordinates, shape)


def view_value(runner: StepRunner, moment: Moment, number: int) -> ValueView | None:
    """One value of a step and what it was computed from; None where an honest run does not come to it."""
    names = runner.outline.operands_of(number)
    for met in runner.walk(moment.state, moment.step):
        if met.number == number:
            return ValueView(moment.step, number, dict(zip(names, met.operands, strict=True)), met.result)
    return None


def read_element(value: Tensor, element: int) -> int:
    """The number of one element."""
    return int(pick(value, np.array([element], np.int64))[0])

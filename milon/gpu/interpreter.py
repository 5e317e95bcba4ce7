"""Runs a checked program: one kernel per node, in order, each value freed after its last use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from milon.base.errors import Reason, Rejected
from milon.gpu import fast
from milon.gpu.chains import CHAIN_MEMBERS_MAX, Chain, ChainKernel, find_chains, is_worth_it, machine
from milon.gpu.exact import canonical_nan
from milon.gpu.operations import MAKERS, TORCH_DTYPES, Call, Maker
from milon.gpu.philox import draw_uniform
from milon.gpu.windows import WINDOW_MAKERS
from milon.pol.operations import check_call
from milon.pol.program import (
    Budget,
    Constant,
    Input,
    InputRole,
    OutputRole,
    Program,
    StepKey,
    compute_types,
    verify_program,
)
from milon.pol.shapes import TensorType

ALL_MAKERS: dict[str, Maker] = {**MAKERS, **WINDOW_MAKERS}


@dataclass(frozen=True, slots=True)
class Result:
    """What one run of a program gives. Every NaN in it is 0x7FC00000."""

    new_state: dict[str, Tensor]  # by name of the state tensor; empty unless the program trains
    loss: Tensor | None  # binary32 scalar; absent from a prediction
    correct: int | None  # rows of the batch that were classified rightly, where the program counts them
    gradients: dict[str, Tensor]  # of the loss, by name of the parameter; empty unless the program trains
    prediction: Tensor | None  # what the model gives; absent unless the program predicts


@dataclass(frozen=True, slots=True)
class Step:
    """One node, ready to run."""

    name: str  # of the operation, for whoever asks what a step spends its time on
    kernel: Callable[..., Sequence[Tensor] | Tensor]  # from operand tensors to the result, or to several in a list
    operands: tuple[int, ...]  # numbers of the values it reads
    results: tuple[int, ...]  # numbers of the values it gives
    freed: tuple[int, ...]  # numbers of the values nobody reads after it


class Plan:
    """A program made ready for one device; runs any number of times and keeps nothing between runs."""

    def __init__(self, program: Program, device: torch.device, constants: list[Tensor], steps: list[Step]) -> None:
        self.program = program
        self.device = device
        self.constants = constants
        self.steps = steps

    def run(self, state: Mapping[str, Tensor], batch: Sequence[Tensor], key: StepKey | None) -> Result:
        """One step on `state` (by name), `batch` (tensors in the program's order) and the draws of `key`.

        Nothing passed in is changed, and no result shares memory with it. Raises `Rejected` where a tensor is missing
        or does not fit its input, where a draw needs a key that is not there, and for indices out of range.
        """
        values = self._gather_inputs(state, batch, key)
        values += self.constants
        values += [None] * len(self.program.nodes)
        clean: set[int] = set()  # numbers of values that were seen to hold no NaN
        with torch.no_grad(), fast.own_threads() if self.device.type == "cpu" else nullcontext():
            for step in self.steps:
                operands: list[Any] = [values[operand] for operand in step.operands]
                given: Sequence[Tensor] | Tensor
                if isinstance(step.kernel, ChainKernel):
                    given, seen = step.kernel.run(operands)
                    clean.update(seen)
                else:
                    given = step.kernel(*operands)
                if isinstance(given, Tensor):
                    values[step.results[0]] = given
                else:
                    for number, value in zip(step.results, given, strict=True):
                        values[number] = value
                for number in step.freed:
                    values[number] = None
            return self._collect(values, clean)

    def _gather_inputs(
        self, state: Mapping[str, Tensor], batch: Sequence[Tensor], key: StepKey | None
    ) -> list[Tensor | None]:
        values: list[Tensor | None] = []
        taken = draws = 0
        for entry in self.program.inputs:
            if entry.role is InputRole.DRAW:
                if key is None:
                    raise Rejected(Reason.MALFORMED, f"the program draws {entry.name!r} and no key was given")
                values.append(self._draw(key, draws, entry))
                draws += 1
                continue
            if entry.role is InputRole.STATE:
                found = state.get(entry.name)
            else:
                found = batch[taken] if taken < len(batch) else None
                taken += 1
            values.append(_fit(entry, found).to(self.device))
        if taken != len(batch):
            raise Rejected(Reason.DOES_NOT_FIT, f"a batch of {len(batch)} tensors where the program takes {taken}")
        return values

    def _draw(self, key: StepKey, number: int, entry: Input) -> Tensor | None:
        """Draw number `number` of the step; None where it is made later, in parts."""
        return draw_uniform(key, number, entry.shape, self.device)

    def _collect(self, values: list[Tensor | None], clean: Collection[int] = ()) -> Result:
        result = Result({}, None, None, {}, None)
        loss = prediction = None
        correct: int | None = None
        used = {_memory_of(value) for value in values[: len(self.program.inputs) + len(self.constants)]}
        last = {output.value: place for place, output in enumerate(self.program.outputs)}
        for place, output in enumerate(self.program.outputs):
            if output.role is OutputRole.ALIAS:
                continue
            value = values[output.value]
            if last[output.value] == place:
                values[output.value] = None  # so that what is copied below is held once
            if value is None:
                raise RuntimeError(f"value {output.value} was freed before it was output")
            if value.dtype is torch.float32 and output.value not in clean and fast.has_nan(value):
                value = canonical_nan(value)
            is_whole = value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes
            if not is_whole or _memory_of(value) in used:
                value = value.clone(memory_format=torch.contiguous_format)
            used.add(_memory_of(value))
            if output.role is OutputRole.NEW_STATE:
                result.new_state[output.name] = value
            elif output.role is OutputRole.GRADIENT:
                result.gradients[output.name] = value
            elif output.role is OutputRole.LOSS:
                loss = value
            elif output.role is OutputRole.CORRECT:
                correct = int(value)
            else:
                prediction = value
        return Result(result.new_state, loss, correct, result.gradients, prediction)


def _memory_of(value: Tensor | None) -> int:
    return 0 if value is None else value.untyped_storage().data_ptr()


def _fit(entry: Input, found: Tensor | None) -> Tensor:
    if found is None:
        raise Rejected(Reason.DOES_NOT_FIT, f"no tensor for {entry.role.value} input {entry.name!r}")
    if found.dtype is not TORCH_DTYPES[entry.dtype] or tuple(found.shape) != entry.shape:
        wanted = f"{entry.dtype.value}{list(entry.shape)}"
        detail = f"{entry.role.value} input {entry.name!r} is {wanted}, found {found.dtype}{list(found.shape)}"
        raise Rejected(Reason.DOES_NOT_FIT, detail)
    return found


def load_constant(constant: Constant, device: torch.device) -> Tensor:
    """A constant of a program as a tensor on `device`."""
    whole = torch.frombuffer(bytearray(constant.raw), dtype=TORCH_DTYPES[constant.dtype])
    return whole.reshape(constant.shape).to(device)


def load(program: Program, device: str | torch.device = "cpu", budget: Budget | None = None) -> Plan:
    """Check `program` against `budget` (the default one if absent) and make it ready to run on `device`."""
    cost = verify_program(program, budget or Budget())
    fast.choose(cost.operations)
    place = torch.device(device)
    torch.set_flush_denormal(False)
    types = compute_types(program)
    loops = machine() if place.type == "cpu" else None
    steps = plan_steps(program, types, place, loops, CHAIN_MEMBERS_MAX)
    shorter = CHAIN_MEMBERS_MAX
    while loops is not None and compute_peak(steps, program, types) > cost.memory_bytes:
        shorter //= 4  # a chain waits for its last operation, and what it reads waits with it
        loops = loops if shorter > 1 else None
        steps = plan_steps(program, types, place, loops, shorter)
    constants = [load_constant(constant, place) for constant in program.constants]
    return Plan(program, place, constants, steps)


def plan_steps(
    program: Program, types: Sequence[TensorType], device: torch.device, loops: ModuleType | None, members_max: int
) -> list[Step]:
    """All nodes as steps, in chains of at most `members_max` operations where `loops` are there to run them."""
    base = len(program.inputs) + len(program.constants)
    if loops is None:
        plain = [_make_step(base + place, program, types, device) for place in range(len(program.nodes))]
        return _free_after_use(plain, program)
    readers: dict[int, list[int]] = {}
    for place, node in enumerate(program.nodes):
        for operand in node.operands:
            readers.setdefault(operand, []).append(base + place)
    outputs = {output.value for output in program.outputs}
    steps: list[Step] = []
    for entry in find_chains(program, types, members_max):
        if isinstance(entry, Chain) and is_worth_it(entry, program):
            members = set(entry.members)
            outside = {
                number
                for number in entry.members
                if number in outputs or any(reader not in members for reader in readers.get(number, ()))
            }
            kernel = ChainKernel(entry, program, types, outside, loops, outputs)
            steps.append(Step("chain", kernel, kernel.sources, kernel.results, ()))
        else:
            numbers = entry.members if isinstance(entry, Chain) else (entry,)
            steps += [_make_step(number, program, types, device) for number in numbers]
    return _free_after_use(steps, program)


def compute_peak(steps: Sequence[Step], program: Program, types: Sequence[TensorType]) -> int:
    """The most bytes alive at once when `steps` run, scratch and kept tables included, by the table's estimates."""
    base = len(program.inputs) + len(program.constants)
    live, peak, kept = sum(found.size_bytes for found in types[:base]), 0, 0
    for step in steps:
        if isinstance(step.kernel, ChainKernel):
            scratch = step.kernel.scratch_bytes
        else:
            node = program.nodes[step.results[0] - base]
            outcome = check_call(node.operation, tuple(types[operand] for operand in node.operands), node.attributes)
            scratch, kept = outcome.scratch_bytes, kept + outcome.kept_bytes
        live += sum(types[number].size_bytes for number in step.results)
        peak = max(peak, live + scratch)
        live -= sum(types[number].size_bytes for number in step.freed if number >= base)
    return peak + kept


def _make_step(number: int, program: Program, types: Sequence[TensorType], device: torch.device) -> Step:
    node = program.nodes[number - len(program.inputs) - len(program.constants)]
    operands = tuple(types[operand] for operand in node.operands)
    call = Call(operands, node.attributes, types[number], program.magnitude_bits, device)
    return Step(node.operation, ALL_MAKERS[node.operation](call), node.operands, (number,), ())


def _free_after_use(steps: Sequence[Step], program: Program) -> list[Step]:
    """The same steps, each knowing which values nobody reads after it."""
    kept = {output.value for output in program.outputs}
    last: dict[int, int] = {}
    for place, step in enumerate(steps):
        last.update(dict.fromkeys((*step.operands, *step.results), place))
    freed: list[list[int]] = [[] for _ in steps]
    for number, place in last.items():
        if number not in kept:
            freed[place].append(number)
    return [replace(step, freed=tuple(numbers)) for step, numbers in zip(steps, freed, strict=True)]

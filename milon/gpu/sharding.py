"""Runs a program on several shards of a batch in lockstep, operation by operation, with the bits of one (rule N7).

State and constants are whole on every shard; batch and draws are dealt out by rows, and the rules of
`milon.gpu.sharding_rules` carry the split through the program. A sum over the rows takes the greatest magnitude of all
shards first, then adds integers over all shards, then rounds once, so the number of shards cannot show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from milon.gpu import fast
from milon.gpu.interpreter import Plan, Result, load_constant
from milon.gpu.philox import draw_elements, draw_uniform
from milon.gpu.sharding_ports import Loop, Port
from milon.gpu.sharding_rules import Placement, Site, find_wishes, place
from milon.gpu.sharding_split import Split, assemble, count_rows, cut, list_elements, to_rows
from milon.gpu.sharding_steps import Parts, Runner, make_runner
from milon.pol.program import (
    Budget,
    Input,
    InputRole,
    Program,
    StepKey,
    compute_last_uses,
    compute_types,
    verify_program,
)
from milon.pol.shapes import TensorType


@dataclass(frozen=True, slots=True)
class ShardedStep:
    """One operation, ready to run."""

    operands: tuple[tuple[int, Split | None], ...]  # number of each value, and the form it is wanted in
    run: Runner
    result: Split | None  # the form of the result
    freed: tuple[int, ...]  # numbers of the values nobody reads after it


class Value:
    """One value while a step runs, in the forms that were needed so far."""

    def __init__(self, forms: dict[Split | None, Parts], draw: int | None = None) -> None:
        self.forms = forms  # by split; None: whole
        self.draw = draw  # the number of the draw where it is one and made only as needed


class ShardedPlan(Plan):
    """A program made ready for all shards held here; runs as `Plan` does and gives the same bits."""

    def __init__(self, program: Program, types: Sequence[TensorType], port: Port, devices: Sequence[torch.device]):
        """`devices` has one entry per shard held here. Use `load_sharded`."""
        super().__init__(program, devices[0], [load_constant(entry, devices[0]) for entry in program.constants], [])
        self.port = port
        self._devices = tuple(devices)
        self._types = types
        self._constants = [[whole.to(device) for device in self._devices] for whole in self.constants]
        base = len(program.inputs) + len(program.constants)
        sites, placements, self.gathered = analyze(program, types, port.shards)
        frees = _list_frees(program, base)
        self._sharded = [
            ShardedStep(
                tuple(zip(site.node.operands, placement.operands, strict=True)),
                make_runner(site, placement, program.magnitude_bits, port, self._devices),
                placement.result,
                freed,
            )
            for site, placement, freed in zip(sites, placements, frees, strict=True)
        ]

    def run(self, state: Mapping[str, Tensor], batch: Sequence[Tensor], key: StepKey | None) -> Result:
        """See `Plan.run`. What one shard refuses, all refuse."""
        given = self._gather_inputs(state, batch, key)
        values: list[Value | None] = [self._open(whole) for whole in given]
        values += [Value({None: parts}) for parts in self._constants]
        draws = [place for place, entry in enumerate(self.program.inputs) if entry.role is InputRole.DRAW]
        for number, place_ in enumerate(draws):
            values[place_] = Value({}, number)
        with torch.no_grad():
            for step in self._sharded:
                parts = [self._take(values, number, split, key) for number, split in step.operands]
                values.append(Value({step.result: step.run(parts)}))
                for number in step.freed:
                    values[number] = None
            wholes: list[Tensor | None] = [*given, *self.constants, *[None] * len(self.program.nodes)]
            for output in self.program.outputs:
                wholes[output.value] = self._take(values, output.value, None, key)[0]
            return self._collect(wholes)

    def _draw(self, key: StepKey, number: int, entry: Input) -> Tensor | None:
        """Draws are made as they are needed: each shard its own rows."""
        return None

    def _open(self, whole: Tensor | None) -> Value | None:
        return None if whole is None else Value({None: [whole.to(device) for device in self._devices]})

    def _take(self, values: list[Value | None], number: int, split: Split | None, key: StepKey | None) -> Parts:
        """The parts of a value in the wanted form, which is made and kept where it is not there yet."""
        value = values[number]
        if value is None:
            raise RuntimeError(f"value {number} was freed before it was read")
        if split not in value.forms:
            shape = self._types[number].shape
            if value.draw is not None and key is not None:
                value.forms[split] = self._draw_parts(key, value.draw, shape, split)
            else:
                if None not in value.forms:
                    value.forms[None] = self._gather(value, shape)
                if split is not None:
                    wholes = zip(value.forms[None], self.port.held, strict=True)
                    value.forms[split] = [cut(whole, split, shard, self.port.shards) for whole, shard in wholes]
        return value.forms[split]

    def _draw_parts(self, key: StepKey, draw: int, shape: tuple[int, ...], split: Split | None) -> Parts:
        if split is None:
            wholes = {device: draw_uniform(key, draw, shape, device) for device in self._devices}
            return [wholes[device] for device in self._devices]
        held = zip(self.port.held, self._devices, strict=True)
        elements = (list_elements(shape, split, shard, self.port.shards, device) for shard, device in held)
        return [draw_elements(key, draw, places) for places in elements]

    def _gather(self, value: Value, shape: tuple[int, ...]) -> Parts:
        split, parts = next((split, parts) for split, parts in value.forms.items() if split is not None)
        rows = [count_rows(split.rows, shard, self.port.shards) for shard in range(self.port.shards)]
        found = self.port.gather([to_rows(part, split) for part in parts], rows)
        wholes: dict[torch.device, Tensor] = {}
        for device, all_parts in zip(self._devices, found, strict=True):
            if device not in wholes:
                wholes[device] = assemble(all_parts, shape)
        return [wholes[device] for device in self._devices]


def _list_frees(program: Program, base: int) -> list[tuple[int, ...]]:
    """For each node, the values nobody reads after it."""
    frees: list[list[int]] = [[] for _ in range(len(program.nodes) + 1)]
    for number, last in enumerate(compute_last_uses(program)):
        frees[max(last, number - base if number >= base else 0)].append(number)
    return [tuple(numbers) for numbers in frees[:-1]]


def analyze(
    program: Program, types: Sequence[TensorType], shards: int
) -> tuple[list[Site], list[Placement], Counter[str]]:
    """How every node runs on so many shards, and the operations whose operands were brought together first.

    The second pass knows how the values that depend on draws are wanted, so that each shard draws its own rows.
    """
    inputs = _split_batch(program, shards)
    base = len(program.inputs) + len(program.constants)
    sites, placements, _ = _place_all(program, types, shards, inputs)
    wishes = find_wishes(sites, placements, base)
    for place_, entry in enumerate(program.inputs):
        if entry.role is InputRole.DRAW and place_ in wishes:
            inputs[place_] = wishes[place_]
    return _place_all(program, types, shards, inputs)


def _split_batch(program: Program, shards: int) -> dict[int, Split]:
    """The batch inputs by rows; those with fewer rows than shards, or none, stay whole."""
    batch = [(place_, entry.shape) for place_, entry in enumerate(program.inputs) if entry.role is InputRole.BATCH]
    if not batch or not batch[0][1]:
        return {}
    rows = batch[0][1][0]
    fits = rows >= max(2, shards) and shards > 1
    return {place_: Split(0, 1, rows, 1) for place_, shape in batch if fits and shape and shape[0] == rows}


def _place_all(
    program: Program, types: Sequence[TensorType], shards: int, inputs: Mapping[int, Split]
) -> tuple[list[Site], list[Placement], Counter[str]]:
    base = len(program.inputs) + len(program.constants)
    splits: list[Split | None] = [inputs.get(number) for number in range(base)]
    is_whole = [True] * base  # whether the whole is there without asking other shards
    sites, placements = [], []
    gathered: Counter[str] = Counter()
    for place_, node in enumerate(program.nodes):
        operands = tuple(types[operand] for operand in node.operands)
        found = tuple(splits[operand] for operand in node.operands)
        site = Site(node, operands, types[base + place_], found, shards)
        placement = place(site)
        for operand, wanted in zip(node.operands, placement.operands, strict=True):
            if not is_whole[operand] and wanted != splits[operand]:
                is_whole[operand] = True
                gathered[node.operation] += 1
        sites.append(site)
        placements.append(placement)
        splits.append(placement.result or placement.preferred)
        is_whole.append(placement.result is None)
    return sites, placements, gathered


def load_sharded(
    program: Program,
    devices: Sequence[str | torch.device],
    port: Port | None = None,
    budget: Budget | None = None,
) -> ShardedPlan:
    """Check `program` against `budget` and make it ready to run in lockstep, one shard per entry of `devices`.

    With a `port`, `devices` are those of the shards it holds here; without, all shards are in this process. A batch
    with fewer rows than shards runs whole on each.
    """
    cost = verify_program(program, budget or Budget())
    fast.choose(cost.operations)
    torch.set_flush_denormal(False)
    places = [torch.device(device) for device in devices]
    return ShardedPlan(program, compute_types(program), port or Loop(places), places)

"""The training program as a value: what travels to the nodes instead of code, and the check it must pass there.

A program is a straight line of operations over numbered values: first the inputs, then the constants, then one value
per node. A node may name only earlier values, so there are no loops, and checking takes one pass. It runs on
`(state, batch, draws)` and gives the outputs that its kind requires; no float appears in it, constants are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from milon.base.codec import encode, wire
from milon.base.errors import Reason, Rejected, require
from milon.base.hashing import digest
from milon.base.ids import Digest
from milon.pol.operations import OPERATIONS, check_call
from milon.pol.shapes import DType, TensorType, compute_product, verify_shape
from milon.pol.table import Outcome

NUMERICS = "exact/1"  # the rules N1 to N7 and the table of operations, as docs/spec/numerics.md states them
MAGNITUDE_BITS = (13, 21)  # M of rule N4: 13 for int8 kernels, 21 for binary64 kernels
VIEWS = frozenset({"cast", "expand", "permute", "reshape", "slice"})  # results may lie in their operand's memory
DRAW_SCRATCH_BYTES = 32  # an element, while it is drawn: 26 when measured, in words of 64 bits
VALUES_MAX = 1 << 16  # a transformer of 48 layers captures to fewer than 40,000 nodes
CONSTANT_MAX_BYTES = 1 << 20  # tables of positions and masks; weights are state, not constants
PROGRAM_BYTES_MAX = 64 << 20  # the largest tables of constants, and nodes far beyond any budget
NAME_MAX = 256  # characters of the longest parameter names in use, doubled
WHOLE_BUDGET_BYTES = 16 << 30  # memory of the smallest machine that takes part in ordinary jobs
WHOLE_BUDGET_OPERATIONS = 1 << 50  # an hour of one accelerator


class ProgramKind(StrEnum):
    """What a program is for, which decides the outputs it must have."""

    TRAIN = "train"
    EVALUATE = "evaluate"
    PREDICT = "predict"


class InputRole(StrEnum):
    """Where an input's value comes from."""

    STATE = "state"  # the tensor of that name in the state
    BATCH = "batch"  # the next tensor of the batch, in order of appearance
    DRAW = "draw"  # uniform binary32 in [0, 1), multiples of 2^-24, from rule N5; numbered in order of appearance


class OutputRole(StrEnum):
    """What an output is for."""

    NEW_STATE = "new-state"  # replaces the state tensor of that name
    LOSS = "loss"  # binary32 scalar, the mean over the batch
    CORRECT = "correct"  # int64 scalar, how many rows of the batch were classified rightly
    GRADIENT = "gradient"  # of the loss, with respect to the state tensor of that name
    PREDICTION = "prediction"  # what the model gives
    ALIAS = "alias"  # a state tensor's other name in the model, as tied weights have one; a run gives nothing for it


@wire("program-input/1")
@dataclass(frozen=True, slots=True)
class Input:
    """One tensor that a run is given."""

    name: str  # of the state tensor; for a batch or a draw only a label
    role: InputRole  # where its value comes from
    dtype: DType  # its element type
    shape: tuple[int, ...]  # its sizes


@wire("program-constant/1")
@dataclass(frozen=True, slots=True)
class Constant:
    """One tensor that is part of the program."""

    dtype: DType  # its element type
    shape: tuple[int, ...]  # its sizes
    raw: bytes  # its elements in row-major order, little-endian; a truth value is one byte, 0 or 1


@wire("program-node/1")
@dataclass(frozen=True, slots=True)
class Node:
    """One operation; its result is the next value."""

    operation: str  # a name in the table of operations
    operands: tuple[int, ...]  # numbers of earlier values
    attributes: tuple[tuple[int, ...], ...]  # as the table's row for the operation says


@wire("program-output/1")
@dataclass(frozen=True, slots=True)
class Output:
    """One value that a run gives."""

    role: OutputRole  # what it is for
    name: str  # of the state tensor, or its other name; empty where there is no such tensor
    value: int  # number of the value; for an alias, of the state tensor


@wire("program/1")
@dataclass(frozen=True, slots=True)
class Program:
    """One training step, evaluation or prediction."""

    kind: ProgramKind  # decides which outputs there must be
    numerics: str  # `NUMERICS`: the rules under which it runs
    magnitude_bits: int  # M of rule N4, one of `MAGNITUDE_BITS`
    inputs: tuple[Input, ...]  # values 0 ...
    constants: tuple[Constant, ...]  # the values after the inputs
    nodes: tuple[Node, ...]  # the values after the constants, in the order they are computed
    outputs: tuple[Output, ...]  # what a run gives


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that one run of a program may take."""

    memory_bytes_max: int = WHOLE_BUDGET_BYTES  # live values and scratch together
    operations_max: int = WHOLE_BUDGET_OPERATIONS  # elementary arithmetic steps


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of a program takes, by the table's estimates."""

    memory_bytes: int  # at the worst moment, tables that are kept included
    operations: int  # elementary arithmetic steps


@dataclass(frozen=True, slots=True)
class StepKey:
    """What the random draws of one training step depend on (rule N5)."""

    job_seed: bytes  # 32 bytes, fixed when the job starts
    round: int  # of the job, below 2^32
    trainer: int  # its place among the round's trainers, below 2^32
    step: int  # of the trainer's work in the round, below 2^32


def compute_program_digest(program: Program) -> Digest:
    """The digest that names a program on the chain."""
    return digest("program", encode(program))


def compute_types(program: Program) -> tuple[TensorType, ...]:
    """Element type and shape of every value of a program, in order; `Rejected` names the node that does not check."""
    return _check_values(program)[0]


def verify_program(program: Program, budget: Budget) -> Cost:
    """The cost of one run; `Rejected` unless every node checks, the outputs fit the kind, and the cost the budget.

    Takes time linear in the size of the program and touches no tensor.
    """
    require(program.numerics == NUMERICS, Reason.UNSUPPORTED, f"numerics {program.numerics[:64]!r}")
    require(program.magnitude_bits in MAGNITUDE_BITS, Reason.OUT_OF_RANGE, f"magnitude {program.magnitude_bits}")
    count = len(program.inputs) + len(program.constants) + len(program.nodes)
    require(count <= VALUES_MAX, Reason.TOO_LARGE, f"{count} values where {VALUES_MAX} are allowed")
    require(len(program.outputs) <= VALUES_MAX, Reason.TOO_LARGE, f"{len(program.outputs)} outputs")
    types, outcomes = _check_values(program)
    _verify_outputs(program, types)
    kept = sum(outcome.kept_bytes for outcome in outcomes)
    scratch = [outcome.scratch_bytes for outcome in outcomes]
    cost = Cost(_compute_peak(program, types, scratch) + kept, sum(outcome.operations for outcome in outcomes))
    if cost.operations > budget.operations_max:
        raise Rejected(Reason.OVER_BUDGET, f"{cost.operations} operations where {budget.operations_max} are allowed")
    if cost.memory_bytes > budget.memory_bytes_max:
        raise Rejected(Reason.OVER_BUDGET, f"{cost.memory_bytes} bytes where {budget.memory_bytes_max} are allowed")
    return cost


def compute_last_uses(program: Program) -> tuple[int, ...]:
    """For each value, the node after which it is not needed (-1: never used), the number of nodes for an output."""
    base = len(program.inputs) + len(program.constants)
    last = [-1] * (base + len(program.nodes))
    for place, node in enumerate(program.nodes):
        for operand in node.operands:
            last[operand] = place
    for output in program.outputs:
        last[output.value] = len(program.nodes)
    return tuple(last)


def _check_values(program: Program) -> tuple[tuple[TensorType, ...], list[Outcome]]:
    """Types of all values, and what each node gives and costs."""
    types = [_check_input(place, entry) for place, entry in enumerate(program.inputs)]
    names = [entry.name for entry in program.inputs if entry.role is InputRole.STATE]
    require(len(names) == len(set(names)), Reason.DUPLICATE, "two inputs for one state tensor")
    types += [_check_constant(place, entry) for place, entry in enumerate(program.constants)]
    outcomes = []
    for place, node in enumerate(program.nodes):
        where = f"node {place} ({node.operation[:64]})"
        if any(not 0 <= operand < len(types) for operand in node.operands):
            raise Rejected(Reason.MALFORMED, f"{where}: names a value that is not there yet")
        try:
            outcome = check_call(node.operation, tuple(types[operand] for operand in node.operands), node.attributes)
        except Rejected as refusal:
            raise Rejected(refusal.reason, f"{where}: {refusal.detail}") from None
        types.append(outcome.type)
        outcomes.append(outcome)
    return tuple(types), outcomes


def _check_input(place: int, entry: Input) -> TensorType:
    require(len(entry.name) <= NAME_MAX, Reason.TOO_LARGE, f"the name of input {place}")
    verify_shape(entry.shape)
    if entry.role is InputRole.DRAW:
        require(entry.dtype is DType.FLOAT32, Reason.WRONG_TYPE, f"draw {entry.name!r} of type {entry.dtype.value}")
    return TensorType(entry.dtype, entry.shape)


def _check_constant(place: int, entry: Constant) -> TensorType:
    verify_shape(entry.shape)
    found = TensorType(entry.dtype, entry.shape)
    require(len(entry.raw) <= CONSTANT_MAX_BYTES, Reason.TOO_LARGE, f"constant {place} of {len(entry.raw)} bytes")
    require(len(entry.raw) == found.size_bytes, Reason.DOES_NOT_FIT, f"constant {place} has {len(entry.raw)} bytes")
    if entry.dtype is DType.BOOL:
        require(not entry.raw.strip(b"\x00\x01"), Reason.NOT_CANONICAL, f"constant {place} holds other than 0 and 1")
    return found


_OUTPUTS = {
    ProgramKind.TRAIN: (OutputRole.NEW_STATE, OutputRole.LOSS, OutputRole.GRADIENT),
    ProgramKind.EVALUATE: (OutputRole.LOSS, OutputRole.CORRECT),
    ProgramKind.PREDICT: (OutputRole.PREDICTION, OutputRole.ALIAS),
}
_SCALARS = {OutputRole.LOSS: DType.FLOAT32, OutputRole.CORRECT: DType.INT64}


def _verify_outputs(program: Program, types: tuple[TensorType, ...]) -> None:
    state = {entry.name: types[place] for place, entry in enumerate(program.inputs) if entry.role is InputRole.STATE}
    seen: set[tuple[OutputRole, str]] = set()
    for output in program.outputs:
        where = f"output {output.role.value} {output.name[:64]!r}"
        require(output.role in _OUTPUTS[program.kind], Reason.NOT_ALLOWED, f"{where} of a {program.kind} program")
        require((output.role, output.name) not in seen, Reason.DUPLICATE, f"{where} twice")
        seen.add((output.role, output.name))
        require(0 <= output.value < len(types), Reason.MALFORMED, f"{where} names no value")
        found = types[output.value]
        if output.role in (OutputRole.NEW_STATE, OutputRole.GRADIENT):
            if output.name not in state:
                raise Rejected(Reason.UNKNOWN, f"{where}: no such state tensor")
            wanted = state[output.name]
            require(found == wanted, Reason.DOES_NOT_FIT, f"{where} is {found}, not {wanted}")
        elif output.role is OutputRole.ALIAS:
            is_state = output.value < len(program.inputs) and program.inputs[output.value].role is InputRole.STATE
            require(is_state, Reason.MALFORMED, f"{where} of something that is no state tensor")
            require(0 < len(output.name) <= NAME_MAX, Reason.MALFORMED, f"{where}: its length")
            require(output.name not in state, Reason.DUPLICATE, f"{where} is a state tensor's own name")
        else:
            require(output.name == "", Reason.NOT_CANONICAL, f"{where} has a name")
        if output.role in _SCALARS:
            wanted = TensorType(_SCALARS[output.role], ())
            require(found == wanted, Reason.DOES_NOT_FIT, f"{where} is {found}, not {wanted}")
    if program.kind is ProgramKind.TRAIN:
        missing = sorted(name for name in state if (OutputRole.NEW_STATE, name) not in seen)
        require(not missing, Reason.MALFORMED, f"no new state for {missing[:4]!r:.300}")
    needed = OutputRole.PREDICTION if program.kind is ProgramKind.PREDICT else OutputRole.LOSS
    require((needed, "") in seen, Reason.MALFORMED, f"a {program.kind.value} program without a {needed.value}")


def _find_owners(program: Program) -> list[int]:
    """For each value, the one whose memory it may share: its own number, or that of what it is a view of."""
    owners = list(range(len(program.inputs) + len(program.constants)))
    for node in program.nodes:
        owners.append(owners[node.operands[0]] if node.operation in VIEWS else len(owners))
    return owners


def _compute_peak(program: Program, types: tuple[TensorType, ...], scratch: list[int]) -> int:
    """The most bytes alive at once when every value is freed after the last use of it and of all views of it."""
    base = len(program.inputs) + len(program.constants)
    owners = _find_owners(program)
    last = list(compute_last_uses(program))
    for value in reversed(range(len(last))):
        last[owners[value]] = max(last[owners[value]], last[value])
    freed: list[list[int]] = [[] for _ in range(len(program.nodes) + 1)]
    for value, place in enumerate(last):
        if value >= base:  # inputs and constants belong to the caller and stay
            freed[max(place, value - base)].append(value)
    live = sum(found.size_bytes for found in types[:base])
    drawn = [compute_product(entry.shape) for entry in program.inputs if entry.role is InputRole.DRAW]
    peak = live + DRAW_SCRATCH_BYTES * max(drawn, default=0)
    for place in range(len(program.nodes)):
        live += types[base + place].size_bytes
        peak = max(peak, live + scratch[place])
        live -= sum(types[value].size_bytes for value in freed[place])
    given = [types[output.value].size_bytes for output in program.outputs]
    return max(peak, live + 2 * max(given, default=0))  # an output is looked through for NaN, and copied if shared


def describe_operations() -> tuple[tuple[str, str], ...]:
    """Every operation with the rule of numerics.md it follows, in alphabetical order."""
    return tuple((name, OPERATIONS[name].rule) for name in sorted(OPERATIONS))

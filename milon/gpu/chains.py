"""Finds chains of elementwise operations in a program and makes one kernel of each, run block by block on a CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from math import prod
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from milon.gpu import angles, elementary, fast
from milon.gpu.compiling import turn
from milon.gpu.operations import maximum, minimum
from milon.pol.program import NUMERICS, Input, InputRole, Node, Program, ProgramKind
from milon.pol.shapes import DTYPES, DType, TensorType

CHAIN_MEMBERS_MAX = 64  # operations of a chain: its registers stay in the second cache
_ARITHMETIC = ("add", "sub", "mul", "div", "maximum", "minimum", "neg", "abs", "sqrt")
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_LOGIC = ("and", "or", "not")
_FUNCTIONS = tuple(elementary.FUNCTIONS)
_SLOW_ALONE = (*_FUNCTIONS, "sqrt", "maximum", "minimum")  # take several passes in plain torch
_SMALL = 256  # elements below which a lone operation is quicker in plain torch
_LARGE = 1 << 15  # from so many elements on loops use several threads, and torch's own operations do not


def machine() -> ModuleType | None:
    """The machine of `milon.gpu.kernels_chain`, or None where it is not used or differs from plain torch."""
    return None if fast.kernels() is None else _load_machine()


@cache
def _load_machine() -> ModuleType | None:
    from milon.gpu import kernels_chain

    with turn("chains of operations"):
        is_right = agrees(kernels_chain)
    if not is_right:
        warnings.warn("chains of operations differ from the reference and are not used", stacklevel=2)
        return None
    return kernels_chain


def agrees(loops: ModuleType) -> bool:
    """Whether every operation gives the bits of plain torch on a sample with all that numbers can be."""
    inputs = torch.tensor((0.0, -0.0, 0.3, -0.7, 1.0, 5.5, -87.3, 2.0**-149, -3e38, torch.inf, -torch.inf, torch.nan))
    inputs = torch.cat((inputs, torch.linspace(-4.0, 4.0, 500), torch.exp2(torch.linspace(-140.0, 120.0, 500))))
    other = inputs.flip(0)
    plain: dict[str, Callable[[], Tensor]] = {
        **{name: partial(elementary.evaluate, name, inputs) for name in _FUNCTIONS},
        "sqrt": partial(elementary.square_root, inputs),
        "add": partial(torch.add, inputs, other),
        "sub": partial(torch.sub, inputs, other),
        "mul": partial(torch.mul, inputs, other),
        "div": partial(torch.div, inputs, other),
        "maximum": partial(maximum, inputs, other),
        "minimum": partial(minimum, inputs, other),
    }
    kind = TensorType(DType.FLOAT32, tuple(inputs.shape))
    entries = tuple(Input(name, InputRole.BATCH, kind.dtype, kind.shape) for name in ("left", "right"))
    for name, wanted in plain.items():
        operands = (0,) if name in (*_FUNCTIONS, "sqrt") else (0, 1)
        program = Program(ProgramKind.PREDICT, NUMERICS, 13, entries, (), (Node(name, operands, ()),), ())
        kernel = ChainKernel(Chain(kind.shape, [2]), program, (kind, kind, kind), {2}, loops)
        if not fast.is_same(kernel(*(inputs, other)[: len(operands)])[0], wanted()):
            return False
    return True


@cache
def _coefficients() -> tuple[Any, ...]:
    log = (elementary.LOG2_HIGH, elementary.LOG2_LOW, elementary.LOG2_INVERSE, *elementary.LOG_SERIES)
    large = (*elementary.ERF_LARGE, elementary.ERF_STRETCH)
    waves = (angles.QUARTER, angles.TURN_UNIT, *angles.SIN_SERIES, *angles.COS_SERIES)
    return elementary.EXP_SERIES, log, elementary.ERF_SMALL, large, waves, angles.make_words().numpy()


@cache
def _corrections(loops: ModuleType) -> Any:
    """Rows of (opcode, input, output): what `elementary.CORRECTIONS` puts right."""
    rows = [
        (loops.OPCODES[name], given, right)
        for name, known in sorted(elementary.CORRECTIONS.items())
        for given, right in known
        if name in _FUNCTIONS
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 3).astype(np.uint32).view(np.int32)


def opcode_name(node: Node, operands: Sequence[TensorType], result: TensorType) -> str | None:
    """The instruction that does what the node does; None where a chain cannot."""
    kinds = [operand.dtype for operand in operands]
    if DType.INT64 in kinds or result.dtype is DType.INT64 or 0 in result.shape:
        return None
    if node.operation in _ARITHMETIC or node.operation in _FUNCTIONS or node.operation in _COMPARISONS:
        return node.operation if all(kind is DType.FLOAT32 for kind in kinds) else None
    if node.operation in _LOGIC:
        return node.operation if all(kind is DType.BOOL for kind in kinds) else None
    if node.operation == "where":
        return "where"
    if node.operation == "cast":
        return "truth" if DTYPES[node.attributes[0][0]] is DType.BOOL else "copy"
    return None


@dataclass(slots=True)
class Chain:
    """Operations on one shape that run as one step."""

    shape: tuple[int, ...]  # of every result
    members: list[int] = field(default_factory=list)  # numbers of the values, in order


def find_chains(
    program: Program, types: Sequence[TensorType], members_max: int = CHAIN_MEMBERS_MAX
) -> list[int | Chain]:
    """The program's nodes (by number of their value) and chains of them, in an order in which all may run.

    A chain takes up every operation on its shape, at most `members_max`, until another step reads one of its results:
    then it runs.
    """
    base = len(program.inputs) + len(program.constants)
    order: list[int | Chain] = []
    waiting: dict[tuple[int, ...], Chain] = {}
    chain_of: dict[int, Chain] = {}

    def run(chain: Chain) -> None:
        if waiting.get(chain.shape) is chain:
            del waiting[chain.shape]
            order.append(chain)

    for place, node in enumerate(program.nodes):
        number = base + place
        shape = types[number].shape
        fits = opcode_name(node, [types[operand] for operand in node.operands], types[number]) is not None
        own = waiting.get(shape) if fits else None
        for operand in node.operands:
            if operand in chain_of and chain_of[operand] is not own:
                run(chain_of[operand])
        if not fits:
            order.append(number)
            continue
        if own is None:
            own = waiting[shape] = Chain(shape)
        own.members.append(number)
        chain_of[number] = own
        if len(own.members) >= members_max:
            run(own)
    order += waiting.values()
    return order


def is_worth_it(chain: Chain, program: Program) -> bool:
    """Whether a chain is quicker than its operations one by one in plain torch."""
    base = len(program.inputs) + len(program.constants)
    if len(chain.members) > 3:
        return True
    if prod(chain.shape) < _SMALL:
        return False
    slow = any(program.nodes[number - base].operation in _SLOW_ALONE for number in chain.members)
    return slow or len(chain.members) > 1 or prod(chain.shape) >= _LARGE


def find_period(shape: tuple[int, ...], whole: tuple[int, ...]) -> tuple[int, int] | None:
    """(repeat, period) such that element p of `shape` broadcast to `whole` is element (p // repeat) % period of it.

    None where no such numbers exist: the axes it has are not side by side.
    """
    sizes = (1,) * (len(whole) - len(shape)) + shape
    held = [axis for axis, size in enumerate(sizes) if size != 1]
    if not held:
        return 1, 1
    first, last = held[0], held[-1]
    if sizes[first : last + 1] != whole[first : last + 1]:
        return None
    return prod(whole[last + 1 :]), prod(sizes)


class ChainKernel:
    """One chain made ready: takes its sources, in the order of `sources`, and gives the values of `results`.

    Of the values in `watch` that it reads or writes where they lie, it tells which hold no NaN.
    """

    def __init__(
        self,
        chain: Chain,
        program: Program,
        types: Sequence[TensorType],
        read_outside: set[int],
        loops: ModuleType,
        watch: Collection[int] = (),
    ) -> None:
        self._base = len(program.inputs) + len(program.constants)
        self._program = program
        self._types = types
        self.shape, self._count = chain.shape, prod(chain.shape)
        members = {number: place for place, number in enumerate(chain.members)}
        found: dict[int, None] = {}
        for number in chain.members:
            found.update(dict.fromkeys(operand for operand in self._node(number).operands if operand not in members))
        self.sources = tuple(found)
        self.results = tuple(number for number in chain.members if number in read_outside)
        self._place = {number: place for place, number in enumerate((*self.sources, *chain.members))}
        self._members = chain.members
        self._loops = loops
        self._expanded: set[int] = set()  # places of sources that must be laid out in full first
        self._loads: list[tuple[int, int, int, int, int]] = []
        self._direct: list[int] = []  # places of sources that are read where they lie
        self._plan_sources()
        self._plan_registers()
        held = [self.sources[place] for place in self._direct] + self._floats
        self._watched = tuple(number for number in held if number in watch)
        self._watched_places = np.array([self._place[number] for number in self._watched], dtype=np.int64)
        self._blocks = -(-self._count // loops.BLOCK)
        self.scratch_bytes = 4 * self._count * len(self._expanded)  # sources that are laid out in full

    def _node(self, number: int) -> Node:
        return self._program.nodes[number - self._base]

    def _plan_sources(self) -> None:
        for place, number in enumerate(self.sources):
            kind = self._types[number]
            period = find_period(kind.shape, self.shape)
            if period is None:
                self._expanded.add(place)
                period = (1, self._count)
            if kind.dtype is DType.FLOAT32 and period == (1, self._count):
                self._direct.append(place)
                continue
            holds = self._loops.FLOAT if kind.dtype is DType.FLOAT32 else self._loops.TRUTH
            self._loads.append((place, 0, holds, *period))

    def _plan_registers(self) -> None:
        """Where each value lies: in memory (base 0 for now, stride 4) or in register r (base -1 - r)."""
        size = len(self._place)
        self._where = np.zeros(size, dtype=np.int64)
        self._stride = np.full(size, 4, dtype=np.int64)
        self._floats = [number for number in self.results if self._types[number].dtype is DType.FLOAT32]
        in_memory = {self._place[number] for number in self._floats} | set(self._direct)
        code: list[tuple[int, ...]] = []
        last: dict[int, int] = {}
        for number in self._members:
            node = self._node(number)
            name = opcode_name(node, [self._types[operand] for operand in node.operands], self._types[number])
            places = [self._place[operand] for operand in node.operands]
            last.update(dict.fromkeys(places, len(code)))
            places += [places[0]] * (3 - len(places))
            code.append((self._loops.OPCODES[name], self._place[number], *places))
        never = len(code)
        last.update({place: never for place, _, _, _, _ in self._loads})  # loaded before the first instruction
        last.update({self._place[number]: never for number in self.results})
        free: list[int] = []
        self._registers = 0
        ending: dict[int, list[int]] = {}
        order = [(-1, load[0]) for load in self._loads] + [(at, row[1]) for at, row in enumerate(code)]
        for at, place in order:
            if place in in_memory:
                continue
            for ended in [when for when in ending if when < at]:
                free += ending.pop(ended)
            if free:
                register = free.pop()
            else:
                register, self._registers = self._registers, self._registers + 1
            self._where[place], self._stride[place] = -1 - register, 0
            ending.setdefault(last.get(place, at), []).append(register)
        self._code = np.array(code, dtype=np.int64).reshape(-1, 5)

    def __call__(self, *given: Tensor) -> list[Tensor]:
        """The results, each contiguous and of its own memory."""
        return self.run(given)[0]

    def run(self, given: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
        """The results, and which of the values watched hold no NaN."""
        held = [
            (tensor.expand(self.shape) if place in self._expanded else tensor).contiguous()
            for place, tensor in enumerate(given)
        ]
        base = self._where.copy()
        for place in self._direct:
            base[place] = held[place].data_ptr()
        loads = np.array(
            [(place, held[place].data_ptr(), *rest) for place, _, *rest in self._loads], dtype=np.int64
        ).reshape(-1, 5)
        made: list[Tensor] = []
        stores, nans = [], np.zeros(len(self._watched), dtype=np.uint8)
        for number in self.results:
            is_float = self._types[number].dtype is DType.FLOAT32
            result = torch.empty(self.shape, dtype=torch.float32 if is_float else torch.bool)
            made.append(result)
            if is_float:
                base[self._place[number]] = result.data_ptr()
            else:
                stores.append((self._place[number], result.data_ptr()))
        fast.split(
            self._loops.run_chain, self._blocks, self._count * len(self._members), self._count, self._registers,
            base, self._stride, loads, self._code, np.array(stores, dtype=np.int64).reshape(-1, 2),
            self._watched_places, nans, _corrections(self._loops), *_coefficients(),
        )  # fmt: skip
        return made, [number for number, has_nan in zip(self._watched, nans, strict=True) if not has_nan]

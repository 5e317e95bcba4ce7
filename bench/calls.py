"""Calls of every operation of the table on numbers chosen to hurt: for golden digests, and for a slow reference."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from milon.gpu.exact import canonical_nan
from milon.gpu.interpreter import load
from milon.gpu.philox import draw_uniform
from milon.pol.operations import OPERATIONS
from milon.pol.program import (
    NUMERICS,
    Input,
    InputRole,
    Node,
    Output,
    OutputRole,
    Program,
    ProgramKind,
    StepKey,
)
from milon.pol.shapes import DType

Attributes = tuple[tuple[int, ...], ...]
DTYPES = {torch.float32: DType.FLOAT32, torch.int64: DType.INT64, torch.bool: DType.BOOL}
# Zeros, ones, the smallest and largest subnormal and normal numbers, halves, numbers at the edges of int64 and of whole
# numbers, infinities, NaN; each with either sign.
_EDGES = (0, 1, 0x7FFFFF, 0x800000, 0x3F800000, 0x3F800001, 0x3F000000, 0x40490FDB, 0x4B000000, 0x4B000001, 0x5EFFFFFF,
          0x5F000000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0x42B17218)  # fmt: skip
EDGE_FLOATS = [sign | bits for bits in _EDGES for sign in (0, 1 << 31)]
EDGE_INTEGERS = [0, 1, -1, 2, 7, (1 << 24) + 1, (1 << 53) + 1, (1 << 63) - 1, -(1 << 63), 1 - (1 << 63)]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one operation."""

    operation: str  # a name in the table
    operands: tuple[Tensor, ...]  # what it is given
    attributes: Attributes = ()  # as the table says
    magnitude_bits: int = 21  # M of rule N4

    def make_program(self) -> Program:
        """A program of one node that does the call on its batch."""
        inputs = tuple(
            Input(f"x{n}", InputRole.BATCH, DTYPES[x.dtype], tuple(x.shape)) for n, x in enumerate(self.operands)
        )
        node = Node(self.operation, tuple(range(len(inputs))), self.attributes)
        output = Output(OutputRole.PREDICTION, "", len(inputs))
        return Program(ProgramKind.PREDICT, NUMERICS, self.magnitude_bits, inputs, (), (node,), (output,))

    def run(self) -> Tensor:
        """The result."""
        found = load(self.make_program()).run({}, self.operands, None).prediction
        if found is None:
            raise RuntimeError(f"{self.operation} gave nothing")
        return found


def from_bits(bits: list[int]) -> Tensor:
    """binary32 numbers with these bits."""
    return torch.tensor(bits, dtype=torch.int64).to(torch.int32).view(torch.float32)


def spread(shape: tuple[int, ...], seed: int) -> Tensor:
    """binary32 numbers of both signs and of sizes from 2^-20 to 2^20, the same on every machine."""
    first, second = (draw_uniform(StepKey(bytes(32), seed, 0, 0), n, shape, torch.device("cpu")) for n in (0, 1))
    return torch.ldexp(first - 0.5, (second * 40).long() - 20)


def whole(shape: tuple[int, ...], below: int, seed: int) -> Tensor:
    """Integers from 0 to below `below`, the same on every machine."""
    return (draw_uniform(StepKey(bytes(32), seed, 1, 0), 0, shape, torch.device("cpu")) * below).long()


def _pairs() -> tuple[Tensor, Tensor]:
    both = list(itertools.product(EDGE_FLOATS, EDGE_FLOATS))
    left, right = from_bits([one for one, _ in both]), from_bits([other for _, other in both])
    return torch.cat((left, spread((64,), 1))), torch.cat((right, spread((64,), 2)))


def _integer_pairs() -> tuple[Tensor, Tensor]:
    both = torch.tensor(list(itertools.product(EDGE_INTEGERS, EDGE_INTEGERS)))
    return both[:, 0].contiguous(), both[:, 1].contiguous()


def _unary() -> list[Tensor]:
    return [torch.cat((from_bits(EDGE_FLOATS), spread((200,), 3))), from_bits([0x3FC00000])[0]]


_CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], Attributes]] = [
    ((2, 2, 5, 4), (3, 2, 3, 3), ((1, 1), (1, 1), (1, 1), (1,))),
    ((2, 4, 5, 6), (4, 2, 2, 3), ((2, 1), (1, 0), (1, 2), (2,))),
]
_POOLS: list[tuple[tuple[int, ...], Attributes]] = [
    ((2, 2, 4, 6), ((2, 2), (2, 2), (0, 0), (1, 1))),
    ((1, 3, 5, 5), ((3, 2), (2, 1), (1, 1), (1, 2))),
]


def _output_shape(image: tuple[int, ...], channels: int, kernel: tuple[int, ...], at: Attributes) -> tuple[int, ...]:
    stride, padding, dilation = at
    sizes = [
        (image[2 + axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    ]
    return (image[0], channels, *sizes)


def _window_calls() -> list[Call]:
    calls = []
    for place, (image, weight, at) in enumerate(_CONVOLUTIONS):
        outer = _output_shape(image, weight[0], weight[2:], at[:3])
        pixels, filters, gradient = spread(image, 10 + place), spread(weight, 20 + place), spread(outer, 30 + place)
        calls += [
            Call("convolution", (pixels, filters), at),
            Call("convolution", (pixels, filters), at, 13),
            Call("convolution_input_gradient", (gradient, filters), (*at, image)),
            Call("convolution_weight_gradient", (gradient, pixels), (*at, weight)),
        ]
    for place, (image, at) in enumerate(_POOLS):
        pixels = spread(image, 40 + place)
        pixels.view(-1)[:4] = from_bits([0x80000000, 0, 0x7FC00000, 0xFF800000])
        gradient = spread(_output_shape(image, image[1], at[0], at[1:]), 50 + place)
        calls += [Call("max_pool_indices", (pixels,), at), Call("window_sum", (pixels,), at)]
        calls += [Call("window_spread", (gradient,), (*at, image))]
    return calls


def _reducing_calls() -> list[Call]:
    hard = torch.cat((spread((5, 30), 4), from_bits(EDGE_FLOATS[:30]).reshape(1, 30), -torch.zeros(1, 30)))
    cube, counts = spread((3, 4, 5), 5), torch.tensor([EDGE_INTEGERS, EDGE_INTEGERS[::-1]])
    calls = []
    for name in ("sum", "amax", "amin"):
        calls += [Call(name, (hard,), ((1,), (0,))), Call(name, (cube,), ((0, 2), (1,)))]
        calls += [Call(name, (cube,), ((), (0,))), Call(name, (counts,), ((0,), (0,)))]
    calls += [Call("argmax", (hard,), ((1,), (0,))), Call("argmax", (counts,), ((1,), (1,)))]
    lines = whole((7, 30), 4, 6)
    calls += [Call("scatter_sum", (hard, lines), ((1,), (6,))), Call("gather", (hard, lines), ((1,),))]
    left, right = spread((2, 3, 7), 7), spread((2, 7, 4), 8)
    left[0, 0, 0], right[1, 2, 1] = torch.inf, torch.nan
    calls += [Call("matmul", (left, right)), Call("matmul", (left, right), (), 13)]
    return calls


def _moving_calls() -> list[Call]:
    cube = spread((3, 4, 5), 9)
    return [
        Call("reshape", (cube,), ((5, 12),)), Call("reshape", (cube[0, 0, :1].clone(),), ((),)),
        Call("permute", (cube,), ((2, 0, 1),)), Call("expand", (cube[:, :1].clone(),), ((2, 3, 4, 5),)),
        Call("slice", (cube,), ((2,), (1,), (5,), (2,))), Call("concatenate", (cube, cube[:, :2].clone()), ((1,),)),
        Call("iota", (), ((9,),)),
    ]  # fmt: skip


def make_calls() -> list[Call]:
    """Calls that cover the whole table."""
    pairs, integers = _pairs(), _integer_pairs()
    truths = torch.tensor([[True, True, False, False], [True, False, True, False]])
    calls = []
    for name in ("abs", "neg", "sqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "erf", "sigmoid", "rsqrt"):
        calls += [Call(name, (value,)) for value in _unary()]
    calls += [Call(name, (torch.tensor(EDGE_INTEGERS),)) for name in ("abs", "neg")]
    for name in ("add", "sub", "mul", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge"):
        calls += [Call(name, pairs), Call(name, integers)]
    calls += [Call(name, pairs) for name in ("div", "pow")]
    calls += [Call("add", (spread((3, 1, 2), 11), spread((4, 1), 12)))]
    calls += [Call(name, (truths[0], truths[1])) for name in ("and", "or")] + [Call("not", (truths[0],))]
    calls += [Call("where", (pairs[0] > pairs[1], *pairs)), Call("where", (truths[0][:1], *integers))]
    for target in range(3):
        calls += [Call("cast", (value,), ((target,),)) for value in (_unary()[0], integers[0], truths)]
    return [*calls, *_reducing_calls(), *_moving_calls(), *_window_calls()]


def digest_of_operation(name: str) -> str:
    """SHA-256 over the results of all calls of one operation, every NaN as one."""
    running = hashlib.sha256()
    for call in make_calls():
        if call.operation == name:
            result = call.run()
            result = canonical_nan(result) if result.dtype is torch.float32 else result
            running.update(result.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return running.hexdigest()


def digests() -> dict[str, str]:
    """The digest of every operation of the table."""
    return {name: digest_of_operation(name) for name in sorted(OPERATIONS)}

"""Elements that hang on a few others: arithmetic element by element, and moves, one element of the result at a time.

Arithmetic runs the interpreter's own operation on tensors of one element, so there is no second implementation of it.
Operands are read when they are needed: of a selection only the chosen one, of a gather the element that its index
names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from milon.base.errors import Reason, Rejected
from milon.gpu.dispute_numbers import Numbers, from_tensor, to_tensor
from milon.gpu.interpreter import ALL_MAKERS
from milon.gpu.operations import Call, Kernel
from milon.pol.program import Node
from milon.pol.shapes import DType, TensorType

Shape = tuple[int, ...]
Read = Callable[[int, Numbers], Numbers]  # from the place of an operand and elements of it (row-major) to their numbers
Point = Callable[[int, Read], int]  # from an element of the result to its number


@dataclass(frozen=True, slots=True)
class Site:
    """One node of a program with all it takes to compute an element of it."""

    node: Node  # the operation
    operands: tuple[TensorType, ...]  # their types
    result: TensorType  # its type
    magnitude_bits: int  # M of rule N4


def read_one(read: Read, operand: int, element: int) -> int:
    """The number of one element."""
    return int(read(operand, np.array([element], np.int64))[0])


def split_element(element: int, shape: Shape) -> list[int]:
    """The coordinates of an element, by its place in row-major order."""
    found = []
    for size in reversed(shape):
        found.append(element % size)
        element //= size
    return found[::-1]


def join_element(coordinates: Sequence[int], shape: Shape) -> int:
    """The place in row-major order of the element at these coordinates."""
    element = 0
    for coordinate, size in zip(coordinates, shape, strict=True):
        element = element * size + coordinate
    return element


def broadcast_element(element: int, shape: Shape, operand: Shape) -> int:
    """The element of an operand that is broadcast to `element` of a result of `shape`."""
    lead = len(shape) - len(operand)
    coordinates = split_element(element, shape)[lead:]
    return join_element([min(at, size - 1) for at, size in zip(coordinates, operand, strict=True)], operand)


@cache
def _load_kernel(name: str, operands: tuple[DType, ...], attributes: tuple[Shape, ...], result: DType) -> Kernel:
    types = tuple(TensorType(dtype, (1,)) for dtype in operands)
    return ALL_MAKERS[name](Call(types, attributes, TensorType(result, (1,)), 0, torch.device("cpu")))


def _elementwise(site: Site) -> Point:
    dtypes = tuple(operand.dtype for operand in site.operands)
    kernel = _load_kernel(site.node.operation, dtypes, site.node.attributes, site.result.dtype)

    def compute(element: int, read: Read) -> int:
        places = [broadcast_element(element, site.result.shape, operand.shape) for operand in site.operands]
        numbers = [read_one(read, operand, place) for operand, place in enumerate(places)]
        return from_tensor(kernel(*(to_tensor(*pair) for pair in zip(numbers, dtypes, strict=True))))

    return compute


def _where(site: Site) -> Point:
    def compute(element: int, read: Read) -> int:
        places = [broadcast_element(element, site.result.shape, operand.shape) for operand in site.operands]
        chosen = 1 if read_one(read, 0, places[0]) else 2
        return read_one(read, chosen, places[chosen])

    return compute


def _reshape(site: Site) -> Point:
    return lambda element, read: read_one(read, 0, element)


def _permute(site: Site) -> Point:
    order, shape = site.node.attributes[0], site.operands[0].shape

    def compute(element: int, read: Read) -> int:
        coordinates = split_element(element, site.result.shape)
        return read_one(read, 0, join_element([coordinates[order.index(axis)] for axis in range(len(shape))], shape))

    return compute


def _expand(site: Site) -> Point:
    shape = site.operands[0].shape
    return lambda element, read: read_one(read, 0, broadcast_element(element, site.result.shape, shape))


def _slice(site: Site) -> Point:
    axis, start, _, step = (attribute[0] for attribute in site.node.attributes)

    def compute(element: int, read: Read) -> int:
        coordinates = split_element(element, site.result.shape)
        coordinates[axis] = start + step * coordinates[axis]
        return read_one(read, 0, join_element(coordinates, site.operands[0].shape))

    return compute


def _concatenate(site: Site) -> Point:
    axis = site.node.attributes[0][0]

    def compute(element: int, read: Read) -> int:
        coordinates = split_element(element, site.result.shape)
        operand = 0
        while coordinates[axis] >= site.operands[operand].shape[axis]:
            coordinates[axis] -= site.operands[operand].shape[axis]
            operand += 1
        return read_one(read, operand, join_element(coordinates, site.operands[operand].shape))

    return compute


def _gather(site: Site) -> Point:
    axis, shape = site.node.attributes[0][0], site.operands[0].shape

    def compute(element: int, read: Read) -> int:
        index = read_one(read, 1, element)
        if not 0 <= index < shape[axis]:
            raise Rejected(Reason.OUT_OF_RANGE, f"an index outside [0, {shape[axis]})")
        coordinates = split_element(element, site.result.shape)
        coordinates[axis] = index
        return read_one(read, 0, join_element(coordinates, shape))

    return compute


def _iota(site: Site) -> Point:
    return lambda element, read: element


_MOVES: dict[str, Callable[[Site], Point]] = {
    "where": _where,
    "reshape": _reshape,
    "permute": _permute,
    "expand": _expand,
    "slice": _slice,
    "concatenate": _concatenate,
    "gather": _gather,
    "iota": _iota,
}
ELEMENTWISE = frozenset(
    {"neg", "abs", "sqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "erf", "sigmoid", "rsqrt", "not"}
    | {"add", "sub", "mul", "div", "pow", "maximum", "minimum", "and", "or", "eq", "ne", "lt", "le", "gt", "ge", "cast"}
)


def make_point(site: Site) -> Point | None:
    """What computes one element of the result; None for an operation whose elements are made of groups of terms."""
    name = site.node.operation
    if name in _MOVES:
        return _MOVES[name](site)
    return _elementwise(site) if name in ELEMENTWISE else None

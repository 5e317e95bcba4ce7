"""Builds a program value by value, with constants shared, repeats removed and dead nodes dropped at the end."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

from milon.base.errors import Reason, Rejected
from milon.pol.operations import check_call
from milon.pol.program import (
    NUMERICS,
    Constant,
    Input,
    InputRole,
    Node,
    Output,
    OutputRole,
    Program,
    ProgramKind,
)
from milon.pol.shapes import DTYPES, DType, TensorType

DTYPE_OF = {torch.float32: DType.FLOAT32, torch.int64: DType.INT64, torch.bool: DType.BOOL}


def dtype_of(tensor_dtype: torch.dtype) -> DType:
    """The element type of that torch dtype; `Rejected(UNSUPPORTED)` for one that programs do not have."""
    found = DTYPE_OF.get(tensor_dtype)
    if found is None:
        nearest = "float32" if tensor_dtype.is_floating_point else "int64"
        raise Rejected(Reason.UNSUPPORTED, f"element type {tensor_dtype}; nearest supported: {nearest}")
    return found


class Builder:
    """Collects inputs, constants and nodes. A value is a plain number; its type can be asked for.

    Numbers are provisional while building (constants may come at any time) and are settled by `finish`.
    """

    def __init__(self) -> None:
        self._inputs: list[tuple[int, Input]] = []
        self._constants: list[tuple[int, Constant]] = []
        self._nodes: list[tuple[int, Node]] = []
        self._types: list[TensorType] = []
        self._node_of: dict[int, Node] = {}
        self._known: dict[Constant | Node, int] = {}
        self._constant_of: dict[int, Constant] = {}

    def type_of(self, value: int) -> TensorType:
        """Element type and shape of a value."""
        return self._types[value]

    def shape_of(self, value: int) -> tuple[int, ...]:
        """Sizes of a value."""
        return self._types[value].shape

    def is_float(self, value: int) -> bool:
        """Whether a value holds binary32 numbers."""
        return self._types[value].dtype is DType.FLOAT32

    def input(self, name: str, role: InputRole, found: TensorType) -> int:
        """A new input."""
        self._types.append(found)
        self._inputs.append((len(self._types) - 1, Input(name, role, found.dtype, found.shape)))
        return len(self._types) - 1

    def constant(self, tensor: Tensor) -> int:
        """A constant with the elements of `tensor`."""
        dtype = dtype_of(tensor.dtype)
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        constant = Constant(dtype, tuple(tensor.shape), raw)
        if constant not in self._known:
            self._types.append(TensorType(dtype, constant.shape))
            self._known[constant] = len(self._types) - 1
            self._constants.append((len(self._types) - 1, constant))
            self._constant_of[len(self._types) - 1] = constant
        return self._known[constant]

    def scalar(self, number: float | int | bool, dtype: DType) -> int:
        """A scalar constant; a real number is rounded once to binary32."""
        torch_dtype = {DType.FLOAT32: torch.float32, DType.INT64: torch.int64, DType.BOOL: torch.bool}[dtype]
        return self.constant(torch.tensor(number, dtype=torch_dtype))

    def scalar_of(self, value: int) -> float | int | bool | None:
        """The number that a scalar constant holds; None for any other value."""
        constant = self._constant_of.get(value)
        if constant is None or constant.shape != ():
            return None
        form = {DType.FLOAT32: "<f", DType.INT64: "<q", DType.BOOL: "<?"}[constant.dtype]
        number: float | int | bool = struct.unpack(form, constant.raw)[0]
        return number

    def node(self, operation: str, *operands: int, attributes: tuple[tuple[int, ...], ...] = ()) -> int:
        """The result of an operation; an equal earlier node is used again. `Rejected` when it does not check."""
        node = Node(operation, operands, attributes)
        if node not in self._known:
            outcome = check_call(operation, tuple(self._types[operand] for operand in operands), attributes)
            self._types.append(outcome.type)
            self._nodes.append((len(self._types) - 1, node))
            self._node_of[len(self._types) - 1] = node
            self._known[node] = len(self._types) - 1
        return self._known[node]

    def cast(self, value: int, dtype: DType) -> int:
        """`value` with element type `dtype`; scalar constants are converted at once."""
        if self._types[value].dtype is dtype:
            return value
        number = self.scalar_of(value)
        if number is not None and not (dtype is DType.INT64 and isinstance(number, float)):
            return self.scalar(number, dtype)
        return self.node("cast", value, attributes=((DTYPES.index(dtype),),))

    def reshape(self, value: int, shape: tuple[int, ...]) -> int:
        """`value` with another shape of as many elements."""
        return value if shape == self.shape_of(value) else self.node("reshape", value, attributes=(shape,))

    def expand(self, value: int, shape: tuple[int, ...]) -> int:
        """`value` broadcast to `shape`."""
        return value if shape == self.shape_of(value) else self.node("expand", value, attributes=(shape,))

    def permute(self, value: int, order: tuple[int, ...]) -> int:
        """`value` with its axes in another order."""
        return value if order == tuple(range(len(order))) else self.node("permute", value, attributes=(order,))

    def is_zeros(self, value: int) -> bool:
        """Whether a value is known to hold nothing but +0: a constant of zeros, or one spread over a shape."""
        node = self._node_of.get(value)
        if node is not None and node.operation == "expand":
            return self.is_zeros(node.operands[0])
        constant = self._constant_of.get(value)
        return constant is not None and not constant.raw.strip(b"\0")

    def finish(
        self, kind: ProgramKind, magnitude_bits: int, outputs: list[tuple[OutputRole, str, int]]
    ) -> Program:
        """The program that computes `outputs`, without the nodes and constants that they do not need."""
        needed = {value for _, _, value in outputs}
        for number, node in reversed(self._nodes):
            if number in needed:
                needed.update(node.operands)
        inputs = [entry for entry in self._inputs if entry[1].role is not InputRole.DRAW or entry[0] in needed]
        constants = [entry for entry in self._constants if entry[0] in needed]
        nodes = [entry for entry in self._nodes if entry[0] in needed]
        order = [entry[0] for entry in (*inputs, *constants, *nodes)]
        place = {number: index for index, number in enumerate(order)}
        settled = tuple(
            Node(node.operation, tuple(place[operand] for operand in node.operands), node.attributes)
            for _, node in nodes
        )
        return Program(
            kind,
            NUMERICS,
            magnitude_bits,
            tuple(entry for _, entry in inputs),
            tuple(entry for _, entry in constants),
            settled,
            tuple(Output(role, name, place[value]) for role, name, value in outputs),
        )

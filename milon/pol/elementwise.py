"""Rows of the table: arithmetic element by element, reductions, and the operations that only move elements."""

from __future__ import annotations

from milon.base.errors import Reason, Rejected, require
from milon.pol.shapes import (
    DTYPES,
    DType,
    TensorType,
    compute_broadcast,
    compute_product,
    compute_reduced,
    verify_axes,
    verify_shape,
)
from milon.pol.table import (
    OPERANDS_MAX,
    SLOW_FUNCTION,
    SLOW_SCRATCH_BYTES,
    Attributes,
    Check,
    Operands,
    Operation,
    Outcome,
    enter,
    read_flag,
    simple_outcome,
    verify_dtype,
    verify_same_dtype,
)

ELEMENTWISE: dict[str, Operation] = {}
PAIR_SCRATCH_BYTES = 16  # an element: two numbers of 64 bits, or three of 32 and some truths
SUM_SCRATCH_BYTES = 48  # an element, while it is added: 44 when measured, where the integers need two limbs


def _register_elementwise() -> None:
    def unary(dtypes: tuple[DType, ...], cost: int, scratch: int = 0) -> Check:
        def check(operands: Operands, attributes: Attributes) -> Outcome:
            verify_dtype(operands[0], *dtypes)
            return simple_outcome(operands[0].dtype, operands[0].shape, cost, scratch * operands[0].elements)

        return check

    def binary(dtypes: tuple[DType, ...], result: DType | None, cost: int, scratch: int = 0) -> Check:
        def check(operands: Operands, attributes: Attributes) -> Outcome:
            verify_same_dtype(operands)
            verify_dtype(operands[0], *dtypes)
            shape = compute_broadcast(operands[0].shape, operands[1].shape)
            return simple_outcome(result or operands[0].dtype, shape, cost, scratch * compute_product(shape))

        return check

    numbers, reals, truths = (DType.FLOAT32, DType.INT64), (DType.FLOAT32,), (DType.BOOL,)
    for name in ("neg", "abs"):
        enter(ELEMENTWISE, name, "N1", 1)(unary(numbers, 1))
    enter(ELEMENTWISE, "sqrt", "N1", 1)(unary(reals, 1, PAIR_SCRATCH_BYTES))
    for name in ("exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "erf", "sigmoid", "rsqrt"):
        enter(ELEMENTWISE, name, "N2", 1)(unary(reals, SLOW_FUNCTION, SLOW_SCRATCH_BYTES))
    enter(ELEMENTWISE, "not", "N1", 1)(unary(truths, 1))
    for name in ("add", "sub", "mul"):
        enter(ELEMENTWISE, name, "N1", 2)(binary(numbers, None, 1))
    for name in ("maximum", "minimum"):
        enter(ELEMENTWISE, name, "N1", 2)(binary(numbers, None, 1, PAIR_SCRATCH_BYTES))
    enter(ELEMENTWISE, "div", "N1", 2)(binary(reals, None, 1))
    enter(ELEMENTWISE, "pow", "N2", 2)(binary(reals, None, 2 * SLOW_FUNCTION, SLOW_SCRATCH_BYTES))
    for name in ("and", "or"):
        enter(ELEMENTWISE, name, "N1", 2)(binary(truths, None, 1))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        enter(ELEMENTWISE, name, "N1", 2)(binary(numbers, DType.BOOL, 1))


_register_elementwise()


@enter(ELEMENTWISE, "where", "N1", 3)
def check_where(operands: Operands, attributes: Attributes) -> Outcome:
    """Element of the second operand where the first is true, else of the third."""
    verify_dtype(operands[0], DType.BOOL)
    verify_same_dtype(operands[1:])
    shape = compute_broadcast(operands[1].shape, operands[2].shape)
    return simple_outcome(operands[1].dtype, compute_broadcast(operands[0].shape, shape))


@enter(ELEMENTWISE, "cast", "N1", 1, (1,))
def check_cast(operands: Operands, attributes: Attributes) -> Outcome:
    """Attribute: the wanted type. Integer to float rounds once; float to integer truncates, saturates, NaN gives 0."""
    require(0 <= attributes[0][0] < len(DTYPES), Reason.OUT_OF_RANGE, f"element type {attributes[0][0]}")
    return simple_outcome(DTYPES[attributes[0][0]], operands[0].shape, scratch=16 * operands[0].elements)


@enter(ELEMENTWISE, "sum", "N3", 1, (-1, 1))
def check_sum(operands: Operands, attributes: Attributes) -> Outcome:
    """Attributes: axes, whether they stay with size 1. Integers wrap modulo 2^64."""
    verify_dtype(operands[0], DType.FLOAT32, DType.INT64)
    shape = compute_reduced(operands[0].shape, attributes[0], read_flag(attributes[1][0]))
    elements = operands[0].elements
    return Outcome(TensorType(operands[0].dtype, shape), 4 * elements, SUM_SCRATCH_BYTES * elements)


def _check_extreme(operands: Operands, attributes: Attributes) -> Outcome:
    verify_dtype(operands[0], DType.FLOAT32, DType.INT64)
    shape = compute_reduced(operands[0].shape, attributes[0], read_flag(attributes[1][0]))
    return Outcome(TensorType(operands[0].dtype, shape), operands[0].elements, 6 * operands[0].elements)


enter(ELEMENTWISE, "amax", "N1", 1, (-1, 1))(_check_extreme)
enter(ELEMENTWISE, "amin", "N1", 1, (-1, 1))(_check_extreme)


@enter(ELEMENTWISE, "argmax", "N1", 1, (1, 1))
def check_argmax(operands: Operands, attributes: Attributes) -> Outcome:
    """Attributes: the axis, whether it stays. The lowest index of the greatest element; NaN is greatest."""
    verify_dtype(operands[0], DType.FLOAT32, DType.INT64)
    shape = compute_reduced(operands[0].shape, attributes[0], read_flag(attributes[1][0]))
    return Outcome(TensorType(DType.INT64, shape), operands[0].elements, 16 * operands[0].elements)


@enter(ELEMENTWISE, "reshape", "moves", 1, (-1,))
def check_reshape(operands: Operands, attributes: Attributes) -> Outcome:
    """Attribute: the new shape, with as many elements, in row-major order."""
    verify_shape(attributes[0])
    if compute_product(attributes[0]) != operands[0].elements:
        raise Rejected(Reason.DOES_NOT_FIT, f"{operands[0]} does not reshape to {list(attributes[0])}")
    return simple_outcome(operands[0].dtype, attributes[0])


@enter(ELEMENTWISE, "permute", "moves", 1, (-1,))
def check_permute(operands: Operands, attributes: Attributes) -> Outcome:
    """Attribute: for each axis of the result, the axis of the operand it is."""
    order = attributes[0]
    rank = len(operands[0].shape)
    require(len(order) == rank and sorted(order) == list(range(rank)), Reason.OUT_OF_RANGE, f"order {order!r:.80}")
    return simple_outcome(operands[0].dtype, tuple(operands[0].shape[axis] for axis in order))


@enter(ELEMENTWISE, "expand", "moves", 1, (-1,))
def check_expand(operands: Operands, attributes: Attributes) -> Outcome:
    """Attribute: the shape to broadcast to."""
    verify_shape(attributes[0])
    if compute_broadcast(operands[0].shape, attributes[0]) != attributes[0]:
        raise Rejected(Reason.DOES_NOT_FIT, f"{operands[0]} does not expand to {list(attributes[0])}")
    return simple_outcome(operands[0].dtype, attributes[0])


@enter(ELEMENTWISE, "slice", "moves", 1, (1, 1, 1, 1))
def check_slice(operands: Operands, attributes: Attributes) -> Outcome:
    """Attributes: axis, first index, end (excluded), step."""
    axis, start, stop, step = (attribute[0] for attribute in attributes)
    verify_axes((axis,), len(operands[0].shape))
    size = operands[0].shape[axis]
    fits = 0 <= start < stop <= size and 1 <= step <= size
    require(fits, Reason.OUT_OF_RANGE, f"slice {start}:{stop}:{step} of {size}")
    shape = list(operands[0].shape)
    shape[axis] = -(-(stop - start) // step)
    return simple_outcome(operands[0].dtype, tuple(shape))


@enter(ELEMENTWISE, "concatenate", "moves", (1, OPERANDS_MAX), (1,))
def check_concatenate(operands: Operands, attributes: Attributes) -> Outcome:
    """Attribute: the axis along which the operands follow one another."""
    verify_same_dtype(operands)
    axis = attributes[0][0]
    first = operands[0].shape
    verify_axes((axis,), len(first))
    total = 0
    for operand in operands:
        shape = operand.shape
        fits = len(shape) == len(first) and shape[:axis] + shape[axis + 1 :] == first[:axis] + first[axis + 1 :]
        require(fits, Reason.DOES_NOT_FIT, f"{operand} beside {operands[0]} along axis {axis}")
        total += shape[axis]
    return simple_outcome(operands[0].dtype, (*first[:axis], total, *first[axis + 1 :]))


@enter(ELEMENTWISE, "iota", "moves", 0, (1,))
def check_iota(operands: Operands, attributes: Attributes) -> Outcome:
    """Attribute: how many. The integers from 0 on."""
    found = simple_outcome(DType.INT64, (attributes[0][0],))
    return Outcome(found.type, found.operations, 0, found.type.size_bytes)


@enter(ELEMENTWISE, "gather", "moves", 2, (1,))
def check_gather(operands: Operands, attributes: Attributes) -> Outcome:
    """Operands: values, indices (int64, equal in the other axes). Attribute: the axis the indices count along."""
    values, indices = operands
    verify_dtype(indices, DType.INT64)
    axis = attributes[0][0]
    verify_axes((axis,), len(values.shape))
    fits = len(indices.shape) == len(values.shape) and all(
        axis == place or indices.shape[place] == size for place, size in enumerate(values.shape)
    )
    require(fits, Reason.DOES_NOT_FIT, f"indices {indices} for values {values} along axis {axis}")
    return simple_outcome(values.dtype, indices.shape)


@enter(ELEMENTWISE, "scatter_sum", "N3", 2, (1, 1))
def check_scatter_sum(operands: Operands, attributes: Attributes) -> Outcome:
    """Operands: values, indices of the same shape. Attributes: axis, size of that axis in the result.

    Each element of the result is the sum of the values whose index names it; none gives +0.0.
    """
    values, indices = operands
    verify_dtype(values, DType.FLOAT32)
    verify_dtype(indices, DType.INT64)
    require(values.shape == indices.shape, Reason.DOES_NOT_FIT, f"indices {indices} for values {values}")
    axis, size = attributes[0][0], attributes[1][0]
    verify_axes((axis,), len(values.shape))
    shape = (*values.shape[:axis], size, *values.shape[axis + 1 :])
    verify_shape(shape)
    result = TensorType(DType.FLOAT32, shape)
    return Outcome(result, 6 * values.elements + result.elements, 56 * values.elements + 56 * result.elements)

"""What a row of the table of operations is: what an operation accepts, what it gives, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from milon.base.errors import Reason, Rejected, require
from milon.pol.shapes import DType, TensorType, compute_product, verify_shape

Operands = tuple[TensorType, ...]
Attributes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one operation gives and costs."""

    type: TensorType  # of its one result
    operations: int  # elementary arithmetic steps, for the budget
    scratch_bytes: int  # held only while it runs, an upper estimate
    kept_bytes: int = 0  # tables made when the program is loaded and held as long as it is, an upper estimate


Check = Callable[[Operands, Attributes], Outcome]


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table."""

    operands: tuple[int, int]  # least and greatest number of operands
    attributes: tuple[int, ...]  # length of each attribute; -1 for any
    rule: str  # of numerics.md: N1 to N5, or "moves" when no value changes
    check: Check  # types in, type and cost out; raises `Rejected`


OPERANDS_MAX = 1024  # a concatenation of one tensor per layer of the deepest model
SLOW_FUNCTION = 60  # binary64 steps of an elementary function, about
SLOW_SCRATCH_BYTES = 160  # an element, while it runs: sine and cosine held 153 when measured, the others less


def enter(
    table: dict[str, Operation],
    name: str,
    rule: str,
    operands: int | tuple[int, int],
    attributes: tuple[int, ...] = (),
) -> Callable[[Check], Check]:
    """Decorator: enter a check into `table` as `name`."""
    bounds = (operands, operands) if isinstance(operands, int) else operands

    def register(check: Check) -> Check:
        table[name] = Operation(bounds, attributes, rule, check)
        return check

    return register


def verify_dtype(found: TensorType, *wanted: DType) -> None:
    """Raise `Rejected(WRONG_TYPE)` unless the operand has one of the `wanted` element types."""
    names = " or ".join(dtype.value for dtype in wanted)
    require(found.dtype in wanted, Reason.WRONG_TYPE, f"a {found.dtype.value} tensor where {names} is needed")


def verify_same_dtype(operands: Operands) -> None:
    """Raise `Rejected(WRONG_TYPE)` unless all operands have the same element type."""
    if len({operand.dtype for operand in operands}) > 1:
        raise Rejected(Reason.WRONG_TYPE, f"operands {', '.join(map(str, operands))} differ in type")


def simple_outcome(dtype: DType, shape: tuple[int, ...], cost: int = 1, scratch: int = 0) -> Outcome:
    """A result of `shape` that costs `cost` steps per element of it."""
    verify_shape(shape)
    return Outcome(TensorType(dtype, shape), cost * compute_product(shape), scratch)


def read_flag(value: int) -> bool:
    """An attribute that is 0 or 1, as a truth value."""
    require(value in (0, 1), Reason.OUT_OF_RANGE, f"a flag of {value}")
    return value == 1

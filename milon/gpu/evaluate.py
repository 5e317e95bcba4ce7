"""Evaluation of a state on the whole evaluation set, as numbers that every node agrees on bit for bit.

The rows are taken in their order, in batches of the first evaluation program's size; the second program, where there
is one, takes the rows left over. The loss is the mean over all rows: each batch's loss is a mean over its rows and a
binary32, hence a fraction; the sum of loss times rows is added exactly as fractions, divided by the rows, and rounded
to binary32 once (nearest, ties to even). A batch whose loss is not finite makes the whole loss 0x7FC00000.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from milon.base.errors import Reason, Rejected, require
from milon.gpu.checkpoint import NAN_BITS
from milon.gpu.interpreter import Plan
from milon.gpu.rows import Dataset
from milon.gpu.train import loss_of
from milon.pol.program import StepKey

_FRACTION_BITS = 24  # of binary32, the leading one included
_EXPONENT_LEAST = -149  # of the smallest positive binary32
_INFINITY_BITS = 0x7F800000
_NO_KEY = StepKey(bytes(32), 0, 0, 0)  # an evaluation draws nothing


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a state does on the evaluation rows."""

    loss_bits: int  # binary32 bits of the mean loss
    correct: int  # rows predicted right; 0 where the job has no classes
    rows: int  # all of them


def _round_half_even(value: Fraction) -> int:
    return round(value)  # Python rounds a Fraction exactly, halves to even


def compute_float32_bits(value: Fraction) -> int:
    """The bits of the binary32 nearest to `value` (ties to even); zero is +0.0, what is too large is infinite."""
    sign = 0x80000000 if value < 0 else 0
    magnitude = abs(value)
    if magnitude == 0:
        return 0
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= magnitude < Fraction(2) ** exponent  # now 2^exponent <= magnitude < 2^(exponent + 1)
    unit = max(exponent - _FRACTION_BITS + 1, _EXPONENT_LEAST)
    mantissa = _round_half_even(magnitude / Fraction(2) ** unit)
    # A mantissa that was rounded up to the next power of two carries into the exponent, as in the encoding itself.
    bits = mantissa + ((unit - _EXPONENT_LEAST) << (_FRACTION_BITS - 1))
    return sign | min(bits, _INFINITY_BITS)


def compute_mean_loss(losses: Sequence[tuple[float, int]]) -> int:
    """The binary32 bits of the mean of (loss, rows) pairs, weighted by rows, rounded once."""
    if not all(abs(loss) < float("inf") for loss, _ in losses):
        return NAN_BITS
    total = sum((Fraction(loss) * rows for loss, rows in losses), Fraction(0))
    return compute_float32_bits(total / sum(rows for _, rows in losses))


def _batches(programs: Sequence[tuple[int, Plan]], data: Dataset) -> Iterator[tuple[Plan, int, tuple[Tensor, ...]]]:
    size, plan = programs[0]
    whole = data.rows - data.rows % size
    for first in range(0, whole, size):
        yield plan, size, data.cut(first, size)
    if whole < data.rows:
        yield programs[1][1], data.rows - whole, data.cut(whole, data.rows - whole)


def verify_coverage(sizes: Sequence[int], rows: int) -> None:
    """Raise `Rejected(DOES_NOT_FIT)` unless batches of these sizes (one or two) cover the rows to the last one."""
    require(1 <= len(sizes) <= 2, Reason.DOES_NOT_FIT, f"{len(sizes)} evaluation programs")
    require(0 < sizes[0] <= rows, Reason.DOES_NOT_FIT, f"evaluation batches of {sizes[0]} for {rows} rows")
    left = rows % sizes[0]
    if left:
        covered = len(sizes) == 2 and sizes[1] == left
        require(covered, Reason.DOES_NOT_FIT, f"no evaluation program for the last {left} of {rows} rows")


def evaluate_state(state: Mapping[str, Tensor], programs: Sequence[tuple[int, Plan]], data: Dataset) -> Evaluation:
    """Run the evaluation (rows in a batch, program) over all rows; `Rejected` where the batches do not cover them."""
    verify_coverage([size for size, _ in programs], data.rows)
    losses: list[tuple[float, int]] = []
    correct = 0
    for plan, rows, batch in _batches(programs, data):
        result = plan.run(state, batch, _NO_KEY)
        losses.append((loss_of(result).item(), rows))
        found = 0 if result.correct is None else result.correct
        if not 0 <= found <= rows:
            raise Rejected(Reason.OUT_OF_RANGE, f"the evaluation program counts {found} of {rows} rows right")
        correct += found
    return Evaluation(compute_mean_loss(losses), correct, data.rows)

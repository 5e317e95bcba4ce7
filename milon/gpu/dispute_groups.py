"""Elements that are made of many terms: what a part of a group adds to it, in integers that add up to the whole.

A group's terms are numbered from 0. What one part of them shows is its greatest magnitudes and, on the scale that the
magnitudes of the whole group fix, an exact integer total; both combine over parts (maximum, sum) to what the whole
group shows, and that settles the element with at most one rounding. The kinds of groups:

- rule N3 (sum, scatter_sum, window_sum, window_spread): total of `round_half_even(x * 2^(40 - e))`;
- rule N4 (matmul, convolutions): total of products of integers, one exponent for each side;
- sum over int64, and the fingerprint of a step: total of integers, wrapped at the end;
- amax, amin: the greatest in an order of integers; no total;
- argmax, max_pool_indices: the greatest, and for the place that the element names: 2^40 if it holds the greatest, plus
  the number of places before it that hold it. The element is right where that is exactly 2^40.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from milon.base.errors import Reason, Rejected
from milon.gpu.dispute_numbers import (
    INFINITY,
    MAGNITUDE,
    NAN,
    Numbers,
    add_exactly,
    compute_exponent,
    order_floats,
    quantize,
    round_to_binary32,
    wrap,
)
from milon.gpu.dispute_points import Read

SUM_BITS = 40  # rule N3
CHUNK = 1 << 18  # terms handled at once: their integers, of at most 2^42 each, add up within int64
HIT = 1 << 40  # what the named place adds where it holds the greatest: above any number of places before it
_SPAN = 1 << 13  # as many products of 2^31 and an offset within a chunk add up within int64
NONE = -1  # a magnitude of a side that a group does not have

Spots = Callable[[int, Numbers], Sequence[Numbers]]  # element and terms to elements of each operand, -1 for a zero


@dataclass(frozen=True, slots=True)
class Agreed:
    """The greatest magnitudes of a whole group: the scale its totals are on."""

    left: int  # bits without sign, or a number's place in an order
    right: int  # likewise, of the other operand; `NONE` where there is no other


@dataclass(frozen=True, slots=True)
class Group:
    """How the elements of one value are made of terms."""

    terms: int  # of each element
    sides: int  # operands that a term reads
    measure: Callable[[int, Numbers, Read], Agreed]  # element and terms to their greatest magnitudes
    add: Callable[[int, Numbers, Read, Agreed, int], int]  # likewise, the group's scale, the element's claimed number
    is_right: Callable[[Agreed, int, int], bool]  # the group's magnitudes and total, and the claimed number
    is_special: Callable[[Agreed], bool] = lambda agreed: False  # whether NaN or infinity settles it, without a total


def _chunks(first: int, count: int) -> Iterator[Numbers]:
    for start in range(first, first + count, CHUNK):
        yield np.arange(start, min(start + CHUNK, first + count), dtype=np.int64)


def measure_part(group: Group, element: int, first: int, count: int, read: Read) -> Agreed:
    """The greatest magnitudes of `count` terms from term `first` on."""
    found = [group.measure(element, terms, read) for terms in _chunks(first, count)]
    return Agreed(max(part.left for part in found), max(part.right for part in found))


def add_part(group: Group, element: int, first: int, count: int, read: Read, agreed: Agreed, claimed: int) -> int:
    """The total of these terms on the scale of `agreed`, which none of them exceeds."""
    return sum(group.add(element, terms, read, agreed, claimed) for terms in _chunks(first, count))


def _is_special(agreed: Agreed) -> bool:
    return agreed.left >= INFINITY or agreed.right >= INFINITY


def _fetch(read: Read, operand: int, elements: Numbers) -> Numbers:
    """Numbers of elements, zero where there is none (-1)."""
    present = elements >= 0
    if present.all():
        return read(operand, elements)
    found = np.zeros(len(elements), np.int64)
    if present.any():
        found[present] = read(operand, elements[present])
    return found


def _greatest(numbers: Numbers) -> int:
    return int((numbers & MAGNITUDE).max(initial=0))


def make_sum(terms: int, spots: Spots) -> Group:
    """Rule N3 over elements of the first operand."""

    def measure(element: int, numbers: Numbers, read: Read) -> Agreed:
        return Agreed(_greatest(_fetch(read, 0, spots(element, numbers)[0])), NONE)

    def add(element: int, numbers: Numbers, read: Read, agreed: Agreed, claimed: int) -> int:
        if _is_special(agreed):
            return 0
        return int(quantize(_fetch(read, 0, spots(element, numbers)[0]), agreed.left, SUM_BITS).sum())

    return Group(terms, 1, measure, add, _is_sum, _is_special)


def _is_sum(agreed: Agreed, total: int, claimed: int) -> bool:
    if _is_special(agreed):
        return claimed == NAN
    return claimed == round_to_binary32(total, compute_exponent(agreed.left) - SUM_BITS)


def make_scatter(terms: int, spots: Spots, target: Callable[[int], int], size: int) -> Group:
    """Rule N3 over the elements of the first operand beside which the second one holds the target's number."""

    def select(element: int, numbers: Numbers, read: Read) -> Numbers:
        places = spots(element, numbers)[0]
        indices = read(1, places)
        if bool(((indices < 0) | (indices >= size)).any()):
            raise Rejected(Reason.OUT_OF_RANGE, f"an index outside [0, {size})")
        chosen = places[indices == target(element)]
        return read(0, chosen) if len(chosen) else chosen

    def measure(element: int, numbers: Numbers, read: Read) -> Agreed:
        return Agreed(_greatest(select(element, numbers, read)), NONE)

    def add(element: int, numbers: Numbers, read: Read, agreed: Agreed, claimed: int) -> int:
        if _is_special(agreed):
            return 0
        return int(quantize(select(element, numbers, read), agreed.left, SUM_BITS).sum())

    return Group(terms, 2, measure, add, _is_sum, _is_special)


def make_product(terms: int, spots: Spots, bits: int) -> Group:
    """Rule N4: a term is the product of an element of the first operand and one of the second; `bits` is M."""

    def measure(element: int, numbers: Numbers, read: Read) -> Agreed:
        left, right = spots(element, numbers)
        return Agreed(_greatest(_fetch(read, 0, left)), _greatest(_fetch(read, 1, right)))

    def add(element: int, numbers: Numbers, read: Read, agreed: Agreed, claimed: int) -> int:
        if _is_special(agreed):
            return 0
        left, right = spots(element, numbers)
        one = quantize(_fetch(read, 0, left), agreed.left, bits)
        other = quantize(_fetch(read, 1, right), agreed.right, bits)
        return int((one * other).sum())

    def is_right(agreed: Agreed, total: int, claimed: int) -> bool:
        if _is_special(agreed):
            return claimed == NAN
        exponent = compute_exponent(agreed.left) + compute_exponent(agreed.right) - 2 * bits
        return claimed == round_to_binary32(total, exponent)

    return Group(terms, 2, measure, add, is_right, _is_special)


def make_integer_sum(terms: int, spots: Spots) -> Group:
    """The sum of int64 elements of the first operand, modulo 2^64."""

    def add(element: int, numbers: Numbers, read: Read, agreed: Agreed, claimed: int) -> int:
        return add_exactly(read(0, spots(element, numbers)[0]))

    return Group(terms, 1, lambda *_: Agreed(NONE, NONE), add, lambda _, total, claimed: wrap(total) == claimed)


def make_extreme(terms: int, spots: Spots, greatest: bool, is_float: bool) -> Group:
    """The greatest or least; NaN wins either way, and +0 is above -0."""

    def measure(element: int, numbers: Numbers, read: Read) -> Agreed:
        return Agreed(int(_order_extreme(read(0, spots(element, numbers)[0]), greatest, is_float).max()), NONE)

    def is_right(agreed: Agreed, total: int, claimed: int) -> bool:
        number = np.array([claimed], np.int64)
        is_odd = is_float and claimed & MAGNITUDE > INFINITY and claimed != NAN
        return total == 0 and not is_odd and agreed.left == int(_order_extreme(number, greatest, is_float)[0])

    return Group(terms, 1, measure, lambda *_: 0, is_right)


def _order_extreme(numbers: Numbers, greatest: bool, is_float: bool) -> Numbers:
    if not is_float:
        return numbers if greatest else ~numbers
    order = order_floats(numbers, is_zero_signed=True)
    return order if greatest else np.where(order == NAN, NAN, ~order)


def make_first_best(terms: int, spots: Spots, names: Spots, is_float: bool) -> Group:
    """Which of the elements is the first of the greatest; `names` says what the result calls each term (-1: nobody)."""

    def order(element: int, terms_: Numbers, read: Read) -> tuple[Numbers, Numbers]:
        places, called = spots(element, terms_)[0], names(element, terms_)[0]
        present = places >= 0
        found = read(0, places[present]) if present.any() else places[present]
        return (order_floats(found, is_zero_signed=False) if is_float else found), called[present]

    def measure(element: int, numbers: Numbers, read: Read) -> Agreed:
        keys, _ = order(element, numbers, read)
        return Agreed(int(keys.max(initial=-(1 << 63))), NONE)

    def add(element: int, numbers: Numbers, read: Read, agreed: Agreed, claimed: int) -> int:
        keys, called = order(element, numbers, read)
        best = called[keys == agreed.left]
        return int((best < claimed).sum()) + HIT * int((best == claimed).sum())

    return Group(terms, 1, measure, add, lambda _, total, claimed: total == HIT)


def make_fingerprint(sizes: Sequence[int]) -> Group:
    """The fingerprint of a step as `milon.gpu.train` defines it, over loss and gradients of these sizes."""
    ends = np.cumsum(np.array(sizes, np.int64))

    def add(element: int, numbers: Numbers, read: Read, agreed: Agreed, claimed: int) -> int:
        bits = np.empty(len(numbers), np.int64)
        owners = np.searchsorted(ends, numbers, side="right")
        for operand in np.unique(owners):
            mine = owners == operand
            bits[mine] = read(int(operand), numbers[mine] - (ends[operand] - sizes[operand]))
        signed = bits - ((bits >> 31) << 32)
        offsets = numbers - numbers[0]  # so that no product leaves int64
        products = signed * offsets
        near = sum(int(products[at : at + _SPAN].sum()) for at in range(0, len(bits), _SPAN))
        return 2 * near + (2 * int(numbers[0]) + 1) * int(signed.sum())

    return Group(int(ends[-1]), 1, lambda *_: Agreed(NONE, NONE), add, lambda _, total, claimed: wrap(total) == claimed)

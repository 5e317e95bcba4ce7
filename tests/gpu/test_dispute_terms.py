"""Every operation once more, one element at a time and in parts: the bits that the interpreter gives, and no others."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.calls import Call, make_calls, spread, whole
from milon.base.errors import Rejected
from milon.gpu.dispute_groups import Agreed, Group, make_fingerprint, measure_part
from milon.gpu.dispute_numbers import Numbers, pick, round_to_binary32, wrap
from milon.gpu.dispute_parts import make_part
from milon.gpu.dispute_points import Read, Site, make_point
from milon.gpu.dispute_terms import make_group
from milon.gpu.train import compute_fingerprint
from milon.pol.dispute import combine_partials, compute_parts
from milon.pol.operations import OPERATIONS
from milon.pol.program import compute_types
from tests.gpu.numeric_reference import round_to_binary32 as round_by_fractions

CALLS = make_calls()
SAMPLE = 7  # elements of a call, the last one among them


def site_of(call: Call) -> Site:
    program = call.make_program()
    types = compute_types(program)
    return Site(program.nodes[0], types[:-1], types[-1], call.magnitude_bits)


def reader_of(operands: tuple[Tensor, ...]) -> Read:
    return lambda operand, elements: pick(operands[operand], elements)


def element_of(value: Tensor, element: int) -> int:
    return int(pick(value, np.array([element]))[0])


def sample(value: Tensor) -> list[int]:
    count = value.numel()
    return sorted({*random.Random(count).sample(range(count), min(count, SAMPLE)), count - 1})


def check_group(group: Group, element: int, read: Read, number: int) -> None:
    """The whole group and any parts of it settle the element, and settle it as this number alone."""
    agreed = measure_part(group, element, 0, group.terms, read)
    made = make_part(group, element, (0, group.terms), read, agreed, number)
    assert group.is_right(agreed, made.total, number)
    parts = [make_part(group, element, part, read, agreed, number) for part in compute_parts(group.terms)]
    assert combine_partials(parts) == made
    for other in {number ^ 1, number ^ 1 << 31, 0x7FC00000} - {number}:
        again = make_part(group, element, (0, group.terms), read, agreed, other)
        assert not group.is_right(agreed, again.total, other)


def check_call(call: Call) -> None:
    found, site, read = call.run(), site_of(call), reader_of(call.operands)
    point, group = make_point(site), make_group(site)
    assert (point is None) != (group is None)
    for element in sample(found):
        number = element_of(found, element)
        if point is not None:
            assert point(element, read) == number, (call.operation, element)
        elif group is not None:
            check_group(group, element, read, number)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_element_by_itself_is_the_interpreters(name: str) -> None:
    calls = [call for call in CALLS if call.operation == name]
    assert calls
    for call in calls:
        check_call(call)


def test_broadcast_and_empty_axes() -> None:
    pairs = (spread((3, 1, 2), 1), spread((4, 1), 2))
    chosen = whole((4, 2), 2, 3).bool()
    for call in (
        Call("mul", pairs),
        Call("where", (chosen, pairs[0], pairs[1])),
        Call("concatenate", tuple(spread((2, size), size) for size in (1, 3, 2)), ((1,),)),
        Call("scatter_sum", (spread((5, 3, 2), 4), whole((5, 3, 2), 2, 5)), ((0,), (4,))),
        Call("gather", (spread((5, 3, 2), 6), whole((7, 3, 2), 5, 7)), ((0,),)),
        Call("sum", (whole((5, 3), 1 << 20, 8) << 43,), ((0,), (0,))),
    ):
        check_call(call)


def test_sums_longer_than_what_is_handled_at_once() -> None:
    value = spread(((1 << 19) + 5,), 9)
    call = Call("sum", (value,), ((0,), (0,)))
    group = make_group(site_of(call))
    assert group is not None
    number = element_of(call.run().reshape(1), 0)
    agreed = measure_part(group, 0, 0, group.terms, reader_of(call.operands))
    made = make_part(group, 0, (0, group.terms), reader_of(call.operands), agreed, number)
    assert group.is_right(agreed, made.total, number)


def test_indices_out_of_range_are_no_number() -> None:
    values, lines = spread((2, 3), 1), torch.tensor([[0, 5, 1], [2, 0, -1]])
    gather = make_point(site_of(Call("gather", (values, lines), ((1,),))))
    scatter = make_group(site_of(Call("scatter_sum", (values, lines), ((1,), (3,)))))
    assert gather is not None and scatter is not None
    read = reader_of((values, lines))
    for element in (1, 5):
        with pytest.raises(Rejected):
            gather(element, read)
        with pytest.raises(Rejected):
            measure_part(scatter, element, 0, 3, read)


def test_a_fingerprint_is_the_sum_of_its_parts() -> None:
    loss, gradients = torch.tensor(2.5), {"b": spread((70, 5), 1), "a": spread((3000,), 2) * torch.inf}
    operands = (loss, gradients["a"], gradients["b"])
    group = make_fingerprint([operand.numel() for operand in operands])
    number = compute_fingerprint(loss, gradients)
    check_group(group, 0, reader_of(operands), number)


def test_the_last_rounding_is_that_of_fractions() -> None:
    chance = random.Random(1)
    for _ in range(3000):
        total = chance.getrandbits(chance.randrange(1, 90)) * chance.choice((1, -1))
        exponent = chance.randrange(-240, 120)
        assert round_to_binary32(total, exponent) == round_by_fractions(total * Fraction(2) ** exponent)


def test_wrapping_and_magnitudes() -> None:
    assert [wrap(1 << 63), wrap(-1), wrap((1 << 64) + 5)] == [-(1 << 63), -1, 5]
    numbers: Numbers = pick(torch.tensor([0.0, -0.0, torch.nan, -torch.inf]), np.arange(4))
    assert numbers.tolist() == [0, 1 << 31, 0x7FC00000, 0xFF800000]
    assert Agreed(1, 2) == Agreed(left=1, right=2)

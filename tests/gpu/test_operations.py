"""Every operation against exact fractions on hard numbers, and its bits as they were recorded."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from bench.calls import Call, digest_of_operation, make_calls
from bench.golden import OPERATION_VECTORS
from milon.gpu.elementary import FUNCTIONS
from milon.pol.operations import OPERATIONS
from tests.gpu import operation_reference as reference
from tests.gpu.operation_reference import Numbers, numbers_of

CALLS = make_calls()
ELSEWHERE = {*FUNCTIONS, "pow"}  # against 60 digits in test_elementary


def _elementwise(call: Call) -> Numbers:
    operands = [numbers_of(operand) for operand in torch.broadcast_tensors(*call.operands)]
    kind = call.operands[-1].dtype
    name = call.operation
    if name == "where":
        return [left if chosen else right for chosen, left, right in zip(*operands, strict=True)]
    if name == "cast":
        return [reference.cast(value, kind, call.attributes[0][0]) for value in operands[0]]
    if len(operands) == 2:
        pair = (reference.FLOAT_PAIRS if kind is torch.float32 else reference.OTHER_PAIRS)[name]
        return [pair(left, right) for left, right in zip(*operands, strict=True)]
    if kind is torch.float32:
        alone = {
            "neg": lambda bits: bits if reference.is_nan(bits) else bits ^ reference.SIGN,
            "abs": lambda bits: bits & ~reference.SIGN,
            "sqrt": reference.root,
        }[name]
    else:
        alone = {
            "neg": lambda value: reference.wrap(-value),
            "abs": lambda value: reference.wrap(abs(value)),
            "not": lambda value: not value,
        }[name]
    return [alone(value) for value in operands[0]]


def _move(call: Call) -> Numbers:
    first = call.operands[0] if call.operands else torch.zeros(0)
    at = call.attributes
    match call.operation:
        case "iota":
            return list(range(at[0][0]))
        case "reshape":
            return numbers_of(first)
        case "permute":
            shape = [first.shape[axis] for axis in at[0]]
            back = [at[0].index(axis) for axis in range(first.dim())]
            return [_at(first, tuple(place[axis] for axis in back)) for place in reference.places(shape)]
        case "expand":
            lead = len(at[0]) - first.dim()
            return [
                _at(first, tuple(min(i, size - 1) for i, size in zip(place[lead:], first.shape, strict=True)))
                for place in reference.places(at[0])
            ]
        case "slice":
            axis, start, stop, step = (entry[0] for entry in at)
            shape = [*first.shape]
            shape[axis] = -(-(stop - start) // step)
            return [
                _at(first, (*place[:axis], start + step * place[axis], *place[axis + 1 :]))
                for place in reference.places(shape)
            ]
        case "concatenate":
            assert at[0] == (1,)
            return [n for lines in zip(*call.operands, strict=True) for line in lines for n in numbers_of(line)]
    axis, lines = at[0][0], call.operands[1]
    return [
        _at(first, (*place[:axis], int(lines[place]), *place[axis + 1 :])) for place in reference.places(lines.shape)
    ]


def _at(tensor: Tensor, place: tuple[int, ...]) -> object:
    return numbers_of(tensor[place])[0]


def _product(call: Call) -> Numbers:
    left, right = call.operands
    return [
        reference.dot(numbers_of(row), numbers_of(column), call.magnitude_bits)
        for one, other in zip(left, right, strict=True)
        for row in one
        for column in other.t()
    ]


def _terms(call: Call, found: Tensor) -> Numbers:
    """Convolutions by their definition: for each element of the result, its row and its column as lists."""
    at, name = call.attributes, call.operation
    first, second = call.operands
    image = {"convolution": first.shape, "convolution_weight_gradient": second.shape}.get(name) or at[4]
    weight = {"convolution": second.shape, "convolution_input_gradient": second.shape}.get(name) or at[4]
    outer = found.shape if name == "convolution" else first.shape
    groups = at[3][0]
    inner_size, outer_size = image[1] // groups, weight[0] // groups
    rows: dict[tuple[int, ...], Numbers] = {place: [] for place in reference.places(found.shape)}
    columns: dict[tuple[int, ...], Numbers] = {place: [] for place in reference.places(found.shape)}

    def put(place: tuple[int, ...], left: object, right: object) -> None:
        rows[place].append(left)
        columns[place].append(right)

    hits = list(reference.windows(image[2:], weight[2:], at, outer[2:]))
    for batch, out, inner in reference.places((image[0], weight[0], inner_size)):
        channel = out // outer_size * inner_size + inner
        if name == "convolution_input_gradient":
            under = {(tap, pixel): place for place, tap, pixel in hits if pixel is not None}
            for pixel in reference.places(image[2:]):
                for tap in reference.places(weight[2:]):
                    spot = under.get((tap, pixel))
                    put((batch, channel, *pixel), _at(second, (out, inner, *tap)),
                        _at(first, (batch, out, *spot)) if spot else 0)  # fmt: skip
            continue
        for place, tap, pixel in hits:
            if name == "convolution":
                shown = _at(first, (batch, channel, *pixel)) if pixel else 0
                put((batch, out, *place), _at(second, (out, inner, *tap)), shown)
            else:
                shown = _at(second, (batch, channel, *pixel)) if pixel else 0
                put((out, inner, *tap), _at(first, (batch, out, *place)), shown)
    return [reference.dot(rows[place], columns[place], call.magnitude_bits) for place in rows]


def _pool(call: Call, found: Tensor) -> Numbers:
    kernel, *at = call.attributes
    first, name = call.operands[0], call.operation
    image = at[3] if name == "window_spread" else first.shape
    outer = first.shape if name == "window_spread" else found.shape
    groups: dict[tuple[int, ...], Numbers] = {place: [] for place in reference.places(found.shape)}
    pixels: dict[tuple[int, ...], list[int]] = {place: [] for place in reference.places(found.shape)}
    for batch, channel in reference.places(image[:2]):
        for place, _, pixel in reference.windows(image[2:], kernel, tuple(at), outer[2:]):
            if pixel is None:
                continue
            source, target = (place, pixel) if name == "window_spread" else (pixel, place)
            groups[(batch, channel, *target)].append(_at(first, (batch, channel, *source)))
            pixels[(batch, channel, *target)].append(pixel[0] * image[3] + pixel[1])
    if name == "max_pool_indices":
        return [pixels[place][reference.best_place(groups[place], True)] for place in groups]
    return [reference.reference_sum(group) for group in groups.values()]


def expected(call: Call, found: Tensor) -> Numbers:
    """What the call must give."""
    name = call.operation
    if name in ("sum", "amax", "amin", "argmax"):
        return reference.reduce(name, call.operands[0], call.attributes[0])
    if name == "scatter_sum":
        return reference.scatter(*call.operands, call.attributes[0][0], call.attributes[1][0])
    if name == "matmul":
        return _product(call)
    if name.startswith("convolution"):
        return _terms(call, found)
    if OPERATIONS[name].rule == "moves":
        return _move(call)
    return _pool(call, found) if "window" in name or "pool" in name else _elementwise(call)


def test_every_operation_has_calls() -> None:
    assert {call.operation for call in CALLS} == set(OPERATIONS)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - ELSEWHERE))
def test_an_operation_gives_what_fractions_say(name: str) -> None:
    for call in CALLS:
        if call.operation == name:
            found = call.run()
            assert numbers_of(found) == expected(call, found), call


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_operation_keeps_its_bits(name: str) -> None:
    assert digest_of_operation(name) == json.loads(OPERATION_VECTORS.read_text())[name]

"""Shards in lockstep give the bits of one: whole models, and every operation split along any axis."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from bench.calls import DTYPES, Call, from_bits, make_calls, spread
from bench.golden import compute_digest, read_vectors, unpack
from milon.base.errors import Reason, Rejected
from milon.gpu import fast
from milon.gpu.exact import canonical_nan
from milon.gpu.sharding import analyze, load_sharded
from milon.gpu.sharding_rules import Way
from milon.pol.program import (
    NUMERICS,
    Input,
    InputRole,
    Node,
    Output,
    OutputRole,
    Program,
    ProgramKind,
    compute_types,
)

ELEMENTWISE = ("abs", "neg", "exp", "add", "where", "cast", "maximum")


@pytest.fixture(autouse=True)
def _plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of tiny programs: compiled loops would have to be made ready for each."""
    monkeypatch.setattr(fast._Choice, "is_compiled", False)


@pytest.mark.parametrize(
    ("name", "shards"),
    [("perceptron", 2), ("convolution-net", 3), ("convolution-net", 8), ("gpt", 3), ("unet", 2)],
)
def test_a_model_has_the_bits_of_one_shard(name: str, shards: int) -> None:
    vector = read_vectors()[name]
    program = unpack(vector["program"])
    plan = load_sharded(program, ["cpu"] * shards)
    assert compute_digest(program, plan) == vector["digest"]
    assert not plan.gathered, "an operation of an ordinary model brought its operands together"


def test_several_devices_in_one_process() -> None:
    """Each device has constants and kernels of its own; torch takes the CPU under two names for two of them."""
    vector = read_vectors()["perceptron"]
    program = unpack(vector["program"])
    assert compute_digest(program, load_sharded(program, ["cpu", "cpu:0", "cpu"])) == vector["digest"]


def test_a_models_work_is_dealt_out() -> None:
    program = unpack(read_vectors()["gpt"]["program"])
    types = compute_types(program)
    sites, placements, _ = analyze(program, types, 4)
    work = dict.fromkeys(Way, 0)
    for site, placement in zip(sites, placements, strict=True):
        if site.node.operation == "matmul":
            work[placement.way] += site.types[0].elements * site.result.shape[-1]
    assert work[Way.WHOLE] == 0 and work[Way.APART] > 0 and work[Way.TOGETHER] > 0
    draws = [number for number, entry in enumerate(program.inputs) if entry.role is InputRole.DRAW]
    readers = [site for site in sites if set(site.node.operands) & set(draws)]
    assert readers and all(any(split is not None for split in site.splits) for site in readers)


def moved(call: Call, axes: tuple[int | None, ...]) -> tuple[Program, list[Tensor]]:
    """The call with each operand given with the named axis in front, where a batch has its rows, and moved back."""
    inputs, nodes, batch, places = [], [], [], []
    count = len(call.operands)
    for number, (operand, axis) in enumerate(zip(call.operands, axes, strict=True)):
        given = operand if axis is None else operand.movedim(axis, 0).contiguous()
        batch.append(given)
        inputs.append(Input(f"x{number}", InputRole.BATCH, DTYPES[operand.dtype], tuple(given.shape)))
        if axis is None:
            places.append(number)
            continue
        order = [*range(1, axis + 1), 0, *range(axis + 1, operand.dim())]
        places.append(count + len(nodes))
        nodes.append(Node("permute", (number,), (tuple(order),)))
    nodes.append(Node(call.operation, tuple(places), call.attributes))
    outputs = (Output(OutputRole.PREDICTION, "", count + len(nodes) - 1),)
    program = Program(ProgramKind.PREDICT, NUMERICS, call.magnitude_bits, tuple(inputs), (), tuple(nodes), outputs)
    return program, batch


def variants(shards: int) -> Iterator[tuple[Call, tuple[int | None, ...]]]:
    """Every call with its operands split along all combinations of axes; of those element by element only some."""
    for call in make_calls():
        choices = [(None, *range(operand.dim())) for operand in call.operands]
        is_plain = all(operand.dim() == 1 for operand in call.operands)
        if (call.operation in ELEMENTWISE and shards == 2) or not is_plain:
            yield from ((call, axes) for axes in itertools.product(*choices) if any(axis is not None for axis in axes))


def same(found: Tensor | None, wanted: Tensor) -> bool:
    """Equal shapes and bits, every NaN being one."""
    if found is None or found.shape != wanted.shape or found.dtype is not wanted.dtype:
        return False
    if wanted.dtype is torch.float32:
        found, wanted = (canonical_nan(tensor).view(torch.int32) for tensor in (found, wanted))
    return torch.equal(found, wanted)


@pytest.mark.parametrize("shards", [2, 3])
def test_every_operation_split_along_any_axis(shards: int) -> None:
    wanted: dict[int, Tensor] = {}
    ways = set()
    for call, axes in variants(shards):
        if id(call) not in wanted:
            wanted[id(call)] = call.run()
        program, batch = moved(call, axes)
        plan = load_sharded(program, ["cpu"] * shards)
        assert same(plan.run({}, batch, None).prediction, wanted[id(call)]), (call.operation, axes)
        ways.add((call.operation, analyze(program, compute_types(program), shards)[1][-1].way))
    together = {"sum", "amax", "amin", "matmul", "scatter_sum"}
    if shards == 2:  # the convolutions have two images
        together.add("convolution_weight_gradient")
    assert {operation for operation, way in ways if way is Way.TOGETHER} == together


def run_both(call: Call, shards: int) -> bool:
    program, batch = moved(call, tuple(0 if operand.dim() else None for operand in call.operands))
    return same(load_sharded(program, ["cpu"] * shards).run({}, batch, None).prediction, call.run())


def test_sums_of_hostile_numbers_over_the_rows() -> None:
    """A maximum, a NaN or an infinity on one shard is every shard's; zeros keep the reference's sign."""
    huge, least, negative_zero = from_bits([0x7F7FFFFF, 0x00000001, 0x80000000])
    for hostile in (huge, least, torch.tensor(torch.inf), torch.tensor(torch.nan), negative_zero):
        values = spread((7, 6), 70)
        values[5, 2] = hostile
        values[:, 3] = negative_zero
        for axes in ((0,), (0, 1)):
            assert run_both(Call("sum", (values,), (axes, (0,))), 3)
        assert run_both(Call("amax", (values,), ((0,), (1,))), 3)
        assert run_both(Call("amin", (values,), ((0,), (0,))), 3)
        right = spread((7, 4), 71)
        for bits in (13, 21):
            program, batch = moved(Call("matmul", (values.t().contiguous(), right), (), bits), (1, 0))
            found = load_sharded(program, ["cpu"] * 3).run({}, batch, None).prediction
            assert same(found, Call("matmul", (values.t().contiguous(), right), (), bits).run())


def test_sums_too_long_for_one_integer() -> None:
    """Beyond 2^22 terms, and beyond 2^20 of a product with M = 21, a total has two limbs."""
    values = spread((3, (1 << 22) // 3 + 5), 72)
    assert run_both(Call("sum", (values,), ((0, 1), (0,))), 2)
    rows = (1 << 20) + 3
    call = Call("matmul", (spread((1, rows), 73), spread((rows, 1), 74)))
    program, batch = moved(call, (1, 0))
    assert same(load_sharded(program, ["cpu"] * 2).run({}, batch, None).prediction, call.run())


def test_an_index_out_of_range_on_one_shard_is_refused_by_all() -> None:
    indices = torch.tensor([[0], [1], [2], [0], [5]])
    program, batch = moved(Call("gather", (spread((5, 4), 75), indices), ((1,),)), (0, 0))
    with pytest.raises(Rejected, match=r"outside \[0, 4\)") as refused:
        load_sharded(program, ["cpu"] * 3).run({}, batch, None)
    assert refused.value.reason is Reason.OUT_OF_RANGE

"""Chains give the bits of the same operations one by one, for all broadcasts and hostile numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from milon.gpu import chains, fast, interpreter
from milon.gpu.builder import Builder
from milon.gpu.elementary import CORRECTIONS
from milon.pol.program import (
    Budget,
    Input,
    InputRole,
    OutputRole,
    Program,
    ProgramKind,
    compute_types,
    verify_program,
)
from milon.pol.shapes import DType, TensorType

SHAPE = (3, 5, 7)
SHAPES = (SHAPE, (1,), (), (5, 1), (3, 1, 1), (3, 5, 1), (7,), (3, 1, 7))
UNARY = ("neg", "abs", "sqrt", "exp", "expm1", "log", "tanh", "sigmoid", "erf", "rsqrt")
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
HOSTILE = (0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-126), 88.8, -104.0, 3e38, 0.34657, torch.inf, -torch.inf, torch.nan)


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    """The programs here are too small to ask for it. Only whoever runs these tests compiles the loops."""
    fast.choose(fast.COMPILED_OPERATIONS_MIN)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A chain of some operations on inputs of all shapes; every value is an output's ancestor or an output."""
    builder = Builder()
    floats = [
        builder.input(f"batch.{place}", InputRole.BATCH, TensorType(DType.FLOAT32, shape))
        for place, shape in enumerate(SHAPES)
    ]
    truths: list[int] = []
    for _ in range(draw(st.integers(1, 25))):
        kind = draw(st.sampled_from(("unary", "binary", "comparison", "logic", "where", "cast")))
        one, other = draw(st.sampled_from(floats)), draw(st.sampled_from(floats))
        if kind == "unary":
            floats.append(builder.node(draw(st.sampled_from(UNARY)), one))
        elif kind == "binary":
            floats.append(builder.node(draw(st.sampled_from(BINARY)), one, other))
        elif kind == "comparison" or not truths:
            truths.append(builder.node(draw(st.sampled_from(COMPARISONS)), one, other))
        elif kind == "logic":
            name = draw(st.sampled_from(("and", "or")))
            truths.append(builder.node("not", builder.node(name, draw(st.sampled_from(truths)), truths[-1])))
        elif kind == "where":
            floats.append(builder.node("where", draw(st.sampled_from(truths)), one, other))
        else:
            floats.append(builder.cast(draw(st.sampled_from(truths)), DType.FLOAT32))
    chosen = builder.node("where", truths[-1], floats[-1], floats[0]) if truths else floats[-1]
    last = builder.node("add", chosen, floats[0])
    return builder.finish(ProgramKind.PREDICT, 13, [(OutputRole.PREDICTION, "", last)])


def fill(entry: Input, seed: int) -> Tensor:
    """Numbers of all scales and hostile ones."""
    chance = torch.Generator().manual_seed(seed)
    values = torch.randn(entry.shape, generator=chance) * 4
    hostile = torch.tensor(HOSTILE)[torch.randint(0, len(HOSTILE), entry.shape, generator=chance)]
    return torch.where(torch.rand(entry.shape, generator=chance) < 0.3, hostile, values)


def predict(program: Program, batch: list[Tensor]) -> Tensor:
    """The bits that come out."""
    found = interpreter.load(program).run({}, batch, None).prediction
    assert found is not None
    return found.view(torch.int32)


@settings(deadline=None, max_examples=120)
@given(programs(), st.integers(0, 1 << 30))
def test_chains_give_the_bits_of_single_operations(program: Program, seed: int) -> None:
    batch = [fill(entry, seed + place) for place, entry in enumerate(program.inputs)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "is_worth_it", lambda chain, program: True)
        quick = predict(program, batch)
        patch.setattr(interpreter, "machine", lambda: None)
        assert torch.equal(quick, predict(program, batch))


@pytest.mark.parametrize("name", UNARY)
def test_functions_over_many_inputs_and_two_threads(name: str) -> None:
    count = (1 << 32) // 65_537 + 1
    inputs = torch.arange(count, dtype=torch.int64).mul(65_537).to(torch.int32).view(torch.float32)
    known = [given for given, _ in CORRECTIONS.get(name, ())]
    inputs = torch.cat((inputs, torch.tensor(known, dtype=torch.int64).to(torch.int32).view(torch.float32)))
    builder = Builder()
    given = builder.input("batch.0", InputRole.BATCH, TensorType(DType.FLOAT32, tuple(inputs.shape)))
    program = builder.finish(ProgramKind.PREDICT, 13, [(OutputRole.PREDICTION, "", builder.node(name, given))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "is_worth_it", lambda chain, program: True)
        quick = predict(program, [inputs])
        patch.setattr(interpreter, "machine", lambda: None)
        wanted = predict(program, [inputs])
    assert torch.equal(quick, wanted)


def test_periods() -> None:
    for shape in SHAPES:
        period = chains.find_period(shape, SHAPE)
        source = torch.arange(torch.tensor(shape).prod().item()).reshape(shape)
        if shape == (3, 1, 7):
            assert period is None
            continue
        assert period is not None
        places = torch.arange(3 * 5 * 7)
        wanted = source.expand(SHAPE).reshape(-1)
        assert torch.equal(source.reshape(-1)[places // period[0] % period[1]], wanted)


def test_a_machine_that_differs_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    loops = chains.machine()
    assert loops is not None and chains.agrees(loops)
    monkeypatch.setitem(loops.OPCODES, "exp", loops.OPCODES["expm1"])
    assert not chains.agrees(loops)


def accumulating(count: int) -> Program:
    """Products that are added up one after the other: in one chain, all of them would have to wait for the last."""
    builder = Builder()
    kind = TensorType(DType.FLOAT32, (96, 96))
    left, right = (builder.input(name, InputRole.BATCH, kind) for name in ("left", "right"))
    sum_so_far = product = left
    for _ in range(count):
        product = builder.node("matmul", product, right)
        sum_so_far = builder.node("add", sum_so_far, product)
    return builder.finish(ProgramKind.PREDICT, 13, [(OutputRole.PREDICTION, "", sum_so_far)])


def test_chains_stay_within_the_memory_that_the_check_counted() -> None:
    for count in (1, 3, 10, 40):
        program = accumulating(count)
        plan, types = interpreter.load(program), compute_types(program)
        assert interpreter.compute_peak(plan.steps, program, types) <= verify_program(program, Budget()).memory_bytes
        batch = [fill(entry, place) for place, entry in enumerate(program.inputs)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(interpreter, "machine", lambda: None)
            wanted = predict(program, batch)
        assert torch.equal(predict(program, batch), wanted)


def test_without_the_bound_a_chain_would_hold_more() -> None:
    program = accumulating(40)
    types, loops = compute_types(program), chains.machine()
    steps = interpreter.plan_steps(program, types, torch.device("cpu"), loops, chains.CHAIN_MEMBERS_MAX)
    assert interpreter.compute_peak(steps, program, types) > verify_program(program, Budget()).memory_bytes


def test_every_nan_of_an_output_is_the_same_whether_a_chain_wrote_or_read_it() -> None:
    builder = Builder()
    kind = TensorType(DType.FLOAT32, (64, 64))
    state, values = builder.input("w", InputRole.STATE, kind), builder.input("batch.0", InputRole.BATCH, kind)
    read = builder.node("permute", values, attributes=((1, 0),))  # moves NaN as it is
    written = builder.node("sub", state, builder.node("mul", read, read))
    loss = builder.node("sum", written, attributes=((0, 1), (0,)))
    outputs = [(OutputRole.NEW_STATE, "w", written), (OutputRole.LOSS, "", loss), (OutputRole.GRADIENT, "w", read)]
    plan = interpreter.load(builder.finish(ProgramKind.TRAIN, 13, outputs))
    assert any(isinstance(step.kernel, chains.ChainKernel) for step in plan.steps)
    batch = torch.full((64, 64), 0.5)
    batch[3, 4] = torch.tensor(-1, dtype=torch.int32).view(torch.float32)  # another NaN than the one that is written
    found = plan.run({"w": torch.ones(64, 64)}, [batch], None)
    for output in (found.gradients["w"], found.new_state["w"]):
        bits = output.view(torch.int32)
        assert int((output != output).sum()) == 1 and bits[4, 3] == 0x7FC00000

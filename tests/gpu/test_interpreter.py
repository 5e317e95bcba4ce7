"""Plans: right bits wherever they run, inputs untouched, bad inputs refused."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.gpu.capture import Captured, capture
from milon.gpu.interpreter import load
from milon.pol.program import Budget, Node, Program, StepKey
from tests.gpu.programs import batch_at, digest_of, digests_of_training, digits, digits_cnn, single, train

ROOT = Path(__file__).parent.parent.parent
VECTORS = ROOT / "tests" / "vectors" / "numerics.json"
KEY = StepKey(bytes(32), 0, 0, 0)


@pytest.fixture(scope="module")
def digits_job() -> Captured:
    return capture(
        digits_cnn(),
        torch.nn.functional.cross_entropy,
        lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        (torch.zeros(32, 1, 8, 8), torch.zeros(32, dtype=torch.int64)),
        (99,),
    )


def first_state(job: Captured) -> dict[str, Tensor]:
    """A state that does not depend on torch's generator: a fixed pattern for each parameter."""
    state = {}
    for name, tensor in sorted(job.state.items()):
        pattern = torch.arange(tensor.numel()).mul(7919).remainder(2003).sub(1001).reshape(tensor.shape)
        is_parameter = name.startswith("model.") and (tensor.dim() > 1 or name.endswith("bias"))
        state[name] = pattern.float() * 2.0**-13 if is_parameter else tensor.clone()
    return state


def run_elsewhere(tmp_path: Path, job: Captured, threads: int, steps: int, **environment: str) -> str:
    (tmp_path / "program").write_bytes(encode(job.train))
    save_file(first_state(job), tmp_path / "state.safetensors")
    arguments = [str(tmp_path / "program"), str(tmp_path / "state.safetensors"), str(threads), str(steps)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.train_digits", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout.strip()


def test_threads_and_instruction_sets_do_not_change_a_bit(tmp_path: Path, digits_job: Captured) -> None:
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(" ".join(digests_of_training(load(digits_job.train), first_state(digits_job), 10)))
    torch.set_num_threads(before)
    plain = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
    assert found == [run_elsewhere(tmp_path, digits_job, 2, 10, **plain)] * 2


def test_three_steps_give_the_recorded_state(digits_job: Captured) -> None:
    """The program is recorded too, so that another version of torch, which captures another, cannot hide a change."""
    recorded = json.loads(VECTORS.read_text())
    program = decode(Program, bytes.fromhex(recorded["program"]))
    state, results = train(load(program), first_state(digits_job), 3)
    assert digest_of(state) == recorded["state_after_3_steps"]
    bits = [int(result.loss.view(torch.int32)) for result in results if result.loss is not None]
    assert bits == recorded["loss_bits"]


def test_a_run_changes_nothing_it_was_given_and_shares_no_memory(digits_job: Captured) -> None:
    plan = load(digits_job.train)
    state = first_state(digits_job)
    before = digest_of(state)
    batch = batch_at(*digits(), 0)
    result = plan.run(state, batch, KEY)
    assert digest_of(state) == before
    for tensor in (*result.new_state.values(), *result.gradients.values()):
        tensor.fill_(7)
    assert digest_of(state) == before
    assert digest_of(plan.run(state, batch, KEY).new_state) == digest_of(plan.run(state, batch, KEY).new_state)


def test_the_key_decides_the_draws(digits_job: Captured) -> None:
    plan = load(digits_job.train)
    state = first_state(digits_job)
    batch = batch_at(*digits(), 0)
    one = plan.run(state, batch, KEY).loss
    other = plan.run(state, batch, dataclasses.replace(KEY, step=1)).loss
    assert one is not None and other is not None and float(one) != float(other)


def test_what_does_not_fit_is_refused(digits_job: Captured) -> None:
    plan = load(digits_job.train)
    state = first_state(digits_job)
    images, classes = batch_at(*digits(), 0)
    wide = {**state, "model.0.bias": state["model.0.bias"].double()}
    missing = {name: tensor for name, tensor in state.items() if name != "model.0.bias"}
    cases = [
        (missing, (images, classes), KEY, Reason.DOES_NOT_FIT),
        (wide, (images, classes), KEY, Reason.DOES_NOT_FIT),
        (state, (images[:31], classes[:31]), KEY, Reason.DOES_NOT_FIT),
        (state, (images,), KEY, Reason.DOES_NOT_FIT),
        (state, (images, classes, classes), KEY, Reason.DOES_NOT_FIT),
        (state, (images, classes), None, Reason.MALFORMED),
        (state, (images, classes + 9), KEY, Reason.OUT_OF_RANGE),
    ]
    for held, batch, key, reason in cases:
        with pytest.raises(Rejected) as caught:
            plan.run(held, batch, key)
        assert caught.value.reason is reason
    with pytest.raises(Rejected) as caught:
        load(digits_job.train, budget=Budget(1 << 20, 1 << 40))
    assert caught.value.reason is Reason.OVER_BUDGET


def test_weights_that_are_not_finite_run_to_nan_of_one_pattern(digits_job: Captured) -> None:
    state = first_state(digits_job)
    state["model.4.weight"][3, 2, 1, 1] = torch.inf
    result = load(digits_job.train).run(state, batch_at(*digits(), 0), KEY)
    assert result.loss is not None and int(result.loss.view(torch.int32)) == 0x7FC00000
    held = torch.cat([tensor.reshape(-1) for tensor in result.new_state.values() if tensor.is_floating_point()])
    patterns = held[torch.isnan(held)].view(torch.int32)
    assert len(patterns) > 0 and bool((patterns == 0x7FC00000).all())


def test_evaluation_counts_what_is_right(digits_job: Captured) -> None:
    images, classes = digits()
    model = digits_cnn()
    model.load_state_dict({n.removeprefix("model."): t for n, t in digits_job.state.items() if n.startswith("model.")})
    model.eval()
    result = load(digits_job.evaluate[0]).run(digits_job.state, (images[:99], classes[:99]), None)
    output = model(images[:99])
    assert result.correct == int((output.argmax(1) == classes[:99]).sum())
    assert result.loss is not None and result.new_state == {} and result.gradients == {}
    torch.testing.assert_close(result.loss, torch.nn.functional.cross_entropy(output, classes[:99]).detach())
    predicted = load(digits_job.predict).run(digits_job.state, (images[:32],), None).prediction
    torch.testing.assert_close(predicted, model(images[:32]).detach(), rtol=1e-5, atol=1e-5)


def mutate(program: Program, chance: random.Random) -> Program:
    """The program with one to three nodes changed in operation, operands or attributes."""
    nodes = list(program.nodes)
    count = len(program.inputs) + len(program.constants)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(nodes))
        node = nodes[place]
        kind = chance.randrange(3)
        if kind == 0:
            node = dataclasses.replace(node, operation=chance.choice(nodes).operation)
        elif kind == 1 and node.operands:
            operands = list(node.operands)
            operands[chance.randrange(len(operands))] = chance.randrange(count + place)
            node = dataclasses.replace(node, operands=tuple(operands))
        elif node.attributes:
            changed = [list(attribute) for attribute in node.attributes]
            attribute = chance.choice(changed)
            if attribute:
                attribute[chance.randrange(len(attribute))] = chance.choice([-1, 0, 1, 2, 3, 7, 64, 1 << 33])
            node = Node(node.operation, node.operands, tuple(tuple(attribute) for attribute in changed))
        nodes[place] = node
    return dataclasses.replace(program, nodes=tuple(nodes))


def test_mutated_programs_are_refused_or_run_within_budget(digits_job: Captured) -> None:
    chance = random.Random(3)
    state = first_state(digits_job)
    batch = batch_at(*digits(), 0)
    budget = Budget(64 << 20, 1 << 28)
    ran = refused = 0
    for _ in range(300):
        try:
            load(mutate(digits_job.train, chance), budget=budget).run(state, batch, KEY)
            ran += 1
        except Rejected:
            refused += 1
    assert ran > 20 and refused > 100


ZEROS = [0.0, -0.0]


@pytest.mark.parametrize("operation", ["maximum", "minimum"])
def test_extremes_follow_the_standard_for_zeros_and_nan(operation: str) -> None:
    left = torch.tensor([0.0, -0.0, -0.0, torch.nan, 1.0, -0.0] * 8)
    right = torch.tensor([-0.0, 0.0, -0.0, 1.0, torch.nan, -3.0] * 8)
    found = single(operation, [left, right])[:6]
    expected = {"maximum": [0.0, 0.0, -0.0], "minimum": [-0.0, -0.0, -0.0]}[operation]
    assert found[:3].view(torch.int32).tolist() == torch.tensor(expected).view(torch.int32).tolist()
    assert found[3:5].view(torch.int32).tolist() == [0x7FC00000] * 2
    assert float(found[5]) == (0.0 if operation == "maximum" else -3.0)


def test_reduced_extremes_and_argmax() -> None:
    values = torch.tensor([[-0.0, -1.0, 0.0, 0.0], [-0.0, -0.0, -2.0, -0.0], [1.0, torch.nan, 3.0, torch.nan]])
    greatest = single("amax", [values], ((1,), (0,)))
    assert greatest.view(torch.int32).tolist() == [0, -(1 << 31), 0x7FC00000]
    least = single("amin", [-values], ((1,), (0,)))
    assert least.view(torch.int32).tolist() == [-(1 << 31), 0, 0x7FC00000]
    assert single("argmax", [values], ((1,), (0,))).tolist() == [0, 0, 1]


def test_casts_truncate_and_saturate() -> None:
    values = torch.tensor([1.9, -1.9, torch.nan, torch.inf, -torch.inf, 1e30, -1e30])
    top, bottom = torch.iinfo(torch.int64).max, torch.iinfo(torch.int64).min
    assert single("cast", [values], ((1,),)).tolist() == [1, -1, 0, top, bottom, top, bottom]
    assert single("cast", [torch.tensor([(1 << 24) + 1, -3])], ((0,),)).tolist() == [16777216.0, -3.0]

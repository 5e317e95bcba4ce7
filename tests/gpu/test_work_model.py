"""A trained model in plain PyTorch: every name that its own `state_dict` has, tied ones too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.cases import CASES, make_batch, make_model
from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.gpu.capture import Captured, capture
from milon.gpu.checkpoint import to_bytes
from milon.gpu.interpreter import load
from milon.gpu.work_model import export, find_aliases, load_weights


@pytest.fixture(scope="module")
def tied() -> Captured:
    """A decoder whose last layer is its embedding."""
    case = CASES["gpt"]
    return capture(make_model(case), case.loss, case.optimizer, make_batch(case, 0), ())


def test_a_tied_model_loads_strictly(tied: Captured, tmp_path: Path) -> None:
    state, program, out = tmp_path / "state", tmp_path / "predict", tmp_path / "model.safetensors"
    held = {name: tensor + 1 if name == "model.tokens.weight" else tensor for name, tensor in tied.state.items()}
    state.write_bytes(to_bytes(held))
    program.write_bytes(encode(tied.predict))
    twin = make_model(CASES["gpt"])
    assert export(state, program, out) == len(twin.state_dict())
    load_weights(twin, out)  # `load_state_dict` is strict
    found = twin.state_dict()
    assert torch.equal(found["tokens.weight"], held["model.tokens.weight"])
    assert torch.equal(found["head.weight"], held["model.tokens.weight"])


def test_aliases_are_part_of_the_prediction_program(tied: Captured) -> None:
    assert find_aliases(encode(tied.predict)) == {"model.head.weight": "model.tokens.weight"}
    tokens = make_batch(CASES["gpt"], 0)[0]
    result = load(tied.predict).run(tied.state, (tokens,), None)
    assert result.prediction is not None
    assert result.new_state == {}


def test_models_without_ties_have_no_aliases() -> None:
    case = CASES["perceptron"]
    captured = capture(make_model(case), case.loss, case.optimizer, make_batch(case, 0), ())
    assert find_aliases(encode(captured.predict)) == {}


def test_what_is_missing_is_told(tied: Captured, tmp_path: Path) -> None:
    state, program = tmp_path / "state", tmp_path / "predict"
    state.write_bytes(to_bytes({name: tied.state[name] for name in tied.state if name != "model.tokens.weight"}))
    with pytest.raises(Rejected) as refusal:
        export(state, program, tmp_path / "out")
    assert refusal.value.reason is Reason.UNAVAILABLE
    program.write_bytes(encode(tied.predict))
    with pytest.raises(Rejected) as refusal:
        export(state, program, tmp_path / "out")
    assert refusal.value.reason is Reason.UNKNOWN
    assert not (tmp_path / "out").exists()

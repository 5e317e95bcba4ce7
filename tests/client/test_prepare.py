"""From a job to blobs, and from a state to a model in plain PyTorch: the two processes that the command line starts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file

from milon.base.codec import decode
from milon.base.errors import Rejected
from milon.client import model as model_command
from milon.client import prepare as prepare_command
from milon.client.job import Job
from milon.client.prepare import prepare
from milon.gpu.checkpoint import state_digest
from milon.gpu.work_rehearsal import find_hard_rows, rehearse
from milon.pol.aggregation import Rule
from milon.pol.terms import JobSpec, Settlement
from tests.gpu.small_job import make_job, make_model, make_rows, prepare_small

REPOSITORY = Path(__file__).parents[2]
JOB_FILE = "from tests.gpu.small_job import make_job\njob = make_job()\n"


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "a_job.py"
    path.write_text(JOB_FILE)
    return path


def test_every_blob_lies_under_its_id_and_the_spec_names_them() -> None:
    prepared = prepare_small()
    found = {blob for blob, _ in prepared.blobs}
    assert all(state_digest(path.read_bytes()) == blob and path.name == blob.hex() for blob, path in prepared.blobs)
    spec = prepared.spec
    named = {spec.train, spec.predict, spec.initial_state, spec.train_rows, spec.evaluation_rows}
    assert named | {entry.program for entry in spec.evaluate} < found
    assert [entry.rows for entry in spec.evaluate] == [23]


def test_the_same_job_has_the_same_blobs(tmp_path: Path) -> None:
    assert prepare(make_job(), tmp_path).spec == prepare_small().spec


def test_the_command_line_prepares_with_overrides(tmp_path: Path, job_file: Path) -> None:
    x, y = make_rows(40, 5)
    numpy.savez(tmp_path / "train.npz", images=x.double().numpy(), classes=y.numpy().astype("int16"))
    arguments = ["--rounds", "3", "--aggregator", "median", "--audit", "0,0,1", "--reward", "1000000",
                 "--settlement", "bisection", "--dispute-blocks", "9", "--train-data",
                 str(tmp_path / "train.npz"), "--out", str(tmp_path / "out")]  # fmt: skip
    command = [sys.executable, "-m", "milon.client.prepare", str(job_file), *arguments]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    summary = json.loads(found.stdout.splitlines()[-1])
    spec = decode(JobSpec, Path(summary["spec"]).read_bytes())
    assert (spec.terms.rounds, spec.terms.aggregator, summary["reward"]) == (3, Rule.MEDIAN, 1_000_000)
    assert spec.terms.audit_ppm == (0, 0, 1_000_000)
    assert (spec.terms.settlement, spec.terms.dispute_blocks) == (Settlement.BISECTION, 9)
    assert "training data: 40 rows" in found.stderr and "one step: " in found.stderr
    assert summary["blobs"] == len([path for path in (tmp_path / "out").iterdir() if len(path.name) == 64])


def _changed(**changes: Any) -> Job:
    job = make_job()
    for name, value in changes.items():
        setattr(job, name, value)
    return job


X, Y = make_rows(12, 1)
LAST = torch.cat((Y[:-1], torch.tensor([9])))


class Raising(torch.nn.Flatten):
    """Fails in the user's own line."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return {"a": input}["b"]


class Choosing(torch.nn.Linear):
    """Decides by a tensor's value."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        found = super().forward(input.flatten(1))
        return found + 1 if float(found.detach().sum()) > 0 else found


class Sorting(torch.nn.Linear):
    """Uses an operation that programs do not have."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return torch.sort(super().forward(input.flatten(1)), dim=1).values


def _spoilt() -> torch.nn.Module:
    model = make_model()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("inf")
    return model


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": (X, Y[:-1])}, r"training data: columns of \[12, 11\] rows"),
        ({"train": (X,)}, "inputs and, last, a target"),
        (
            {"train": (X[:0], Y[:0])},
            "training data: no rows in input0, target; .*; nothing was sent",
        ),
        ({"evaluation": (X[:0], Y[:0])}, "evaluation data: no rows"),
        ({"train": (X.log() * 0 + float("nan"), Y)}, "input0 holds NaN"),
        ({"train": (numpy.array(["a"] * 12), Y)}, "numbers are needed"),
        ({"train": (numpy.array([{}] * 12), Y)}, "input0 holds object; numbers are needed"),
        ({"train": ([[1.0], [1.0, 2.0]], [0, 1])}, "rows of one shape are needed"),
        ({"train": (X.flatten(1).to_sparse(), Y)}, "call its to_dense"),
        ({"train": {"x": X, "y": Y}}, "a dict where columns are needed; give a tuple"),
        ({"train": (X, torch.tensor(1))}, "single number"),
        ({"train": "nothing.npz"}, "there is no file"),
        ({"loss": lambda prediction, target: prediction}, "float32 scalar"),
        ({"loss": lambda prediction: prediction.mean()}, "the model or the loss fails on a batch of 8 training rows"),
        (
            {"train": (X[:, :, :3], Y)},
            r"input0 is float32\[1, 3, 4\] in the training data and float32\[1, 4, 4\] in",
        ),
        ({"train": (X, X, Y)}, "3 columns to train on and 2 to evaluate on"),
        ({"train": (X[:, :, :3], Y), "evaluation": (X[:, :, :3], Y)}, "mat1 and mat2 shapes.*; nothing was sent; make"),
        (
            {"train": (X, LAST)},
            "target int64.. from 0 to 9.*Target 9 is out of bounds.*nothing was sent; make",
        ),
        ({"evaluation": (X, LAST)}, "8 evaluation rows .*Target 9 is out of bounds"),
        ({"train": (X, Y - 3)}, "target int64.. from -3 to -1"),
        ({"model": _spoilt()}, "0.weight holds an infinity or NaN before the first step"),
        ({"model": Raising()}, "KeyError: 'b' .*test_prepare.py, line .*return .*nothing was sent"),
        ({"model": Choosing(16, 3)}, r"taken from a tensor's value; nearest supported: torch.where .*if float\(found"),
        ({"model": Sorting(16, 3)}, r"operation sort.default; nearest supported: .*torch.sort\(super"),
        ({"loss": lambda output, target: output[output > 0].mean()}, "cannot be captured: .*; nothing was sent; keep"),
        ({"optimizer": lambda held: torch.optim.Adam(held, lr=-1)}, "optimizer cannot be made: .*learning rate: -1"),
        ({"optimizer": lambda held: None}, "the optimizer function gives a NoneType; nothing was sent; return"),
    ],
)
def test_what_cannot_be_prepared_is_said(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Rejected, match=words):
        prepare(_changed(**changes), tmp_path)


def test_a_rehearsal_leaves_the_model_and_chance_as_they_were(tmp_path: Path) -> None:
    job = make_job()
    before = {name: tensor.clone() for name, tensor in job.model.state_dict().items()}
    chance = torch.random.get_rng_state()
    rehearse(job.model, job.loss, job.optimizer, ("x", "target"), job.train, job.evaluation, 8)
    assert torch.equal(chance, torch.random.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in job.model.state_dict().items())
    assert all(parameter.grad is None for parameter in job.model.parameters())


def test_the_rows_of_least_and_greatest_numbers_are_tried_first() -> None:
    columns = (torch.arange(40).reshape(20, 2) % 37, torch.tensor([5] * 19 + [4]))
    assert find_hard_rows(columns, 4) == [0, 18, 19, 1]
    assert find_hard_rows((torch.zeros(2, 3),), 5) == [0, 1, 0, 1, 0]


def test_a_file_that_is_no_npz_is_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    for content in (b"", b"PK\x03\x04 but no archive", b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with pytest.raises(Rejected, match="cannot be read as"):
            prepare(_changed(train=path), tmp_path / "out")


def test_a_pickle_in_an_npz_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    numpy.savez(path, x=numpy.array([{}, {}], dtype=object), y=numpy.arange(2))
    with pytest.raises(Rejected, match="cannot be read as"):
        prepare(_changed(train=path), tmp_path / "out")


def test_a_wrong_job_ends_with_its_code_and_no_traceback(
    tmp_path: Path, job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        ([str(tmp_path / "none.py"), "--out", str(tmp_path / "o")], "there is no file"),
        ([str(job_file), "--out", str(tmp_path / "o"), "--rounds", "0"], "rounds is 0"),
        ([str(job_file), "--out", str(tmp_path / "o"), "--audit", "x"], "the audit rates"),
        ([str(job_file), "--out", str(tmp_path / "o"), "--train-data", "none.npz"], "training data: there is no file"),
    ):
        assert prepare_command.main(arguments) == prepare_command.EXIT_JOB_WRONG
        shown = capsys.readouterr()
        assert f"error: {words}" in shown.err.replace("unavailable: ", "") and shown.out == ""


def test_a_state_becomes_a_model_in_plain_pytorch(
    tmp_path: Path, job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = prepare_small()
    blobs, out = dict(prepared.blobs), tmp_path / "model.safetensors"
    state, predict = blobs[prepared.spec.initial_state], blobs[prepared.spec.predict]
    assert model_command.main(["export", str(state), str(predict), str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["tensors"] == len(make_model().state_dict())
    assert model_command.main(["accuracy", str(job_file), str(out)]) == 0
    shown = json.loads(capsys.readouterr().out)
    model = make_model().eval()
    images, classes = make_rows(23, 2)
    with torch.no_grad():
        expected = int((model(images).argmax(dim=1) == classes).sum())
    assert (shown["correct"], shown["rows"], shown["accuracy"]) == (expected, 23, expected / 23)


def test_weights_that_are_none_or_another_models_are_refused(
    tmp_path: Path, job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x00" * 64)
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, other)
    for path, words in ((bad, "not a safetensors file"), (other, "of another model"), (tmp_path / "x", "no file")):
        assert model_command.main(["accuracy", str(job_file), str(path)]) == model_command.EXIT_WRONG
        assert words in capsys.readouterr().err
    assert model_command.main(["export", str(bad), str(bad), str(tmp_path / "m")]) == model_command.EXIT_WRONG
    assert not (tmp_path / "m").exists()

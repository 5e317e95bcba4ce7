"""A job file that is wrong says what, where, and what to do."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import milon
from milon.client.job import Job, load_job_file
from milon.client.terms import JobError

GOOD = """
import torch
import milon

def make(name):
    return milon.Job(
        model=torch.nn.Linear(2, 2), loss=torch.nn.functional.cross_entropy, optimizer=torch.optim.SGD,
        train=([[0.0, 1.0]], [1]), evaluation=([[0.0, 1.0]], [1]), name=name)

"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "a_job.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "name"),
    [("job = make('a')", "a"), ("other = make('b')", "b"), ("job = make('c')\nspare = make('d')", "c")],
)
def test_the_job_is_found(tmp_path: Path, text: str, name: str) -> None:
    assert load_job_file(_write(tmp_path, GOOD + text)).name == name


def test_a_file_may_import_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_a_job.py").write_text(GOOD + "job = make('n')")
    assert load_job_file(_write(tmp_path, "from neighbour_of_a_job import job")).name == "n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "makes no milon.Job at module level"),
        (GOOD + "one = make('a')\ntwo = make('b')", r"several jobs \(one, two\); call the one to submit `job`"),
        ("\n\nx = 1 / 0", "line 3: ZeroDivisionError"),
        ("def broken(:\n    pass", "line 1: .*not Python"),
        ("import sys\nsys.exit(0)", "line 2: SystemExit"),
        ("import a_module_that_is_not_there", "line 1: ModuleNotFoundError"),
        (GOOD + "job = make('')", "line 6: a job's name"),
        ("import milon\nmilon.Job(model=1, loss=print, optimizer=print, train=(), evaluation=())", "line 2: model is"),
    ],
)
def test_a_bad_file_says_what_and_where(tmp_path: Path, text: str, words: str) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(JobError, match=words) as failure:
        load_job_file(path)
    assert str(path) in str(failure.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="there is no file"):
        load_job_file(tmp_path / "nothing.py")


def _make(**changes: Any) -> Job:
    parts: dict[str, Any] = {
        "model": torch.nn.Linear(2, 2),
        "loss": torch.nn.functional.cross_entropy,
        "optimizer": torch.optim.SGD,
        "train": ([[0.0, 1.0]], [1]),
        "evaluation": ([[0.0, 1.0]], [1]),
    }
    return milon.Job(**{**parts, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": torch.nn.Linear}, "make one: model=Linear"),
        ({"loss": "cross-entropy"}, "loss is a str"),
        ({"optimizer": torch.optim.SGD(torch.nn.Linear(1, 1).parameters())}, "must be a function that makes one"),
        ({"roundz": 3}, "did you mean rounds"),
        ({"rounds": "3"}, "whole number"),
        ({"name": "a\nb"}, "printable"),
    ],
)
def test_a_wrong_part_is_said_at_once(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(JobError, match=words):
        _make(**changes)


def test_importing_milon_and_a_job_loads_no_torch() -> None:
    """A command line that shows help must not wait for torch."""
    code = "import sys, milon, milon.client.prepare, milon.client.model; milon.Job; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"

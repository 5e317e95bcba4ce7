"""`milon lab` from the command line: a small table from a job file, its files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Milon

JOB_FILE = "from tests.client.test_lab import make_job\njob = make_job()\n"


@pytest.fixture
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    path = tmp_path / "a_job.py"
    path.write_text(JOB_FILE)
    return path


def test_a_table_is_printed_and_written(milon: Milon, job_file: Path, tmp_path: Path) -> None:
    sizes = ("--trainers", 4, "--attackers", 1, "--seeds", 1, "--rounds", 2, "--steps", 2, "--workers", 1)
    words = ("lab", job_file, "-o", tmp_path / "out", "--rule", "mean", "--attack", "sign-flip:9", *sizes)
    told = milon(*words)
    assert told.code == 0
    assert "attack       mean" in told.out and "\nnone " in told.out and "\nsign-flip:9 " in told.out
    assert "2 of 2 cells, 4 of 4 rounds" in told.err
    written = json.loads((tmp_path / "out" / "lab.json").read_text())
    assert [run["attack"] for run in written["runs"]] == ["none", "sign-flip:9"]


def test_what_cannot_be_run_is_refused(milon: Milon, job_file: Path, tmp_path: Path) -> None:
    told = milon("lab", job_file, "-o", tmp_path / "out", "--split", "odd")
    assert told.code == 2 and "dirichlet:ALPHA" in told.err
    assert not (tmp_path / "out").exists()


def test_the_attacks_are_listed(milon: Milon) -> None:
    told = milon("lab", "--kinds")
    assert told.code == 0
    assert "min-max" in told.out and "Shejwalkar" in told.out

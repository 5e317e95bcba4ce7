"""`milon program`: capture without a node, and figures of a program."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.golden import read_vectors, unpack
from milon.base.codec import decode
from milon.pol.program import Program, ProgramKind
from tests.cli.conftest import Milon

JOB_FILE = "from tests.gpu.small_job import make_job\njob = make_job()\n"


@pytest.fixture
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    path = tmp_path / "a_job.py"
    path.write_text(JOB_FILE)
    return path


def test_a_program_is_built_and_shown(milon: Milon, tmp_path: Path, job_file: Path) -> None:
    out = tmp_path / "small.program"
    built = milon("program", "build", job_file, "-o", out, "--json")
    assert built.code == 0
    program = decode(Program, out.read_bytes())
    assert program.kind is ProgramKind.TRAIN
    shown = milon("program", "show", out, "--json")
    assert {**shown.json, "file": ""} == {**built.json, "file": ""}
    assert shown.json["parameters"] == 4 * 9 + 4 + 4 + 4 + 64 * 3 + 3
    assert shown.json["frozen"] == 4 + 4 + 1 and shown.json["draws"] == 8 * 64
    assert sum(use["count"] for use in shown.json["operations"]) == len(program.nodes)
    text = milon("program", "show", out).out
    assert "exact/1, 21 magnitude bits" in text and "convolution_weight_gradient  N4" in text


def test_what_is_no_program_is_refused(milon: Milon, tmp_path: Path, job_file: Path) -> None:
    path = tmp_path / "noise.program"
    path.write_bytes(b"\x81\x00")
    assert milon("program", "show", path).code == 2
    assert milon("program", "show", job_file, "--kind", "sing").code == 2
    job_file.write_text("import torch\njob = 3\n")
    told = milon("program", "build", job_file, "-o", tmp_path / "none")
    assert told.code == 2 and not (tmp_path / "none").exists()


def test_frozen_parameters_are_told_apart(milon: Milon, tmp_path: Path) -> None:
    from milon.base.codec import encode

    path = tmp_path / "low-rank.program"
    path.write_bytes(encode(unpack(read_vectors()["low-rank"]["program"])))
    figures = milon("program", "show", path, "--json").json
    assert 0 < figures["parameters"] < figures["frozen"]
    assert figures["optimizer_slots"] == 2 * figures["parameters"] + 1

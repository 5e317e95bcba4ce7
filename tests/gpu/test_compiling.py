"""Processes compile one after the other, and a missing lock stops nobody."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from milon.gpu import compiling, kernels_cpu

HOLD = """
import sys
from milon.gpu import compiling
with compiling.turn("loops"):
    print("held", flush=True)
    sys.stdin.readline()
    print("leaving", flush=True)
"""


def test_the_second_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as first:
        assert first.stdout is not None and first.stdin is not None
        assert first.stdout.readline() == "held\n"

        def let_go(_seconds: float) -> None:  # called only where the lock is taken
            assert first.stdin is not None and first.stdout is not None
            first.stdin.write("\n")
            first.stdin.close()
            assert first.stdout.readline() == "leaving\n"
            first.wait(60)

        monkeypatch.setattr("milon.gpu.compiling.pause", let_go)
        with compiling.turn("loops"):
            assert first.returncode == 0
    assert compiling.lock_path() == tmp_path / "milon-kernels.lock"


def test_what_took_long_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling, "_NOTABLE_SECONDS", -1.0)
    with caplog.at_level(logging.WARNING), compiling.turn("loops of a test"):
        pass
    assert "compiling loops of a test took" in caplog.text and str(tmp_path) in caplog.text


def test_without_a_lock_work_goes_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(compiling, "lock_path", lambda: Path("/nonexistent/folder/lock"))
    entered = False
    with caplog.at_level(logging.WARNING), compiling.turn("loops"):
        entered = True
    assert entered and "no lock" in caplog.text


def test_a_change_in_any_file_of_loops_makes_another_cache(tmp_path: Path) -> None:
    names = []
    for text in ("a = 1", "a = 2", "a = 1"):
        (tmp_path / "kernels_one.py").write_text("from kernels_two import a")
        (tmp_path / "kernels_two.py").write_text(text)
        names.append(kernels_cpu.name_cache(tmp_path))
    assert names[0] == names[2] != names[1]

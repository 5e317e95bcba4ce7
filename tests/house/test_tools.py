"""The linter and the type checker find nothing: what `make check` says, every test run says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_tool(*arguments: str) -> None:
    """Run a tool as a module of this interpreter; fail with what it prints."""
    finished = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_ruff_finds_nothing() -> None:
    run_tool("ruff", "check", ".")


def test_mypy_finds_nothing() -> None:
    run_tool("mypy")

"""Mutants: the product with one rule broken, each of which the campaign must notice (`make mutants`).

A mutant is a piece of source and what stands there instead. It runs from a copy of the tree, in a process of its own,
against the adversaries that it fears most; the seeds are the campaign's. A piece that is not found exactly once fails
too: the rule has moved, and nobody would know whether it is still guarded.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.mutant_list import MUTANTS, Mutant
from tests.simulation.run import run_seed
from tests.simulation.scenario import KINDS

ROOT = Path(__file__).parents[2]
SEEDS = 40  # of each adversary before a mutant counts as a survivor


@dataclass(frozen=True)
class Fate:
    """What became of a mutant."""

    mutant: Mutant
    killer: str  # which adversary's which seed, and what it showed; empty: it survived
    seconds: float


def find_misfits(mutant: Mutant) -> list[str]:
    """The edits whose text is not there exactly once."""
    counts = [(edit.path, (ROOT / edit.path).read_text().count(edit.old)) for edit in mutant.edits]
    return [f"{path}: found {count} times" for path, count in counts if count != 1]


def plant(mutant: Mutant, root: Path) -> None:
    """Copy what the simulation needs to `root`, with the mutant's edits."""
    folders = ("milon", "tests/simulation", "tests/contracts", "tests/consensus")
    for folder in folders:
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for edit in mutant.edits:
        path = root / edit.path
        path.write_text(path.read_text().replace(edit.old, edit.new))


def hunt(kinds: list[str], seeds: int) -> str:
    """The first failure among the seeds of the adversaries in turn, in words; empty where there is none."""
    for seed in range(seeds):
        for kind in kinds:
            problem = run_seed(seed, kind).problem
            if problem:
                return f"{kind}, seed {seed}: {problem}"
    return ""


def judge(mutant: Mutant, seeds: int = SEEDS) -> Fate:
    """Run the mutant until something kills it."""
    began = time.monotonic()
    misfits = find_misfits(mutant)
    if misfits:
        return Fate(mutant, "", 0.0)
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        plant(mutant, Path(folder))
        killer = _run_tests(mutant.tests, folder) if mutant.tests else _run_seeds(mutant, seeds, folder)
    return Fate(mutant, killer, time.monotonic() - began)


def _run_seeds(mutant: Mutant, seeds: int, folder: str) -> str:
    command = (sys.executable, "-m", "tests.simulation.mutants", "--hunt", *mutant.kinds, "--seeds", str(seeds))
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else (found.stderr.strip().splitlines() or ["died"])[-1]


def _run_tests(path: str, folder: str) -> str:
    """The first test that fails; an error that is no failed test, as of a mutant that does not compile, is none."""
    command = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", path)
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    failed = [line for line in found.stdout.splitlines() if line.startswith("FAILED ")]
    return failed[0].removeprefix("FAILED ") if failed and found.returncode == 1 else ""


def main() -> int:
    """Judge all mutants, print who killed whom, and exit 1 when one survives."""
    parser = argparse.ArgumentParser(description="Break one rule at a time; the campaign must notice each.")
    parser.add_argument("--hunt", nargs="+", choices=KINDS, default=None, help="look for a failure of this tree")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each adversary")
    parser.add_argument("--only", default="", help="mutants whose name has this in it")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    if options.hunt is not None:
        print(hunt(options.hunt, options.seeds))
        return 0
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    survivors = 0
    with ThreadPoolExecutor(options.processes) as pool:
        for fate in pool.map(lambda mutant: judge(mutant, options.seeds), chosen):
            survivors += not fate.killer
            verdict = "killed by " + fate.killer if fate.killer else "SURVIVED " + "; ".join(find_misfits(fate.mutant))
            print(f"{fate.mutant.name:<50} {fate.seconds:5.1f} s  {verdict:.160}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())

"""Seeds of the campaign for every adversary: no invariant broken, and every network recovers within its bound."""

import os
import subprocess
import sys

import pytest

from tests.simulation.run import compute_fingerprint, run_seed
from tests.simulation.scenario import KINDS
from tests.simulation.trace import record, replay_trace, write_trace

SEEDS = 4  # of each adversary: about 12 s of one core altogether; `make simulate` runs thousands


@pytest.mark.parametrize("kind", KINDS)
def test_no_seed_breaks_an_invariant(kind: str) -> None:
    outcomes = [run_seed(seed, kind) for seed in range(SEEDS)]
    assert [(outcome.seed, outcome.problem) for outcome in outcomes if outcome.problem] == []
    assert all(outcome.heights[1] > outcome.heights[0] or outcome.is_over for outcome in outcomes)
    assert sum(outcome.is_over for outcome in outcomes) <= 1, "what ends early shows little"


def test_the_same_seed_gives_the_same_chain() -> None:
    chain = compute_fingerprint(10)
    assert len(chain) > 3
    assert chain == compute_fingerprint(10)
    assert chain != compute_fingerprint(19)


def test_a_trace_replays_in_another_process_to_the_letter(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "seed.trace"
    write_trace(path, 3, "twins")
    command = (sys.executable, "-m", "tests.simulation.campaign", "--trace", str(path))
    again = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert again.returncode == 0, again.stdout + again.stderr


def test_a_changed_run_is_not_taken_for_the_trace(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "seed.trace"
    write_trace(path, 3, "none")
    lines = path.read_text().splitlines()
    lines[20] = lines[20].replace("node", "knot")
    path.write_text("\n".join(lines) + "\n")
    assert not replay_trace(path)
    assert "event 19 is another" in capsys.readouterr().out


def test_a_trace_changes_nothing() -> None:
    outcome, lines = record(5, "equivocator")
    assert outcome == run_seed(5, "equivocator") and len(lines) > 100

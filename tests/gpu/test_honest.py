"""Honest segments across settings: a sample of the campaign, and that a segment which is not honest is counted."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench import honest
from milon.gpu.checkpoint import from_bytes, to_bytes

NAME = "perceptron"


def test_a_lot_of_one_setting_is_taken_in_another(tmp_path: Path) -> None:
    """Trained in this process, replayed in one of its own with compiled loops."""
    options = argparse.Namespace(folder=tmp_path, each=2, names=[NAME])
    honest.train_lot(tmp_path, NAME, 6, 2)
    row = json.loads(honest._start("replay", "compiled loops", 6, options))
    assert row == {"case": NAME, "segments": 2, "refused": 0}
    rows = [{"lot": 6, "trained": "1 thread", "replayed": "compiled loops", **row}]
    found = honest.summarize(rows * 150)
    assert (found["segments"], found["false_rejects_at_most"]) == (300, 0.01)
    assert "0 of 300" in honest.describe(found)


def test_a_segment_that_is_not_honest_is_refused(tmp_path: Path) -> None:
    honest.train_lot(tmp_path, NAME, 5, 3)
    assert list(honest.replay_lot(tmp_path, NAME, 5)) == [True, True, True]
    assert list(honest.replay_lot(tmp_path, NAME, 4)) == [False, False, False]  # another round's seed
    path = tmp_path / f"{NAME}.0.after"
    state = from_bytes(path.read_bytes())
    state["model.0.weight"][0] += 1
    path.write_bytes(to_bytes(state))
    assert list(honest.replay_lot(tmp_path, NAME, 5)) == [True, False, True]


def test_every_pair_of_settings_has_its_turn() -> None:
    assert len(honest.PAIRS) == 20
    assert {trained for trained, _ in honest.PAIRS} == set(honest.SETTINGS)

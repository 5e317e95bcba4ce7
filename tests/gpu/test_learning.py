"""The comparison of exact and stock training: the same start, the same batches, and a verdict that can be no."""

from __future__ import annotations

import xml.etree.ElementTree
from itertools import islice

import pytest
import torch

from bench import learning
from bench.curves import draw_panels
from bench.learning import Run, compare, read_idx, read_text, text_batches, train
from bench.models import Gpt


def _runs(way: str, accuracies: list[float]) -> list[Run]:
    return [Run("digits", way, seed, 0.1, found, [1.0], 1, 0.0) for seed, found in enumerate(accuracies)]


def test_the_verdict_is_about_the_means_and_the_seeds_spread() -> None:
    stock = _runs("stock", [0.95, 0.96, 0.97])
    near = compare([*stock, *_runs("13", [0.955, 0.965, 0.975])], "digits", "13")
    far = compare([*stock, *_runs("13", [0.94, 0.94, 0.94])], "digits", "13")
    assert near["is_within_spread"] and near["difference_of_means"] == pytest.approx(0.005)
    assert not far["is_within_spread"] and far["difference_of_means"] == pytest.approx(-0.02)


def test_a_few_steps_on_text_are_alike_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the same bits, for stock PyTorch sums in another order; far nearer than any two seeds."""
    task = learning.TASKS["text"]
    monkeypatch.setitem(
        learning.TASKS,
        "text",
        learning.Task(
            lambda: Gpt(97, learning.LENGTH, 8, 2, 1, 0.0),
            task.loss,
            task.optimizer,
            lambda seed: islice(task.batches(seed), 3),
            lambda: task.tests()[:1],
            task.measure,
        ),
    )
    learning.capture_task.cache_clear()
    stock, exact = train("text", "stock", 1), train("text", "13", 1)
    learning.capture_task.cache_clear()
    assert stock.steps == exact.steps == 3
    assert exact.loss == pytest.approx(stock.loss, abs=2e-3) and exact.curve == pytest.approx(stock.curve, abs=2e-3)


def test_a_seed_fixes_the_batches_and_another_changes_them() -> None:
    first, same, other = (next(text_batches(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], same[0]) and torch.equal(first[1], same[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(first[0][:, 1:], first[1][:, :-1])
    assert int(read_text().min()) >= 0 and int(read_text().max()) <= 96


def test_idx_files_are_read() -> None:
    raw = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, *range(6)])
    assert read_idx(raw).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_curves_are_drawn_as_svg() -> None:
    lines = {"stock": [[2.0, 1.0], [1.0, 0.5]], "exact": [[2.0, 1.0], [1.0, 0.5]]}
    drawn = draw_panels({"a < b": lines, "c": {"x": [[1.0]]}})
    root = xml.etree.ElementTree.fromstring(drawn)
    kinds = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert kinds.count("polyline") == kinds.count("polygon") == 3

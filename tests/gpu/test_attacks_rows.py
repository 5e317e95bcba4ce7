"""Flipped labels: every class has its opposite, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

from milon.base.errors import Reason, Rejected
from milon.gpu.attacks_rows import count_classes, flip_labels
from milon.gpu.rows import Dataset, describe_columns


def make_rows(target: torch.Tensor) -> Dataset:
    columns = (torch.arange(2.0 * len(target)).reshape(-1, 2), target)
    return Dataset(describe_columns(("x", "y"), columns), columns)


def test_classes_are_mirrored_and_back() -> None:
    data = make_rows(torch.tensor([0, 1, 2, 9, 4]))
    assert count_classes(data) == 10
    flipped = flip_labels(data, 10)
    assert flipped.columns[1].tolist() == [9, 8, 7, 0, 5]
    assert flipped.columns[0] is data.columns[0]
    assert data.columns[1].tolist() == [0, 1, 2, 9, 4]
    assert flip_labels(flipped, 10).columns[1].equal(data.columns[1])


def test_other_targets() -> None:
    assert flip_labels(make_rows(torch.tensor([0.5, -2.0])), 0).columns[1].tolist() == [-0.5, 2.0]
    assert count_classes(make_rows(torch.tensor([0.5, -2.0]))) == 0
    negative = make_rows(torch.tensor([-1, 3]))
    assert count_classes(negative) == 0
    for data, classes in ((negative, 4), (make_rows(torch.tensor([0, 4])), 4)):
        with pytest.raises(Rejected) as refusal:
            flip_labels(data, classes)
        assert refusal.value.reason is Reason.UNSUPPORTED

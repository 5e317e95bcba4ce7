"""Hostile data: rows under wrong labels, on which an attacker then trains as the protocol says."""

from __future__ import annotations

from dataclasses import replace

import torch

from milon.base.errors import Reason, require
from milon.gpu.rows import Dataset


def count_classes(data: Dataset) -> int:
    """One more than the greatest class of the target column; 0 where the target holds no classes."""
    target = data.columns[-1]
    is_classes = target.dtype == torch.int64 and target.dim() == 1 and int(target.min()) >= 0
    return int(target.max()) + 1 if is_classes else 0


def flip_labels(data: Dataset, classes: int) -> Dataset:
    """The same rows, class c of `classes` called `classes` - 1 - c; a floating target changes its sign.

    Fang et al. 2020, section 3 (l becomes L - l - 1); Tolpegin et al. 2020 for its effect. With an odd number of
    classes the middle one keeps its name. `Rejected(UNSUPPORTED)` for integer targets that are no classes.
    """
    target = data.columns[-1]
    if target.is_floating_point():
        return replace(data, columns=(*data.columns[:-1], -target))
    fits = classes > 0 and int(target.min()) >= 0 and int(target.max()) < classes
    require(fits, Reason.UNSUPPORTED, "labels can be flipped where the target is a class or a floating number")
    return replace(data, columns=(*data.columns[:-1], classes - 1 - target))

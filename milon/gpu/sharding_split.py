"""How a tensor is dealt out to shards: which axis follows the rows of the batch, and which of them a shard holds."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """One axis of a tensor counts [outer, rows, inner] in row-major order, and the rows are dealt out in order.

    Reshaping [steps, batch, width] to [steps * batch, width] gives an axis with outer = steps and inner = 1.
    """

    axis: int  # of the tensor
    outer: int  # blocks of all rows that follow one another along the axis
    rows: int  # that are dealt out
    inner: int  # elements of the axis that belong to one row and block


def compute_bounds(rows: int, shard: int, shards: int) -> tuple[int, int]:
    """The first row of a shard and the one after its last; shards differ by at most one row."""
    return rows * shard // shards, rows * (shard + 1) // shards


def count_rows(rows: int, shard: int, shards: int) -> int:
    """How many rows a shard holds."""
    first, last = compute_bounds(rows, shard, shards)
    return last - first


def compute_local_shape(shape: Shape, split: Split, shard: int, shards: int) -> Shape:
    """The shape of a shard's part of a tensor of `shape`."""
    size = split.outer * count_rows(split.rows, shard, shards) * split.inner
    return (*shape[: split.axis], size, *shape[split.axis + 1 :])


def cut(whole: Tensor, split: Split, shard: int, shards: int) -> Tensor:
    """A shard's part of a whole tensor; a view where its memory allows."""
    first, last = compute_bounds(split.rows, shard, shards)
    if split.outer == 1:
        return whole.narrow(split.axis, first * split.inner, (last - first) * split.inner)
    axes = split.outer, split.rows, split.inner
    rows = whole.reshape(*whole.shape[: split.axis], *axes, *whole.shape[split.axis + 1 :])
    return rows.narrow(split.axis + 1, first, last - first).flatten(split.axis, split.axis + 2)


def to_rows(part: Tensor, split: Split) -> Tensor:
    """A part as [before, rows of the part, after], in which parts follow one another along the middle axis."""
    before = prod(part.shape[: split.axis]) * split.outer
    after = prod(part.shape[split.axis + 1 :]) * split.inner
    return part.reshape(before, part.numel() // (before * after), after)


def assemble(parts: list[Tensor], shape: Shape) -> Tensor:
    """The whole tensor of `shape` from the parts of all shards, each as `to_rows` gives it."""
    return torch.cat(parts, 1).reshape(shape)


def list_elements(shape: Shape, split: Split, shard: int, shards: int, device: torch.device) -> Tensor:
    """The places, in row-major order of the whole tensor, of the elements of a shard's part; in the part's shape."""
    first, last = compute_bounds(split.rows, shard, shards)
    before = prod(shape[: split.axis]) * split.outer
    after = prod(shape[split.axis + 1 :]) * split.inner
    blocks = torch.arange(before, device=device).mul_(split.rows).reshape(-1, 1, 1)
    rows = torch.arange(first, last, device=device).reshape(-1, 1)
    places = (blocks + rows) * after + torch.arange(after, device=device)
    return places.reshape(compute_local_shape(shape, split, shard, shards))


def find_reshaped(split: Split, shape: Shape, target: Shape) -> Split | None:
    """The split of a tensor of `shape` after its reshaping to `target`; None where no axis follows the rows."""
    before = prod(shape[: split.axis]) * split.outer
    after = split.inner * prod(shape[split.axis + 1 :])
    leading = 1
    for axis, size in enumerate(target):
        trailing = prod(target[axis + 1 :])
        if before % leading == 0 and after % trailing == 0:
            outer, inner = before // leading, after // trailing
            if outer * split.rows * inner == size:
                return Split(axis, outer, split.rows, inner)
        leading *= size
    return None

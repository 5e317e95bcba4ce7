"""Where each operation of a program runs when the batch is split: one rule per operation, over types alone (rule N7).

A rule is given the split of each operand (None: whole on every shard) and answers how the operation runs. Each shard
by itself, on its rows; all together, where a sum or an extreme runs over the rows; or, where a rule has no answer,
every shard on whole operands, which is always right and only slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from milon.gpu.sharding_split import Shape, Split, compute_local_shape, count_rows, find_reshaped
from milon.pol.program import Node
from milon.pol.shapes import TensorType

Splits = tuple[Split | None, ...]


class Way(StrEnum):
    """How an operation runs."""

    APART = "apart"  # each shard on its own rows
    TOGETHER = "together"  # the shards agree on maxima, then on totals; the result is whole
    WHOLE = "whole"  # every shard does the same on whole operands


@dataclass(frozen=True, slots=True)
class Placement:
    """How one operation runs, and in which form it takes its operands."""

    way: Way
    operands: Splits  # the wanted form of each operand; None: whole
    result: Split | None  # the form of the result; None: whole
    preferred: Split | None = None  # how a whole result is best cut for those who follow


@dataclass(frozen=True, slots=True)
class Site:
    """One operation and what is known of its operands."""

    node: Node
    types: tuple[TensorType, ...]  # of the operands, whole
    result: TensorType  # of the result, whole
    splits: Splits  # the form in which each operand is there
    shards: int  # how many there are

    @property
    def rank(self) -> int:
        """Axes of the result."""
        return len(self.result.shape)


def _apart(operands: Splits, result: Split) -> Placement:
    return Placement(Way.APART, operands, result)


def _find_largest(site: Site) -> int:
    """The split operand that would cost most to move."""
    split = [place for place, found in enumerate(site.splits) if found is not None]
    return max(split, key=lambda place: (site.types[place].elements, -place))


def align(split: Split, rank: int, shape: Shape) -> Split | None:
    """The split of an operand of `shape` that broadcasts to `rank` axes split so; None where it has one row for all."""
    axis = split.axis - (rank - len(shape))
    return None if axis < 0 or shape[axis] == 1 else replace(split, axis=axis)


def _elementwise(site: Site) -> Placement | None:
    place = _find_largest(site)
    found = site.splits[place]
    if found is None:
        return None
    target = replace(found, axis=found.axis + site.rank - len(site.types[place].shape))
    return _apart(tuple(align(target, site.rank, operand.shape) for operand in site.types), target)


def _reduction(site: Site) -> Placement | None:
    split, (axes, keep) = site.splits[0], site.node.attributes
    if split is None:
        return None
    if split.axis in axes:
        return None if site.node.operation == "argmax" else Placement(Way.TOGETHER, (split,), None)
    gone = 0 if keep[0] else sum(axis < split.axis for axis in axes)
    return _apart((split,), replace(split, axis=split.axis - gone))


def _reshape(site: Site) -> Placement | None:
    split = site.splits[0]
    found = split and find_reshaped(split, site.types[0].shape, site.result.shape)
    return _apart((split,), found) if found else None


def _permute(site: Site) -> Placement | None:
    split = site.splits[0]
    if split is None:
        return None
    return _apart((split,), replace(split, axis=site.node.attributes[0].index(split.axis)))


def _expand(site: Site) -> Placement | None:
    split = site.splits[0]
    if split is None:
        return None
    return _apart((split,), replace(split, axis=split.axis + site.rank - len(site.types[0].shape)))


def _slice(site: Site) -> Placement | None:
    split, (axis, start, stop, step) = site.splits[0], (attribute[0] for attribute in site.node.attributes)
    if split is None:
        return None
    if axis != split.axis:
        return _apart((split,), split)
    block = split.rows * split.inner
    if step == 1 and start % block == 0 and stop % block == 0:
        return _apart((split,), replace(split, outer=(stop - start) // block))
    rows = site.result.shape[axis]
    is_batch = split.outer == split.inner == 1 and rows >= site.shards  # a part of a batch is a batch
    return Placement(Way.WHOLE, (None,), None, Split(axis, 1, rows, 1) if is_batch else None)


def _concatenate(site: Site) -> Placement | None:
    target, axis = site.splits[_find_largest(site)], site.node.attributes[0][0]
    if target is None:
        return None
    if axis != target.axis:
        return _apart((target,) * len(site.types), target)
    alike = [found for found in site.splits if found is not None and replace(found, outer=target.outer) == target]
    if len(alike) < len(site.splits):
        return None
    return _apart(site.splits, replace(target, outer=sum(found.outer for found in alike)))


def _gather(site: Site) -> Placement | None:
    axis, (values, indices) = site.node.attributes[0][0], site.splits
    for target in (indices, values):
        if target is not None and target.axis != axis:
            return _apart((target, target), target)
    return _apart((None, indices), indices) if indices is not None else None


def _scatter_sum(site: Site) -> Placement | None:
    target, axis = site.splits[_find_largest(site)], site.node.attributes[0][0]
    if target is None:
        return None
    if target.axis == axis:
        return Placement(Way.TOGETHER, (target, target), None)
    return _apart((target, target), target)


def _matmul(site: Site) -> Placement | None:
    place = _find_largest(site)
    split = site.splits[place]
    inner, outer = (site.rank - 1, site.rank - 2) if place == 0 else (site.rank - 2, site.rank - 1)
    if split is None:
        return None
    if split.axis == inner:
        both = replace(split, axis=site.rank - 1), replace(split, axis=site.rank - 2)
        return Placement(Way.TOGETHER, both, None)
    if split.axis == outer:
        return _apart((split, None) if place == 0 else (None, split), split)
    return _apart((split, split), split)


def _convolution(site: Site) -> Placement | None:
    images = site.splits[0]
    return _apart((images, None), images) if images is not None and images.axis == 0 else None


def _convolution_weight_gradient(site: Site) -> Placement | None:
    split = site.splits[_find_largest(site)]
    return Placement(Way.TOGETHER, (split, split), None) if split is not None and split.axis == 0 else None


def _pooling(site: Site) -> Placement | None:
    split = site.splits[0]
    return _apart((split,), split) if split is not None and split.axis < 2 else None


_RULES: dict[str, Callable[[Site], Placement | None]] = {
    **dict.fromkeys(("sum", "amax", "amin", "argmax"), _reduction),
    "reshape": _reshape,
    "permute": _permute,
    "expand": _expand,
    "slice": _slice,
    "concatenate": _concatenate,
    "gather": _gather,
    "scatter_sum": _scatter_sum,
    "matmul": _matmul,
    "convolution": _convolution,
    "convolution_input_gradient": _convolution,
    "convolution_weight_gradient": _convolution_weight_gradient,
    **dict.fromkeys(("max_pool_indices", "window_sum", "window_spread"), _pooling),
}  # every other operation works element by element


def place(site: Site) -> Placement:
    """How the operation runs."""
    found = None
    if any(split is not None for split in site.splits):
        found = _RULES.get(site.node.operation, _elementwise)(site)
    return found or Placement(Way.WHOLE, (None,) * len(site.splits), None)


def localize(site: Site, placement: Placement, shard: int) -> tuple[tuple[int, ...], ...]:
    """The attributes of an operation on a shard's own rows."""
    attributes, split = site.node.attributes, placement.result
    if split is None:
        return attributes
    shape = compute_local_shape(site.result.shape, split, shard, site.shards)
    match site.node.operation:
        case "reshape" | "expand":
            return (shape,)
        case "convolution_input_gradient" | "window_spread":
            return (*attributes[:4], shape)
        case "slice" if attributes[0][0] == split.axis:
            local = count_rows(split.rows, shard, site.shards)
            start, stop = (attribute[0] // split.rows * local for attribute in attributes[1:3])
            return (attributes[0], (start,), (stop,), attributes[3])
        case _:
            return attributes


def find_wishes(sites: Sequence[Site], placements: Sequence[Placement], base: int) -> dict[int, Split]:
    """How whole values would best be cut as soon as they are there: as those want them who need only a part.

    `base` is the number of the first node's value. A wish passes backwards through what works element by element or
    moves elements, so that it reaches the random draws at the root.
    """
    wishes: dict[int, Split] = {}
    for place_, (site, placement) in reversed(list(enumerate(zip(sites, placements, strict=True)))):
        wanted = placement.operands
        wish = wishes.get(base + place_)
        if placement.way is Way.WHOLE and wish is not None:
            wanted = _pass_back(site, wish)
        for operand, split in zip(site.node.operands, wanted, strict=True):
            if split is not None:
                wishes.setdefault(operand, split)
    return wishes


def _pass_back(site: Site, wish: Split) -> Splits:
    """The splits of the operands that would give the result split so."""
    match site.node.operation:
        case "reshape":
            return (find_reshaped(wish, site.result.shape, site.types[0].shape),)
        case "permute":
            return (replace(wish, axis=site.node.attributes[0][wish.axis]),)
        case operation if operation not in _RULES:
            return tuple(align(wish, site.rank, operand.shape) for operand in site.types)
        case _:
            return (None,) * len(site.types)

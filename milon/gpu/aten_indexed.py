"""Rewrites of ATen's reads and writes at places that indices name, and of writes into a part of a tensor."""

from __future__ import annotations

from typing import Any

from milon.base.errors import Reason, Rejected
from milon.gpu.aten_basic import sliced
from milon.gpu.translation import Rewrites, Value, Walk, register
from milon.pol.shapes import DType, compute_broadcast, compute_product

INDEXED: Rewrites = {}


@register(INDEXED, "gather")
def _gather(walk: Walk, value: Value, axis: int, indices: Value, **ignored: Any) -> Value:
    axis %= len(walk.shape(value))
    return walk.node("gather", value.number, indices.number, attributes=((axis,),))


@register(INDEXED, "scatter.value")
def _scatter_value(walk: Walk, value: Value, axis: int, indices: Value, written: Any) -> Value:
    """Writes one number at one place per line along `axis`, as the gradient of a negative log likelihood does."""
    shape = walk.shape(value)
    axis %= len(shape)
    if walk.shape(indices) != (*shape[:axis], 1, *shape[axis + 1 :]):
        raise Rejected(Reason.UNSUPPORTED, "writing at several indices; nearest supported: torch.where")
    places = walk.builder.node("iota", attributes=((shape[axis],),))
    line = walk.builder.reshape(places, (shape[axis],) + (1,) * (len(shape) - 1 - axis))
    hit = walk.builder.node("eq", line, indices.number)
    return walk.node("where", hit, walk.number(written, walk.kind(value)), value.number)


@register(INDEXED, "scatter_add")
def _scatter_add(walk: Walk, value: Value, axis: int, indices: Value, source: Value) -> Value:
    """Rule N3 over what is scattered, then one addition to what was there."""
    axis %= len(walk.shape(value))
    attributes = ((axis,), (walk.shape(value)[axis],))
    spread = walk.node("scatter_sum", source.number, indices.number, attributes=attributes)
    return walk.node("add", value.number, spread.number)


def _lines(walk: Walk, indices: Value, width: int) -> int:
    """Row numbers of any shape as [rows, width], each repeated along its row."""
    rows = 1
    for size in walk.shape(indices):
        rows *= size
    return walk.builder.expand(walk.builder.reshape(indices.number, (rows, 1)), (rows, width))


@register(INDEXED, "embedding")
def _embedding(walk: Walk, weight: Value, indices: Value, *ignored: Any) -> Value:
    lines = _lines(walk, indices, walk.shape(weight)[1])
    picked = walk.builder.node("gather", weight.number, lines, attributes=((0,),))
    return Value(walk.builder.reshape(picked, walk.result_shape()))


@register(INDEXED, "embedding_dense_backward")
def _embedding_backward(
    walk: Walk, gradient: Value, indices: Value, rows: int, padding: int, scaled: bool = False
) -> Value:
    """Rule N3 per weight; the row at `padding` has no gradient."""
    if scaled:
        raise Rejected(Reason.UNSUPPORTED, "scale_grad_by_freq; nearest supported: scale_grad_by_freq=False")
    builder = walk.builder
    width = walk.shape(gradient)[-1]
    lines = _lines(walk, indices, width)
    terms = builder.reshape(gradient.number, builder.shape_of(lines))
    if padding >= 0:
        padded = builder.node("eq", lines, walk.number(padding))
        terms = builder.node("where", padded, walk.number(0.0), terms)
    return walk.node("scatter_sum", terms, lines, attributes=((0,), (rows,)))


@register(INDEXED, "index_select")
def _index_select(walk: Walk, value: Value, axis: int, indices: Value) -> Value:
    before: list[Value | None] = [None] * (axis % len(walk.shape(value)))
    picked: Value = _index(walk, value, [*before, indices])
    return picked


@register(INDEXED, "slice_scatter")
def _slice_scatter(
    walk: Walk, value: Value, source: Value, axis: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Value:
    shape = walk.shape(value)
    axis %= len(shape)
    first, last, _ = slice(start, end).indices(shape[axis])
    if step != 1:
        raise Rejected(Reason.UNSUPPORTED, "writing every so many places; nearest supported: torch.where")
    return _replaced(walk, value, source.number, axis, first, last)


@register(INDEXED, "select_scatter")
def _select_scatter(walk: Walk, value: Value, source: Value, axis: int, index: int) -> Value:
    shape = walk.shape(value)
    axis %= len(shape)
    index %= shape[axis]
    part = walk.builder.reshape(source.number, (*shape[:axis], 1, *shape[axis + 1 :]))
    return _replaced(walk, value, part, axis, index, index + 1)


def _replaced(walk: Walk, value: Value, part: int, axis: int, start: int, stop: int) -> Value:
    """`value` with `part` from `start` to `stop` along `axis`."""
    size = walk.shape(value)[axis]
    ends = [(0, min(start, stop, size)), (max(start, stop), size)]
    before, after = ([sliced(walk, value, axis, *end).number] if end[0] < end[1] else [] for end in ends)
    parts = [*before, *([part] if start < stop else []), *after]
    return Value(parts[0]) if len(parts) == 1 else walk.node("concatenate", *parts, attributes=((axis,),))


class _Places:
    """Where `value[indices]` reads or writes: whole lines over the axes that no index names."""

    def __init__(self, walk: Walk, value: Value, indices: list[Value | None]) -> None:
        shape = walk.shape(value)
        self.named = [axis for axis, index in enumerate(indices) if index is not None]
        rest = [axis for axis in range(len(shape)) if axis not in self.named]
        if self.named != list(range(self.named[0], self.named[-1] + 1)):
            raise Rejected(Reason.UNSUPPORTED, "indices on axes apart; nearest supported: on axes next to each other")
        self.order = (*self.named, *rest)
        self.back = tuple(self.order.index(axis) for axis in range(len(shape)))
        self.sizes = tuple(shape[axis] for axis in self.order)
        self.rows = compute_product(tuple(shape[axis] for axis in self.named))
        self.width = compute_product(tuple(shape[axis] for axis in rest))
        self.chosen: tuple[int, ...] = ()
        line: Value | None = None
        for axis in self.named:
            index = self._whole(walk, indices[axis], shape[axis])
            self.chosen = compute_broadcast(self.chosen, walk.shape(index))
            if line is not None:
                scaled = walk.node("mul", line.number, walk.number(shape[axis]))
                index = walk.node("add", scaled.number, index.number)
            line = index
        if line is None:
            raise RuntimeError("an index without indices")
        self.line = Value(walk.builder.expand(line.number, self.chosen))
        self.kept = tuple(shape[axis] for axis in rest)

    def _whole(self, walk: Walk, index: Value | None, size: int) -> Value:
        """Indices from 0 on, negative ones counting from the end."""
        if index is None or walk.kind(index) is not DType.INT64:
            raise Rejected(Reason.UNSUPPORTED, "a mask as an index; nearest supported: torch.where")
        below = walk.node("lt", index.number, walk.number(0))
        wrapped = walk.node("add", index.number, walk.number(size))
        return walk.node("where", below.number, wrapped.number, index.number)

    def forth(self, rank: int) -> tuple[int, ...]:
        """The order of axes that brings a result's chosen axes, at the place of those they stand for, to the front."""
        first, count = self.named[0], len(self.chosen)
        return (*range(first, first + count), *range(first), *range(first + count, rank))


@register(INDEXED, "index", "_unsafe_index")
def _index(walk: Walk, value: Value, indices: list[Value | None]) -> Value:
    places = _Places(walk, value, indices)
    builder = walk.builder
    turned = builder.permute(value.number, places.order)
    table = builder.reshape(turned, (places.rows, places.width))
    lines = _lines(walk, places.line, places.width)
    picked = builder.node("gather", table, lines, attributes=((0,),))
    shape = (*places.chosen, *places.kept)
    forth = places.forth(len(shape))
    back = tuple(forth.index(axis) for axis in range(len(shape)))
    return Value(builder.permute(builder.reshape(picked, shape), back))


@register(INDEXED, "index_put", "_unsafe_index_put")
def _index_put(
    walk: Walk, value: Value, indices: list[Value | None], written: Value, accumulate: bool = False
) -> Value:
    """Rule N3 over what is added at each place, then one addition to what was there."""
    if not accumulate:
        raise Rejected(Reason.UNSUPPORTED, "writing at indices; nearest supported: torch.where, or scatter_add")
    places = _Places(walk, value, indices)
    builder = walk.builder
    first = places.named[0]
    shape = (*places.kept[:first], *places.chosen, *places.kept[first:])
    terms = builder.permute(builder.expand(written.number, shape), places.forth(len(shape)))
    lines = _lines(walk, places.line, places.width)
    terms = builder.reshape(terms, builder.shape_of(lines))
    spread = builder.node("scatter_sum", terms, lines, attributes=((0,), (places.rows,)))
    turned = builder.permute(builder.reshape(spread, places.sizes), places.back)
    if builder.is_zeros(value.number):
        return Value(turned)
    return walk.node("add", value.number, turned)

"""Rewrites of ATen's elementwise operations, reductions and moves into operations of a program."""

from __future__ import annotations

from typing import Any

import torch

from milon.base.errors import Reason, Rejected
from milon.gpu.builder import dtype_of
from milon.gpu.translation import Rewrites, Value, Walk, register
from milon.pol.shapes import DType, compute_product

BASIC: Rewrites = {}


def _rename(aten: str, operation: str) -> None:
    def rewrite(walk: Walk, value: Value, **ignored: Any) -> Value:
        return walk.node(operation, walk.number(value, walk.result_dtype()))

    register(BASIC, aten)(rewrite)


for _aten in ("neg", "abs", "sqrt", "rsqrt", "exp", "expm1", "log", "log1p", "tanh", "erf", "sigmoid", "sin",
              "cos"):  # fmt: skip
    _rename(_aten, _aten)
_rename("logical_not", "not")


def _binary(walk: Walk, operation: str, left: Any, right: Any) -> Value:
    dtype = walk.result_dtype()
    one, other = walk.number(left, dtype), walk.number(right, dtype)
    if operation in ("mul", "div") and walk.builder.scalar_of(other) == 1:
        return Value(walk.builder.expand(one, walk.result_shape()))
    if operation == "mul" and walk.builder.scalar_of(one) == 1:
        return Value(walk.builder.expand(other, walk.result_shape()))
    return walk.node(operation, one, other)


def _scaled(walk: Walk, value: Any, alpha: Any) -> Any:
    return value if alpha == 1 else _binary(walk, "mul", value, alpha)


@register(BASIC, "add")
def _add(walk: Walk, left: Any, right: Any, alpha: Any = 1) -> Value:
    if walk.result_dtype() is DType.BOOL:
        return walk.node("or", walk.number(left), walk.number(right))
    return _binary(walk, "add", left, _scaled(walk, right, alpha))


@register(BASIC, "sub")
def _sub(walk: Walk, left: Any, right: Any, alpha: Any = 1) -> Value:
    return _binary(walk, "sub", left, _scaled(walk, right, alpha))


@register(BASIC, "rsub")
def _rsub(walk: Walk, left: Any, right: Any, alpha: Any = 1) -> Value:
    return _binary(walk, "sub", right, _scaled(walk, left, alpha))


@register(BASIC, "mul")
def _mul(walk: Walk, left: Any, right: Any) -> Value:
    if walk.result_dtype() is DType.BOOL:
        return walk.node("and", walk.number(left), walk.number(right))
    return _binary(walk, "mul", left, right)


@register(BASIC, "div")
def _div(walk: Walk, left: Any, right: Any, rounding_mode: str | None = None) -> Value:
    if rounding_mode is not None:
        raise Rejected(Reason.UNSUPPORTED, "division that rounds to whole numbers; nearest supported: torch.div")
    return _binary(walk, "div", left, right)


for _name in ("maximum", "minimum"):
    register(BASIC, _name)(lambda walk, left, right, _name=_name: _binary(walk, _name, left, right))


@register(BASIC, "reciprocal")
def _reciprocal(walk: Walk, value: Value) -> Value:
    return _binary(walk, "div", 1.0, value)


@register(BASIC, "relu")
def _relu(walk: Walk, value: Value) -> Value:
    return _binary(walk, "maximum", value, 0)


@register(BASIC, "clamp", "clamp_min", "clamp_max", "hardtanh")
def _clamp(walk: Walk, value: Value, least: Any = None, greatest: Any = None, **named: Any) -> Value:
    bounded = value
    for operation, bound in (("maximum", named.get("min", least)), ("minimum", named.get("max", greatest))):
        if bound is not None:
            bounded = _binary(walk, operation, bounded, bound)
    return bounded


@register(BASIC, "clamp_max")
def _clamp_max(walk: Walk, value: Value, greatest: Any) -> Value:
    return _binary(walk, "minimum", value, greatest)


@register(BASIC, "pow")
def _pow(walk: Walk, base: Any, exponent: Any) -> Value:
    if exponent in (1, 2, 3, 4):
        result = base
        for _ in range(int(exponent) - 1):
            result = _binary(walk, "mul", result, base)
        return Value(walk.number(result))
    if exponent == 0.5:
        return walk.node("sqrt", walk.number(base, DType.FLOAT32))
    if exponent == -1:
        return _binary(walk, "div", 1.0, base)
    return _binary(walk, "pow", base, exponent)


@register(BASIC, "floor", "ceil", "trunc", "round.default")
def _whole(walk: Walk, value: Value) -> Value:
    """From 2^23 on every number is whole; below, the way over int64 is exact. A zero result keeps the sign."""
    builder, name = walk.builder, walk.name
    number = walk.number(value, DType.FLOAT32)
    one, zero = walk.number(1.0), walk.number(0.0)
    cut = builder.cast(builder.cast(number, DType.INT64), DType.FLOAT32)
    if name == "floor":
        cut = builder.node("where", builder.node("gt", cut, number), builder.node("sub", cut, one), cut)
    elif name == "ceil":
        cut = builder.node("where", builder.node("lt", cut, number), builder.node("add", cut, one), cut)
    elif name == "round":
        size, big = builder.node("abs", number), walk.number(float(1 << 23))
        cut = builder.node("sub", builder.node("add", size, big), big)
        cut = builder.node("where", builder.node("lt", number, zero), builder.node("neg", cut), cut)
    signed = builder.node("where", builder.node("eq", cut, zero), builder.node("mul", number, zero), cut)
    small = builder.node("lt", builder.node("abs", number), walk.number(float(1 << 23)))
    return walk.node("where", small, signed, number)


@register(BASIC, "square")
def _square(walk: Walk, value: Value) -> Value:
    return _binary(walk, "mul", value, value)


@register(BASIC, "sign", "sgn")
def _sign(walk: Walk, value: Value) -> Value:
    dtype = walk.result_dtype()
    zero = walk.number(0, dtype)
    number = walk.number(value, dtype)
    above = walk.node("where", walk.node("gt", number, zero).number, walk.number(1, dtype), number)
    return walk.node("where", walk.node("lt", number, zero).number, walk.number(-1, dtype), above.number)


def _compare(walk: Walk, operation: str, left: Any, right: Any) -> Value:
    kinds = {walk.kind(left), walk.kind(right)}
    dtype = DType.FLOAT32 if DType.FLOAT32 in kinds else DType.INT64
    return walk.node(operation, walk.number(left, dtype), walk.number(right, dtype))


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    register(BASIC, _name)(lambda walk, left, right, _name=_name: _compare(walk, _name, left, right))


@register(BASIC, "isnan")
def _isnan(walk: Walk, value: Value) -> Value:
    return _compare(walk, "ne", value, value)


for _name, _operation in (("logical_and", "and"), ("bitwise_and", "and"), ("logical_or", "or"), ("bitwise_or", "or")):
    register(BASIC, _name)(
        lambda walk, left, right, _operation=_operation: walk.node(
            _operation, walk.number(left, DType.BOOL), walk.number(right, DType.BOOL)
        )
    )


@register(BASIC, "bitwise_not")
def _bitwise_not(walk: Walk, value: Value) -> Value:
    if walk.kind(value) is not DType.BOOL:
        raise Rejected(Reason.UNSUPPORTED, "bits of integers; nearest supported: torch.logical_not")
    return walk.node("not", value.number)


@register(BASIC, "where")
def _where(walk: Walk, condition: Value, left: Any, right: Any) -> Value:
    dtype = walk.result_dtype()
    built = walk.node("where", walk.number(condition, DType.BOOL), walk.number(left, dtype), walk.number(right, dtype))
    return Value(walk.builder.expand(built.number, walk.result_shape()))


@register(BASIC, "threshold_backward")
def _threshold_backward(walk: Walk, gradient: Value, value: Value, threshold: Any) -> Value:
    stopped = _compare(walk, "le", value, threshold)
    return walk.node("where", stopped.number, walk.number(0.0), gradient.number)


def _axes(walk: Walk, value: Value, axes: Any) -> tuple[int, ...]:
    rank = len(walk.shape(value))
    if axes is None or (isinstance(axes, (list, tuple)) and not axes):
        return tuple(range(rank))
    listed = [axes] if isinstance(axes, int) else list(axes)
    return tuple(sorted({axis % rank for axis in listed})) if rank else ()


def _sum_over(walk: Walk, value: int, axes: tuple[int, ...], keep: bool) -> int:
    return walk.builder.node("sum", value, attributes=(axes, (int(keep),))) if axes else value


@register(BASIC, "sum")
def _sum(walk: Walk, value: Value, axes: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    number = walk.number(value, walk.result_dtype())
    return Value(_sum_over(walk, number, _axes(walk, value, axes), keepdim))


def _mean_over(walk: Walk, value: int, axes: tuple[int, ...], keep: bool, fewer: float = 0) -> int:
    """The sum over `axes`, then one division by the number of terms less `fewer`."""
    count = compute_product(tuple(walk.builder.shape_of(value)[axis] for axis in axes)) - fewer
    total = _sum_over(walk, value, axes, keep)
    return walk.builder.node("div", total, walk.builder.scalar(float(count), DType.FLOAT32))


@register(BASIC, "mean")
def _mean(walk: Walk, value: Value, axes: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return Value(_mean_over(walk, walk.number(value, DType.FLOAT32), _axes(walk, value, axes), keepdim))


@register(BASIC, "var_mean.correction", "var.correction")
def _var_mean(walk: Walk, value: Value, axes: Any = None, correction: Any = None, keepdim: bool = False) -> Any:
    """Rule N3: squares of the distance from the rounded mean, never the difference of two sums."""
    reduced = _axes(walk, value, axes)
    mean = _mean_over(walk, value.number, reduced, True)
    distance = walk.builder.node("sub", value.number, mean)
    square = walk.builder.node("mul", distance, distance)
    variance = _mean_over(walk, square, reduced, keepdim, 1 if correction is None else correction)
    shape = walk.builder.shape_of(variance)
    alone = walk.result is not None
    return Value(variance) if alone else (Value(variance), Value(walk.builder.reshape(mean, shape)))


for _name in ("amax", "amin"):
    register(BASIC, _name)(
        lambda walk, value, axes=None, keepdim=False, _name=_name: walk.node(
            _name, value.number, attributes=(_axes(walk, value, axes), (int(keepdim),))
        )
    )


def _any_of(walk: Walk, value: int, axes: tuple[int, ...], keepdim: bool) -> Value:
    counted = walk.builder.cast(value, DType.INT64)
    return Value(walk.builder.cast(walk.builder.node("amax", counted, attributes=(axes, (int(keepdim),))), DType.BOOL))


@register(BASIC, "any")
def _any(walk: Walk, value: Value, axes: Any = None, keepdim: bool = False) -> Value:
    return _any_of(walk, walk.number(value, DType.BOOL), _axes(walk, value, axes), keepdim)


@register(BASIC, "all")
def _all(walk: Walk, value: Value, axes: Any = None, keepdim: bool = False) -> Value:
    opposite = walk.builder.node("not", walk.number(value, DType.BOOL))
    return walk.node("not", _any_of(walk, opposite, _axes(walk, value, axes), keepdim).number)


@register(BASIC, "max.default")
def _max_of_all(walk: Walk, value: Value) -> Value:
    return walk.node("amax", value.number, attributes=(_axes(walk, value, None), (0,)))


@register(BASIC, "argmax")
def _argmax(walk: Walk, value: Value, axis: int | None = None, keepdim: bool = False) -> Value:
    if axis is None:
        raise Rejected(Reason.UNSUPPORTED, "argmax of a whole tensor; nearest supported: argmax along an axis")
    return walk.node("argmax", value.number, attributes=(_axes(walk, value, axis), (int(keepdim),)))


@register(
    BASIC, "view", "view_copy", "_unsafe_view", "reshape", "_reshape_copy", "unsqueeze", "unsqueeze_copy", "squeeze",
    "squeeze_copy",
)  # fmt: skip
def _reshape(walk: Walk, value: Value, *ignored: Any) -> Value:
    if walk.result_dtype() is not walk.kind(value):
        raise Rejected(Reason.UNSUPPORTED, "the bits of one type read as another; nearest supported: Tensor.to")
    return Value(walk.builder.reshape(value.number, walk.result_shape()))


def _permuted(walk: Walk, value: Value, order: tuple[int, ...]) -> Value:
    return Value(walk.builder.permute(value.number, order))


@register(BASIC, "permute", "permute_copy")
def _permute(walk: Walk, value: Value, order: list[int]) -> Value:
    return _permuted(walk, value, tuple(axis % len(order) for axis in order))


@register(BASIC, "transpose", "transpose_copy", "t", "t_copy")
def _transpose(walk: Walk, value: Value, first: int = 0, second: int = -1) -> Value:
    order = list(range(len(walk.shape(value))))
    if len(order) > 1:
        order[first], order[second] = order[second], order[first]
    return _permuted(walk, value, tuple(order))


@register(BASIC, "expand", "expand_copy")
def _expand(walk: Walk, value: Value, *ignored: Any, **also: Any) -> Value:
    return Value(walk.builder.expand(value.number, walk.result_shape()))


def sliced(walk: Walk, value: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """The places from `start` to below `stop` along an axis."""
    if (start, stop, step) == (0, walk.shape(value)[axis], 1):
        return value
    return walk.node("slice", value.number, attributes=((axis,), (start,), (stop,), (step,)))


@register(BASIC, "slice", "slice_copy")
def _slice(walk: Walk, value: Value, axis: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    axis %= len(walk.shape(value))
    first, last, _ = slice(start, end).indices(walk.shape(value)[axis])
    return sliced(walk, value, axis, first, last, step)


@register(BASIC, "select", "select_copy")
def _select(walk: Walk, value: Value, axis: int, index: int) -> Value:
    axis %= len(walk.shape(value))
    index %= walk.shape(value)[axis]
    taken = sliced(walk, value, axis, index, index + 1)
    return Value(walk.builder.reshape(taken.number, walk.result_shape()))


@register(BASIC, "split", "split_copy", "split_with_sizes", "split_with_sizes_copy")
def _split(walk: Walk, value: Value, sizes: Any, axis: int = 0) -> tuple[Value, ...]:
    axis %= len(walk.shape(value))
    whole = walk.shape(value)[axis]
    if isinstance(sizes, int):
        sizes = [min(sizes, whole - start) for start in range(0, whole, sizes)]
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return tuple(
        sliced(walk, value, axis, start, start + size) for start, size in zip(starts, sizes, strict=True)
    )


@register(BASIC, "cat")
def _cat(walk: Walk, parts: list[Value], axis: int = 0) -> Value:
    dtype = walk.result_dtype()
    axis %= len(walk.result_shape())
    return walk.node("concatenate", *(walk.number(part, dtype) for part in parts), attributes=((axis,),))


@register(BASIC, "constant_pad_nd")
def _pad(walk: Walk, value: Value, amounts: list[int], filler: Any = 0) -> Value:
    padded = value
    for place in range(len(amounts) // 2):
        axis = len(walk.shape(value)) - 1 - place
        for before, amount in ((True, amounts[2 * place]), (False, amounts[2 * place + 1])):
            shape = walk.shape(padded)
            if amount < 0:
                ends = (-amount, shape[axis]) if before else (0, shape[axis] + amount)
                padded = sliced(walk, padded, axis, *ends)
            elif amount > 0:
                room = (*shape[:axis], amount, *shape[axis + 1 :])
                fill = walk.builder.expand(walk.number(filler, walk.kind(value)), room)
                parts = (fill, padded.number) if before else (padded.number, fill)
                padded = walk.node("concatenate", *parts, attributes=((axis,),))
    return padded


@register(BASIC, "clone", "detach", "detach_copy", "alias", "alias_copy", "lift_fresh_copy", "lift_fresh", "contiguous")
def _same(walk: Walk, value: Value, *ignored: Any, **also: Any) -> Value:
    return value


@register(BASIC, "_to_copy")
def _to_copy(walk: Walk, value: Value, **ignored: Any) -> Value:
    return Value(walk.number(value, walk.result_dtype()))


@register(BASIC, "copy")
def _copy(walk: Walk, target: Value, source: Value, *ignored: Any) -> Value:
    return Value(walk.builder.expand(walk.number(source, walk.kind(target)), walk.shape(target)))


def _filled(walk: Walk, number: Any) -> Value:
    return Value(walk.builder.expand(walk.number(number, walk.result_dtype()), walk.result_shape()))


register(BASIC, "full", "full_like", "fill")(lambda walk, like, number, **named: _filled(walk, number))
register(BASIC, "new_full")(lambda walk, like, size, number, **named: _filled(walk, number))
register(BASIC, "scalar_tensor")(lambda walk, number, **named: _filled(walk, number))
# Memory that is about to be written counts as zeros until then.
register(BASIC, "zeros", "zeros_like", "new_zeros", "empty", "empty_like", "new_empty", "empty_permuted")(
    lambda walk, *like, **named: _filled(walk, 0)
)
register(BASIC, "ones", "ones_like", "new_ones")(lambda walk, *like, **named: _filled(walk, 1))


@register(BASIC, "arange")
def _arange(walk: Walk, *ends: Any, dtype: Any = None, **ignored: Any) -> Value:
    whole = torch.arange(*ends, dtype=dtype)
    dtype_of(whole.dtype)
    return Value(walk.builder.constant(whole))

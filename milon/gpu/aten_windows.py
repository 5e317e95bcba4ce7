"""Rewrites of ATen's matrix products, convolutions, pooling and indexed reads and writes."""

from __future__ import annotations

from typing import Any

from milon.base.errors import Reason, Rejected
from milon.gpu.aten_basic import BASIC
from milon.gpu.translation import Rewrites, Value, Walk, register
from milon.pol.shapes import DType

WINDOW: Rewrites = {}


@register(WINDOW, "mm", "bmm")
def _matmul(walk: Walk, left: Value, right: Value) -> Value:
    return walk.node("matmul", left.number, right.number)


@register(WINDOW, "addmm")
def _addmm(walk: Walk, bias: Value, left: Value, right: Value, beta: Any = 1, alpha: Any = 1) -> Value:
    product = walk.node("matmul", left.number, right.number)
    scaled = BASIC["mul"](walk, product, alpha)
    shifted: Value = BASIC["add"](walk, scaled, bias, alpha=beta)
    return shifted


def _pairs(rank: int, sizes: Any, missing: int) -> tuple[int, int]:
    """Sizes for height and width; one number stands for both, one-dimensional windows have a height of `missing`."""
    listed = [sizes] if isinstance(sizes, int) else list(sizes)
    if rank == 3:
        return missing, listed[0]
    return listed[0], listed[-1]


def _image(walk: Walk, value: Value) -> int:
    """[batch, channels, length] with a height of 1; [batch, channels, height, width] as it is."""
    shape = walk.shape(value)
    if len(shape) not in (3, 4):
        raise Rejected(Reason.UNSUPPORTED, f"windows over {len(shape)} axes; nearest supported: 2-D, with a batch")
    return value.number if len(shape) == 4 else walk.builder.reshape(value.number, (*shape[:2], 1, shape[2]))


def _geometry(rank: int, stride: Any, padding: Any, dilation: Any, groups: int) -> tuple[tuple[int, ...], ...]:
    return _pairs(rank, stride, 1), _pairs(rank, padding, 0), _pairs(rank, dilation, 1), (groups,)


def _refuse_transposed(transposed: bool) -> None:
    if transposed:
        raise Rejected(Reason.UNSUPPORTED, "transposed convolution; nearest supported: expand, then torch.nn.Conv2d")


@register(WINDOW, "convolution")
def _convolution(
    walk: Walk, image: Value, weight: Value, bias: Value | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Value:  # fmt: skip
    _refuse_transposed(transposed)
    rank = len(walk.shape(image))
    attributes = _geometry(rank, stride, padding, dilation, groups)
    product = walk.node("convolution", _image(walk, image), _image(walk, weight), attributes=attributes).number
    if bias is not None:
        wide = walk.builder.reshape(bias.number, (walk.shape(bias)[0], 1, 1))
        product = walk.builder.node("add", product, wide)
    return Value(walk.builder.reshape(product, walk.result_shape()))


@register(WINDOW, "convolution_backward")
def _convolution_backward(
    walk: Walk, gradient: Value, image: Value, weight: Value, bias_sizes: Any, stride: Any, padding: Any,
    dilation: Any, transposed: bool, output_padding: Any, groups: int, wanted: list[bool],
) -> tuple[Value | None, ...]:  # fmt: skip
    _refuse_transposed(transposed)
    builder = walk.builder
    attributes = _geometry(len(walk.shape(image)), stride, padding, dilation, groups)
    outward, pixels, filters = _image(walk, gradient), _image(walk, image), _image(walk, weight)
    found: list[Value | None] = [None, None, None]
    if wanted[0]:
        shaped = (*attributes, builder.shape_of(pixels))
        inward = builder.node("convolution_input_gradient", outward, filters, attributes=shaped)
        found[0] = Value(builder.reshape(inward, walk.shape(image)))
    if wanted[1]:
        shaped = (*attributes, builder.shape_of(filters))
        inward = builder.node("convolution_weight_gradient", outward, pixels, attributes=shaped)
        found[1] = Value(builder.reshape(inward, walk.shape(weight)))
    if wanted[2]:
        found[2] = walk.node("sum", outward, attributes=((0, 2, 3), (0,)))
    return tuple(found)


def _window(walk: Walk, image: Value, kernel: Any, stride: Any, padding: Any, dilation: Any = 1) -> Any:
    rank = len(walk.shape(image))
    return (
        _pairs(rank, kernel, 1), _pairs(rank, stride if stride else kernel, 1), _pairs(rank, padding, 0),
        _pairs(rank, dilation, 1),
    )  # fmt: skip


def _flat_planes(walk: Walk, value: int) -> int:
    shape = walk.builder.shape_of(value)
    return walk.builder.reshape(value, (*shape[:2], shape[2] * shape[3]))


def _refuse_ceiling(walk: Walk, image: Value, window: Any, ceiling: bool) -> None:
    shape = walk.builder.shape_of(_image(walk, image))
    kernel, stride, padding, dilation = window
    for axis in (0, 1):
        room = shape[2 + axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1
        if ceiling and room % stride[axis]:
            raise Rejected(Reason.UNSUPPORTED, "pooling with ceil_mode; nearest supported: ceil_mode=False")


@register(WINDOW, "max_pool2d_with_indices")
def _max_pool(
    walk: Walk, image: Value, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceiling: bool = False
) -> tuple[Value, Value]:
    window = _window(walk, image, kernel, stride, padding, dilation)
    _refuse_ceiling(walk, image, window, ceiling)
    builder = walk.builder
    pixels = _image(walk, image)
    places = builder.node("max_pool_indices", pixels, attributes=window)
    shape = builder.shape_of(places)
    planes = builder.node("gather", _flat_planes(walk, pixels), _flat_planes(walk, places), attributes=((2,),))
    return Value(builder.reshape(planes, shape)), Value(places)


@register(WINDOW, "max_pool2d_with_indices_backward")
def _max_pool_backward(walk: Walk, gradient: Value, image: Value, *geometry: Any) -> Value:
    places = geometry[-1]
    builder = walk.builder
    terms, indices = _flat_planes(walk, _image(walk, gradient)), _flat_planes(walk, places.number)
    shape = builder.shape_of(_image(walk, image))
    spread = builder.node("scatter_sum", terms, indices, attributes=((2,), (shape[2] * shape[3],)))
    return Value(builder.reshape(spread, walk.result_shape()))


def _window_sizes(walk: Walk, image: Value, window: Any, counts_padding: bool, divisor: int | None) -> int:
    """What each window's sum is divided by: a scalar, or the number of pixels inside the image per window."""
    builder = walk.builder
    kernel, _, padding, _ = window
    if divisor is not None or counts_padding or padding == (0, 0):
        return builder.scalar(float(divisor or kernel[0] * kernel[1]), DType.FLOAT32)
    shape = builder.shape_of(_image(walk, image))
    ones = builder.expand(builder.scalar(1.0, DType.FLOAT32), (1, 1, *shape[2:]))
    return builder.node("window_sum", ones, attributes=window)


@register(WINDOW, "avg_pool2d")
def _average_pool(
    walk: Walk, image: Value, kernel: Any, stride: Any = (), padding: Any = 0, ceiling: bool = False,
    counts_padding: bool = True, divisor: int | None = None,
) -> Value:  # fmt: skip
    window = _window(walk, image, kernel, stride, padding)
    _refuse_ceiling(walk, image, window, ceiling)
    total = walk.node("window_sum", _image(walk, image), attributes=window)
    averaged = walk.node("div", total.number, _window_sizes(walk, image, window, counts_padding, divisor))
    return Value(walk.builder.reshape(averaged.number, walk.result_shape()))


@register(WINDOW, "avg_pool2d_backward")
def _average_pool_backward(
    walk: Walk, gradient: Value, image: Value, kernel: Any, stride: Any, padding: Any, ceiling: bool,
    counts_padding: bool, divisor: int | None,
) -> Value:  # fmt: skip
    window = _window(walk, image, kernel, stride, padding)
    _refuse_ceiling(walk, image, window, ceiling)
    builder = walk.builder
    sizes = _window_sizes(walk, image, window, counts_padding, divisor)
    share = builder.node("div", _image(walk, gradient), sizes)
    shape = builder.shape_of(_image(walk, image))
    spread = builder.node("window_spread", share, attributes=(*window, shape))
    return Value(builder.reshape(spread, walk.result_shape()))


@register(WINDOW, "gather")
def _gather(walk: Walk, value: Value, axis: int, indices: Value, **ignored: Any) -> Value:
    axis %= len(walk.shape(value))
    return walk.node("gather", value.number, indices.number, attributes=((axis,),))


@register(WINDOW, "scatter.value")
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


@register(WINDOW, "scatter_add")
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


@register(WINDOW, "embedding")
def _embedding(walk: Walk, weight: Value, indices: Value, *ignored: Any) -> Value:
    lines = _lines(walk, indices, walk.shape(weight)[1])
    picked = walk.builder.node("gather", weight.number, lines, attributes=((0,),))
    return Value(walk.builder.reshape(picked, walk.result_shape()))


@register(WINDOW, "embedding_dense_backward")
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

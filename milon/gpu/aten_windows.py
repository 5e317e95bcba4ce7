"""Rewrites of ATen's matrix products, convolutions and pooling."""

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
    return walk.builder.reshape(value.number, _wide_shape(shape))


def _wide_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an image, with a height of 1 where it has none."""
    return shape if len(shape) == 4 else (*shape[:2], 1, shape[2])


def _geometry(rank: int, stride: Any, padding: Any, dilation: Any, groups: int) -> tuple[tuple[int, ...], ...]:
    return _pairs(rank, stride, 1), _pairs(rank, padding, 0), _pairs(rank, dilation, 1), (groups,)


@register(WINDOW, "convolution")
def _convolution(
    walk: Walk, image: Value, weight: Value, bias: Value | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Value:  # fmt: skip
    """A transposed convolution is the gradient of the image of an ordinary one with the same weight."""
    rank = len(walk.shape(image))
    attributes = _geometry(rank, stride, padding, dilation, groups)
    operation = "convolution"
    if transposed:
        shape = walk.result_shape()
        operation, attributes = "convolution_input_gradient", (*attributes, _wide_shape(shape))
    product = walk.node(operation, _image(walk, image), _image(walk, weight), attributes=attributes).number
    if bias is not None:
        wide = walk.builder.reshape(bias.number, (walk.shape(bias)[0], 1, 1))
        product = walk.builder.node("add", product, wide)
    return Value(walk.builder.reshape(product, walk.result_shape()))


@register(WINDOW, "convolution_backward")
def _convolution_backward(
    walk: Walk, gradient: Value, image: Value, weight: Value, bias_sizes: Any, stride: Any, padding: Any,
    dilation: Any, transposed: bool, output_padding: Any, groups: int, wanted: list[bool],
) -> tuple[Value | None, ...]:  # fmt: skip
    builder = walk.builder
    attributes = _geometry(len(walk.shape(image)), stride, padding, dilation, groups)
    outward, pixels, filters = _image(walk, gradient), _image(walk, image), _image(walk, weight)
    found: list[Value | None] = [None, None, None]
    if wanted[0] and transposed:
        inward = builder.node("convolution", outward, filters, attributes=attributes)
        found[0] = Value(builder.reshape(inward, walk.shape(image)))
    elif wanted[0]:
        shaped = (*attributes, builder.shape_of(pixels))
        inward = builder.node("convolution_input_gradient", outward, filters, attributes=shaped)
        found[0] = Value(builder.reshape(inward, walk.shape(image)))
    if wanted[1]:
        shaped = (*attributes, builder.shape_of(filters))
        sides = (pixels, outward) if transposed else (outward, pixels)
        inward = builder.node("convolution_weight_gradient", *sides, attributes=shaped)
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

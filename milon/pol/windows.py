"""Rows of the table: matrix products, convolutions and pooling."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.errors import Reason, require
from milon.pol.shapes import DType, TensorType, compute_product, compute_windows, verify_shape
from milon.pol.table import Attributes, Operands, Operation, Outcome, enter, verify_dtype, verify_same_dtype

WINDOWS: dict[str, Operation] = {}


def _matrix_cost(rows: int, inner: int, columns: int, batch: int) -> tuple[int, int]:
    operations = 2 * batch * rows * inner * columns
    scratch = batch * (20 * (rows * inner + inner * columns) + 24 * rows * columns)
    return operations, scratch


@enter(WINDOWS, "matmul", "N4", 2)
def check_matmul(operands: Operands, attributes: Attributes) -> Outcome:
    """[..., rows, inner] times [..., inner, columns]; the leading axes are equal."""
    left, right = operands
    verify_dtype(left, DType.FLOAT32)
    verify_dtype(right, DType.FLOAT32)
    fits = len(left.shape) == len(right.shape) >= 2 and left.shape[:-2] == right.shape[:-2]
    require(fits and left.shape[-1] == right.shape[-2], Reason.DOES_NOT_FIT, f"product of {left} and {right}")
    shape = (*left.shape[:-1], right.shape[-1])
    verify_shape(shape)
    operations, scratch = _matrix_cost(shape[-2], left.shape[-1], shape[-1], compute_product(shape[:-2]))
    return Outcome(TensorType(DType.FLOAT32, shape), operations, scratch)


@dataclass(frozen=True, slots=True)
class Geometry:
    """A two-dimensional convolution or pooling, checked."""

    batch: int  # images
    channels: tuple[int, int]  # of the input, of the output
    image: tuple[int, int]  # height and width of the input
    kernel: tuple[int, int]  # height and width of the window
    stride: tuple[int, int]
    padding: tuple[int, int]  # zeros (for a maximum: nothing) on either side
    dilation: tuple[int, int]
    groups: int  # the channels fall into so many independent parts

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of the result."""
        sizes = zip(self.image, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        height, width = (compute_windows(*axis) for axis in sizes)
        return height, width


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    return sizes[0], sizes[1]


def compute_convolution(image: tuple[int, ...], weight: tuple[int, ...], attributes: Attributes) -> Geometry:
    """Geometry of weight [out, in / groups, h, w] over image [batch, in, H, W].

    Attributes: stride, padding, dilation, groups.
    """
    require(len(image) == 4 and len(weight) == 4, Reason.DOES_NOT_FIT, f"image {list(image)}, weight {list(weight)}")
    groups = attributes[3][0]
    require(1 <= groups <= image[1], Reason.OUT_OF_RANGE, f"{groups} groups of {image[1]} channels")
    fits = image[1] == groups * weight[1] and weight[0] % groups == 0
    require(fits, Reason.DOES_NOT_FIT, f"weight {list(weight)} in {groups} groups over image {list(image)}")
    stride, padding, dilation = (_pair(attribute) for attribute in attributes[:3])
    geometry = Geometry(
        image[0], (image[1], weight[0]), _pair(image[2:]), _pair(weight[2:]), stride, padding, dilation, groups
    )
    verify_shape((image[0], weight[0], *geometry.output))
    return geometry


def _convolution_outcome(shape: tuple[int, ...], geometry: Geometry, area: int, channels: int) -> Outcome:
    """`area` places, at each of which a product over `channels` times the window is taken."""
    inner = channels // geometry.groups * geometry.kernel[0] * geometry.kernel[1]
    others = sum(geometry.channels) - channels
    columns = 32 * geometry.batch * area * inner * geometry.groups
    operations = 2 * geometry.batch * area * inner * others
    scratch = columns + 24 * compute_product(shape) + 16 * geometry.batch * sum(geometry.channels) * area
    return Outcome(TensorType(DType.FLOAT32, shape), operations, scratch, 8 * area * inner * geometry.groups)


_GEOMETRY = (2, 2, 2, 1)  # stride, padding, dilation, groups


@enter(WINDOWS, "convolution", "N4", 2, _GEOMETRY)
def check_convolution(operands: Operands, attributes: Attributes) -> Outcome:
    """Image and weight to [batch, out, H', W']; attributes: stride, padding, dilation, groups."""
    verify_same_dtype(operands)
    verify_dtype(operands[0], DType.FLOAT32)
    geometry = compute_convolution(operands[0].shape, operands[1].shape, attributes)
    height, width = geometry.output
    shape = (geometry.batch, geometry.channels[1], height, width)
    return _convolution_outcome(shape, geometry, height * width, geometry.channels[0])


@enter(WINDOWS, "convolution_input_gradient", "N4", 2, (*_GEOMETRY, 4))
def check_convolution_input_gradient(operands: Operands, attributes: Attributes) -> Outcome:
    """Gradient of the result and weight to the gradient of the image; attributes as before, then the image's shape."""
    verify_same_dtype(operands)
    verify_dtype(operands[0], DType.FLOAT32)
    image = attributes[4]
    verify_shape(image)
    geometry = compute_convolution(image, operands[1].shape, attributes)
    _fits_output(operands[0], geometry)
    return _convolution_outcome(image, geometry, geometry.image[0] * geometry.image[1], geometry.channels[1])


@enter(WINDOWS, "convolution_weight_gradient", "N4", 2, (*_GEOMETRY, 4))
def check_convolution_weight_gradient(operands: Operands, attributes: Attributes) -> Outcome:
    """Gradient of the result and image to the gradient of the weight; attributes as before, then the weight's shape."""
    verify_same_dtype(operands)
    verify_dtype(operands[0], DType.FLOAT32)
    weight = attributes[4]
    verify_shape(weight)
    geometry = compute_convolution(operands[1].shape, weight, attributes)
    _fits_output(operands[0], geometry)
    area = geometry.output[0] * geometry.output[1]
    return _convolution_outcome(weight, geometry, area, geometry.channels[0])


def _fits_output(gradient: TensorType, geometry: Geometry) -> None:
    wanted = (geometry.batch, geometry.channels[1], *geometry.output)
    require(gradient.shape == wanted, Reason.DOES_NOT_FIT, f"gradient {gradient} where the result is {list(wanted)}")


def compute_pooling(image: tuple[int, ...], attributes: Attributes) -> Geometry:
    """Geometry of pooling [batch, channels, H, W]; attributes: kernel, stride, padding, dilation."""
    require(len(image) == 4, Reason.DOES_NOT_FIT, f"pooling over {list(image)}")
    kernel, stride, padding, dilation = (_pair(attribute) for attribute in attributes[:4])
    geometry = Geometry(image[0], (image[1], image[1]), _pair(image[2:]), kernel, stride, padding, dilation, 1)
    require(all(2 * pad <= size for pad, size in zip(padding, kernel, strict=True)), Reason.OUT_OF_RANGE, "padding")
    axes = zip(padding, dilation, geometry.image, strict=True)
    meets = all(pad == 0 or step <= size for pad, step, size in axes)  # a window may not step over the whole image
    require(meets, Reason.OUT_OF_RANGE, "a window in the padding alone")
    verify_shape((image[0], image[1], *geometry.output))
    return geometry


def _pooling_outcome(dtype: DType, shape: tuple[int, ...], geometry: Geometry) -> Outcome:
    area = geometry.output[0] * geometry.output[1] * geometry.kernel[0] * geometry.kernel[1]
    terms = geometry.batch * geometry.channels[0] * area
    result = TensorType(dtype, shape)
    return Outcome(result, 4 * terms, 24 * terms + 24 * result.elements, 8 * area)


_WINDOW = (2, 2, 2, 2)  # kernel, stride, padding, dilation


@enter(WINDOWS, "max_pool_indices", "N1", 1, _WINDOW)
def check_max_pool_indices(operands: Operands, attributes: Attributes) -> Outcome:
    """For each window, the place in the plane (row * width + column) of its greatest element.

    The first of equals in row-major order (zeros of either sign are equal); the first NaN before any number.
    """
    verify_dtype(operands[0], DType.FLOAT32)
    geometry = compute_pooling(operands[0].shape, attributes)
    return _pooling_outcome(DType.INT64, (*operands[0].shape[:2], *geometry.output), geometry)


@enter(WINDOWS, "window_sum", "N3", 1, _WINDOW)
def check_window_sum(operands: Operands, attributes: Attributes) -> Outcome:
    """The sum of each window; what lies outside the image adds nothing."""
    verify_dtype(operands[0], DType.FLOAT32)
    geometry = compute_pooling(operands[0].shape, attributes)
    return _pooling_outcome(DType.FLOAT32, (*operands[0].shape[:2], *geometry.output), geometry)


@enter(WINDOWS, "window_spread", "N3", 1, (*_WINDOW, 4))
def check_window_spread(operands: Operands, attributes: Attributes) -> Outcome:
    """The transpose of `window_sum`: each pixel gets the sum over the windows that hold it.

    Attributes as before, then the shape of the image.
    """
    verify_dtype(operands[0], DType.FLOAT32)
    verify_shape(attributes[4])
    geometry = compute_pooling(attributes[4], attributes)
    _fits_output(operands[0], geometry)
    return _pooling_outcome(DType.FLOAT32, attributes[4], geometry)

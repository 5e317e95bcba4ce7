"""How convolutions and pooling are computed: as matrix products and sums over windows, by the rules N3 and N4.

Images are [batch, channels, height, width]. A convolution lays every window out as a column: with the batch as the last
axis, one gather of whole rows (`index_select`) does it, for any stride, padding, dilation and number of groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from milon.gpu.exact import exact_scatter_sum
from milon.gpu.fast import multiply, total
from milon.gpu.fast_windows import correlate_windows, is_fit, is_fit_for_weights, make_table, multiply_windows
from milon.gpu.operations import Call, Kernel, Maker
from milon.pol.windows import Geometry, compute_convolution, compute_pooling


def _window_rows(geometry: Geometry, device: torch.device) -> Tensor:
    """Pixel number (row * width + column) under each [kernel row, kernel column, output row, output column].

    A place in the padding gets the number height * width.
    """
    spots = []
    sizes = (geometry.image, geometry.kernel, geometry.stride, geometry.padding, geometry.dilation, geometry.output)
    for size, kernel, stride, padding, dilation, out in zip(*sizes, strict=True):
        spot = torch.arange(out).mul_(stride).unsqueeze(0) + torch.arange(kernel).mul_(dilation).unsqueeze(1) - padding
        spots.append(torch.where((spot < 0) | (spot >= size), -1, spot))
    rows, columns = spots[0][:, None, :, None], spots[1][None, :, None, :]
    height, width = geometry.image
    pixels = torch.where((rows < 0) | (columns < 0), height * width, rows * width + columns)
    return pixels.to(device)


def _over_channels(pixels: Tensor, channels: int, area: int) -> Tensor:
    """Row numbers in a [channels * area + 1, batch] matrix for `pixels` of every channel: [channels, *pixels.shape].

    The last row, which holds zeros, stands for the padding (pixel number `area`).
    """
    shape = [channels] + [1] * pixels.dim()
    first = torch.arange(channels, device=pixels.device).mul_(area).reshape(shape)
    return torch.where(pixels == area, channels * area, pixels + first)


def _batch_last(images: Tensor) -> Tensor:
    """[batch, channels, h, w] as [channels * h * w + 1, batch] with a last row of zeros."""
    batch = images.shape[0]
    rows = images.numel() // batch
    result = images.new_empty((rows + 1, batch))
    result[:rows] = images.reshape(batch, rows).t()
    result[rows].zero_()
    return result


def _batch_first(product: Tensor, shape: tuple[int, ...]) -> Tensor:
    """[..., batch] back to `shape` = [batch, channels, h, w]."""
    return product.reshape(-1, shape[0]).t().reshape(shape)


def _columns(images: Tensor, rows: Tensor, groups: int) -> Tensor:
    """Every window as a column: [groups, inner, places * batch], or without the first axis for one group."""
    picked = _batch_last(images).index_select(0, rows.reshape(-1))
    inner = rows.shape[0] // groups
    places = picked.numel() // (groups * inner)
    return picked.view(inner, places) if groups == 1 else picked.view(groups, inner, places)


def _convolution(call: Call) -> Kernel:
    geometry = compute_convolution(call.operands[0].shape, call.operands[1].shape, call.attributes)
    groups, bits, shape = geometry.groups, call.magnitude_bits, call.result.shape
    if is_fit(geometry, call.device):
        table = _forward_table(geometry)
        return lambda images, weight: multiply_windows(images, weight.reshape(shape[1], -1), table, bits).view(shape)
    rows = _forward_rows(geometry, call.device)

    def run(images: Tensor, weight: Tensor) -> Tensor:
        columns = _columns(images, rows, groups)
        matrix = weight.reshape(*([groups] if groups > 1 else []), shape[1] // groups, -1)
        return _batch_first(multiply(matrix, columns, bits), shape)

    return run


def _forward_rows(geometry: Geometry, device: torch.device) -> Tensor:
    """[in channels * window, places]: the row of the image matrix that each term of the product reads."""
    area = geometry.image[0] * geometry.image[1]
    rows = _over_channels(_window_rows(geometry, device), geometry.channels[0], area)
    return rows.reshape(geometry.channels[0] * geometry.kernel[0] * geometry.kernel[1], -1)


def _convolution_weight_gradient(call: Call) -> Kernel:
    """For each weight, the product of gradients and pixels over all places and images."""
    geometry = compute_convolution(call.operands[1].shape, call.attributes[4], call.attributes)
    bits, shape = call.magnitude_bits, call.result.shape
    if is_fit_for_weights(geometry, call.device):
        table = _forward_table(geometry)
        return lambda gradient, images: correlate_windows(gradient, images, table, bits).view(shape)
    lay = lay_for_weight_gradient(call)
    return lambda gradient, images: multiply(*lay(gradient, images), bits).reshape(shape)


def lay_for_weight_gradient(call: Call) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """From gradient and images, of any number of images, to the two matrices whose product is the weight's gradient.

    Their inner axis runs over the places of all images, so parts of a batch add up to the whole.
    """
    geometry = compute_convolution(call.operands[1].shape, call.attributes[4], call.attributes)
    rows, groups = _forward_rows(geometry, call.device), geometry.groups
    channels = geometry.channels[1]

    def lay(gradient: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        columns = _columns(images, rows, groups)
        left = gradient.permute(1, 2, 3, 0).reshape(*columns.shape[:-2], channels // groups, columns.shape[-1])
        return left, columns.transpose(-1, -2)

    return lay


def _forward_table(geometry: Geometry) -> Any:
    window = geometry.kernel[0] * geometry.kernel[1]
    return make_table(_window_rows(geometry, torch.device("cpu")).reshape(window, -1))


def _backward_places(geometry: Geometry, device: torch.device) -> Tensor:
    """[window, pixels]: the place of the result whose window meets a pixel there, or the number of places if none."""
    height, width = geometry.image
    out_height, out_width = geometry.output
    area, window = height * width, geometry.kernel[0] * geometry.kernel[1]
    forward = _window_rows(geometry, device).reshape(window, out_height * out_width)
    places = torch.arange(out_height * out_width, device=device).expand_as(forward)
    backward = torch.full((window, area + 1), out_height * out_width, dtype=torch.int64, device=device)
    backward.scatter_(1, forward, places)  # for one place of the window, a pixel belongs to at most one output
    return backward[:, :area]


def _backward_rows(geometry: Geometry, device: torch.device) -> Tensor:
    """[out channels * window, pixels]: the row of the gradient matrix that each term of a pixel's gradient reads."""
    places = _backward_places(geometry, device)
    rows = _over_channels(places, geometry.channels[1], geometry.output[0] * geometry.output[1])
    return rows.reshape(geometry.channels[1] * places.shape[0], -1)


def _convolution_input_gradient(call: Call) -> Kernel:
    """For each pixel, the product over the output channels and the windows that hold it; others count as zeros."""
    geometry = compute_convolution(call.attributes[4], call.operands[1].shape, call.attributes)
    groups, bits, shape = geometry.groups, call.magnitude_bits, call.result.shape
    inner, outer = geometry.channels[0] // groups, geometry.channels[1] // groups
    window = geometry.kernel[0] * geometry.kernel[1]
    if is_fit(geometry, call.device):
        table = make_table(_backward_places(geometry, call.device))

        def run_by_image(gradient: Tensor, weight: Tensor) -> Tensor:
            matrix = weight.reshape(outer, inner, window).transpose(0, 1).reshape(inner, outer * window)
            return multiply_windows(gradient, matrix, table, bits).view(shape)

        return run_by_image
    rows = _backward_rows(geometry, call.device)

    def run(gradient: Tensor, weight: Tensor) -> Tensor:
        columns = _columns(gradient, rows, groups)
        matrix = weight.reshape(groups, outer, inner, window).transpose(1, 2).reshape(groups, inner, outer * window)
        return _batch_first(multiply(matrix[0] if groups == 1 else matrix, columns, bits), shape)

    return run


def _padded(images: Tensor, filler: float) -> Tensor:
    """[batch, channels, h * w + 1] with `filler` at the end, where the padding reads."""
    batch, channels = images.shape[:2]
    flat = images.reshape(batch, channels, -1)
    return torch.cat((flat, flat.new_full((batch, channels, 1), filler)), 2)


def _max_pool_indices(call: Call) -> Kernel:
    geometry = compute_pooling(call.operands[0].shape, call.attributes)
    kernel, stride, padding, dilation = (list(attribute) for attribute in call.attributes)
    pixels = _window_rows(geometry, call.device)
    shape = call.result.shape
    window = geometry.kernel[0] * geometry.kernel[1]
    pixels = pixels.reshape(window, -1)

    def by_hand(images: Tensor) -> Tensor:
        """The stated rule where NaN occurs, which native kernels place differently."""
        terms = _padded(images, -torch.inf)[:, :, pixels]
        outside = (pixels == images.shape[2] * images.shape[3]).expand_as(terms)
        missing = terms != terms
        best = torch.where(missing.any(2, keepdim=True), missing, (terms == terms.amax(2, keepdim=True)) & ~outside)
        order = torch.arange(window, device=images.device).unsqueeze(1)
        first = torch.where(best, order, window).amin(2, keepdim=True)
        return pixels.expand_as(terms).gather(2, first).reshape(shape)

    def run(images: Tensor) -> Tensor:
        values, indices = torch.nn.functional.max_pool2d_with_indices(
            images.contiguous(), kernel, stride, padding, dilation, return_indices=True
        )
        return by_hand(images) if bool((values != values).any()) else indices

    return run


def _window_sum(call: Call) -> Kernel:
    geometry = compute_pooling(call.operands[0].shape, call.attributes)
    pixels = _window_rows(geometry, call.device)
    window = geometry.kernel[0] * geometry.kernel[1]
    flat = pixels.reshape(window, -1)
    shape = call.result.shape

    def run(images: Tensor) -> Tensor:
        return total(_padded(images, 0.0)[:, :, flat], [2], False).reshape(shape)

    return run


def _window_spread(call: Call) -> Kernel:
    geometry = compute_pooling(call.attributes[4], call.attributes)
    flat = _window_rows(geometry, call.device).reshape(geometry.kernel[0] * geometry.kernel[1], -1)
    area = geometry.image[0] * geometry.image[1]
    shape = call.result.shape

    def run(gradient: Tensor) -> Tensor:
        batch, channels = shape[:2]
        repeated = gradient.reshape(batch, channels, 1, -1).expand(batch, channels, *flat.shape)
        terms = repeated.reshape(batch, channels, -1)
        indices = flat.reshape(1, 1, -1).expand_as(terms)
        return exact_scatter_sum(terms, indices, 2, area + 1)[:, :, :area].reshape(shape)

    return run


WINDOW_MAKERS: dict[str, Maker] = {
    "convolution": _convolution,
    "convolution_input_gradient": _convolution_input_gradient,
    "convolution_weight_gradient": _convolution_weight_gradient,
    "max_pool_indices": _max_pool_indices,
    "window_sum": _window_sum,
    "window_spread": _window_spread,
}

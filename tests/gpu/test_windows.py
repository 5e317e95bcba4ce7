"""Convolutions and pooling: the bits of the slow reference, and the gradients that torch finds."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.gpu.numeric_reference import reference_dot, reference_sum
from tests.gpu.programs import single

GEOMETRIES = [  # image, weight, stride, padding, dilation, groups
    ((2, 2, 5, 6), (3, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((2, 2, 6, 5), (2, 2, 2, 3), (2, 3), (1, 0), (1, 1), 1),
    ((1, 4, 7, 7), (4, 2, 3, 2), (2, 1), (2, 1), (2, 3), 2),
    ((3, 3, 4, 4), (3, 1, 3, 3), (1, 1), (0, 2), (1, 1), 3),
]


def bits_of(values: Tensor) -> list[int]:
    return [pattern & 0xFFFFFFFF for pattern in values.contiguous().reshape(-1).view(torch.int32).tolist()]


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dots(rows: Tensor, columns: Tensor) -> list[int]:
    return [reference_dot(bits_of(row), bits_of(column), 21) for row in rows for column in columns]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolution_equals_the_reference(geometry: tuple[tuple[int, ...], ...]) -> None:
    image_shape, weight_shape, stride, padding, dilation, groups = geometry
    image, weight = random(image_shape, 1), random(weight_shape, 2)
    found = single("convolution", [image, weight], (stride, padding, dilation, (groups,)))
    windows = functional.unfold(image, weight_shape[2:], dilation, padding, stride)  # only copies values
    inner, outer = windows.shape[1] // groups, weight_shape[0] // groups
    for batch, group in itertools.product(range(image_shape[0]), range(groups)):
        columns = windows[batch, group * inner : (group + 1) * inner].t()
        rows = weight[group * outer : (group + 1) * outer].reshape(outer, -1)
        assert bits_of(found[batch, group * outer : (group + 1) * outer]) == dots(rows, columns)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolution_gradients_are_those_of_torch(geometry: tuple[tuple[int, ...], ...]) -> None:
    image_shape, weight_shape, stride, padding, dilation, groups = geometry
    image, weight = random(image_shape, 3).requires_grad_(), random(weight_shape, 4).requires_grad_()
    result = functional.conv2d(image, weight, None, stride, padding, dilation, groups)
    gradient = random(tuple(result.shape), 5)
    result.backward(gradient)
    attributes = (stride, padding, dilation, (groups,))
    inward = single("convolution_input_gradient", [gradient, weight.detach()], (*attributes, image_shape))
    filters = single("convolution_weight_gradient", [gradient, image.detach()], (*attributes, weight_shape))
    torch.testing.assert_close(inward, image.grad, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(filters, weight.grad, rtol=1e-5, atol=2e-5)


def test_convolution_gradients_equal_the_reference() -> None:
    image, weight, gradient = random((2, 2, 4, 4), 6), random((3, 2, 3, 3), 7), random((2, 3, 4, 4), 8)
    attributes = ((1, 1), (1, 1), (1, 1), (1,))
    filters = single("convolution_weight_gradient", [gradient, image], (*attributes, (3, 2, 3, 3)))
    windows = functional.unfold(image, 3, 1, 1, 1)  # [2, 18, 16]
    rows = gradient.permute(1, 0, 2, 3).reshape(3, -1)
    assert bits_of(filters) == dots(rows, windows.permute(1, 0, 2).reshape(18, -1))
    inward = single("convolution_input_gradient", [gradient, weight], (*attributes, (2, 2, 4, 4)))
    turned = weight.flip(2, 3).transpose(0, 1).reshape(2, -1)
    spread = functional.unfold(gradient, 3, 1, 1, 1)
    assert bits_of(inward) == [bits for batch in range(2) for bits in dots(turned, spread[batch].t())]


def windows_of(image: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """[batch * channels, windows, kernel] with zeros outside."""
    batch, channels = image.shape[:2]
    found = functional.unfold(image.reshape(batch * channels, 1, *image.shape[2:]), kernel, 1, padding, stride)
    return found.transpose(1, 2)


POOLS = [((2, 2), (2, 2), (0, 0)), ((3, 2), (2, 1), (1, 1)), ((3, 3), (1, 1), (1, 1))]


@pytest.mark.parametrize(("kernel", "stride", "padding"), POOLS)
def test_window_sums_equal_the_reference(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    image = random((2, 2, 6, 5), 9) * torch.exp2(random((2, 2, 6, 5), 10) * 9)
    found = single("window_sum", [image], (kernel, stride, padding, (1, 1)))
    windows = windows_of(image, kernel, stride, padding).reshape(-1, kernel[0] * kernel[1])
    assert bits_of(found) == [reference_sum(bits_of(window)) for window in windows]


@pytest.mark.parametrize(("kernel", "stride", "padding"), POOLS)
def test_window_spread_equals_the_reference(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    shape = (1, 2, 6, 5)
    places = windows_of(torch.arange(1.0, 31.0).reshape(1, 1, 6, 5), kernel, stride, padding)[0].long() - 1
    gradient = random((1, 2, *functional.max_pool2d(torch.zeros(shape), kernel, stride, padding).shape[2:]), 11)
    found = single("window_spread", [gradient], (kernel, stride, padding, (1, 1), shape))
    for channel in range(2):
        terms = bits_of(gradient[0, channel])
        expected = [
            reference_sum([terms[at] for at in range(len(terms)) if pixel in places[at]]) for pixel in range(30)
        ]
        assert bits_of(found[0, channel]) == expected


def slow_indices(
    plane: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> list[int]:
    """The stated rule in plain Python: the first NaN, else the first of the greatest."""
    height, width = plane.shape
    rows = (height + 2 * padding[0] - kernel[0]) // stride[0] + 1
    columns = (width + 2 * padding[1] - kernel[1]) // stride[1] + 1
    chosen = []
    for row, column in itertools.product(range(rows), range(columns)):
        spots = [
            (row * stride[0] - padding[0] + down, column * stride[1] - padding[1] + across)
            for down in range(kernel[0])
            for across in range(kernel[1])
        ]
        inside = [(y, x) for y, x in spots if 0 <= y < height and 0 <= x < width]
        values = [float(plane[spot]) for spot in inside]
        missing = [place for place, value in enumerate(values) if value != value]
        best = missing[0] if missing else values.index(max(values))
        chosen.append(inside[best][0] * width + inside[best][1])
    return chosen


@pytest.mark.parametrize(("kernel", "stride", "padding"), POOLS)
@pytest.mark.parametrize("special", [None, torch.nan, -torch.inf])
def test_max_pool_takes_the_first_greatest(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], special: float | None
) -> None:
    image = torch.randint(-2, 3, (2, 2, 6, 5), generator=torch.Generator().manual_seed(12)).float() * -0.0
    image[:, 1] = torch.randint(-2, 3, (2, 6, 5), generator=torch.Generator().manual_seed(13)).float()
    if special is not None:
        image[torch.rand(image.shape, generator=torch.Generator().manual_seed(14)) < 0.3] = special
    found = single("max_pool_indices", [image], (kernel, stride, padding, (1, 1)))
    for batch, channel in itertools.product(range(2), range(2)):
        expected = slow_indices(image[batch, channel], kernel, stride, padding)
        assert found[batch, channel].reshape(-1).tolist() == expected

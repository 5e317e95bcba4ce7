"""Frames put each pixel where the windows look for it, and loops give the reference's bits with them and without."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from milon.gpu import exact, fast, fast_windows
from tests.gpu.test_fast import same

# height, width, kernel, padding, stride, dilation; whether windows have a frame
FORMS = (
    ((6, 7), (3, 3), (1, 1), (1, 1), (1, 1), True),
    ((5, 9), (2, 3), (0, 2), (1, 1), (2, 1), True),
    ((8, 7), (3, 3), (1, 1), (2, 2), (1, 1), True),
    ((9, 9), (1, 1), (0, 0), (2, 3), (1, 1), True),
    ((7, 8), (3, 2), (2, 0), (3, 1), (1, 2), True),
    ((5, 5), (5, 5), (0, 0), (1, 1), (1, 1), True),
    ((2, 2), (3, 3), (1, 1), (1, 1), (1, 1), False),  # no window lies within the image
    ((4, 4), (2, 2), (3, 3), (1, 1), (1, 1), False),  # a window meets padding alone
)


@pytest.fixture(autouse=True)
def _compiled() -> None:
    fast.choose(fast.COMPILED_OPERATIONS_MIN)


def find_pixels(form: tuple[tuple[int, int], ...]) -> Tensor:
    """[window, places], by torch's own layout of windows."""
    (height, width), kernel, padding, stride, dilation = form
    numbers = torch.arange(1.0, height * width + 1).reshape(1, 1, height, width)
    found = functional.unfold(numbers, kernel, dilation, padding, stride)[0].long()
    return found.sub(1).remainder(height * width + 1)


@pytest.mark.parametrize(("height_width", "kernel", "padding", "stride", "dilation", "has_frame"), FORMS)
def test_every_window_finds_its_pixels(
    height_width: tuple[int, int], kernel: tuple[int, int], padding: tuple[int, int], stride: tuple[int, int],
    dilation: tuple[int, int], has_frame: bool,
) -> None:  # fmt: skip
    height, width = height_width
    pixels = find_pixels((height_width, kernel, padding, stride, dilation))
    table = fast_windows.make_table(pixels)
    frame = table.frame(height, width)
    assert frame is table.frame(height, width)
    assert bool(frame.offsets.size) == has_frame
    images = torch.arange(1.0, 2 * height * width + 1).reshape(2, 1, height, width)
    padded = functional.pad(images.reshape(2, -1), (0, 1))
    taken = functional.pad(frame.take(images).reshape(2, -1), (0, 1))
    assert torch.equal(taken[:, frame.table.astype(np.int64)], padded[:, pixels])
    if has_frame:
        planes = torch.zeros(2, frame.size)
        planes[:, frame.homes] = taken[:, :-1]
        places = torch.from_numpy(frame.starts + frame.offsets[:, None])
        assert torch.equal(planes[:, places], padded[:, pixels])
        starts = frame.homes.reshape(-1, frame.line)
        assert np.array_equal(starts - starts[:, :1], np.broadcast_to(np.arange(frame.line), starts.shape))


@pytest.mark.parametrize(("height_width", "kernel", "padding", "stride", "dilation", "has_frame"), FORMS)
def test_products_with_windows_of_any_form(
    height_width: tuple[int, int], kernel: tuple[int, int], padding: tuple[int, int], stride: tuple[int, int],
    dilation: tuple[int, int], has_frame: bool,
) -> None:  # fmt: skip
    chance = torch.Generator().manual_seed(1)
    images = torch.randn(3, 3, *height_width, generator=chance)
    images[1] *= 2.0**40
    images[2, 1, 0, 0] = torch.nan
    weight = torch.randn(15, 3 * kernel[0] * kernel[1], generator=chance)
    columns = functional.unfold(images, kernel, dilation, padding, stride).transpose(0, 1).reshape(weight.shape[1], -1)
    table = fast_windows.make_table(find_pixels((height_width, kernel, padding, stride, dilation)))
    for bits in (13, 21):
        found = fast_windows.multiply_windows(images, weight, table, bits)
        assert same(found, exact.exact_matmul(weight, columns, bits).view(15, 3, -1).transpose(0, 1))
        gradient = torch.randn(found.shape, generator=chance).unsqueeze(-1)
        flat = gradient.transpose(0, 1).reshape(15, -1)
        sums = fast_windows.correlate_windows(gradient, images, table, bits)
        assert same(sums, exact.exact_matmul(flat, columns.t(), bits))


@pytest.mark.parametrize("bits", [13, 21])
def test_more_places_than_a_line_holds(bits: int) -> None:
    """An image's places are then met in pieces, the last of them an odd number."""
    chance = torch.Generator().manual_seed(bits)
    images, weight = torch.randn(2, 2, 45, 47, generator=chance), torch.randn(3, 18, generator=chance)
    columns = functional.unfold(images, 3, 1, 1).transpose(0, 1).reshape(18, -1)
    table = fast_windows.make_table(find_pixels(((45, 47), (3, 3), (1, 1), (1, 1), (1, 1))))
    found = fast_windows.multiply_windows(images, weight, table, bits)
    assert same(found, exact.exact_matmul(weight, columns, bits).view(3, 2, -1).transpose(0, 1))
    sums = fast_windows.correlate_windows(found.view(2, 3, 45, 47), images, table, bits)
    assert same(sums, exact.exact_matmul(found.transpose(0, 1).reshape(3, -1), columns.t(), bits))


@pytest.fixture
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_three_threads")
def test_loops_alone_use_several_threads() -> None:
    def fail() -> None:
        with fast.own_threads():
            assert (torch.get_num_threads(), fast.count_threads()) == (1, 3)
            with fast.own_threads():
                assert (torch.get_num_threads(), fast.count_threads()) == (1, 3)
            assert (torch.get_num_threads(), fast.count_threads()) == (1, 3)
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert (torch.get_num_threads(), fast.count_threads()) == (3, 3)

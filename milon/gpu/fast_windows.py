"""Convolutions on a CPU by compiled loops: windows become integers as they are met, never a matrix of them."""

from __future__ import annotations

import warnings
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from milon.gpu import exact, fast
from milon.pol.windows import Geometry

TERMS_MAX = 1 << 20  # of one product: totals of M = 21 stay within int64
_PLACES = 1024  # met at a time for the gradient of a weight: the parts of both operands stay in the second cache


def loops() -> ModuleType | None:
    """The compiled loops of windows, or None where compiled loops are not used or these differ from the reference."""
    return None if fast.kernels() is None else load_loops()


@cache
def load_loops() -> ModuleType | None:
    """The compiled loops, once they gave the reference's bits; None, with a warning, where they did not."""
    from milon.gpu import kernels_windows

    if not agrees(kernels_windows):
        warnings.warn("compiled loops of convolutions differ from the reference and are not used", stacklevel=2)
        return None
    return kernels_windows


def _samples() -> list[tuple[Tensor, Tensor]]:
    """Images and weights with all that numbers can be, more exponents in an image than are kept at a time."""
    images = torch.arange(-540, 540, dtype=torch.float32).mul_(0.37).reshape(3, 5, 9, 8)
    weights = torch.arange(-315, 315, dtype=torch.float32).mul_(0.011).reshape(14, 5, 3, 3)
    spread = images * torch.exp2(torch.arange(72).mul(3).sub(140).float()).reshape(9, 8)
    special = spread.clone()
    special[0, 1, 2, 3], special[1, 2, 0, 0], special[2, 0, 8, 7], special[2, 3] = torch.inf, torch.nan, -0.0, 0.0
    odd = weights.clone()
    odd[3, 1, 1, 1], odd[4], odd[5] = torch.nan, 0.0, odd[5] * 2.0**-140
    return [(images, weights), (spread, odd), (special, weights), (images * 2.0**-145, weights * 2.0**118)]


def agrees(windows: ModuleType) -> bool:
    """Whether the loops give the bits of the reference on small samples."""
    for stride in (1, 2):
        kept = functional.unfold(torch.arange(1.0, 73.0).reshape(1, 1, 9, 8), 3, 1, 1, stride)[0].long()
        table = make_table(kept.sub(1).remainder(73))  # a pixel's number, 72 for the padding
        for images, weights in _samples():
            columns = functional.unfold(images, 3, 1, 1, stride)
            matrix, flat = weights.reshape(14, -1), columns.transpose(0, 1).reshape(45, -1)
            for bits in (13, 21):
                wanted = exact.exact_matmul(matrix, flat, bits).reshape(14, 3, -1)
                if not fast.is_same(_multiply(windows, images, matrix, table, bits), wanted.transpose(0, 1)):
                    return False
                gradient = wanted.transpose(0, 1).contiguous()
                sums = exact.exact_matmul(wanted.reshape(14, -1), flat.t(), bits)
                if not fast.is_same(_correlate(windows, gradient, images, table, bits), sums):
                    return False
    return True


def is_fit(geometry: Geometry, device: torch.device) -> bool:
    """Whether the quick way exists for a convolution and for the gradient of its image."""
    sizes = (geometry.batch, *geometry.channels, *geometry.image, *geometry.output)
    terms = max(geometry.channels) * geometry.kernel[0] * geometry.kernel[1]
    is_plain = geometry.groups == 1 and 0 not in sizes and terms <= TERMS_MAX
    return is_plain and device.type == "cpu" and loops() is not None


def is_fit_for_weights(geometry: Geometry, device: torch.device) -> bool:
    """The same for the gradient of a weight, whose sums run over all places and images."""
    terms = geometry.output[0] * geometry.output[1] * geometry.batch
    return terms <= TERMS_MAX // 2 and is_fit(geometry, device)


def make_table(places: Tensor) -> Any:
    """What `kernels_windows` calls `table`, from pixel numbers [window, places]."""
    return places.numpy().astype(np.uint32)


def _digits(bits: int) -> int:
    """How many 16-bit integers stand for one of `bits` bits."""
    return 1 if bits == fast.DIGIT_BITS else 3


def _need() -> ModuleType:
    found = loops()
    if found is None:
        raise RuntimeError("windows were met where no compiled loops are used")
    return found


def multiply_windows(images: Tensor, matrix: Tensor, table: Any, bits: int) -> Tensor:
    """Rule N4: `matrix` [out, rows] times every window of `images`: [batch, out, places]."""
    return _multiply(_need(), images, matrix, table, bits)


def _put_together(table: Any, area: int) -> tuple[Any, Any]:
    """`table` and the order of its places, those whose windows meet the padding in the same parts side by side.

    Where padding is rare, as in a convolution itself, the places stay as they are. It is not in the gradient of the
    image of one with strides: a place there is met by few parts of the window, and others need not be multiplied.
    """
    places = np.arange(table.shape[1])
    is_padding = table == area
    if 3 * int(is_padding.sum()) > table.size:
        places = np.lexsort((places, *is_padding))
    return np.ascontiguousarray(table[:, places]), places


def _multiply(windows: ModuleType, images: Tensor, matrix: Tensor, table: Any, bits: int) -> Tensor:
    from milon.gpu import kernels_pairs

    images, matrix = images.contiguous(), matrix.contiguous()
    (batch, channels), area = images.shape[:2], images.shape[2] * images.shape[3]
    outer, (window, places) = matrix.shape[0], table.shape
    pairs, panels = (channels + 1) // 2 * window, -(-outer // windows.ROWS)
    rows = fast.flat(fast.spaces.take("left", (_digits(bits) * panels * pairs * windows.ROWS,), torch.int32).zero_())
    back, ends = np.empty(outer), np.empty((panels, pairs + 1), np.int32)
    given = (fast.flat(matrix), fast.patterns(matrix), channels, window, bits, rows, back)
    fast.split(kernels_pairs.pack_rows, outer, matrix.numel(), *given)
    fast.split(kernels_pairs.find_blocks, panels, matrix.numel(), rows, windows.ROWS, pairs, bits, ends)
    together = max(1, min(batch, windows.COLUMNS // places))
    table, order = _put_together(table, area)
    result = torch.empty((batch, outer, places))
    fast.split(
        windows.multiply_windows, -(-batch // together), result.numel() * pairs,
        fast.flat(images), fast.patterns(images), table, order, channels, area, together, rows, ends, back, outer, bits,
        fast.flat(result),
    )  # fmt: skip
    return result


def correlate_windows(gradient: Tensor, images: Tensor, table: Any, bits: int) -> Tensor:
    """Rule N4: for every output channel and row of the matrix of windows, the product over places and images."""
    return _correlate(_need(), gradient, images, table, bits)


def _find_scales(windows: ModuleType, images: Tensor, table: Any, bits: int) -> tuple[Any, Any]:
    """Forth and back for every (channel, part of the window), over all places and images."""
    channels, area = images.shape[1], images.shape[2] * images.shape[3]
    greatest = np.empty(channels * (area + 1), np.int32)
    fast.split(windows.greatest_of_channels, channels, images.numel(), fast.patterns(images), channels, area, greatest)
    rows = channels * table.shape[0]
    found, forth, back = np.empty(rows, np.int32), np.empty(rows), np.empty(rows)
    fast.split(windows.greatest_of_rows, channels, table.size * channels, greatest, table, area, found)
    windows.scales_of(0, rows, found, bits, forth, back)
    return forth, back


def _correlate(windows: ModuleType, gradient: Tensor, images: Tensor, table: Any, bits: int) -> Tensor:
    images = images.contiguous()
    (batch, channels), area = images.shape[:2], images.shape[2] * images.shape[3]
    outer, (window, places) = gradient.shape[1], table.shape
    gradient = gradient.reshape(batch, outer, places, 1).contiguous()
    pairs, stripes, together = (places + 1) // 2, -(-outer // windows.COLUMNS), max(1, min(batch, _PLACES // places))
    size = _digits(bits) * stripes * batch * pairs * windows.COLUMNS
    packed = fast.flat(fast.spaces.take("right", (size,), torch.int32))
    all_places = np.arange(places, dtype=np.uint32).reshape(1, places)
    outer_forth, outer_back = _find_scales(windows, gradient, all_places, bits)
    given = (fast.flat(gradient), batch, outer, places, outer_forth, outer_back, bits, packed)
    fast.split(windows.pack_gradient, batch, gradient.numel(), *given)
    parts = -(-batch // together)
    ends = np.empty((parts * stripes, together * pairs + 1), np.int32)
    sizes = (packed, batch, pairs, stripes, together, bits, ends)
    fast.split(windows.find_gradient_blocks, parts, gradient.numel(), *sizes)
    forth, back = _find_scales(windows, images, table, bits)
    result = torch.empty(outer, channels * window)
    fast.split(
        windows.correlate, -(-channels * window // windows.ROWS), result.numel() * places,
        fast.flat(images), table, channels, area, together, forth, back, packed, ends, outer_back, outer, bits,
        fast.flat(result),
    )  # fmt: skip
    return result

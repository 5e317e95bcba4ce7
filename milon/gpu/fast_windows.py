"""Convolutions on a CPU by compiled loops: windows become integers as they are met, never a matrix of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
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
_LINE_PAIRS = 512  # of places met at a time for the gradient of a weight: both operands stay in the second cache
_ROOM = 4  # times the pixels: a frame that takes more is mostly padding


def loops() -> ModuleType | None:
    """The compiled loops of windows, or None where compiled loops are not used or these differ from the reference."""
    return None if fast.kernels() is None else load_loops()


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the pixels of a channel lie in a plane, with padding, so that neighbours in the result meet neighbours."""

    table: Any  # [window, places]: the pixel, in the order in which pixels are taken, or their number for the padding
    order: Tensor | None  # the pixels taken, the number of pixels for a zero; None where all are taken as they are
    homes: Any  # the place in the plane of each pixel taken
    line: int  # pixels that have places side by side
    size: int  # places of the plane
    starts: Any  # of each place of the result, such that part r of its window lies at its start + offsets[r];
    offsets: Any  # both are empty where there are no such numbers

    @property
    def plane(self) -> tuple[Any, int, int, Any, Any]:
        """What `kernels_windows` calls `frame`."""
        return self.homes, self.line, self.size, self.starts, self.offsets

    def take(self, images: Tensor) -> Tensor:
        """The pixels taken: [batch, channels, pixels], contiguous."""
        flat = images.flatten(2)
        if self.order is None:
            return flat.contiguous()
        return torch.cat((flat, flat.new_zeros((*flat.shape[:2], 1))), 2).index_select(2, self.order)


class Table:
    """Which pixel each part of a window meets at each place: [window, places], the number of pixels for the padding."""

    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels
        self._frames: dict[tuple[int, int], Frame] = {}

    def frame(self, height: int, width: int) -> Frame:
        """The frame for images of that size."""
        if (height, width) not in self._frames:
            self._frames[height, width] = find_frame(self.pixels, height, width)
        return self._frames[height, width]


def _split_axis(places: Any, parts: Any) -> tuple[Any, Any, Any, int, int, int, int]:
    """One axis, where part r of the window at place p meets pixel places[p] + parts[r]: see `find_frame`."""
    low = int(places.min() + parts.min())
    places, parts = places - places.min(), parts - parts.min()
    stride = int(np.gcd.reduce(places)) or 1
    length = int(places.max()) // stride + int(parts.max()) // stride + 1
    return places // stride, parts // stride, parts % stride, stride, low, length, int((parts % stride).max()) + 1


def find_frame(table: Any, height: int, width: int) -> Frame:
    """The frame of `table`; one without starts where windows do not have one form, or none lies within the image.

    With strides, pixels whose numbers have one remainder are taken side by side (a phase), for each axis.
    """
    area, none = height * width, np.zeros(0, np.int64)
    plain = Frame(table, None, np.arange(area), area, area + 1, none, none)
    inside = table < area
    whole = inside.all(0)
    if not whole.any() or not inside.any(0).all():
        return plain
    found = np.divmod(table.astype(np.int64), width)
    parts = [axis[:, whole.argmax()] - axis[0, whole.argmax()] for axis in found]
    first = inside.argmax(0)
    places = [axis[first, np.arange(first.size)] - part[first] for axis, part in zip(found, parts, strict=True)]
    y, x = (place + part[:, None] for place, part in zip(places, parts, strict=True))
    fits = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    if not np.array_equal(fits, inside) or not np.array_equal((y * width + x)[fits], table[fits]):
        return plain
    down, across = (_split_axis(place, part) for place, part in zip(places, parts, strict=True))
    y0, dy, phase_y, stride_y, low_y, rows, phases_y = down
    x0, dx, phase_x, stride_x, low_x, columns, phases_x = across
    size = phases_y * phases_x * rows * columns
    if size > _ROOM * area:
        return plain
    starts = y0 * columns + x0
    offsets = (phase_y * phases_x + phase_x) * rows * columns + dy * columns + dx
    y, x = np.arange(height) - low_y, np.arange(width) - low_x
    if stride_y == stride_x == 1 and y[0] >= 0 and y[-1] < rows and x[0] >= 0 and x[-1] < columns:
        homes = (y[:, None] * columns + x).reshape(-1)
        return Frame(table, None, homes, width if columns > width else area, size, starts, offsets)
    y = (np.arange(phases_y)[:, None] + np.arange(rows) * stride_y + low_y).reshape(phases_y, 1, rows, 1)
    x = (np.arange(phases_x)[:, None] + np.arange(columns) * stride_x + low_x).reshape(1, phases_x, 1, columns)
    pixels = np.where((y >= 0) & (y < height) & (x >= 0) & (x < width), y * width + x, area)
    moved = (starts + offsets[:, None]).astype(np.uint32)
    return Frame(moved, torch.from_numpy(pixels.reshape(-1)), np.arange(size), size, size, starts, offsets)


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
                if not fast.is_same(_correlate(gradient, images, table, bits), sums):
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


def make_table(places: Tensor) -> Table:
    """A table from pixel numbers [window, places]."""
    return Table(places.numpy().astype(np.uint32))


def _digits(bits: int) -> int:
    """How many 16-bit integers stand for one of `bits` bits."""
    return 1 if bits == fast.DIGIT_BITS else 3


def _need() -> ModuleType:
    found = loops()
    if found is None:
        raise RuntimeError("windows were met where no compiled loops are used")
    return found


def multiply_windows(images: Tensor, matrix: Tensor, table: Table, bits: int) -> Tensor:
    """Rule N4: `matrix` [out, rows] times every window of `images`: [batch, out, places]."""
    return _multiply(_need(), images, matrix, table, bits)


def _put_together(frame: Frame) -> tuple[Any, Any]:
    """The table and the order of its places, those whose windows meet the padding in the same parts side by side.

    Where there are starts, or padding is rare, the places stay as they are. It is not in the gradient of the image of
    one with strides: a place there is met by few parts of the window, and others need not be multiplied.
    """
    table = frame.table
    places = np.arange(table.shape[1])
    is_padding = table == frame.homes.size
    if not frame.offsets.size and 3 * int(is_padding.sum()) > table.size:
        places = np.lexsort((places, *is_padding))
        table = np.ascontiguousarray(table[:, places])
    return table, places


def _multiply(windows: ModuleType, images: Tensor, matrix: Tensor, table: Table, bits: int) -> Tensor:
    from milon.gpu import kernels_pairs

    frame, matrix = table.frame(images.shape[2], images.shape[3]), matrix.contiguous()
    images = frame.take(images)
    batch, channels = images.shape[:2]
    outer, (window, places) = matrix.shape[0], frame.table.shape
    pairs, panels = (channels + 1) // 2 * window, -(-outer // windows.ROWS)
    size = _digits(bits) * panels * pairs * windows.ROWS
    held = fast.flat(fast.spaces.take("left", (size + windows.LANES,), torch.int32).zero_())
    rows, back, ends = held[:size], np.zeros(panels * windows.ROWS), np.empty((panels, pairs + 1), np.int32)
    given = (fast.flat(matrix), fast.patterns(matrix), channels, window, bits, rows, back)
    fast.split(kernels_pairs.pack_rows, outer, matrix.numel(), *given)
    fast.split(kernels_pairs.find_blocks_of_rows, panels, matrix.numel(), rows, pairs, bits, ends)
    together = max(1, min(batch, windows.COLUMNS // places))
    in_order, order = _put_together(frame)
    result = torch.empty((batch, outer, places))
    fast.split(
        windows.multiply_windows, -(-batch // together), result.numel() * pairs,
        fast.flat(images), fast.patterns(images), in_order, order, frame.plane, channels, together, rows, ends, back,
        outer, bits, fast.flat(result),
    )  # fmt: skip
    return result


def correlate_windows(gradient: Tensor, images: Tensor, table: Table, bits: int) -> Tensor:
    """Rule N4: for every output channel and row of the matrix of windows, the product over places and images."""
    _need()
    return _correlate(gradient, images, table, bits)


def _find_scales(loops: ModuleType, images: Tensor, table: Any, bits: int) -> tuple[Any, Any]:
    """Forth and back for every (channel, part of the window), over all places and images [batch, channels, pixels]."""
    from milon.gpu.kernels_cpu import scales_of

    channels, area = images.shape[1:]
    greatest = np.empty(channels * (area + 1), np.int32)
    fast.split(loops.greatest_of_channels, channels, images.numel(), fast.patterns(images), channels, area, greatest)
    rows = channels * table.shape[0]
    found, forth, back = np.empty(rows, np.int32), np.empty(rows), np.zeros(rows + loops.ROWS)
    fast.split(loops.greatest_of_rows, channels, table.size * channels, greatest, table, area, found)
    scales_of(0, rows, found, bits, forth, back)  # behind them zeros, for rows of a tile that are not there
    return forth, back


def _correlate(gradient: Tensor, images: Tensor, table: Table, bits: int) -> Tensor:
    from milon.gpu import kernels_correlate as loops
    from milon.gpu.kernels_tiles import COLUMNS, ROWS

    frame = table.frame(images.shape[2], images.shape[3])
    images = frame.take(images)
    batch, channels = images.shape[:2]
    outer, (window, places) = gradient.shape[1], frame.table.shape
    gradient = gradient.reshape(batch, outer, places).contiguous()
    pairs, stripes = (places + 1) // 2, -(-outer // COLUMNS)
    together, step = max(1, min(batch, _LINE_PAIRS // pairs)), min(pairs, _LINE_PAIRS)
    size = _digits(bits) * stripes * batch * pairs * COLUMNS
    packed = fast.flat(fast.spaces.take("right", (size,), torch.int32))
    all_places = np.arange(places, dtype=np.uint32).reshape(1, places)
    outer_forth, outer_back = _find_scales(loops, gradient, all_places, bits)
    given = (fast.flat(gradient), batch, outer, places, outer_forth, outer_back, bits, packed)
    fast.split(loops.pack_gradient, batch, gradient.numel(), *given)
    parts = -(-batch // together)
    ends = np.empty((parts * -(-pairs // step) * stripes, together * step + 1), np.int32)
    sizes = (packed, batch, pairs, stripes, together, step, bits, ends)
    fast.split(loops.find_gradient_blocks, parts, gradient.numel(), *sizes)
    forth, back = _find_scales(loops, images, frame.table, bits)
    result = torch.empty(outer, channels * window)
    fast.split(
        loops.correlate, -(-channels * window // ROWS), result.numel() * places,
        fast.flat(images), frame.table, frame.plane, channels, together, step, forth, back, packed, ends,
        outer_back[:outer], outer, bits, fast.flat(result),
    )  # fmt: skip
    return result

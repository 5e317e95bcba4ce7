"""Convolutions on a CPU, a few images at a time: the matrix of windows never exists as a whole."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from milon.gpu import exact, fast
from milon.pol.windows import Geometry

_MATRIX_ELEMENTS = 1 << 20  # of windows at a time: four MiB, which the second or third cache holds
_DIGIT_TERMS_MAX = 1 << 19  # totals of products of digits (at most 2^12 each) stay within int32


def loops() -> ModuleType | None:
    """The compiled loops of windows, or None where compiled loops are not used."""
    if fast.kernels() is None:
        return None
    from milon.gpu import kernels_windows

    return kernels_windows


def is_fit(geometry: Geometry, device: torch.device) -> bool:
    """Whether the quick way exists for a convolution."""
    sizes = (geometry.batch, *geometry.channels, *geometry.image, *geometry.output)
    return device.type == "cpu" and geometry.groups == 1 and 0 not in sizes and loops() is not None


def is_fit_for_weights(geometry: Geometry, bits: int, device: torch.device) -> bool:
    """The same for the gradient of a weight, whose sums run over all places and images."""
    places = geometry.output[0] * geometry.output[1]
    is_exact_by_image = places <= 1 << (exact.FLOAT64_BITS - 2 * bits)
    is_exact_in_all = places * geometry.batch <= 1 << (exact.INT64_BITS - 2 * bits)
    return is_exact_by_image and is_exact_in_all and is_fit(geometry, device)


def _uses_digits(bits: int, work: int, inner: int) -> bool:
    return bits == fast.DIGIT_BITS and inner <= fast.DIGIT_TERMS_MAX and work > 1 << 21 and fast.has_digit_products()


def make_table(places: Tensor) -> Any:
    """What `kernels_windows` calls `table`, from pixel numbers [window, places]."""
    return places.numpy().astype(np.uint32)


def _lay(images: Tensor, first: int, count: int, table: Any) -> Tensor:
    """The matrix of windows [rows, count * places] of some images."""
    windows = loops()
    if windows is None:
        raise RuntimeError("windows were laid out where no compiled loops are used")
    channels, area = images.shape[1], images.shape[2] * images.shape[3]
    shape = (channels * table.shape[0], count * table.shape[1])
    matrix = fast.spaces.take("windows", shape, torch.float32)
    some = fast.flat(images[first : first + count])
    fast.split(windows.lay_windows, count * channels, matrix.numel(), some, table, channels, area, fast.flat(matrix))
    return matrix


def multiply_windows(images: Tensor, matrix: Tensor, table: Any, bits: int) -> Tensor:
    """Rule N4: `matrix` [out, rows] times every window of `images`: [batch, out, places]."""
    images = images.contiguous()
    batch, (outer, rows), places = images.shape[0], matrix.shape, table.shape[1]
    together = max(1, min(batch, _MATRIX_ELEMENTS // (rows * places)))
    product = _product_with(matrix, bits, together * places)
    result = torch.empty((batch, outer, places))
    for first in range(0, batch, together):
        count = min(together, batch - first)
        found = product(_lay(images, first, count, table))
        result[first : first + count] = found.view(outer, count, places).transpose(0, 1)
    return result


def _product_with(left: Tensor, bits: int, columns: int) -> Callable[[Tensor], Tensor]:
    """A function from a right operand to the product; `left` is quantised once."""
    kernels = fast.kernels()
    if kernels is None:
        raise RuntimeError("a product was asked for where no compiled loops are used")
    rows, inner = left.shape
    if _uses_digits(bits, rows * inner * columns, inner):
        left_digits, left_back = fast.digits(kernels, left, 1, "left")

        def by_digits(right: Tensor) -> Tensor:
            right_digits, right_back = fast.digits(kernels, right, 0, "right")
            width = right.shape[1]
            products = fast.spaces.take("products", (2, 2, rows, width), torch.int32)
            fast.multiply_digits(left_digits, right_digits, products)
            found = fast.spaces.take("found", (rows, width), torch.float32)
            scales = (fast.flat(left_back), fast.flat(right_back), fast.flat(found))
            fast.split(kernels.scale_back_digits, rows, products.numel(), fast.flat(products), rows, width, *scales)
            return found

        return by_digits
    left_integers, left_scales = fast.quantize(kernels, left.unsqueeze(0), 2, bits, "left")

    def by_float64(right: Tensor) -> Tensor:
        right_integers, right_back = fast.quantize(kernels, right.unsqueeze(0), 1, bits, "right")
        width = right.shape[1]
        if inner <= 1 << (exact.FLOAT64_BITS - 2 * bits):
            totals = fast.spaces.take("products", (1, rows, width), torch.float64)
            torch.bmm(left_integers, right_integers, out=totals)
        else:
            totals = exact.product_of_integers(left_integers, right_integers, bits)
        found = fast.spaces.take("found", (rows, width), torch.float32)
        scales = (fast.flat(left_scales), fast.flat(right_back), fast.flat(found))
        fast.split(kernels.scale_back, rows, totals.numel(), fast.flat(totals), rows, width, *scales)
        return found

    return by_float64


def correlate_windows(gradient: Tensor, images: Tensor, table: Any, bits: int) -> Tensor:
    """Rule N4: for every output channel and row of the matrix of windows, the product over places and images."""
    kernels, windows = fast.kernels(), loops()
    if kernels is None or windows is None:
        raise RuntimeError("windows were correlated where no compiled loops are used")
    images = images.contiguous()
    (batch, outer), (window, places) = gradient.shape[:2], table.shape
    channels, area = images.shape[1], images.shape[2] * images.shape[3]
    rows = channels * window
    found = torch.empty(rows, dtype=torch.int32)
    forth, back = torch.empty(rows, dtype=torch.float64), torch.empty(rows, dtype=torch.float64)
    given = (fast.patterns(images), table, channels, area, fast.flat(found))
    fast.split(windows.greatest_of_rows, channels, batch * rows * places, *given)
    kernels.scales_of(0, rows, fast.flat(found), bits, fast.flat(forth), fast.flat(back))
    left = gradient.reshape(batch, outer, places).transpose(0, 1).reshape(outer, batch * places)
    together = max(1, min(batch, _MATRIX_ELEMENTS // (rows * places)))
    if bits != fast.DIGIT_BITS:
        together = min(together, max(1, (1 << (exact.FLOAT64_BITS - 2 * bits)) // places))
    result = torch.empty(outer, rows)
    uses_digits = places * batch <= _DIGIT_TERMS_MAX and _uses_digits(bits, outer * rows * places, together * places)
    add = _DigitTotals(kernels, left, rows) if uses_digits else _WideTotals(kernels, left, rows, bits)
    for first in range(0, batch, together):
        count = min(together, batch - first)
        add.add(_lay(images, first, count, table), forth, first * places)
    add.scale_back(fast.flat(back), result)
    return result


class _DigitTotals:
    """Sums of products over places by digits (M = 13)."""

    def __init__(self, kernels: ModuleType, left: Tensor, rows: int) -> None:
        self._kernels = kernels
        self._left, self._back = fast.digits(kernels, left, 1, "left")
        shape = (2, 2, left.shape[0], rows)
        self._totals = fast.spaces.take("totals", shape, torch.int32).zero_()
        self._part = fast.spaces.take("products", shape, torch.int32)

    def add(self, matrix: Tensor, forth: Tensor, place: int) -> None:
        """Add the places of some images."""
        rows, width = matrix.shape
        right = fast.spaces.take("right", (2, rows, width), torch.int8)
        into = (fast.flat(right[0]), fast.flat(right[1]))
        split = (self._kernels.digits_by_scale, rows, matrix.numel(), fast.flat(matrix), width, fast.flat(forth))
        fast.split(*split, *into)
        fast.multiply_digits(self._left[:, :, place : place + width], right.mT, self._part)
        self._totals += self._part

    def scale_back(self, back: Any, result: Tensor) -> None:
        """The totals as binary32."""
        rows, columns = result.shape
        scales = (fast.flat(self._back), back, fast.flat(result))
        given = fast.flat(self._totals)
        fast.split(self._kernels.scale_back_digits, rows, self._totals.numel(), given, rows, columns, *scales)


class _WideTotals:
    """Sums of products over places in binary64, added as int64 where binary64 would not hold them all."""

    def __init__(self, kernels: ModuleType, left: Tensor, rows: int, bits: int) -> None:
        self._kernels = kernels
        integers, self._back = fast.quantize(kernels, left.unsqueeze(0), 2, bits, "left")
        self._left = integers[0]
        self._is_wide = left.shape[1] > 1 << (exact.FLOAT64_BITS - 2 * bits)
        shape = (left.shape[0], rows)
        self._totals = torch.zeros(shape, dtype=torch.int64 if self._is_wide else torch.float64)
        self._part = fast.spaces.take("products", shape, torch.float64)

    def add(self, matrix: Tensor, forth: Tensor, place: int) -> None:
        """Add the places of some images."""
        rows, width = matrix.shape
        right = fast.spaces.take("right", (rows, width), torch.float64)
        given = (fast.flat(matrix), width, fast.flat(forth), fast.flat(right))
        fast.split(self._kernels.integers_by_scale, rows, matrix.numel(), *given)
        torch.mm(self._left[:, place : place + width], right.mT, out=self._part)
        if self._is_wide:
            windows: Any = loops()
            parts = (fast.flat(self._totals), fast.flat(self._part))
            fast.split(windows.add_integers, self._part.numel(), self._part.numel(), *parts)
        else:
            self._totals += self._part

    def scale_back(self, back: Any, result: Tensor) -> None:
        """The totals as binary32."""
        totals = exact.integer_to_float64(self._totals) if self._is_wide else self._totals
        rows, columns = result.shape
        scales = (fast.flat(self._back), back, fast.flat(result))
        fast.split(self._kernels.scale_back, rows, totals.numel(), fast.flat(totals), rows, columns, *scales)

"""Rewrites of ATen's resizing of images: every pixel of the result is a weighted sum of pixels at fixed places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from milon.gpu.translation import Rewrites, Value, Walk, register
from milon.pol.shapes import compute_product

RESIZE: Rewrites = {}


@dataclass(frozen=True, slots=True)
class _Taps:
    """What a resized plane is made of."""

    places: Tensor  # int64 [taps, pixels of the result]: row * width + column in the plane that is read
    weights: Tensor | None  # binary32 [taps, pixels of the result]; None: one tap, as it is


def _ratio(inner: int, outer: int, scale: float | None) -> float:
    return 1.0 / scale if scale is not None and scale > 0 else inner / outer


def _nearest_axis(inner: int, outer: int, scale: float | None) -> tuple[Tensor, Tensor]:
    spots = (torch.arange(outer, dtype=torch.float64) * _ratio(inner, outer, scale)).floor().long()
    return spots.clamp(max=inner - 1).unsqueeze(0), torch.ones(1, outer, dtype=torch.float64)


def _linear_axis(inner: int, outer: int, scale: float | None, is_aligned: bool) -> tuple[Tensor, Tensor]:
    """Two places for each place of the result, and their weights (both [2, outer])."""
    spots = torch.arange(outer, dtype=torch.float64)
    if is_aligned:
        spots = spots * ((inner - 1) / (outer - 1) if outer > 1 else 0.0)
    else:
        spots = ((spots + 0.5) * _ratio(inner, outer, scale) - 0.5).clamp(min=0.0)
    first = spots.floor().long().clamp(max=inner - 1)
    after = (spots - first).clamp(max=1.0)
    return torch.stack((first, (first + 1).clamp(max=inner - 1))), torch.stack((1.0 - after, after))


def _plane(axes: Sequence[tuple[Tensor, Tensor]], width: int) -> _Taps:
    """Taps of a plane from those of its two axes; weights are multiplied in binary64 and rounded once."""
    (rows, down), (columns, across) = axes
    places = rows[:, None, :, None] * width + columns[None, :, None, :]
    weights = (down[:, None, :, None] * across[None, :, None, :]).float()
    taps = places.shape[0] * places.shape[1]
    if taps == 1:
        return _Taps(places.reshape(1, -1), None)
    return _Taps(places.reshape(taps, -1), weights.reshape(taps, -1))


def _make_taps(
    image: Sequence[int], size: Sequence[int], scales: Sequence[Any], is_linear: bool, is_aligned: bool
) -> _Taps:
    """Taps for images [batch, channels, (height,) width]; an image without a height has one of 1."""
    inner, outer, given = list(image[2:]), list(size), list(scales)
    if len(inner) == 1:
        inner, outer, given = [1, *inner], [1, *outer], [None, *given]
    axes = []
    for number, (one, other) in enumerate(zip(inner, outer, strict=True)):
        scale = given[number] if number < len(given) else None
        is_plain = not is_linear or (len(image) == 3 and number == 0)
        axes.append(_nearest_axis(one, other, scale) if is_plain else _linear_axis(one, other, scale, is_aligned))
    return _plane(axes, inner[1])


def _resize(walk: Walk, image: Value, taps: _Taps) -> Value:
    builder = walk.builder
    shape = walk.shape(image)
    planes = builder.reshape(image.number, (*shape[:2], compute_product(shape[2:])))
    wide = (*shape[:2], taps.places.numel())
    lines = builder.expand(builder.constant(taps.places.reshape(-1)), wide)
    picked = builder.node("gather", planes, lines, attributes=((2,),))
    if taps.weights is not None:
        picked = builder.reshape(picked, (*shape[:2], *taps.places.shape))
        picked = builder.node("mul", picked, builder.constant(taps.weights))
        picked = builder.node("sum", picked, attributes=((2,), (0,)))
    return Value(builder.reshape(picked, walk.result_shape()))


def _resize_backward(walk: Walk, gradient: Value, taps: _Taps) -> Value:
    builder = walk.builder
    shape = walk.result_shape()
    count, pixels = taps.places.shape
    terms = builder.reshape(gradient.number, (*shape[:2], 1, pixels))
    if taps.weights is not None:
        terms = builder.node("mul", terms, builder.constant(taps.weights))
    terms = builder.reshape(terms, (*shape[:2], count * pixels))
    lines = builder.expand(builder.constant(taps.places.reshape(-1)), builder.shape_of(terms))
    spread = builder.node("scatter_sum", terms, lines, attributes=((2,), (compute_product(shape[2:]),)))
    return Value(builder.reshape(spread, shape))


@register(RESIZE, "upsample_nearest1d.default", "upsample_nearest2d.default")
def _nearest(walk: Walk, image: Value, size: Sequence[int], *scales: Any) -> Value:
    return _resize(walk, image, _make_taps(walk.shape(image), size, scales, False, False))


@register(RESIZE, "upsample_nearest1d_backward", "upsample_nearest2d_backward")
def _nearest_backward(walk: Walk, gradient: Value, size: Sequence[int], image: Sequence[int], *scales: Any) -> Value:
    return _resize_backward(walk, gradient, _make_taps(image, size, scales, False, False))


@register(RESIZE, "upsample_linear1d.default", "upsample_bilinear2d.default")
def _linear(walk: Walk, image: Value, size: Sequence[int], is_aligned: bool, *scales: Any) -> Value:
    return _resize(walk, image, _make_taps(walk.shape(image), size, scales, True, is_aligned))


@register(RESIZE, "upsample_linear1d_backward", "upsample_bilinear2d_backward")
def _linear_backward(
    walk: Walk, gradient: Value, size: Sequence[int], image: Sequence[int], is_aligned: bool, *scales: Any
) -> Value:
    return _resize_backward(walk, gradient, _make_taps(image, size, scales, True, is_aligned))

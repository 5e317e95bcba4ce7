"""Which terms each element of a reduction is made of: index functions for every such operation of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from milon.gpu.dispute_groups import (
    Group,
    Spots,
    make_extreme,
    make_first_best,
    make_integer_sum,
    make_product,
    make_scatter,
    make_sum,
)
from milon.gpu.dispute_numbers import Numbers
from milon.gpu.dispute_points import Shape, Site, join_element, split_element
from milon.pol.shapes import DType, compute_product
from milon.pol.windows import Geometry, compute_convolution, compute_pooling


def _split_terms(terms: Numbers, sizes: Shape) -> list[Numbers]:
    """Coordinates of term numbers, row-major over axes of these sizes; no axes make one term of no coordinates."""
    return list(np.unravel_index(terms, sizes)) if sizes else []


def _join(coordinates: Sequence[Numbers | int], shape: Shape, terms: Numbers) -> Numbers:
    """Row-major places of elements at these coordinates, some of which are the same for every term."""
    found = np.zeros(len(terms), np.int64)
    for coordinate, size in zip(coordinates, shape, strict=True):
        found = found * size + coordinate
    return found


def _over_axes(shape: Shape, axes: Shape, keep: bool) -> tuple[int, Spots]:
    """How many terms a reduction over `axes` has for an element, and which elements they are."""
    sizes = tuple(shape[axis] for axis in axes)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    lasting = kept if keep else tuple(size for axis, size in enumerate(shape) if axis not in axes)

    def spots(element: int, terms: Numbers) -> Sequence[Numbers]:
        outer = split_element(element, lasting)
        own = iter([at for axis, at in enumerate(outer) if axis not in axes] if keep else outer)
        inner = iter(_split_terms(terms, sizes))
        coordinates = [next(inner) if axis in axes else next(own) for axis in range(len(shape))]
        return (_join(coordinates, shape, terms),)

    return compute_product(sizes), spots


def _sum(site: Site) -> Group:
    axes, keep = site.node.attributes[0], bool(site.node.attributes[1][0])
    terms, spots = _over_axes(site.operands[0].shape, axes, keep)
    is_float = site.result.dtype is DType.FLOAT32
    return make_sum(terms, spots) if is_float else make_integer_sum(terms, spots)


def _extreme(site: Site) -> Group:
    axes, keep = site.node.attributes[0], bool(site.node.attributes[1][0])
    terms, spots = _over_axes(site.operands[0].shape, axes, keep)
    is_float = site.result.dtype is DType.FLOAT32
    return make_extreme(terms, spots, site.node.operation == "amax", is_float)


def _argmax(site: Site) -> Group:
    axis, keep = site.node.attributes[0], bool(site.node.attributes[1][0])
    terms, spots = _over_axes(site.operands[0].shape, axis, keep)
    is_float = site.operands[0].dtype is DType.FLOAT32
    return make_first_best(terms, spots, lambda element, numbers: (numbers,), is_float)


def _scatter_sum(site: Site) -> Group:
    (axis,), (size,) = site.node.attributes
    shape = site.operands[0].shape

    def spots(element: int, terms: Numbers) -> Sequence[Numbers]:
        coordinates: list[Numbers | int] = [*split_element(element, site.result.shape)]
        coordinates[axis] = terms
        return (_join(coordinates, shape, terms),)

    return make_scatter(shape[axis], spots, lambda element: split_element(element, site.result.shape)[axis], size)


def _matmul(site: Site) -> Group:
    left, right = (operand.shape for operand in site.operands)
    inner, columns = right[-2], right[-1]

    def spots(element: int, terms: Numbers) -> Sequence[Numbers]:
        row, column = divmod(element, columns)  # rows are counted over all matrices
        return row * inner + terms, (row // left[-2] * inner + terms) * columns + column

    return make_product(inner, spots, site.magnitude_bits)


def _find_pixels(geometry: Geometry, place: Sequence[Numbers | int], down: Numbers, across: Numbers) -> Numbers:
    """The pixel of a plane under each place of the window of an output's place; -1 in the padding."""
    taps = (down, across)
    spots = [
        place[axis] * geometry.stride[axis] - geometry.padding[axis] + taps[axis] * geometry.dilation[axis]
        for axis in (0, 1)
    ]
    inside = _is_inside(spots[0], geometry.image[0]) & _is_inside(spots[1], geometry.image[1])
    return np.where(inside, spots[0] * geometry.image[1] + spots[1], -1)


def _find_outputs(geometry: Geometry, pixel: Sequence[int], down: Numbers, across: Numbers) -> Numbers:
    """The place of the output whose window has each of its places over a pixel; -1 where there is none."""
    output, taps = geometry.output, (down, across)
    found, inside = [], np.ones(len(down), bool)
    for axis in (0, 1):
        shifted = pixel[axis] + geometry.padding[axis] - taps[axis] * geometry.dilation[axis]
        places = shifted // geometry.stride[axis]
        inside &= (shifted % geometry.stride[axis] == 0) & _is_inside(places, output[axis])
        found.append(places)
    return np.where(inside, found[0] * output[1] + found[1], -1)


def _is_inside(numbers: Numbers, size: int) -> Numbers:
    return (numbers >= 0) & (numbers < size)


def _in_plane(planes: Numbers | int, places: Numbers, area: int) -> Numbers:
    """Elements at places of planes of `area` elements; -1 where the place is -1."""
    return np.where(places < 0, -1, planes * area + places)


def _convolution(site: Site) -> Group:
    geometry = compute_convolution(site.operands[0].shape, site.operands[1].shape, site.node.attributes)
    inner, outer = geometry.channels[0] // geometry.groups, geometry.channels[1] // geometry.groups
    sizes, area = (inner, *geometry.kernel), geometry.image[0] * geometry.image[1]
    terms_count = compute_product(sizes)

    def spots(element: int, terms: Numbers) -> Sequence[Numbers]:
        image, channel, *place = split_element(element, site.result.shape)
        ahead, down, across = _split_terms(terms, sizes)
        planes = image * geometry.channels[0] + channel // outer * inner + ahead
        pixels = _find_pixels(geometry, place, down, across)
        return _in_plane(planes, pixels, area), channel * terms_count + terms

    return make_product(terms_count, spots, site.magnitude_bits)


def _convolution_input_gradient(site: Site) -> Group:
    geometry = compute_convolution(site.node.attributes[4], site.operands[1].shape, site.node.attributes)
    inner, outer = geometry.channels[0] // geometry.groups, geometry.channels[1] // geometry.groups
    sizes, area = (outer, *geometry.kernel), geometry.output[0] * geometry.output[1]
    weight = site.operands[1].shape

    def spots(element: int, terms: Numbers) -> Sequence[Numbers]:
        image, channel, *pixel = split_element(element, site.result.shape)
        ahead, down, across = _split_terms(terms, sizes)
        filters = channel // inner * outer + ahead
        places = _find_outputs(geometry, pixel, down, across)
        gradients = _in_plane(image * geometry.channels[1] + filters, places, area)
        return gradients, _join((filters, channel % inner, down, across), weight, terms)

    return make_product(compute_product(sizes), spots, site.magnitude_bits)


def _convolution_weight_gradient(site: Site) -> Group:
    geometry = compute_convolution(site.operands[1].shape, site.node.attributes[4], site.node.attributes)
    inner, outer = geometry.channels[0] // geometry.groups, geometry.channels[1] // geometry.groups
    sizes, area = (geometry.batch, *geometry.output), geometry.image[0] * geometry.image[1]

    def spots(element: int, terms: Numbers) -> Sequence[Numbers]:
        channel, ahead, down, across = split_element(element, site.result.shape)
        images, row, column = _split_terms(terms, sizes)
        gradients = _join((images, channel, row, column), site.operands[0].shape, terms)
        none = np.zeros(len(terms), np.int64)
        pixels = _find_pixels(geometry, (row, column), none + down, none + across)
        return gradients, _in_plane(images * geometry.channels[0] + channel // outer * inner + ahead, pixels, area)

    return make_product(compute_product(sizes), spots, site.magnitude_bits)


def _window_spots(geometry: Geometry, shape: Shape) -> Spots:
    """For each element of a result of `shape`, the pixels under its window; -1 in the padding."""
    area = geometry.image[0] * geometry.image[1]

    def spots(element: int, terms: Numbers) -> Sequence[Numbers]:
        image, channel, *place = split_element(element, shape)
        pixels = _find_pixels(geometry, place, *_split_terms(terms, geometry.kernel))
        return (_in_plane(join_element((image, channel), shape[:2]), pixels, area),)

    return spots


def _max_pool_indices(site: Site) -> Group:
    geometry = compute_pooling(site.operands[0].shape, site.node.attributes)
    area = geometry.image[0] * geometry.image[1]
    spots = _window_spots(geometry, site.result.shape)

    def names(element: int, terms: Numbers) -> Sequence[Numbers]:
        places = spots(element, terms)[0]
        return (np.where(places < 0, -1, places % area),)

    return make_first_best(compute_product(geometry.kernel), spots, names, is_float=True)


def _window_sum(site: Site) -> Group:
    geometry = compute_pooling(site.operands[0].shape, site.node.attributes)
    return make_sum(compute_product(geometry.kernel), _window_spots(geometry, site.result.shape))


def _window_spread(site: Site) -> Group:
    geometry = compute_pooling(site.node.attributes[4], site.node.attributes)
    area = geometry.output[0] * geometry.output[1]

    def spots(element: int, terms: Numbers) -> Sequence[Numbers]:
        image, channel, *pixel = split_element(element, site.result.shape)
        places = _find_outputs(geometry, pixel, *_split_terms(terms, geometry.kernel))
        return (_in_plane(image * geometry.channels[0] + channel, places, area),)

    return make_sum(compute_product(geometry.kernel), spots)


_GROUPS: dict[str, Callable[[Site], Group]] = {
    "sum": _sum,
    "amax": _extreme,
    "amin": _extreme,
    "argmax": _argmax,
    "scatter_sum": _scatter_sum,
    "matmul": _matmul,
    "convolution": _convolution,
    "convolution_input_gradient": _convolution_input_gradient,
    "convolution_weight_gradient": _convolution_weight_gradient,
    "max_pool_indices": _max_pool_indices,
    "window_sum": _window_sum,
    "window_spread": _window_spread,
}


def make_group(site: Site) -> Group | None:
    """How the elements of the result are made of terms; None for an operation that has none."""
    make = _GROUPS.get(site.node.operation)
    return None if make is None else make(site)

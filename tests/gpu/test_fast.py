"""The quick ways give the bits of the reference in plain torch, whatever the numbers, on any number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from milon.gpu import exact, fast, fast_windows, kernels_pairs
from milon.gpu.train import compute_fingerprint, float_bits
from milon.pol.windows import Geometry, compute_convolution

BITS = st.sampled_from((13, 21))
EDGES = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0**-149, -(2.0**-149), 2.0**-126, 3.4028234663852886e38, 8191.5, 2.0**-14)
HOSTILE = (*EDGES, float("inf"), float("-inf"), float("nan"))


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    fast.choose(fast.COMPILED_OPERATIONS_MIN)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@st.composite
def matrices(draw: st.DrawFn, rows: int, columns: int) -> Tensor:
    """Numbers of one scale or of all scales, some replaced by hostile ones; laid out by rows or by columns."""
    chance = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    values = torch.randn(rows, columns, generator=chance)
    spread = draw(st.sampled_from((0, 0, 4, 60, 140)))
    values *= torch.exp2(torch.randint(-spread, spread + 1, values.shape, generator=chance).float())
    values *= 2.0 ** draw(st.sampled_from((0, 0, -140, -20, 100)))
    for _ in range(draw(st.integers(0, 3)) if values.numel() else 0):
        row, column = draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))
        values[row, column] = draw(st.sampled_from(HOSTILE))
    return values.t().contiguous().t() if draw(st.booleans()) else values


def same(found: Tensor, wanted: Tensor) -> bool:
    """Equal shapes and equal bits, every NaN being one."""
    bits = [exact.canonical_nan(tensor).contiguous().view(torch.int32) for tensor in (found, wanted)]
    return found.shape == wanted.shape and torch.equal(*bits)


def test_compiled_loops_are_used() -> None:
    assert fast.kernels() is not None


@settings(deadline=None, max_examples=80)
@given(st.data(), BITS)
def test_products(data: st.DataObject, bits: int) -> None:
    rows, inner, columns = (data.draw(st.integers(0, limit)) for limit in (40, 70, 40))
    left, right = data.draw(matrices(rows, inner)), data.draw(matrices(inner, columns))
    assert same(fast.multiply(left, right, bits), exact.exact_matmul(left, right, bits))


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_products_of_digits(data: st.DataObject) -> None:
    rows, inner, columns = (data.draw(st.integers(1, limit)) for limit in (300, 200, 90))
    left, right = data.draw(matrices(rows, inner)), data.draw(matrices(inner, columns))
    loops = fast.kernels()
    assert loops is not None
    assert same(fast.multiply_in_digits(loops, left, right), exact.exact_matmul(left, right, 13))


@pytest.mark.parametrize("inner", [2049, 5000])
def test_products_in_blocks_and_in_groups(inner: int) -> None:
    chance = torch.Generator().manual_seed(inner)
    left, right = torch.randn(2, 3, 4, inner, generator=chance), torch.randn(2, 3, inner, 5, generator=chance)
    left[0, 0, 0, 0] = torch.nan
    for bits in (13, 21):
        assert same(fast.multiply(left, right, bits), exact.exact_matmul(left, right, bits))
        turned = left.transpose(0, 1), right.transpose(0, 1)
        assert same(fast.multiply(*turned, bits), exact.exact_matmul(*turned, bits))


@settings(deadline=None, max_examples=80)
@given(st.data(), st.sampled_from(([0], [1], [2], [0, 1], [1, 2], [0, 2], [0, 1, 2], [])), st.booleans())
def test_sums(data: st.DataObject, axes: list[int], keep: bool) -> None:
    first, second, third = (data.draw(st.integers(0, limit)) for limit in (5, 40, 30))
    values = data.draw(matrices(first * second, third)).reshape(first, second, third)
    assert same(fast.total(values, axes, keep), exact.exact_sum(values, axes, keep))


def test_long_sums_on_two_threads() -> None:
    values = torch.randn(700, 1300, generator=torch.Generator().manual_seed(0))
    for axes in ([0], [1], [0, 1]):
        assert same(fast.total(values, axes, False), exact.exact_sum(values, axes, False))


def reference_windows(images: Tensor, geometry: Geometry) -> Tensor:
    """[rows, batch * places]: torch's own layout of windows, which moves numbers and computes nothing."""
    stretch = (geometry.kernel, geometry.dilation, geometry.padding, geometry.stride)
    columns = torch.nn.functional.unfold(images, *stretch)
    return columns.transpose(0, 1).reshape(columns.shape[1], -1)


@settings(deadline=None, max_examples=40)
@given(st.data(), BITS)
def test_convolutions_and_the_gradients_of_weights(data: st.DataObject, bits: int) -> None:
    batch, inner, outer, size = (data.draw(st.integers(1, limit)) for limit in (5, 4, 5, 9))
    limits = ((1, 3), (1, 3), (0, 2), (1, 2))
    pairs = [data.draw(st.tuples(st.integers(*limit), st.integers(*limit))) for limit in limits]
    kernel, stride, padding, dilation = pairs
    reach = [dilation[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
    size = max(size, *reach)
    images = data.draw(matrices(batch * inner, size * size)).reshape(batch, inner, size, size)
    weight = data.draw(matrices(outer, inner * kernel[0] * kernel[1]))
    attributes = (stride, padding, dilation, (1,))
    geometry = compute_convolution(tuple(images.shape), (outer, inner, *kernel), attributes)
    pixels = torch.arange(size * size).add(1).float().reshape(1, 1, size, size)
    table = fast_windows.make_table(reference_windows(pixels, geometry).long().sub(1).remainder(size * size + 1))
    windows = reference_windows(images, geometry)
    wanted = exact.exact_matmul(weight, windows, bits).view(outer, batch, -1).transpose(0, 1)
    assert same(fast_windows.multiply_windows(images, weight, table, bits), wanted)
    gradient = data.draw(matrices(batch, outer * wanted.shape[2])).reshape(batch, outer, *geometry.output)
    left = gradient.reshape(batch, outer, -1).transpose(0, 1).reshape(outer, -1)
    found = fast_windows.correlate_windows(gradient, images, table, bits)
    assert same(found, exact.exact_matmul(left, windows.t(), bits))


@settings(deadline=None)
@given(st.lists(st.sampled_from(HOSTILE), max_size=5))
def test_specials_are_found(values: list[float]) -> None:
    for filler in (0, 1 << 15):
        tensor = torch.cat((torch.ones(filler), torch.tensor(values, dtype=torch.float32)))
        assert fast.has_nan(tensor) == bool(tensor.isnan().any())
        assert fast.is_finite(tensor) == bool(tensor.isfinite().all())


def test_wrong_loops_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    loops = fast.kernels()
    assert loops is not None and fast.agrees(loops)
    wrong = loops.sum_rows

    def truncated(first: int, last: int, values: Tensor, *rest: object) -> None:
        wrong(first, last, values * 0.5, *rest)

    monkeypatch.setattr(loops, "sum_rows", truncated)
    assert not fast.agrees(loops)


def test_fingerprints_of_large_gradients() -> None:
    gradient = torch.randn(1 << 16, generator=torch.Generator().manual_seed(1)) * 1e-3
    gradient[5], gradient[6] = torch.nan, -torch.inf
    gradient[7] = torch.tensor(-1, dtype=torch.int32).view(torch.float32)  # another NaN
    loss = torch.tensor(2.5)
    found = compute_fingerprint(loss, {"b": gradient, "a": gradient})
    bits = [*float_bits(loss.reshape(1)).tolist(), *(float_bits(gradient).tolist() * 2)]
    wanted = sum(b * (2 * p + 1) for p, b in enumerate(bits)) % (1 << 64)
    assert found % (1 << 64) == wanted


def test_wrong_loops_of_windows_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions then take the plain way, with a warning and the same bits."""
    fast.choose(fast.COMPILED_OPERATIONS_MIN)
    geometry = compute_convolution((2, 3, 5, 5), (4, 3, 3, 3), ((1, 1), (1, 1), (1, 1), (1,)))
    windows = fast_windows.loops()
    assert windows is not None and fast_windows.is_fit(geometry, torch.device("cpu"))
    right = kernels_pairs.pack_rows

    def truncated(first: int, last: int, values: Tensor, *rest: object) -> None:
        right(first, last, values * 0.5, *rest)

    monkeypatch.setattr(kernels_pairs, "pack_rows", truncated)
    assert not fast_windows.agrees(windows)
    fast_windows.load_loops.cache_clear()
    with pytest.warns(UserWarning, match="convolutions differ"):
        assert not fast_windows.is_fit(geometry, torch.device("cpu"))
    assert not fast_windows.is_fit_for_weights(geometry, torch.device("cpu"))
    monkeypatch.undo()
    fast_windows.load_loops.cache_clear()
    assert fast_windows.is_fit(geometry, torch.device("cpu"))


@pytest.mark.parametrize("bits", [13, 21])
@pytest.mark.parametrize("threads", [1, 2])
def test_convolutions_of_many_panels_and_blocks(bits: int, threads: int) -> None:
    """More rows, columns, exponents and images than are met at a time."""
    chance = torch.Generator().manual_seed(bits)
    images = torch.randn(70, 41, 6, 7, generator=chance) * torch.exp2(torch.arange(42.0).reshape(6, 7) * 0.6)
    weight = torch.randn(35, 41 * 9, generator=chance)
    images[:, :7] = images.abs().amax() * images[:, :7].sign()  # the farthest totals
    weight[:3] = weight[:3].sign()
    places = torch.nn.functional.unfold(torch.arange(1.0, 43.0).reshape(1, 1, 6, 7), 3, 1, 1)[0].long()
    table = fast_windows.make_table(places.sub(1).remainder(43))
    columns = torch.nn.functional.unfold(images, 3, 1, 1).transpose(0, 1).reshape(41 * 9, -1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = fast_windows.multiply_windows(images, weight, table, bits)
        sums = fast_windows.correlate_windows(found.view(70, 35, 6, 7), images, table, bits)
    finally:
        torch.set_num_threads(before)
    assert same(found, exact.exact_matmul(weight, columns, bits).view(35, 70, 42).transpose(0, 1))
    assert same(sums, exact.exact_matmul(found.transpose(0, 1).reshape(35, -1), columns.t(), bits))

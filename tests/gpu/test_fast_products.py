"""Products by tiles give the bits of the reference, whatever the numbers, the layout and the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from milon.gpu import exact, fast, fast_products
from tests.gpu.test_fast import BITS, matrices, same


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    fast.choose(fast.COMPILED_OPERATIONS_MIN)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def tiles() -> ModuleType:
    loops = fast_products.tiles()
    if loops is None:
        pytest.skip("this processor has no products of pairs")
    return loops


@settings(deadline=None, max_examples=80)
@given(st.data(), BITS)
def test_any_sizes_and_numbers(data: st.DataObject, bits: int) -> None:
    rows, inner, columns = (data.draw(st.integers(1, limit)) for limit in (40, 80, 70))
    left, right = data.draw(matrices(rows, inner)), data.draw(matrices(inner, columns))
    assert same(fast_products.multiply(tiles(), left, right, bits), exact.exact_matmul(left, right, bits))


@pytest.mark.parametrize(("rows", "inner", "columns"), [(13, 2048, 33), (600, 515, 130), (5, 2047, 1000), (300, 3, 9)])
def test_large_ones_on_two_threads(rows: int, inner: int, columns: int) -> None:
    chance = torch.Generator().manual_seed(rows)
    left, right = torch.randn(rows, inner, generator=chance), torch.randn(inner, columns, generator=chance)
    for bits in (13, 21):
        wanted = exact.exact_matmul(left, right, bits)
        assert same(fast_products.multiply(tiles(), left, right, bits), wanted)
        turned = fast_products.multiply(tiles(), right.t(), left.t(), bits)
        assert same(turned.t(), wanted)


@pytest.mark.parametrize("bits", [13, 21])
def test_the_farthest_totals(bits: int) -> None:
    inner = 2048 if bits == 21 else 1 << 16
    left, right = torch.full((13, inner), 1.0 - 2.0**-24), torch.full((inner, 33), 2.0**-24 - 1.0)
    assert same(fast_products.multiply(tiles(), left, right, bits), exact.exact_matmul(left, right, bits))


def test_groups_and_any_layout() -> None:
    chance = torch.Generator().manual_seed(3)
    left, right = torch.randn(2, 3, 20, 40, generator=chance), torch.randn(2, 3, 40, 35, generator=chance)
    left[1, 2, 3, 4] = torch.inf
    for bits in (13, 21):
        for _ in range(7):  # every way takes its turn
            assert same(fast_products.product(left, right, bits), exact.exact_matmul(left, right, bits))
        apart = left.transpose(0, 1), right.transpose(0, 1)
        assert same(fast_products.product(*apart, bits), exact.exact_matmul(*apart, bits))


def test_products_that_tiles_cannot_hold_take_another_way() -> None:
    left, right = torch.randn(2, 2049), torch.randn(2049, 3)
    assert same(fast_products.product(left, right, 21), exact.exact_matmul(left, right, 21))
    assert fast_products.product(torch.empty(0, 3), torch.empty(3, 4), 13).shape == (0, 4)


def test_the_quickest_way_is_kept() -> None:
    calls: list[str] = []

    def slow(left: Tensor, right: Tensor, bits: int) -> Tensor:
        calls.append("slow")
        return sum((left @ right for _ in range(300)), torch.zeros(())) / 300

    def quick(left: Tensor, right: Tensor, bits: int) -> Tensor:
        calls.append("quick")
        return left

    choice = fast_products.Choice([slow, quick])
    for _ in range(10):
        choice(torch.ones(200, 200), torch.ones(200, 200), 13)
    assert calls[:4] == ["slow", "quick"] * 2 and calls[-4:] == ["quick"] * 4


def test_wrong_tiles_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    loops = tiles()
    assert fast_products.agrees(loops)
    true_product = loops.multiply_panels

    def shifted(first: int, last: int, left: Tensor, *rest: object) -> None:
        true_product(first, last, left + 1, *rest)

    monkeypatch.setattr(loops, "multiply_panels", shifted)
    assert not fast_products.agrees(loops)

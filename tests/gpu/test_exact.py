"""Sums and products against the slow reference, on numbers chosen to hurt."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from milon.gpu import exact
from milon.gpu.exact import canonical_nan, exact_matmul, exact_scatter_sum, exact_sum, integer_to_float64
from tests.gpu.numeric_reference import reference_dot, reference_sum


def bits_of(values: Tensor) -> list[int]:
    return [pattern & 0xFFFFFFFF for pattern in canonical_nan(values).reshape(-1).view(torch.int32).tolist()]


def hostile(seed: int, shape: tuple[int, ...], kind: str) -> Tensor:
    """Random numbers of one hostile kind."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=generator)
    spread = torch.randint(-140, 120, shape, generator=generator).double()
    scaled = {
        "plain": normal,
        "wide": (normal.double() * torch.exp2(spread)).float(),
        "subnormal": (normal.double() * 2.0**-140).float(),
        "huge": (normal.double() * 2.0**125).float(),
        "cancelling": torch.cat((normal, -normal))[: shape[0]] if len(shape) == 1 else normal - normal.flip(0),
        "zeros": normal * 0.0,
        "few": torch.where(normal > 1, normal, -0.0),
    }[kind]
    return scaled.contiguous()


KINDS = ["plain", "wide", "subnormal", "huge", "cancelling", "zeros", "few"]


@pytest.mark.parametrize("kind", KINDS)
def test_sum_equals_the_reference(kind: str) -> None:
    for seed in range(4):
        values = hostile(seed, (37,), kind)
        assert bits_of(exact_sum(values, [0], False)) == [reference_sum(bits_of(values))]


@pytest.mark.parametrize("special", [torch.nan, torch.inf, -torch.inf])
def test_a_group_with_a_special_gives_nan_and_leaves_the_others(special: float) -> None:
    values = hostile(1, (3, 9), "plain")
    values[1, 4] = special
    found = bits_of(exact_sum(values, [1], False))
    assert found == [reference_sum(bits_of(row)) for row in values]
    assert found[1] == 0x7FC00000 and found[0] != 0x7FC00000


def test_sum_over_several_axes_keeps_the_others() -> None:
    values = hostile(2, (3, 4, 5), "wide")
    found = exact_sum(values, [0, 2], True)
    assert found.shape == (1, 4, 1)
    assert bits_of(found) == [reference_sum(bits_of(values[:, place])) for place in range(4)]


def test_sums_of_every_length_agree_with_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    values = hostile(3, (5000,), "wide")
    expected = bits_of(exact_sum(values, [0], False))
    monkeypatch.setattr(exact, "FLOAT64_BITS", 41)  # binary64 holds two terms: int64 is taken
    assert bits_of(exact_sum(values, [0], False)) == expected
    monkeypatch.setattr(exact, "INT64_BITS", 41)  # and int64 too: two limbs are taken
    assert bits_of(exact_sum(values, [0], False)) == expected


def test_a_sum_of_a_million_terms_is_the_reference_of_its_integers() -> None:
    values = torch.full((1 << 20,), 0.1)
    values[0] = 1.0
    unit = 2.0**-39
    total = round(1.0 / unit) + ((1 << 20) - 1) * round(float(values[1]) / unit)
    assert bits_of(exact_sum(values, [0], False)) == bits_of(torch.tensor(total * unit, dtype=torch.float64).float())


@pytest.mark.parametrize("bits", [13, 21])
@pytest.mark.parametrize("kind", KINDS)
def test_matmul_equals_the_reference(kind: str, bits: int) -> None:
    left, right = hostile(5, (3, 17), kind), hostile(6, (17, 4), kind)
    expected = [reference_dot(bits_of(row), bits_of(column), bits) for row in left for column in right.t()]
    assert bits_of(exact_matmul(left, right, bits)) == expected


def test_matmul_of_unlike_operands_and_specials() -> None:
    left, right = hostile(7, (4, 6), "subnormal"), hostile(8, (6, 3), "huge")
    left[2, 5] = torch.inf
    right[0, 1] = torch.nan
    expected = [reference_dot(bits_of(row), bits_of(column), 21) for row in left for column in right.t()]
    assert bits_of(exact_matmul(left, right, 21)) == expected


def test_long_products_agree_whatever_holds_their_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = hostile(9, (2, 5001), "plain"), hostile(10, (5001, 2), "plain")
    expected = [reference_dot(bits_of(row), bits_of(column), 21) for row in left for column in right.t()]
    assert bits_of(exact_matmul(left, right, 21)) == expected
    monkeypatch.setattr(exact, "INT64_BITS", 42)
    assert bits_of(exact_matmul(left, right, 21)) == expected


def test_integers_beyond_binary64_round_to_odd() -> None:
    wholes = [0, 1, -1, (1 << 53) - 1, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1, (1 << 62) + 1, -(1 << 62) - 3, 1 << 61]
    for whole, found in zip(wholes, integer_to_float64(torch.tensor(wholes)).tolist(), strict=True):
        assert found == whole if abs(whole) <= 1 << 53 else abs(int(found) - whole) < 1 << 11
        exact_bits = found == whole
        assert exact_bits or (int(abs(found)) >> 11) % 2 == 1


@pytest.mark.parametrize("kind", KINDS)
def test_scatter_sum_equals_the_reference(kind: str) -> None:
    values = hostile(11, (40,), kind)
    indices = torch.randint(0, 6, (40,), generator=torch.Generator().manual_seed(12))
    indices[indices == 3] = 4  # a destination that nothing names
    found = bits_of(exact_scatter_sum(values, indices, 0, 7))
    expected = [reference_sum([bits_of(values)[at] for at in range(40) if indices[at] == to]) for to in range(7)]
    assert found == expected


def test_scatter_sum_of_specials_and_long_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    values = hostile(13, (2, 30), "wide")
    values[0, 3], values[1, 4] = torch.nan, -torch.inf
    indices = torch.arange(30).remainder(4).expand(2, 30).contiguous()
    expected = [
        reference_sum([bits_of(row)[at] for at in range(30) if at % 4 == to]) for row in values for to in range(4)
    ]
    assert bits_of(exact_scatter_sum(values, indices, 1, 4)) == expected
    monkeypatch.setattr(exact, "FLOAT64_BITS", 41)
    assert bits_of(exact_scatter_sum(values, indices, 1, 4)) == expected

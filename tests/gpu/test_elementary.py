"""Elementary functions against sixty digits, on inputs from every exponent."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch

from milon.gpu.elementary import CORRECTIONS, FUNCTIONS, evaluate, power, square_root
from tests.gpu.numeric_reference import round_to_binary32

TRUE = {
    "cos": mpmath.cos,
    "erf": mpmath.erf,
    "exp": mpmath.exp,
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "sin": mpmath.sin,
    "tanh": mpmath.tanh,
}
LEAST = {"log": 0.0, "log1p": -1.0, "rsqrt": 0.0}  # the open end of the domain


@pytest.fixture(autouse=True)
def _sixty_digits() -> Iterator[None]:
    with mpmath.workdps(60):
        yield


def true_bits(name: str, x: float) -> int:
    value = TRUE[name](mpmath.mpf(x))
    if value == 0:
        return struct.unpack("<I", struct.pack("<f", x))[0] & 0x80000000 if name != "log" else 0
    if mpmath.isinf(value):
        return 0x7F800000
    sign, mantissa, exponent, _ = value._mpf_
    if exponent < -2000:
        return 0x80000000 if sign else 0
    number = Fraction(mantissa) * Fraction(2) ** min(exponent, 2000)
    return round_to_binary32(-number if sign else number)


def points(name: str) -> torch.Tensor:
    """About 1,500 inputs inside the domain: some from every exponent, more where the function bends."""
    generator = torch.Generator().manual_seed(17)
    patterns = torch.randint(0, 1 << 32, (900,), generator=generator).to(torch.int32).view(torch.float32)
    near = torch.randn(600, generator=generator) * 6
    x = torch.cat((patterns, near, torch.tensor([1.0, -1.0, 0.5, 2.0, 3.9192, -3.9192, 88.72, -103.9, -104.0])))
    return x[(x > LEAST.get(name, -torch.inf)) & (x < torch.inf)]


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_correctly_rounded_on_a_sample(name: str) -> None:
    x = points(name)
    found = [bits & 0xFFFFFFFF for bits in evaluate(name, x).view(torch.int32).tolist()]
    assert len(found) > 500
    assert found == [true_bits(name, point) for point in x.tolist()]


def test_known_hard_inputs_are_put_right() -> None:
    for name, known in CORRECTIONS.items():
        for wrong, right in known:
            x = torch.tensor([wrong]).to(torch.int32).view(torch.float32)
            assert true_bits(name, float(x)) == right == int(evaluate(name, x).view(torch.int32)) & 0xFFFFFFFF


def test_square_roots_are_those_of_the_standard() -> None:
    """numpy takes the processor's instruction; torch's own root is wrong for some of these on some processors."""
    generator = torch.Generator().manual_seed(5)
    patterns = torch.randint(0, 0x7F800000, (200_000,), generator=generator).to(torch.int32).view(torch.float32)
    x = torch.cat((patterns, torch.tensor([0.0, -0.0, torch.inf, 2.0**-149])))
    expected = torch.from_numpy(np.sqrt(x.numpy()))
    assert torch.equal(square_root(x).view(torch.int32), expected.view(torch.int32))
    assert bool(torch.isnan(square_root(torch.tensor([-1.0, torch.nan]))).all())


SPECIALS = {
    "cos": (torch.nan, torch.nan, 1.0),
    "erf": (-1.0, 1.0, -0.0),
    "exp": (0.0, torch.inf, 1.0),
    "expm1": (-1.0, torch.inf, -0.0),
    "log": (torch.nan, torch.inf, -torch.inf),
    "log1p": (torch.nan, torch.inf, -0.0),
    "rsqrt": (torch.nan, 0.0, -torch.inf),
    "sigmoid": (0.0, 1.0, 0.5),
    "sin": (torch.nan, torch.nan, -0.0),
    "tanh": (-1.0, 1.0, -0.0),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_infinities_nan_and_negative_zero(name: str) -> None:
    x = torch.tensor([-torch.inf, torch.inf, -0.0, torch.nan])
    found = evaluate(name, x)
    expected = torch.tensor([*SPECIALS[name], torch.nan])
    assert torch.equal(torch.isnan(found), torch.isnan(expected))
    kept = ~torch.isnan(expected)
    assert torch.equal(found[kept].view(torch.int32), expected[kept].view(torch.int32))


def test_a_masked_row_of_attention_gives_zeros() -> None:
    assert evaluate("exp", torch.tensor([-torch.inf, -1e30, -200.0])).tolist() == [0.0, 0.0, 0.0]


def test_power_of_a_decay_rate_is_within_half_a_unit() -> None:
    steps = torch.arange(1.0, 2000.0)
    for rate in (0.9, 0.999):
        base = torch.tensor(rate)
        found = power(base, steps).tolist()
        for step, value in zip(steps.tolist(), found, strict=True):
            true = mpmath.mpf(float(base)) ** int(step)
            assert abs(mpmath.mpf(value) - true) <= mpmath.mpf("0.50001") * mpmath.mpf(2) ** (
                max(int(mpmath.floor(mpmath.log(true, 2))), -126) - 23
            )


def test_power_at_the_edges() -> None:
    base = torch.tensor([0.0, 0.0, 2.0, -2.0, -2.0, -2.0, 1.0, 5.0, torch.inf, torch.nan, 0.0])
    exponent = torch.tensor([0.0, 2.0, -1.0, 3.0, 2.0, 0.5, torch.nan, 0.0, -1.0, 1.0, -1.0])
    found = power(base, exponent)
    expected = torch.tensor([1.0, 0.0, 0.5, -8.0, 4.0, torch.nan, 1.0, 1.0, 0.0, torch.nan, torch.inf])
    assert torch.equal(torch.nan_to_num(found, 99.0), torch.nan_to_num(expected, 99.0))

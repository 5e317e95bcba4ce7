"""Hostile updates, for tests and for a test network's adversary: each turns an honest final state into a bad one.

Nothing here draws from a global generator: the same arguments give the same attack. Inputs are never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from milon.base.errors import Reason, Rejected
from milon.gpu.aggregate_updates import float_names

KINDS = ("sign-flip", "scaled", "nan", "noise")  # as `milon testnet --adversary` names them

_MULTIPLIERS = (-4658895280553007687, -7723592293110705685)  # SplitMix64's two odd constants, as signed integers
_GOLDEN = -7046029254386353131  # 2^64 / phi, odd, signed: SplitMix64's step


def _with(final_state: Mapping[str, Tensor], changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: changed[name] if name in changed else final_state[name].clone() for name in sorted(final_state)}


def scale(round_state: Mapping[str, Tensor], final_state: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The update times `factor`: round + factor * (final - round) on every floating tensor of the model."""
    names = float_names(final_state)
    return _with(final_state, {n: round_state[n] + (final_state[n] - round_state[n]) * factor for n in names})


def sign_flip(round_state: Mapping[str, Tensor], final_state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The update turned around and multiplied by `scale`: round - scale * (final - round)."""
    names = float_names(final_state)
    return _with(final_state, {n: round_state[n] - (final_state[n] - round_state[n]) * scale for n in names})


def not_a_number(final_state: Mapping[str, Tensor], value: float = float("nan")) -> dict[str, Tensor]:
    """One coordinate of the first floating tensor becomes `value`: NaN, or an infinity."""
    name = next(name for name in float_names(final_state) if final_state[name].numel())
    changed = final_state[name].clone()
    changed.view(-1)[0] = value
    return _with(final_state, {name: changed})


def _hash(counter: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64, wrapping (Steele, Lea and Flood 2014)."""
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        counter = (counter ^ ((counter >> shift) & ((1 << (64 - shift)) - 1))) * multiplier
    return counter ^ ((counter >> 31) & ((1 << 33) - 1))


def bell_curve(seed: int, stream: int, count: int) -> Tensor:
    """`count` float32 numbers of mean 0 and variance 1: twelve 16-bit uniform integers summed, from hashed counters."""
    total = torch.zeros(count, dtype=torch.int64)
    counters = torch.arange(count, dtype=torch.int64) * 3 + (stream << 40) + (seed << 20)
    for word in range(3):
        bits = _hash((counters + word) * _GOLDEN)
        for quarter in range(4):
            total += (bits >> (16 * quarter)) & 0xFFFF
    return (total - 6 * 0xFFFF).to(torch.float32) / 65536.0


def gaussian(
    round_state: Mapping[str, Tensor], final_state: Mapping[str, Tensor], seed: int, factor: float
) -> dict[str, Tensor]:
    """Noise instead of the update, per tensor `factor` times as large as its root mean square."""
    changed = {}
    for stream, name in enumerate(float_names(final_state)):
        base = round_state[name]
        size = (final_state[name] - base).square().mean().sqrt() if base.numel() else torch.zeros(())
        noise = bell_curve(seed, stream, base.numel()).reshape(base.shape).to(base.device)
        changed[name] = base + noise * size * factor
    return _with(final_state, changed)


def _mean_and_deviation(honest: Sequence[Mapping[str, Tensor]], name: str) -> tuple[Tensor, Tensor]:
    stacked = torch.stack([state[name] for state in honest])
    return stacked.mean(dim=0), stacked.std(dim=0, correction=0)


def little_is_enough(honest: Sequence[Mapping[str, Tensor]], deviations: float) -> dict[str, Tensor]:
    """A final state a few deviations beside the honest mean, where a distance hides it (Baruch et al. 2019)."""
    changed = {}
    for name in float_names(honest[0]):
        mean, deviation = _mean_and_deviation(honest, name)
        changed[name] = mean - deviation * deviations
    return _with(honest[0], changed)


def inner_product(
    round_state: Mapping[str, Tensor], honest: Sequence[Mapping[str, Tensor]], factor: float
) -> dict[str, Tensor]:
    """The honest mean update turned around, times `factor`, small enough to pass (Xie et al. 2020)."""
    changed = {}
    for name in float_names(round_state):
        mean, _ = _mean_and_deviation(honest, name)
        changed[name] = round_state[name] - (mean - round_state[name]) * factor
    return _with(honest[0], changed)


def mimic(honest: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """A copy of one honest final, which then counts more than its share (Karimireddy et al. 2022)."""
    return _with(honest[0], {})


def apply_attack(
    kind: str, round_state: Mapping[str, Tensor], final_state: Mapping[str, Tensor], seed: int
) -> dict[str, Tensor]:
    """The final state that an adversary of `kind` (one of `KINDS`) claims; `Rejected(UNKNOWN)` for another kind."""
    if kind == "sign-flip":
        return sign_flip(round_state, final_state, 10.0)
    if kind == "scaled":
        return scale(round_state, final_state, 10.0)
    if kind == "nan":
        return not_a_number(final_state)
    if kind == "noise":
        return gaussian(round_state, final_state, seed, 10.0)
    raise Rejected(Reason.UNKNOWN, f"an adversary of kind {kind!r}; known are {', '.join(KINDS)}")

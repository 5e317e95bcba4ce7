"""Hostile updates that need nobody else's: each turns an attacker's own honest final state into a bad one.

Attacks that read the honest updates are in `attacks_crowd`, those on the data in `attacks_rows`; `attacks_kinds` names
them all. Nothing here draws from a global generator: the same arguments give the same attack, bit for bit. Inputs are
never changed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from milon.gpu.aggregate_updates import float_names

_MULTIPLIERS = (-4658895280553007687, -7723592293110705685)  # SplitMix64's two odd constants, as signed integers
_GOLDEN = -7046029254386353131  # 2^64 / phi, odd, signed: SplitMix64's step


def replace_tensors(final_state: Mapping[str, Tensor], changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with the tensors in `changed` instead of its own, which are copied; in order of name."""
    return {name: changed[name] if name in changed else final_state[name].clone() for name in sorted(final_state)}


def scale(round_state: Mapping[str, Tensor], final_state: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The update times `factor`: round + factor * (final - round) on every floating tensor of the model.

    A boosted update replaces the mean (Bagdasaryan et al. 2020, section 4.2); one 1e30 times as large is the
    plainest attack on a rule that bounds nothing.
    """
    names = float_names(final_state)
    return replace_tensors(final_state, {n: round_state[n] + (final_state[n] - round_state[n]) * factor for n in names})


def sign_flip(round_state: Mapping[str, Tensor], final_state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The update turned around and multiplied by `scale`: round - scale * (final - round).

    Li et al. 2019 (RSA, section 5.3); Karimireddy et al. 2021, with scale 1.
    """
    names = float_names(final_state)
    return replace_tensors(final_state, {n: round_state[n] - (final_state[n] - round_state[n]) * scale for n in names})


def not_a_number(final_state: Mapping[str, Tensor], value: float = float("nan")) -> dict[str, Tensor]:
    """One coordinate of the first floating tensor becomes `value`: NaN, or an infinity.

    What it is for: an argmin takes NaN for the least, a sort puts it anywhere.
    """
    name = next(name for name in float_names(final_state) if final_state[name].numel())
    changed = final_state[name].clone()
    changed.view(-1)[0] = value
    return replace_tensors(final_state, {name: changed})


def stand_still(round_state: Mapping[str, Tensor], final_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The round's own state as the final one: no update, the free rider's (Lin et al. 2019, section 3)."""
    return replace_tensors(final_state, {name: round_state[name].clone() for name in float_names(final_state)})


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
    """Noise instead of the update, per tensor `factor` times as large as its root mean square.

    Blanchard et al. 2017, section 5.1, there with a fixed large variance.
    """
    changed = {}
    for stream, name in enumerate(float_names(final_state)):
        base = round_state[name]
        size = (final_state[name] - base).square().mean().sqrt() if base.numel() else torch.zeros(())
        noise = bell_curve(seed, stream, base.numel()).reshape(base.shape).to(base.device)
        changed[name] = base + noise * size * factor
    return replace_tensors(final_state, changed)

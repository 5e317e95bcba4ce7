"""The updates of a round as integers: quantised once, on a grid that a hostile update cannot choose, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import frexp

import torch
from torch import Tensor

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId
from milon.gpu.aggregate_rules import BOUND
from milon.gpu.checkpoint import MODEL_PREFIX, OPTIMIZER_PREFIX, OUTER_PREFIX, verify_same_shape
from milon.pol.aggregation import compute_weighted_lower_median

HEADROOM_BITS = 2  # an honest update may be up to four times the typical one before it is clipped
NOT_FINITE = "the final state holds a NaN or an infinity"
_PIECE = 1 << 20  # numbers looked at together
VALUE_BITS = BOUND.bit_length()


@dataclass(frozen=True, slots=True)
class Entry:
    """One trainer's part in the round."""

    account: AccountId  # whose
    steps: int  # verified
    weight: int  # as it counts, before any cap
    state: Mapping[str, Tensor]  # after its last verified step


@dataclass(frozen=True, slots=True)
class Place:
    """Some columns of a tensor."""

    name: str  # of the tensor
    start: int  # first column, in the flattened tensor
    end: int  # after the last one


def float_names(round_state: Mapping[str, Tensor]) -> list[str]:
    """The model's floating tensors, which the rules combine."""
    return [name for name in sorted(round_state) if name.startswith(MODEL_PREFIX) and _is_float(round_state[name])]


def integer_names(round_state: Mapping[str, Tensor]) -> list[str]:
    """The model's other tensors: counters, which have no meaningful mean."""
    return [name for name in sorted(round_state) if name.startswith(MODEL_PREFIX) and not _is_float(round_state[name])]


def _is_float(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32


def is_finite(state: Mapping[str, Tensor]) -> bool:
    """Whether no floating tensor of the state holds a NaN or an infinity; looked at in pieces, to hold no copy."""
    flat = [tensor.reshape(-1) for tensor in state.values() if tensor.is_floating_point()]
    return all(bool(part.isfinite().all()) for tensor in flat for part in tensor.split(_PIECE))  # type: ignore[no-untyped-call]  # torch's split has no types


def verify_round_state(round_state: Mapping[str, Tensor], initial_slots: Mapping[str, Tensor]) -> None:
    """Raise `Rejected` unless both are states of one job, with the slots' names, and finite."""
    for name in sorted(round_state):
        if not name.startswith((MODEL_PREFIX, OPTIMIZER_PREFIX, OUTER_PREFIX)):
            raise Rejected(Reason.MALFORMED, f"{name!r} belongs neither to the model nor to an optimizer")
        if round_state[name].is_floating_point() and not _is_float(round_state[name]):
            raise Rejected(Reason.UNSUPPORTED, f"{name} is {round_state[name].dtype}, not torch.float32")
    slots = {name: tensor for name, tensor in round_state.items() if name.startswith(OPTIMIZER_PREFIX)}
    verify_same_shape(slots, initial_slots)
    require(is_finite(round_state), Reason.NOT_FINITE, "the round's own state")


def split_unfit(
    round_state: Mapping[str, Tensor], entries: Sequence[Entry]
) -> tuple[list[Entry], list[tuple[Entry, str]]]:
    """The entries that a rule may see, and the others with the reason why it may not.

    Whether the tensors that rules combine are finite is not looked at here: whoever measures them sees it.
    """
    fit, refused = [], []
    combined = frozenset(float_names(round_state))
    for entry in entries:
        try:
            verify_same_shape(round_state, entry.state)
            others = {name: entry.state[name] for name in entry.state if name not in combined}
            require(is_finite(others), Reason.NOT_FINITE, NOT_FINITE)
        except Rejected as rejected:
            refused.append((entry, rejected.detail))
        else:
            fit.append(entry)
    return fit, refused


def iterate_places(round_state: Mapping[str, Tensor], names: Sequence[str], columns: int) -> Iterator[Place]:
    """The named tensors, `columns` columns at a time."""
    for name in names:
        size = round_state[name].numel()
        for start in range(0, size, columns):
            yield Place(name, start, min(size, start + columns))


def compute_difference(
    round_state: Mapping[str, Tensor], entries: Sequence[Entry], place: Place, is_rate: bool
) -> Tensor:
    """final - round in binary64, one rounding; for a rate divided by the steps, a second one. [updates, columns]."""
    base = round_state[place.name].reshape(-1)[place.start : place.end].to(torch.float64)
    finals = torch.stack([entry.state[place.name].reshape(-1)[place.start : place.end] for entry in entries])
    difference = finals.to(torch.float64).sub_(base)
    steps = torch.tensor([entry.steps for entry in entries], dtype=torch.float64, device=base.device)
    return difference.div_(steps.unsqueeze(1)) if is_rate else difference


def quantize(values: Tensor, shift: int) -> Tensor:
    """clip(round_half_even(x * 2^shift), -BOUND, BOUND) of binary64 numbers, which are lost; int64."""
    return values.mul_(2.0**shift).round_().clamp_(-BOUND, BOUND).to(torch.int64)


def compute_shift(magnitudes: Sequence[float], weights: Sequence[int], headroom_bits: int) -> int:
    """The s of a tensor's grid 2^-s: the largest entry of a typical update fills all but `headroom_bits` of 19 bits.

    `magnitudes`: the largest of every update's entries in the tensor. An update's exponent is the least e with
    max |x| < 2^e. The typical one is the weighted lower median over the updates that are not zero in the tensor: with
    less than half of their weight, nobody moves it out of the honest ones' range.
    """
    moved = [(frexp(value)[1], weight) for value, weight in zip(magnitudes, weights, strict=True) if value]
    if not moved:
        return 0
    typical = compute_weighted_lower_median([exponent for exponent, _ in moved], [weight for _, weight in moved])
    return VALUE_BITS - headroom_bits - typical

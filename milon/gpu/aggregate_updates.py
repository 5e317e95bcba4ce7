"""The updates of a round as integers: quantised once, on a grid that a hostile update cannot choose, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId
from milon.gpu.aggregate_rules import BOUND
from milon.gpu.checkpoint import MODEL_PREFIX, OPTIMIZER_PREFIX, verify_same_shape
from milon.pol.aggregation import compute_weighted_lower_median
from milon.pol.verdict import Refusal

HEADROOM_BITS = 2  # an honest update may be up to four times the typical one before it is clipped
VALUE_BITS = BOUND.bit_length()


@dataclass(frozen=True, slots=True)
class Entry:
    """One trainer's part in the round."""

    account: AccountId  # whose
    steps: int  # verified
    weight: int  # as it counts, before any cap
    state: Mapping[str, Tensor]  # after its last verified step


@dataclass(frozen=True, slots=True)
class Block:
    """Some columns of one tensor, over all updates."""

    name: str  # of the tensor
    start: int  # first column, in the flattened tensor
    end: int  # after the last one
    values: Tensor  # int64 [updates, end - start], in units of 2^-shift


def float_names(round_state: Mapping[str, Tensor]) -> list[str]:
    """The model's floating tensors, which the rules combine."""
    return [name for name in sorted(round_state) if name.startswith(MODEL_PREFIX) and _is_float(round_state[name])]


def integer_names(round_state: Mapping[str, Tensor]) -> list[str]:
    """The model's other tensors: counters, which have no meaningful mean."""
    return [name for name in sorted(round_state) if name.startswith(MODEL_PREFIX) and not _is_float(round_state[name])]


def _is_float(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32


def is_finite(state: Mapping[str, Tensor]) -> bool:
    """Whether no floating tensor of the state holds a NaN or an infinity."""
    return all(bool(tensor.isfinite().all()) for tensor in state.values() if tensor.is_floating_point())


def verify_round_state(round_state: Mapping[str, Tensor], initial_slots: Mapping[str, Tensor]) -> None:
    """Raise `Rejected` unless both are states of one job, with the slots' names, and finite."""
    for name in sorted(round_state):
        if not name.startswith((MODEL_PREFIX, OPTIMIZER_PREFIX)):
            raise Rejected(Reason.MALFORMED, f"{name!r} belongs neither to the model nor to the optimizer")
        if round_state[name].is_floating_point() and not _is_float(round_state[name]):
            raise Rejected(Reason.UNSUPPORTED, f"{name} is {round_state[name].dtype}, not torch.float32")
    slots = {name: tensor for name, tensor in round_state.items() if name.startswith(OPTIMIZER_PREFIX)}
    verify_same_shape(slots, initial_slots)
    require(is_finite(round_state), Reason.NOT_FINITE, "the round's own state")


def split_unfit(round_state: Mapping[str, Tensor], entries: Sequence[Entry]) -> tuple[list[Entry], list[Refusal]]:
    """The entries that a rule may see, and the refusals of the others."""
    fit, refused = [], []
    for entry in entries:
        try:
            verify_same_shape(round_state, entry.state)
            require(is_finite(entry.state), Reason.NOT_FINITE, "the final state holds a NaN or an infinity")
        except Rejected as rejected:
            refused.append(Refusal(entry.account, rejected.detail))
        else:
            fit.append(entry)
    return fit, refused


def _columns(round_state: Mapping[str, Tensor], name: str, columns: int) -> Iterator[tuple[int, int]]:
    size = round_state[name].numel()
    for start in range(0, size, columns):
        yield start, min(size, start + columns)


def _difference(
    round_state: Mapping[str, Tensor], entries: Sequence[Entry], name: str, columns: tuple[int, int], is_rate: bool
) -> Tensor:
    """final - round in binary64, one rounding; for a rate divided by the steps, a second one. [updates, columns]."""
    start, end = columns
    base = round_state[name].reshape(-1)[start:end].to(torch.float64)
    finals = torch.stack([entry.state[name].reshape(-1)[start:end] for entry in entries]).to(torch.float64)
    steps = torch.tensor([entry.steps for entry in entries], dtype=torch.float64, device=base.device)
    difference = finals.sub_(base)
    return difference.div_(steps.unsqueeze(1)) if is_rate else difference


def compute_shifts(
    round_state: Mapping[str, Tensor],
    entries: Sequence[Entry],
    weights: Sequence[int],
    columns: int,
    statistics: frozenset[str],
) -> dict[str, int]:
    """Per tensor the s of its grid 2^-s: the largest magnitude of a typical update fills all but two of 19 bits.

    An update's exponent is the least e with max |x| < 2^e. The typical one is the weighted lower median over the
    updates that are not zero in the tensor: with less than half of their weight, nobody moves it out of the honest
    ones' range.
    """
    shifts = {}
    for name in float_names(round_state):
        largest = torch.zeros(len(entries), dtype=torch.float64, device=round_state[name].device)
        for start, end in _columns(round_state, name, columns):
            block = _difference(round_state, entries, name, (start, end), name not in statistics)
            largest = torch.maximum(largest, block.abs_().amax(dim=1))
        magnitudes = largest.cpu()
        moved = [index for index, magnitude in enumerate(magnitudes.tolist()) if magnitude]
        if not moved:
            shifts[name] = 0
            continue
        exponents = torch.frexp(magnitudes).exponent.tolist()
        typical = compute_weighted_lower_median([exponents[i] for i in moved], [weights[i] for i in moved])
        shifts[name] = VALUE_BITS - HEADROOM_BITS - typical
    return shifts


def iterate_blocks(
    round_state: Mapping[str, Tensor],
    entries: Sequence[Entry],
    shifts: Mapping[str, int],
    columns: int,
    statistics: frozenset[str],
    has_statistics: bool,
) -> Iterator[Block]:
    """Every block of the model's trained tensors: clip(round_half_even(x * 2^s), -BOUND, BOUND), x per step.

    With `has_statistics` also those of the other floating tensors, whose x is the whole difference.
    """
    for name in float_names(round_state):
        if name in statistics and not has_statistics:
            continue
        for start, end in _columns(round_state, name, columns):
            block = _difference(round_state, entries, name, (start, end), name not in statistics)
            block = block.mul_(2.0 ** shifts[name])
            yield Block(name, start, end, block.round_().clamp_(-BOUND, BOUND).to(torch.int64))

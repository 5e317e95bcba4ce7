"""Who leads a view: smooth weighted round-robin in integers, with no seed that anybody could grind."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from milon.base.ids import AccountId
from milon.base.units import Epoch, View
from milon.chain.certificate import Validator

SLOTS_MAX = 4096  # views of one schedule: eight a validator in the largest set, computed in about a second at most
LEARNING_PPM = 500_000  # the learning share's part of a weight, unless the chain's parameters say otherwise
PARTS_PER_MILLION = 1_000_000


def compute_weights(
    powers: Sequence[int], learning: Sequence[int] = (), learning_ppm: int = LEARNING_PPM
) -> tuple[int, ...]:
    """Leader weights in proportion to `(1 - a) * stake share + a * learning share`, one a validator.

    `learning` holds the burned protocol fees credited to each validator; all zero, or none given, means stake alone.
    `a` is `learning_ppm` (at most a million) parts of a million.
    """
    total, learned = sum(powers), sum(learning)
    if learned == 0:
        return tuple(powers)
    stake_part = (PARTS_PER_MILLION - learning_ppm) * learned
    learning_part = learning_ppm * total
    return tuple(power * stake_part + credit * learning_part for power, credit in zip(powers, learning, strict=True))


def compute_slots(weights: Sequence[int]) -> tuple[int, ...]:
    """How many views of one schedule each validator leads: exact where that fits, else rounded, never below one.

    Some weight must be positive. The sum is at most `SLOTS_MAX` plus one per validator.
    """
    divisor = gcd(*weights)
    exact = tuple(max(1, weight // divisor) for weight in weights)
    total = sum(exact)
    if total <= SLOTS_MAX:
        return exact
    return tuple(max(1, weight * SLOTS_MAX // total) for weight in exact)


def compute_schedule(slots: Sequence[int]) -> tuple[int, ...]:
    """The leaders (indices) of `sum(slots)` views: each gains its slots, the richest leads and pays the sum."""
    total = sum(slots)
    credits = [0] * len(slots)
    order = []
    for _ in range(total):
        credits = [credit + slot for credit, slot in zip(credits, slots, strict=True)]
        richest = credits.index(max(credits))
        credits[richest] -= total
        order.append(richest)
    return tuple(order)


def compute_visit_bound(slots: Sequence[int], index: int) -> int:
    """The most views from one turn of validator `index` to its next.

    Credits are a cup game: the fullest of n cups is emptied by the sum after each filling, so none rises above
    the sum times the n-th harmonic number, which is at most `bit_length(n)`; after a turn a credit is at least minus
    the sum. So the next turn comes within `(1 + bit_length(n)) * sum / slots` fillings, and within two schedules.
    """
    total = sum(slots)
    return min(-(-(1 + len(slots).bit_length()) * total // slots[index]), 2 * total)


def list_leaders(validators: Sequence[Validator], learning_ppm: int = LEARNING_PPM) -> tuple[AccountId, ...]:
    """The leaders of one schedule, in order of view; computed once for a validator set, then repeated."""
    powers = [validator.power for validator in validators]
    learning = [validator.learning for validator in validators]
    slots = compute_slots(compute_weights(powers, learning, learning_ppm))
    return tuple(validators[index].account for index in compute_schedule(slots))


def leader_of(leaders: Sequence[AccountId], epoch: Epoch, view: View) -> AccountId:
    """The leader of `view` (1 or more), by the schedule of `list_leaders`, which each epoch starts one place later."""
    return leaders[(epoch + view - 1) % len(leaders)]

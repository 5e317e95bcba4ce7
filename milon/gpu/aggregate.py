"""A round's aggregate: many trainers' final states, some hostile, become one state with the same bits everywhere.

In order: updates that do not fit or are not finite are refused; the others become integers (`aggregate_updates`); for
the robust rules a screen refuses what points against the coordinate-wise median or stands too far from it; the rule
combines the rest (`aggregate_rules`); the result, in units per step, is multiplied by the steps the round advances and
added to the round's state. Two roundings on this way: one to the grid of the aggregate, one to the binary32 of the new
state. Every decision compares integers (`milon.pol.aggregation`). docs/spec/aggregation.md states it in one place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId
from milon.gpu.aggregate_rules import (
    BLOCK_COLUMNS,
    Comparison,
    Gram,
    add_once_rounded,
    compute_lower_median,
    compute_median_twice,
    compute_trimmed_sum,
    compute_weighted_sum,
    divide_half_even,
)
from milon.gpu.aggregate_updates import (
    Block,
    Entry,
    compute_shifts,
    integer_names,
    is_finite,
    iterate_blocks,
    split_unfit,
    verify_round_state,
)
from milon.pol.aggregation import (
    Report,
    Rule,
    Share,
    compute_capped_weights,
    compute_distance_percents,
    compute_faulty_weight,
    compute_krum_scores,
    compute_krum_selection,
    compute_round_steps,
    compute_screened,
    describe_refusal,
    is_contrary,
    verify_bearable,
)
from milon.pol.verdict import Refusal

FRACTION_BITS = 8  # of the aggregate below the updates' grid: 19 + 8 + 26 bits of steps fit binary64's 53


@dataclass(frozen=True, slots=True)
class _Round:
    """What every part of one aggregation needs."""

    state: Mapping[str, Tensor]  # the round's
    shifts: Mapping[str, int]  # the updates' grid, per tensor
    columns: int  # of a block
    statistics: frozenset[str]  # names of tensors that no gradient moves

    def blocks(self, entries: Sequence[Entry], has_statistics: bool = False) -> Iterator[Block]:
        """The updates' blocks of trained tensors, and of the others too where asked for."""
        return iterate_blocks(self.state, entries, self.shifts, self.columns, self.statistics, has_statistics)


@dataclass(frozen=True, slots=True)
class _Party:
    """The updates still in, in the order of their accounts; the three tuples run in parallel."""

    entries: tuple[Entry, ...]  # the updates
    weights: tuple[int, ...]  # as they count now
    percents: tuple[int, ...]  # their distances, in percent of the median one
    faulty_count: int  # hostile ones that may still be among them


def _cap(rule: Rule, entries: Sequence[Entry], percents: Sequence[int], faulty_count: int) -> _Party:
    weights = [entry.weight for entry in entries]
    verify_bearable(rule, weights, faulty_count)
    capped = compute_capped_weights(rule, weights, faulty_count)
    return _Party(tuple(entries), capped, tuple(percents), faulty_count)


def _screen(part: _Round, rule: Rule, party: _Party) -> tuple[_Party, list[Refusal]]:
    """The party without the updates too far from its coordinate-wise median."""
    if rule is Rule.MEAN or len(party.entries) < 3:
        return party, []
    stand = Comparison(party.weights)
    for block in part.blocks(party.entries):
        stand.add(block.values)
    # An average over s steps errs like 1 / sqrt(s): without this factor, trainers of few steps look like outliers.
    pairs = zip(stand.squared_distances, party.entries, strict=True)
    squared = [value * entry.steps for value, entry in pairs]
    angles = zip(stand.inner_products, stand.squared_norms, strict=True)
    contrary = [is_contrary(inner, norm, stand.median_squared_norm) for inner, norm in angles]
    percents = compute_distance_percents(squared, party.weights)
    far = compute_screened(squared, contrary, party.weights, party.faulty_count)
    refused = [Refusal(party.entries[i].account, describe_refusal(percents[i], contrary[i])) for i in far]
    left = [i for i in range(len(squared)) if i not in far]
    entries = [party.entries[i] for i in left]
    return _cap(rule, entries, [percents[i] for i in left], party.faulty_count - len(far)), refused


def _select(part: _Round, party: _Party) -> tuple[_Party, list[Refusal]]:
    """The party that multi-Krum takes in, with the weight it takes of each."""
    gram = Gram(len(party.entries))
    for block in part.blocks(party.entries):
        gram.add(block.values)
    faulty_weight = compute_faulty_weight(party.weights, party.faulty_count)
    scores = compute_krum_scores(gram.compute_squared_distances(), party.weights, faulty_weight)
    selected = compute_krum_selection(scores, party.weights, faulty_weight)
    rank = {position: 1 + index for index, (_, position) in enumerate(sorted((s, i) for i, s in enumerate(scores)))}
    refused = [
        Refusal(entry.account, f"not selected by multi-krum: score rank {rank[i]} of {len(scores)}")
        for i, entry in enumerate(party.entries)
        if not selected[i]
    ]
    left = [i for i in range(len(scores)) if selected[i]]
    chosen = _Party(
        tuple(party.entries[i] for i in left),
        tuple(selected[i] for i in left),
        tuple(party.percents[i] for i in left),
        party.faulty_count,
    )
    return chosen, refused


def _combine(rule: Rule, party: _Party, block: Block) -> tuple[Tensor, int]:
    """Numerator and denominator of the rule's result on one block."""
    total = sum(party.weights)
    if rule is Rule.MEDIAN:
        return compute_median_twice(block.values, party.weights), 2
    if rule is Rule.TRIMMED_MEAN:
        faulty_weight = compute_faulty_weight(party.weights, party.faulty_count)
        return compute_trimmed_sum(block.values, party.weights, faulty_weight), total - 2 * faulty_weight
    return compute_weighted_sum(block.values, party.weights), total


def _advance(part: _Round, rule: Rule, party: _Party, steps: int) -> dict[str, Tensor]:
    """The model's tensors after the round."""
    flat = {name: part.state[name].reshape(-1).clone() for name in part.state if name.startswith("model.")}
    for block in part.blocks(party.entries, has_statistics=True):
        numerator, denominator = _combine(rule, party, block)
        scale = 1 if block.name in part.statistics else steps
        grid = divide_half_even(numerator << FRACTION_BITS, denominator) * scale
        here = flat[block.name][block.start : block.end]
        here.copy_(add_once_rounded(here, grid, -(part.shifts[block.name] + FRACTION_BITS)))
    for name in integer_names(part.state):
        for start in range(0, flat[name].numel(), part.columns):
            end = start + part.columns
            values = torch.stack([entry.state[name].reshape(-1)[start:end] for entry in party.entries])
            flat[name][start:end] = compute_lower_median(values, party.weights)
    return {name: tensor.reshape(part.state[name].shape) for name, tensor in flat.items()}


def _run(
    round_state: Mapping[str, Tensor],
    entries: Sequence[Entry],
    rule: Rule,
    faulty_count: int,
    columns: int,
    is_screened: bool,
    statistics: frozenset[str] = frozenset(),
) -> tuple[dict[str, Tensor], Report]:
    fit, refused = split_unfit(round_state, entries)
    party = _cap(rule, fit, [0] * len(fit), max(0, faulty_count - len(refused)))
    shifts = compute_shifts(round_state, fit, party.weights, columns, statistics)
    part = _Round(round_state, shifts, columns, statistics)
    if is_screened:
        party, far = _screen(part, rule, party)
        refused += far
    if rule is Rule.MULTI_KRUM:
        party, unselected = _select(part, party)
        refused += unselected
    steps = compute_round_steps([entry.steps for entry in party.entries], party.weights)
    model = _advance(part, rule, party, steps)
    require(is_finite(model), Reason.NOT_FINITE, "the aggregate leaves the range of binary32")
    parts = zip(party.entries, party.weights, party.percents, strict=True)
    shares = tuple(Share(entry.account, entry.steps, weight, percent) for entry, weight, percent in parts)
    refused.sort(key=lambda refusal: refusal.trainer)
    return model, Report(rule, party.faulty_count, steps, shares, tuple(refused))


def aggregate_round(
    round_state: Mapping[str, Tensor],
    finals: Sequence[tuple[bytes, int, Mapping[str, Tensor]]],
    rule: Rule,
    faulty_count: int,
    initial_slots: Mapping[str, Tensor],
    *,
    statistics: frozenset[str] = frozenset(),
    columns: int = BLOCK_COLUMNS,
) -> tuple[dict[str, Tensor], Report]:
    """The state after a round, in order of name, and the report of what was accepted and refused.

    `finals` holds (account, verified steps, final state) in any order; nothing in it is changed. An update is
    (final - round) / steps, its weight its steps under the cap of `compute_capped_weights`. Floating tensors under
    "model." advance by the rule's result times the weighted mean of the accepted steps; the others take the weighted
    lower median of the accepted finals; slots under "optimizer." start again from `initial_slots`, so that no
    trainer's momentum is a free input of another. `statistics` names floating tensors of the model that no gradient
    moves, such as BatchNorm's running variance: a moving average does not grow with the steps, so their differences
    are combined whole, and neither screen nor Krum looks at them. Every update
    refused before the rule lowers `faulty_count` by one.

    Raises `Rejected`: TOO_FEW where the rule cannot bear the number left; NOT_FINITE where the result leaves binary32;
    DUPLICATE, OUT_OF_RANGE, MALFORMED, DOES_NOT_FIT for input that no honest caller gives. A round it is raised for
    closes void. `columns` (at most `BLOCK_COLUMNS`) trades memory for time and never changes a bit.
    """
    require(0 < columns <= BLOCK_COLUMNS, Reason.OUT_OF_RANGE, f"blocks of {columns} columns")
    verify_round_state(round_state, initial_slots)
    ordered = sorted(finals, key=lambda final: final[0])
    for before, after in pairwise(ordered):
        if before[0] == after[0]:
            raise Rejected(Reason.DUPLICATE, f"two finals of account {after[0].hex()}")
    entries = [Entry(AccountId(account), steps, steps, state) for account, steps, state in ordered]
    model, report = _run(round_state, entries, rule, faulty_count, columns, is_screened=True, statistics=statistics)
    model.update((name, tensor.clone()) for name, tensor in initial_slots.items())
    return {name: model[name] for name in sorted(model)}, report


def aggregate(
    updates: Tensor, weights: Sequence[int], rule: Rule, faulty_count: int, *, columns: int = BLOCK_COLUMNS
) -> tuple[Tensor, Report]:
    """The aggregate of the rows of `updates` (float32 [n, d]) under integer `weights`, [d], and its report.

    For use outside a round: no screen, no steps; accounts in the report are row numbers of 4 bytes, big-endian. Raises
    `Rejected` as `aggregate_round` does.
    """
    require(updates.dim() == 2 and updates.dtype == torch.float32, Reason.DOES_NOT_FIT, "updates are float32 [n, d]")
    require(len(weights) == len(updates), Reason.DOES_NOT_FIT, f"{len(weights)} weights for {len(updates)} updates")
    base = {"model.": torch.zeros(updates.shape[1], device=updates.device)}
    rows = enumerate(zip(updates, weights, strict=True))
    entries = [Entry(AccountId(i.to_bytes(4, "big")), 1, weight, {"model.": row}) for i, (row, weight) in rows]
    model, report = _run(base, entries, rule, faulty_count, columns, is_screened=False)
    return model["model."], replace(report, steps=1)

"""A round's aggregate: many trainers' final states, some hostile, become one state with the same bits everywhere.

In order: updates that do not fit or are not finite are refused; the others become integers (`aggregate_updates`); for
the robust rules a screen refuses what points against the coordinate-wise median or stands too far from it; the
pipeline's preparations mix the rest and its rule combines them (`aggregate_rules`, `milon.pol.gram`); the result, in
units per step, is multiplied by the steps the round advances and moves the round's state (`aggregate_outer`). Two
roundings on this way: one to the grid of the aggregate, one to the binary32 of the new state; rows that preparations
mix are rounded once more for rules per coordinate. Every decision compares integers (`milon.pol.aggregation`).
docs/spec/aggregation.md states it in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite

import torch
from torch import Tensor

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId
from milon.gpu.aggregate_blocks import Blocks, Combination
from milon.gpu.aggregate_outer import CENTRE, Mover, make_memory, slot_name, split_memory
from milon.gpu.aggregate_rules import BLOCK_COLUMNS, compute_lower_median
from milon.gpu.aggregate_updates import (
    HEADROOM_BITS,
    NOT_FINITE,
    Entry,
    float_names,
    integer_names,
    is_finite,
    split_unfit,
    verify_round_state,
)
from milon.pol.aggregation import (
    PARTS_PER_MILLION,
    Report,
    Standing,
    compute_capped_weights,
    compute_distance_percents,
    compute_faulty_weight,
    compute_round_steps,
    compute_screened,
    describe_refusal,
    is_contrary,
    verify_bearable,
    verify_weights,
)
from milon.pol.gram import (
    Coefficients,
    Rows,
    apply_rule,
    is_selecting,
    needs_gram,
    prepare_rows,
    spread_over_updates,
)
from milon.pol.pipeline import Outer, Pipeline, Rule, parse_pipeline

NAME = "model."  # of the one tensor that bare updates are
BLOCK_ELEMENTS = 1 << 17  # of all updates: a dozen copies in 64 bits, as plain torch makes them, stay below 16 MiB
Progress = Callable[[int, int], None]  # columns done, columns to do, of one pass over the updates


@dataclass(frozen=True, slots=True)
class Party:
    """The updates still in, in the order of their accounts; the three tuples run in parallel."""

    entries: tuple[Entry, ...]  # the updates
    weights: tuple[int, ...]  # as they count now
    percents: tuple[int, ...]  # their distances, in percent of the median one
    faulty_count: int  # hostile ones that may still be among them


@dataclass(frozen=True, slots=True)
class _Choice:
    """What the pipeline makes of the party."""

    rows: Rows  # what the rule saw
    over_rows: Coefficients  # its answer
    over_updates: Coefficients  # the same, over the updates


def _cap(pipeline: Pipeline, entries: Sequence[Entry], percents: Sequence[int], faulty_count: int) -> Party:
    weights = [entry.weight for entry in entries]
    verify_bearable(pipeline, weights, faulty_count)
    capped = compute_capped_weights(pipeline.rule, weights, faulty_count)
    return Party(tuple(entries), capped, tuple(percents), faulty_count)


def _screen(blocks: Blocks, pipeline: Pipeline, party: Party) -> tuple[Party, list[Standing]]:
    """The party without the updates too far from its coordinate-wise median, and the standings of those."""
    if pipeline.rule is Rule.MEAN or len(party.entries) < 3:
        return party, []
    stand = blocks.compare(party.entries, party.weights)
    # An average over s steps errs like 1 / sqrt(s): without this factor, trainers of few steps look like outliers.
    pairs = zip(stand.squared_distances, party.entries, strict=True)
    squared = [value * entry.steps for value, entry in pairs]
    angles = zip(stand.inner_products, stand.squared_norms, strict=True)
    contrary = [is_contrary(inner, norm, stand.median_squared_norm) for inner, norm in angles]
    percents = compute_distance_percents(squared, party.weights)
    far = compute_screened(squared, contrary, party.weights, party.faulty_count)
    refused = [
        Standing(party.entries[i].account, party.entries[i].steps, 0, 0, percents[i], 0, reason)
        for i, reason in ((i, describe_refusal(percents[i], contrary[i])) for i in far)
    ]
    left = [i for i in range(len(squared)) if i not in far]
    entries = [party.entries[i] for i in left]
    return _cap(pipeline, entries, [percents[i] for i in left], party.faulty_count - len(far)), refused


def _choose(blocks: Blocks, pipeline: Pipeline, party: Party, seed: bytes) -> _Choice:
    """Run the preparations and the rule's decisions."""
    gram = blocks.multiply(party.entries) if needs_gram(pipeline) else []
    accounts = [entry.account for entry in party.entries]
    inner = [row[: len(accounts)] for row in gram[: len(accounts)]]
    rows = prepare_rows(pipeline, inner, party.weights, accounts, party.faulty_count, seed)
    faulty_weight = compute_faulty_weight(rows.weights, party.faulty_count)
    over_rows = apply_rule(pipeline, rows, gram, faulty_weight)
    return _Choice(rows, over_rows, spread_over_updates(rows, over_rows))


def _stand(pipeline: Pipeline, party: Party, choice: _Choice) -> list[Standing]:
    """How every update of the party fared."""
    taken, whole, scores = choice.over_updates.taken, choice.over_updates.whole, choice.over_rows.scores
    has_own_scores = bool(scores) and len(scores) == len(party.entries)
    percents = compute_distance_percents(scores, choice.rows.weights) if has_own_scores else (0,) * len(taken)
    rank = {position: 1 + index for index, (_, position) in enumerate(sorted((s, i) for i, s in enumerate(scores)))}
    standings = []
    for i, entry in enumerate(party.entries):
        weight = choice.over_rows.taken[i] if choice.rows.is_plain and is_selecting(pipeline.rule) else party.weights[i]
        reason = ""
        if not taken[i]:
            place = f": score rank {rank[i]} of {len(scores)}" if choice.rows.is_plain and has_own_scores else ""
            weight, reason = 0, f"not selected by {pipeline.text}{place}"
        part = taken[i] * PARTS_PER_MILLION // whole
        standings.append(Standing(entry.account, entry.steps, weight, part, party.percents[i], percents[i], reason))
    return standings


def _advance(
    blocks: Blocks, pipeline: Pipeline, party: Party, choice: _Choice, steps: int, mover: Mover
) -> dict[str, Tensor]:
    """The model's tensors after the round."""
    state = blocks.state
    flat = {name: state[name].reshape(-1).clone() for name in state if name.startswith("model.")}
    faulty_weight = compute_faulty_weight(choice.rows.weights, party.faulty_count)
    combination = Combination(pipeline.rule, choice.rows, choice.over_rows, choice.over_updates, faulty_weight)
    blocks.combine(party.entries, combination, steps, mover, flat)
    taken = choice.over_updates.taken
    held = [(entry, weight) for entry, weight in zip(party.entries, taken, strict=True) if weight]
    for name in integer_names(state):
        for start in range(0, flat[name].numel(), blocks.columns):
            end = start + blocks.columns
            values = torch.stack([entry.state[name].reshape(-1)[start:end] for entry, _ in held])
            flat[name][start:end] = compute_lower_median(values, [weight for _, weight in held])
    return {name: tensor.reshape(state[name].shape) for name, tensor in flat.items()}


@dataclass(frozen=True, slots=True)
class _Options:
    """What a caller may choose beside the pipeline."""

    columns: int  # of a block
    is_screened: bool  # whether far updates are refused first
    statistics: frozenset[str]  # tensors that no gradient moves
    seed: bytes  # of the buckets
    headroom_bits: int  # of the grid
    remembers: bool  # whether there is a round after this one
    on_progress: Progress | None  # told after every stretch of columns


def _run(
    round_state: Mapping[str, Tensor],
    entries: Sequence[Entry],
    pipeline: Pipeline,
    faulty_count: int,
    options: _Options,
) -> tuple[dict[str, Tensor], Report]:
    require(0 < options.columns <= BLOCK_COLUMNS, Reason.OUT_OF_RANGE, f"blocks of {options.columns} columns")
    state, held = split_memory(round_state)
    trained = [name for name in float_names(state) if name not in options.statistics]
    memory = make_memory(pipeline, held, {name: state[name] for name in trained})
    slots = {name: slot_name(CENTRE, name) for name in trained}
    has_centre = any(slot in held for slot in slots.values())
    centre = {name: memory[slot] for name, slot in slots.items()} if has_centre else {}
    fit, unfit = split_unfit(state, entries)
    refused = [Standing(entry.account, entry.steps, 0, 0, 0, 0, reason) for entry, reason in unfit]
    verify_weights([entry.weight for entry in fit], faulty_count)
    columns = min(options.columns, max(1, BLOCK_ELEMENTS // max(1, len(fit))))
    blocks = Blocks(state, columns, options.statistics, centre, options.on_progress)
    largest = blocks.measure(fit)
    lost = [i for i in range(len(fit)) if not all(isfinite(found[i]) for found in largest.values())]
    refused += [Standing(fit[i].account, fit[i].steps, 0, 0, 0, 0, NOT_FINITE) for i in lost]
    fit = [entry for i, entry in enumerate(fit) if i not in lost]
    party = _cap(pipeline, fit, [0] * len(fit), max(0, faulty_count - len(refused)))
    kept = {name: [value for i, value in enumerate(found) if i not in lost] for name, found in largest.items()}
    blocks.fix_grid(kept, party.weights, options.headroom_bits)
    if options.is_screened:
        party, far = _screen(blocks, pipeline, party)
        refused += far
    choice = _choose(blocks, pipeline, party, options.seed)
    steps = compute_round_steps([entry.steps for entry in party.entries], choice.over_updates.taken)
    memory = memory if options.remembers else {}
    model = _advance(blocks, pipeline, party, choice, steps, Mover(pipeline, memory))
    require(is_finite(model) and is_finite(memory), Reason.NOT_FINITE, "the aggregate leaves the range of binary32")
    standings = sorted([*_stand(pipeline, party, choice), *refused], key=lambda standing: standing.account)
    return {**model, **memory}, Report(pipeline.text, party.faulty_count, steps, tuple(standings))


def aggregate_round(
    round_state: Mapping[str, Tensor],
    finals: Sequence[tuple[bytes, int, Mapping[str, Tensor]]],
    pipeline: str,
    faulty_count: int,
    initial_slots: Mapping[str, Tensor],
    *,
    statistics: frozenset[str] = frozenset(),
    seed: bytes = bytes(32),
    columns: int = BLOCK_COLUMNS,
    on_progress: Progress | None = None,
) -> tuple[dict[str, Tensor], Report]:
    """The state after a round, in order of name, and the report of how every update fared.

    `finals` holds (account, verified steps, final state) in any order; nothing in it is changed. An update is
    (final - round) / steps, its weight its steps under the cap of `compute_capped_weights`. Floating tensors under
    "model." advance by the pipeline's result times the weighted mean of the accepted steps; the others take the
    weighted lower median of the accepted finals; slots under "optimizer." start again from `initial_slots`, so that no
    trainer's momentum is a free input of another. What the pipeline remembers lies under "outer." (`aggregate_outer`).
    `statistics` names floating tensors of the model that no gradient moves, such as BatchNorm's running variance: a
    moving average does not grow with the steps, so their differences are combined whole, and no distance counts them.
    Every update refused before the rule lowers `faulty_count` by one. `seed` is the round's, for buckets.

    Raises `Rejected`: TOO_FEW where the pipeline cannot bear the number left; NOT_FINITE where the result leaves
    binary32; UNKNOWN, DUPLICATE, OUT_OF_RANGE, MALFORMED, DOES_NOT_FIT for input that no honest caller gives. A round
    it is raised for closes void. `columns` (at most `BLOCK_COLUMNS`) trades memory for time and never changes a bit;
    `on_progress` hears of columns done, and of all there are to do.
    """
    verify_round_state(round_state, initial_slots)
    ordered = sorted(finals, key=lambda final: final[0])
    for before, after in pairwise(ordered):
        if before[0] == after[0]:
            raise Rejected(Reason.DUPLICATE, f"two finals of account {after[0].hex()}")
    entries = [Entry(AccountId(account), steps, steps, state) for account, steps, state in ordered]
    options = _Options(columns, True, statistics, seed, HEADROOM_BITS, True, on_progress)
    model, report = _run(round_state, entries, parse_pipeline(pipeline), faulty_count, options)
    model.update((name, tensor.clone()) for name, tensor in initial_slots.items())
    return {name: model[name] for name in sorted(model)}, report


def aggregate(
    updates: Tensor | Sequence[Tensor],
    weights: Sequence[int],
    pipeline: str,
    faulty_count: int,
    *,
    seed: bytes = bytes(32),
    centre: Tensor | None = None,
    is_screened: bool = False,
    headroom_bits: int = HEADROOM_BITS,
    columns: int = BLOCK_COLUMNS,
    on_progress: Progress | None = None,
) -> tuple[Tensor, Report]:
    """The aggregate of `updates` (float32 [n, d], or n tensors [d]) under integer `weights`, [d], and its report.

    For use outside a round: no steps, no outer optimizer, a screen only where asked for; `centre` [d] is centered
    clipping's, zero where there is none. Accounts in the report are row numbers of 4 bytes, big-endian. An entry more
    than 2^`headroom_bits` times as large as the typical update's largest counts as that. Raises `Rejected` as
    `aggregate_round` does.
    """
    rows = list(updates)
    is_fit = bool(rows) and all(row.dim() == 1 and row.dtype == torch.float32 for row in rows)
    require(is_fit and len({row.numel() for row in rows}) == 1, Reason.DOES_NOT_FIT, "updates are float32 [n, d]")
    require(len(weights) == len(rows), Reason.DOES_NOT_FIT, f"{len(weights)} weights for {len(rows)} updates")
    base = {NAME: torch.zeros(1, device=rows[0].device).expand(rows[0].numel())}
    parsed = replace(parse_pipeline(pipeline), outer=Outer.PLAIN, outer_numbers=())
    if centre is not None and parsed.rule is Rule.CENTERED_CLIPPING:
        base[slot_name(CENTRE, NAME)] = centre
    entries = [
        Entry(AccountId(i.to_bytes(4, "big")), 1, weight, {NAME: row})
        for i, (row, weight) in enumerate(zip(rows, weights, strict=True))
    ]
    options = _Options(columns, is_screened, frozenset(), seed, headroom_bits, False, on_progress)
    model, report = _run(base, entries, parsed, faulty_count, options)
    return model[NAME], replace(report, steps=1)

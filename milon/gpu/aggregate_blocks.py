"""The passes of an aggregation over the updates, block by block: grid, comparison, inner products, combination.

Only a block of all updates is ever in memory as numbers, so that updates may be files mapped into memory. Blocks are
independent of one another, and every sum over blocks is one of integers: neither their size nor their order matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from milon.gpu import aggregate_fast
from milon.gpu.aggregate_outer import Mover
from milon.gpu.aggregate_rules import (
    MIXED_BITS,
    Comparison,
    Gram,
    compute_central_sum,
    compute_median_twice,
    compute_trimmed_sum,
    compute_weighted_sum,
    divide_scaled,
    mix_rows,
)
from milon.gpu.aggregate_updates import (
    Entry,
    Place,
    compute_difference,
    compute_shift,
    float_names,
    iterate_places,
    quantize,
)
from milon.pol.gram import Coefficients, Rows
from milon.pol.pipeline import Rule

FRACTION_BITS = 8  # of the aggregate below the updates' grid: 19 + 8 + 26 bits of steps fit binary64's 53


@dataclass(frozen=True, slots=True)
class Combination:
    """How rows become one."""

    rule: Rule  # that says so
    rows: Rows  # made of the updates
    over_rows: Coefficients  # what the rule takes of the rows
    over_updates: Coefficients  # the same over the updates
    faulty_weight: int  # F, of the rows

    @property
    def is_per_coordinate(self) -> bool:
        """Whether the rule looks at every coordinate by itself."""
        return self.rule in (Rule.MEDIAN, Rule.TRIMMED_MEAN, Rule.BULYAN)

    @property
    def is_direct(self) -> bool:
        """Whether the compiled loops know it: per coordinate they order all rows, and are not Bulyan's."""
        return not self.is_per_coordinate or (self.rule is not Rule.BULYAN and all(self.over_rows.taken))

    @property
    def selected(self) -> tuple[tuple[int, ...], ...]:
        """Positions and weights of the rows that a rule per coordinate sees."""
        pairs = [(position, weight) for position, weight in enumerate(self.over_rows.taken) if weight]
        return tuple(zip(*pairs, strict=True))

    def combine_columns(self, block: Tensor) -> tuple[Tensor, int, int]:
        """A rule per coordinate on a block of updates: numerator, denominator, bits below the updates' grid."""
        is_mixed = not self.rows.is_plain
        values = mix_rows(block, self.rows) if is_mixed else block
        positions, weights = self.selected
        if len(positions) < len(values):
            values = values[list(positions)]
        bits = MIXED_BITS if is_mixed else 0
        if self.rule is Rule.MEDIAN:
            return compute_median_twice(values, weights, is_mixed), 2, bits
        total = sum(weights)
        if self.rule is Rule.TRIMMED_MEAN:
            kept = total - 2 * self.faulty_weight
            return compute_trimmed_sum(values, weights, self.faulty_weight, is_mixed), kept, bits
        kept = total - 2 * self.faulty_weight
        return compute_central_sum(values, weights, kept, is_mixed), kept, bits

    def combine_whole(self, block: Tensor, centre: Tensor | None) -> tuple[Tensor, int, int]:
        """Any other rule, likewise; without a centre its part goes to the updates."""
        taken, whole = self.over_updates.taken, self.over_updates.whole
        numerator = compute_weighted_sum(block, taken)
        if centre is not None:
            numerator += centre * self.over_updates.centre
        return numerator, whole, 0


class Blocks:
    """A round's updates, block by block."""

    def __init__(
        self,
        state: Mapping[str, Tensor],
        columns: int,
        statistics: frozenset[str],
        centre: Mapping[str, Tensor],
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        """`state`: the round's, without its memory. `centre`: centered clipping's, flat or not; empty without one."""
        self.state = state
        self.columns = columns
        self._statistics = statistics
        self._centre = centre
        self._on_progress = on_progress
        self._names = float_names(state)
        self._trained = [name for name in self._names if name not in statistics]
        self._shifts: dict[str, int] = {}

    def _places(self, names: Sequence[str]) -> Iterator[Place]:
        """The blocks' places, telling how far the pass is."""
        tell = self._begin(names)
        for place in iterate_places(self.state, names, self.columns):
            yield place
            tell(place.end - place.start)

    def _begin(self, names: Sequence[str]) -> Callable[[int], None]:
        """What a pass over the named tensors calls after each stretch, with its columns."""
        total, done = sum(self.state[name].numel() for name in names), 0

        def tell(columns: int) -> None:
            nonlocal done
            done += columns
            if self._on_progress is not None:
                self._on_progress(done, total)

        return tell

    def _loops_for(self, entries: Sequence[Entry]) -> aggregate_fast.Loops | None:
        """The compiled loops, where they can read all updates and are worth loading."""
        elements = len(entries) * sum(self.state[name].numel() for name in self._names)
        if elements < aggregate_fast.ELEMENTS_MIN:
            return None
        states = [self.state, *(entry.state for entry in entries)]
        is_fit = all(aggregate_fast.is_usable(state[name]) for state in states for name in self._names)
        return aggregate_fast.load() if is_fit else None

    def _given(self, entries: Sequence[Entry], name: str) -> aggregate_fast.Columns:
        tensors = tuple(entry.state[name].reshape(-1) for entry in entries)
        steps = [entry.steps if name not in self._statistics else 1 for entry in entries]
        return aggregate_fast.Columns(tensors, self.state[name].reshape(-1), np.array(steps, dtype=np.float64))

    def measure(self, entries: Sequence[Entry]) -> dict[str, list[float]]:
        """Per tensor, the greatest magnitude of every update in it; one that is no finite number gives none either."""
        if not entries:
            return {name: [] for name in self._names}
        loops = self._loops_for(entries)
        if loops is not None:
            tell, found = self._begin(self._names), {}
            for name in self._names:
                found[name] = aggregate_fast.find_largest(loops, self._given(entries, name))
                tell(self.state[name].numel())
            return found
        largest = {
            name: torch.zeros(len(entries), dtype=torch.float64, device=self.state[name].device) for name in self._names
        }
        for place in self._places(self._names):
            block = compute_difference(self.state, entries, place, place.name not in self._statistics)
            largest[place.name] = torch.maximum(largest[place.name], block.abs_().amax(dim=1))
        return {name: tensor.cpu().tolist() for name, tensor in largest.items()}

    def fix_grid(self, largest: Mapping[str, Sequence[float]], weights: Sequence[int], headroom_bits: int) -> None:
        """Choose the grid of every tensor, by what `measure` found for all updates that are finite."""
        self._shifts = {name: compute_shift(found, weights, headroom_bits) for name, found in largest.items()}

    def _read(self, entries: Sequence[Entry], place: Place) -> Tensor:
        difference = compute_difference(self.state, entries, place, place.name not in self._statistics)
        return quantize(difference, self._shifts[place.name])

    def _read_centre(self, place: Place) -> Tensor | None:
        held = self._centre.get(place.name)
        if held is None:
            return None
        part = held.reshape(-1)[place.start : place.end].to(torch.float64)
        return quantize(part, self._shifts[place.name])

    def compare(self, entries: Sequence[Entry], weights: Sequence[int]) -> Comparison:
        """How the updates stand to their coordinate-wise weighted median."""
        stand, loops = Comparison(weights), self._loops_for(entries)
        if loops is not None:
            tell = self._begin(self._trained)
            for name in self._trained:
                given, shift = self._given(entries, name), self._shifts[name]
                for columns in aggregate_fast.compare(loops, given, shift, weights, stand):
                    tell(columns)
            return stand
        for place in self._places(self._trained):
            stand.add(self._read(entries, place))
        return stand

    def multiply(self, entries: Sequence[Entry]) -> list[list[int]]:
        """The inner products of the updates; with a centre, its own come last."""
        loops = None if self._centre else self._loops_for(entries)
        if loops is not None:
            tell, found = self._begin(self._trained), [[0] * len(entries) for _ in entries]
            for name in self._trained:
                given, shift = self._given(entries, name), self._shifts[name]
                for columns in aggregate_fast.multiply(loops, given, shift, found):
                    tell(columns)
            return found
        gram = Gram(len(entries) + bool(self._centre))
        for place in self._places(self._trained):
            block, centre = self._read(entries, place), self._read_centre(place)
            gram.add(block if centre is None else torch.cat([block, centre.unsqueeze(0)]))
        return gram.compute_products()

    def combine(
        self, entries: Sequence[Entry], how: Combination, steps: int, mover: Mover, flat: Mapping[str, Tensor]
    ) -> None:
        """Move every floating tensor of the model, given flat, by the rule's result times `steps`."""
        loops = self._loops_for(entries) if mover.is_plain and how.is_direct and not self._centre else None
        if loops is not None:
            tell = self._begin(self._names)
            for name in self._names:
                for columns in self._combine_quickly(loops, entries, how, steps, name, flat[name]):
                    tell(columns)
            return
        for place in self._places(self._names):
            block, here = self._read(entries, place), flat[place.name][place.start : place.end]
            is_rate = place.name not in self._statistics
            if how.is_per_coordinate:
                numerator, denominator, bits = how.combine_columns(block)
            else:
                numerator, denominator, bits = how.combine_whole(block, self._read_centre(place))
                denominator = denominator if is_rate else sum(how.over_updates.taken)
            grid = divide_scaled(numerator, denominator, FRACTION_BITS - bits)
            exponent = -(self._shifts[place.name] + FRACTION_BITS)
            if is_rate:
                mover.keep_centre(place, grid, exponent)
            here.copy_(mover.move(place, here, grid * (steps if is_rate else 1), exponent, is_rate))

    def _combine_quickly(
        self,
        loops: aggregate_fast.Loops,
        entries: Sequence[Entry],
        how: Combination,
        steps: int,
        name: str,
        into: Tensor,
    ) -> Iterator[int]:
        given, shift = self._given(entries, name), self._shifts[name]
        is_rate = name not in self._statistics
        advance = steps if is_rate else 1
        if how.is_per_coordinate:
            trimmed = -1 if how.rule is Rule.MEDIAN else how.faulty_weight
            weights = how.over_rows.taken
            if not how.rows.is_plain:
                rows = replace(how.rows, weights=weights)
                return aggregate_fast.combine_mixed(loops, given, shift, rows, trimmed, advance, into)
            return aggregate_fast.combine_columns(loops, given, shift, weights, trimmed, FRACTION_BITS, advance, into)
        taken = how.over_updates.taken
        whole = how.over_updates.whole if is_rate else sum(taken)
        return aggregate_fast.sum_weighted(loops, given, shift, taken, whole, FRACTION_BITS, advance, into)

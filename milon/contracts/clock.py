"""The ledger's own clock, by which deadlines run: it follows the blocks' time and never leaps.

Deadlines count ticks, nominal block times. A chain that makes more blocks because it is busy gives nobody less time to
train; and a chain that stood still for an hour does not find every deadline over in its next block, before anybody
could act: one block moves the clock by `CLOCK_STEP_MAX_BLOCKS` block times at most.
"""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.codec import wire
from milon.base.units import Count, Height, TimeMs
from milon.chain.params import Parameters, is_last_of_epoch
from milon.state.ledger import Draft, Ledger

CLOCK_KEY = b"clock"
CLOCK_STEP_MAX_BLOCKS = 5  # a view or two that are skipped still count in full


@dataclass(frozen=True, slots=True)
class Moment:
    """Where in the chain something happens."""

    height: Height  # of the block
    tick: Count  # of the clock, after this block's step
    parameters: Parameters  # in force

    @property
    def is_first_of_epoch(self) -> bool:
        """Whether other validators vote than in the block before, so that what waits for them is weighed again."""
        return self.height > 1 and is_last_of_epoch(Height(self.height - 1), self.parameters)


@wire("clock/1")
@dataclass(frozen=True, slots=True)
class Clock:
    """How far the clock is."""

    time_ms: TimeMs  # of the last block
    elapsed_ms: Count  # since genesis, leaps left out


def load_clock(ledger: Ledger | Draft) -> Clock:
    """The clock after the last block."""
    clock = ledger.load(CLOCK_KEY, Clock)
    if clock is None:
        raise RuntimeError("a ledger without genesis")
    return clock


def advance_clock(draft: Draft, time_ms: TimeMs, parameters: Parameters) -> None:
    """Move the clock to a block's time, or by the longest step it takes."""
    clock = load_clock(draft)
    step = min(max(0, time_ms - clock.time_ms), CLOCK_STEP_MAX_BLOCKS * parameters.block_time_ms)
    draft.store(CLOCK_KEY, Clock(time_ms, Count(clock.elapsed_ms + step)))


def load_moment(ledger: Ledger | Draft, height: Height, parameters: Parameters) -> Moment:
    """The moment of the block whose step the clock has taken."""
    return Moment(height, Count(load_clock(ledger).elapsed_ms // parameters.block_time_ms), parameters)

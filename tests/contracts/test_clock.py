"""The clock follows the blocks' time and never leaps."""

from __future__ import annotations

from milon.base.units import Height, TimeMs
from milon.chain.params import Parameters
from milon.contracts.clock import CLOCK_KEY, CLOCK_STEP_MAX_BLOCKS, advance_clock, load_clock, load_moment
from milon.state.ledger import Draft
from tests.contracts.helpers import Chain

PARAMETERS = Parameters()
TICK_MS = int(PARAMETERS.block_time_ms)


def test_busy_blocks_make_no_more_ticks_than_idle_ones() -> None:
    draft = Draft(Chain(3).ledger)
    for number in range(1, 51):
        advance_clock(draft, TimeMs(number * TICK_MS // 5), PARAMETERS)
    assert load_moment(draft, Height(50), PARAMETERS).tick == 10


def test_a_standstill_costs_a_few_ticks_and_the_next_block_one() -> None:
    draft = Draft(Chain(3).ledger)
    advance_clock(draft, TimeMs(3_600 * TICK_MS), PARAMETERS)
    assert load_moment(draft, Height(1), PARAMETERS).tick == CLOCK_STEP_MAX_BLOCKS
    advance_clock(draft, TimeMs(3_601 * TICK_MS), PARAMETERS)
    assert load_moment(draft, Height(2), PARAMETERS).tick == CLOCK_STEP_MAX_BLOCKS + 1


def test_a_block_moves_the_clock_before_its_transactions_run() -> None:
    chain = Chain(3)
    chain.apply()
    after = load_clock(chain.ledger)
    assert after.time_ms == chain.context().time_ms - 1_000
    assert after.elapsed_ms == after.time_ms
    assert chain.ledger.get(CLOCK_KEY) is not None

"""Time: delta grows by 1.3 beyond two views without a finalization, to its cap, and a standstill is bounded."""

from dataclasses import replace
from itertools import pairwise

import pytest

from milon.base.units import View
from milon.chain.finality import HEADERS_MAX
from milon.chain.params import Parameters
from milon.consensus.effects import Send
from milon.consensus.engine import step
from milon.consensus.events import TimerFired
from milon.consensus.messages import CertificateBatch, StatusRequest
from milon.consensus.views import (
    DELTA_END_MS,
    RESENT_CERTIFICATES_MAX,
    WAITING_MAX,
    compute_delta,
    count_waiting,
    find_next_view,
)
from tests.consensus.captured import catch


@pytest.mark.parametrize(
    ("view", "final_view", "delta"),
    [(1, 0, 1_000), (3, 0, 1_000), (4, 0, 1_300), (5, 0, 1_690), (6, 0, 2_197), (40, 0, 20_000), (40, 38, 1_000)],
)
def test_delta_grows_and_a_finalization_resets_it(view: int, final_view: int, delta: int) -> None:
    assert compute_delta(Parameters(), View(view), View(final_view)) == delta


def test_a_very_long_outage_costs_no_time_to_compute() -> None:
    assert compute_delta(Parameters(), View(1 << 50), View(0)) == Parameters().delta_max_ms


def test_the_cap_gives_way_before_a_run_without_finality_is_too_long_to_be_served() -> None:
    """Whatever the delay of the network, delta is beyond it long before `HEADERS_MAX` blocks wait to be final."""
    parameters, view = Parameters(), View(1 << 50)
    deltas = [compute_delta(parameters, view, View(0), waiting) for waiting in range(HEADERS_MAX)]
    assert set(deltas[: WAITING_MAX + 1]) == {parameters.delta_max_ms}
    assert deltas[WAITING_MAX + 1] == 26_000
    assert all(before <= after for before, after in pairwise(deltas))
    assert deltas[WAITING_MAX + 90] == deltas[-1] == DELTA_END_MS


def test_blocks_wait_as_long_as_no_later_view_is_final() -> None:
    state = catch().state
    certificate = next(iter(state.notarizations.values()))
    held = {View(view): certificate for view in range(state.final_view, state.final_view + 8)}
    assert count_waiting(replace(state, notarizations=held)) == 7


def test_the_next_view_follows_any_certificate() -> None:
    state = catch().state
    certificate = next(iter(state.notarizations.values()))
    assert find_next_view(replace(state, nullifications={View(77): certificate})) == 78


def test_a_standstill_says_everything_again_within_bounds_and_then_waits() -> None:
    moment = catch()
    certificate = next(iter(moment.state.notarizations.values()))
    many = {View(view): certificate for view in range(moment.state.view, moment.state.view + 100)}
    state = replace(moment.state, nullifications=many, standstill_ms=moment.now_ms)
    state, effects = step(moment.config, state, TimerFired(moment.now_ms))
    batches = [effect.message for effect in effects if isinstance(effect, Send)]
    (batch,) = (message for message in batches if isinstance(message, CertificateBatch))
    assert len(batch.certificates) <= RESENT_CERTIFICATES_MAX + 1
    assert sum(isinstance(message, StatusRequest) for message in batches) == 1
    assert state.standstill_ms >= moment.now_ms + moment.config.parameters.block_time_ms
    _, effects = step(moment.config, state, TimerFired(moment.now_ms))
    assert not any(isinstance(effect, Send) and isinstance(effect.message, StatusRequest) for effect in effects)

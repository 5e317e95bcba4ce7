"""Entering views, and the clock's part: when to give a view up, and when to say again what others may have missed."""

from __future__ import annotations

from milon.base.units import Count, TimeMs, View
from milon.chain.certificate import Certificate, VoteKind
from milon.chain.finality import HEADERS_MAX
from milon.chain.params import Parameters
from milon.consensus.justification import split_certificates
from milon.consensus.members import voter_of
from milon.consensus.messages import CertificateBatch, Status, StatusRequest
from milon.consensus.proposals import is_leading, is_silent, own_proposal
from milon.consensus.state import State, last_votes
from milon.consensus.tally import VIEW_WINDOW, cast_and_send, keep_parts
from milon.consensus.turn import Turn
from milon.consensus.votes import NO_VOTES, may_nullify

PATIENT_VIEWS = 2  # without a finalization before delta grows: the usual pipeline has one
GROWTH_NUMERATOR, GROWTH_DENOMINATOR = 13, 10  # of delta per view
WAITING_MAX = HEADERS_MAX // 2  # notarized blocks above the final one before the cap of delta gives way
DELTA_END_MS = 1 << 40  # 35 years: 90 blocks above `WAITING_MAX` with the usual cap, and timers stay small integers
RESENT_CERTIFICATES_MAX = 32  # at a standstill: the newest; older ones are asked for
RESENT_VIEWS_MAX = 4  # whose own votes are sent again: certificates stand for older ones


def compute_delta(parameters: Parameters, view: View, final_view: View, waiting: int = 0) -> Count:
    """The assumed message delay in `view`: grown by 1.3 for each view beyond two since the last final one, to a cap.

    Where more than `WAITING_MAX` notarized blocks are `waiting` to be final, the cap is too low for this network: it
    grows by 1.3 for each block more. So no run of blocks without a finalization gets longer than sync can serve.
    """
    patience = view - final_view - 1 - PATIENT_VIEWS
    delta = _grow(parameters.delta_ms, patience, parameters.delta_max_ms)
    return Count(_grow(delta, waiting - WAITING_MAX, DELTA_END_MS))


def _grow(delta: int, times: int, cap: int) -> int:
    for _ in range(max(0, times)):
        if delta >= cap:
            break
        delta = delta * GROWTH_NUMERATOR // GROWTH_DENOMINATOR
    return min(delta, cap)


def count_waiting(state: State) -> int:
    """How many views above the final one are known to be notarized."""
    return sum(view > state.final_view for view in state.notarizations)


def compute_standstill_period(parameters: Parameters, delta_ms: Count) -> int:
    """How long after the last finalization, or the last resending, to send again: longer than a whole view takes."""
    return parameters.block_time_ms + 4 * delta_ms


def find_next_view(state: State) -> View:
    """The view after the highest certified one."""
    certified = [*state.notarizations, *state.nullifications, state.final_view]
    return View(max(certified) + 1)


def advance_view(turn: Turn) -> None:
    """Enter the view after the highest certified one, if it is not behind the current one."""
    state = turn.state
    view = find_next_view(state)
    if view <= state.view:
        return
    delta_ms = compute_delta(turn.config.parameters, view, state.final_view, count_waiting(state))
    turn.update(view=view, entered_ms=turn.now_ms, delta_ms=delta_ms)
    _forget_far_behind(turn)


def _forget_far_behind(turn: Turn) -> None:
    """Drop the votes and the proposals of views long past; a block that was notarized there may still be a parent."""
    state = turn.state
    oldest = state.view - VIEW_WINDOW
    if not any(view < oldest for view in (*state.pools, *state.proposals)):
        return
    parents = frozenset(held.content.block for held in state.notarizations.values())

    def is_kept(view: View, block: bytes) -> bool:
        return view >= oldest or view <= state.final_view or block in parents

    proposals = {view: proposal for view, proposal in state.proposals.items() if view >= oldest}
    turn.update(
        pools={view: pool for view, pool in state.pools.items() if view >= oldest},
        proposals=proposals,
        bodies={name: block for name, block in state.bodies.items() if is_kept(block.header.view, name)},
        executed={name: entry for name, entry in state.executed.items() if is_kept(entry.ancestor.view, name)},
        parts=keep_parts(state, proposals),
    )


def nullify_when_due(turn: Turn) -> None:
    """Give the view up: as its leader after one delta without a block, else after two without a proposal or three."""
    state, parameters = turn.state, turn.config.parameters
    if voter_of(turn.config, state) is None or is_silent(state):
        return
    if not may_nullify(state.own.get(state.view, NO_VOTES)):
        return
    deltas = 1 if is_leading(turn) else 3 if state.view in state.proposals else 2
    due_ms = state.entered_ms + parameters.block_time_ms + deltas * state.delta_ms
    if turn.now_ms < due_ms:
        turn.wake_at(due_ms)
    else:
        cast_and_send(turn, VoteKind.NULLIFY, state.view, None)


def resend_when_due(turn: Turn) -> None:
    """At a standstill: the last finalization, the newest certificates and own votes above it, and a question."""
    state = turn.state
    if turn.now_ms >= state.standstill_ms:
        resend(turn)
        postpone_standstill(turn)
    turn.wake_at(turn.state.standstill_ms)


def postpone_standstill(turn: Turn) -> None:
    """Start the waiting time anew."""
    period = compute_standstill_period(turn.config.parameters, turn.state.delta_ms)
    turn.update(standstill_ms=TimeMs(turn.now_ms + period))


def resend(turn: Turn) -> None:
    """Send again, signing nothing, what a peer may have missed, and ask how far the others are."""
    state = turn.state
    views = sorted({*state.notarizations, *state.nullifications})[-RESENT_CERTIFICATES_MAX:]
    certificates: list[Certificate] = [] if state.finalization is None else [state.finalization]
    for view in views:
        certificates.extend(held[view] for held in (state.notarizations, state.nullifications) if view in held)
    if certificates:
        turn.send(CertificateBatch(split_certificates(certificates)[0]))
    if state.finalization is None and state.finality is not None:
        turn.send(Status(state.tip.height, state.finality.finalization))
    proposal = own_proposal(state, state.view)
    if proposal is not None:
        turn.send(proposal)
    for vote in last_votes(state, RESENT_VIEWS_MAX):
        turn.send(vote)
    turn.send(StatusRequest())

"""Whatever a peer sends: the engine takes it or refuses it, and what it refused has changed nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, get_args

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milon.base.codec import encode
from milon.base.errors import Rejected
from milon.base.ids import Digest
from milon.base.units import Epoch, View
from milon.chain.certificate import VoteContent, VoteKind
from milon.consensus.effects import Blame, Effect
from milon.consensus.engine import step
from milon.consensus.events import MessageReceived, TimerFired
from milon.consensus.messages import Message, decode_message
from milon.consensus.state import NO_TIME, State
from tests.consensus.captured import Moment, catch
from tests.properties.test_wire import mutate, strategy_of

ANYTHING: st.SearchStrategy[Message] = st.one_of(*(strategy_of(kind) for kind in get_args(Message)))


@cache
def moment() -> Moment:
    """A validator that is about to receive a proposal."""
    return catch()


def draw_real(data: st.DataObject) -> Message:
    """Something true: the proposal, a certificate that this node has, or a vote of another validator."""
    found = moment()
    state = found.state
    certificates = [*state.notarizations.values(), *state.nullifications.values()]
    kind = data.draw(st.sampled_from(["proposal", "certificate", "vote"]))
    if kind == "proposal" or (kind == "certificate" and not certificates):
        return found.proposal
    if kind == "certificate":
        return data.draw(st.sampled_from(certificates))
    vote_kind = data.draw(st.sampled_from(VoteKind))
    view = View(max(1, state.view + data.draw(st.integers(-3, 20))))
    block = Digest(bytes([data.draw(st.integers(0, 2))]) * 32)
    content = VoteContent(vote_kind, Epoch(data.draw(st.sampled_from([0, 0, 0, 1, 2]))), view, block)
    if vote_kind is VoteKind.NULLIFY:
        content = replace(content, block=None)
    return found.config.cryptography.sign_vote(found.leader, found.config.chain_id, content)


def draw_message(data: st.DataObject) -> Message:
    """A message of any kind, a real one, or one whose bytes are near a real one's."""
    kind = data.draw(st.sampled_from(["anything", "real", "near"]))
    if kind == "anything":
        return data.draw(ANYTHING)
    message = draw_real(data)
    if kind == "near":
        try:
            return decode_message(mutate(encode(message), data))
        except Rejected:
            return message
    return message


def take(state: State, message: Message) -> tuple[State, tuple[Effect, ...]]:
    """The step that the message causes, from a peer that is known already."""
    found = moment()
    return step(found.config, state, MessageReceived(found.now_ms, "0", message))


def without_timer(state: State) -> Any:
    """The state but for what the shell's timer is set to, which a step may always change."""
    return replace(state, timer_ms=NO_TIME)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_refused_message_changes_nothing_and_none_crashes(data: st.DataObject) -> None:
    found = moment()
    state, _ = step(found.config, found.state, TimerFired(found.now_ms))
    for _ in range(data.draw(st.integers(1, 6))):
        message = draw_message(data)
        before = state
        state, effects = take(state, message)
        if any(isinstance(effect, Blame) for effect in effects):
            settled, _ = step(found.config, before, TimerFired(found.now_ms))
            assert without_timer(state) == without_timer(settled)

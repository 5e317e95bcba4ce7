"""The one loop that owns the engine: events in, effects out, in the order persist, send, compute, publish.

What must survive a crash is in the vote log, synced, before a message leaves; a block is in the store before anybody is
told that it is final. The engine runs in a thread, one step at a time; while it runs nobody else touches its state.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import trio

from milon.base.errors import Reason, Rejected
from milon.base.ids import short
from milon.base.units import TimeMs
from milon.chain.evidence import epoch_of, offence_of, view_of
from milon.consensus.application import Config
from milon.consensus.effects import (
    Accuse,
    Blame,
    CommitBlocks,
    Effect,
    FinalizedBlock,
    Persist,
    ProposalRefused,
    PruneLog,
    Send,
    SetTimer,
    TransactionRefused,
)
from milon.consensus.engine import step
from milon.consensus.events import Committed, Event, MessageReceived, Peer, TimerFired
from milon.consensus.messages import encode_message, is_bulk
from milon.consensus.state import State
from milon.node.vote_log import VoteLog
from milon.p2p.transport import Channel, PeerId, Transport
from milon.state.store import Store

_LOG = logging.getLogger(__name__)

EVENTS_MAX = 2_048  # waiting; consensus repeats what is lost, so a full queue drops the newest
PEER_EVENTS_MAX = 256  # of one peer among them: a flood costs its sender's share, not everybody's votes
TRANSACTIONS_MAX = 1_024  # among them: anybody can make those, and those that are lost are pulled again
BATCH_MAX = 64  # events a turn: one sync of the vote log serves them all
_USUAL = (Reason.DUPLICATE, Reason.WRONG_NONCE)  # gossip brings what is in a block already


def read_clock_ms() -> TimeMs:
    """This machine's clock."""
    return TimeMs(time.time_ns() // 1_000_000)


def _share_of(event: Event) -> tuple[Peer, int]:
    """With whom an event shares its room in the queue, and how much there is."""
    if isinstance(event, MessageReceived):
        return event.peer, PEER_EVENTS_MAX
    return "", TRANSACTIONS_MAX


class Runner:
    """Owns the engine's state, the vote log, the store's writes and the timer."""

    def __init__(
        self,
        config: Config,
        state: State,
        first_effects: tuple[Effect, ...],
        store: Store,
        vote_log: VoteLog,
        transport: Transport,
        on_final: Callable[[tuple[FinalizedBlock, ...]], None],
        now_ms: Callable[[], TimeMs] = read_clock_ms,
    ) -> None:
        """`first_effects`: of the restart; `on_final` hears of blocks once they are in the store."""
        self._config = config
        self.state = state
        self._first_effects = first_effects
        self._store = store
        self._vote_log = vote_log
        self._transport = transport
        self._on_final = on_final
        self._now_ms = now_ms
        self._timer_ms: TimeMs | None = None
        self._waiting: dict[Peer, int] = {}  # queued events by who shares the room
        self._threads = trio.CapacityLimiter(1)  # its own: others' work in threads must not hold up votes
        self._sender, self._receiver = trio.open_memory_channel[Event](EVENTS_MAX)
        self.dropped = 0  # events that found the queue full

    def feed(self, event: Event) -> None:
        """Queue an event; a full queue, or its sender's full share of it, drops it and counts."""
        lane, share = _share_of(event)
        if self._waiting.get(lane, 0) >= share:
            self.dropped += 1
            return
        try:
            self._sender.send_nowait(event)
        except trio.WouldBlock:
            self.dropped += 1
            return
        self._waiting[lane] = self._waiting.get(lane, 0) + 1

    def _taken(self, event: Event) -> Event:
        lane, _ = _share_of(event)
        left = self._waiting.pop(lane) - 1
        if left:
            self._waiting[lane] = left
        return event

    async def run(self) -> None:
        """Until cancelled. A turn that has begun is carried out whole."""
        with trio.CancelScope(shield=True):
            await self._carry_out(self._first_effects)
        while True:
            events = await self._wait()
            with trio.CancelScope(shield=True):
                await self._turn(events)

    async def _wait(self) -> list[Event]:
        """At least one event: those that are queued, or the timer's."""
        wait_s = math.inf if self._timer_ms is None else max(0.0, (self._timer_ms - self._now_ms()) / 1_000)
        events: list[Event] = []
        with trio.move_on_after(wait_s):
            events.append(self._taken(await self._receiver.receive()))
        while events and len(events) < BATCH_MAX:
            try:
                events.append(self._taken(self._receiver.receive_nowait()))
            except trio.WouldBlock:
                break
        if self._timer_ms is not None and self._now_ms() >= self._timer_ms:
            self._timer_ms = None
            events.append(TimerFired(self._now_ms()))
        return events

    async def _turn(self, events: list[Event]) -> None:
        if not events:
            return
        self.state, effects = await trio.to_thread.run_sync(self._step_all, events, limiter=self._threads)
        await self._carry_out(effects)

    def _step_all(self, events: list[Event]) -> tuple[State, tuple[Effect, ...]]:
        """Runs in a thread: the engine's work, execution of blocks included."""
        state = self.state
        effects: list[Effect] = []
        for event in events:
            state, more = step(self._config, state, event)
            effects.extend(more)
        return state, tuple(effects)

    async def _carry_out(self, effects: tuple[Effect, ...]) -> None:
        records = [effect.record for effect in effects if isinstance(effect, Persist)]
        if records:
            await trio.to_thread.run_sync(self._vote_log.append, records, limiter=self._threads)
        for effect in effects:
            match effect:
                case Persist():
                    pass  # above, all at once
                case Send():
                    await self._send(effect)
                case SetTimer():
                    self._timer_ms = effect.at_ms
                case CommitBlocks():
                    await self._commit(effect)
                case PruneLog():
                    await trio.to_thread.run_sync(self._vote_log.prune, effect.place, limiter=self._threads)
                case Blame():
                    _LOG.info("peer %s: %s: %s", effect.peer, effect.reason.value, effect.detail)
                    self._transport.report(PeerId(effect.peer), effect.reason)
                case Accuse():
                    offence = offence_of(effect.evidence).name.lower().replace("_", " ")
                    place = (epoch_of(effect.evidence), view_of(effect.evidence))
                    _LOG.warning("validator %s: %s in epoch %d, view %d", short(effect.offender), offence, *place)
                case ProposalRefused():
                    proposer = effect.proposer.hex()[:8]
                    _LOG.warning("view %d: block of %s is invalid here: %s", effect.view, proposer, effect.detail)
                case TransactionRefused():
                    level = logging.DEBUG if effect.reason in _USUAL else logging.INFO
                    _LOG.log(level, "transaction %s: %s", effect.transaction.hex()[:8], effect.detail)

    async def _send(self, effect: Send) -> None:
        channel = Channel.SYNC if is_bulk(effect.message) else Channel.CONSENSUS
        payload = await trio.to_thread.run_sync(encode_message, effect.message, limiter=self._threads)
        try:
            if effect.peer is None:
                self._transport.broadcast(channel, payload)
            else:
                self._transport.send(PeerId(effect.peer), channel, payload)
        except Rejected as error:
            _LOG.warning("not sent: %s", error)

    async def _commit(self, effect: CommitBlocks) -> None:
        await trio.to_thread.run_sync(self._store.commit, effect.commit, limiter=self._threads)
        self._on_final(effect.finalized)
        event = Committed(self._now_ms(), effect.commit.tip[0])
        self.state, effects = await trio.to_thread.run_sync(self._step_all, [event], limiter=self._threads)
        await self._carry_out(effects)

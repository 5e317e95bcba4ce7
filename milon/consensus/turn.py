"""One step under way: the state so far and the effects collected. It lives no longer than the step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from milon.base.units import TimeMs
from milon.consensus.application import Config
from milon.consensus.effects import ORDER, Effect, Persist, Send, SetTimer
from milon.consensus.events import Peer
from milon.consensus.messages import LogRecord, Message
from milon.consensus.state import State


class Turn:
    """What the parts of the engine write to; `finish` gives the result."""

    __slots__ = ("_effects", "_wake_ms", "config", "now_ms", "peer", "state")

    def __init__(self, config: Config, state: State, now_ms: TimeMs, peer: Peer | None = None) -> None:
        """A turn that has changed nothing yet; `peer` sent the message that it is about, if any did."""
        self.peer = peer
        self.config = config
        self.state = state
        self.now_ms = now_ms
        self._effects: list[Effect] = []
        self._wake_ms: TimeMs | None = None

    def update(self, **changes: Any) -> None:
        """Replace fields of the state; where none differs, the state stays the same object."""
        if any(getattr(self.state, name) is not value for name, value in changes.items()):
            self.state = replace(self.state, **changes)

    def emit(self, effect: Effect) -> None:
        """Add an effect; `finish` puts them into the order in which they are carried out."""
        self._effects.append(effect)

    def persist(self, record: LogRecord) -> None:
        """Write down before anything of this step is sent."""
        self.emit(Persist(record))

    def send(self, message: Message, peer: Peer | None = None) -> None:
        """Send to one peer, or to all."""
        self.emit(Send(peer, message))

    def mark(self, peer: Peer) -> tuple[State, int]:
        """Go on with what a peer said; the mark is for `undo`."""
        self.peer = peer
        return self.state, len(self._effects)

    def undo(self, mark: tuple[State, int]) -> None:
        """Forget everything since the mark, but for the time to wake."""
        self.state = mark[0]
        del self._effects[mark[1] :]

    def wake_at(self, at_ms: int) -> None:
        """Make sure that a step happens at `at_ms` or before; a time that is past means as soon as possible."""
        wanted = TimeMs(max(at_ms, self.now_ms))
        self._wake_ms = wanted if self._wake_ms is None else min(self._wake_ms, wanted)

    def finish(self, is_timer_spent: bool) -> tuple[State, tuple[Effect, ...]]:
        """The new state and the effects in order; sets the timer where the time to wake is another than before."""
        if self._wake_ms is not None and (is_timer_spent or self._wake_ms != self.state.timer_ms):
            self.update(timer_ms=self._wake_ms)
            self.emit(SetTimer(self._wake_ms))
        return self.state, tuple(sorted(self._effects, key=lambda effect: ORDER.index(type(effect))))

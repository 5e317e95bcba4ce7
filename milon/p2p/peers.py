"""What a transport remembers of its peers: what passed, how they behaved, and who is refused for a while."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from milon.base.errors import Reason
from milon.p2p.transport import PeerCounters, PeerId

SCORE_LIMIT = 100.0  # four lies or a hundred annoyances within a minute
SCORE_HALF_LIFE_S = 60.0  # an honest node under load is forgiven within minutes
BAN_S = 60.0  # long enough that coming back is not worth it, short enough for an operator to mend a mistake
BAN_MAX_S = 3600.0  # each further ban doubles up to here
REMEMBERED_MAX = 1024  # peers remembered at once; the longest unseen goes first

# What no honest node of this version sends; everything else may be delay, load or disagreement.
_LIES = frozenset(
    {
        Reason.BAD_PROOF,
        Reason.BAD_SIGNATURE,
        Reason.CORRUPT,
        Reason.DIFFERS,
        Reason.MALFORMED,
        Reason.NOT_CANONICAL,
        Reason.OUT_OF_RANGE,
        Reason.TOO_LARGE,
        Reason.WRONG_TYPE,
    }
)


def compute_weight(reason: Reason) -> float:
    """How much one report for `reason` counts against a peer, of `SCORE_LIMIT`."""
    if reason is Reason.WRONG_CHAIN:
        return SCORE_LIMIT
    return 25.0 if reason in _LIES else 1.0


@dataclass(slots=True)
class _Record:
    """One peer's memory."""

    counters: PeerCounters
    seen: float  # seconds on the clock
    score: float = 0.0
    bans: int = 0  # how often it was banned
    banned_until: float = 0.0  # seconds on the clock


class PeerBook:
    """Counters, scores and bans by peer id; bounded; time comes from the clock given."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._records: dict[PeerId, _Record] = {}

    def _record(self, peer: PeerId) -> _Record:
        record = self._records.pop(peer, None) or _Record(PeerCounters(), self._clock())
        now = self._clock()
        record.score *= 0.5 ** ((now - record.seen) / SCORE_HALF_LIFE_S)
        record.seen = now
        self._records[peer] = record  # last in order: longest unseen first
        while len(self._records) > REMEMBERED_MAX:
            del self._records[next(iter(self._records))]
        return record

    def count_in(self, peer: PeerId, size_bytes: int) -> None:
        """One message of `size_bytes` came from `peer`."""
        record = self._record(peer)
        counters = record.counters
        record.counters = replace(
            counters, bytes_in=counters.bytes_in + size_bytes, frames_in=counters.frames_in + 1
        )

    def count_out(self, peer: PeerId, size_bytes: int) -> None:
        """One message of `size_bytes` went to `peer`."""
        record = self._record(peer)
        counters = record.counters
        record.counters = replace(
            counters, bytes_out=counters.bytes_out + size_bytes, frames_out=counters.frames_out + 1
        )

    def count_drop(self, peer: PeerId) -> None:
        """One message to or from `peer` was given up."""
        record = self._record(peer)
        record.counters = replace(record.counters, drops=record.counters.drops + 1)

    def report(self, peer: PeerId, reason: Reason) -> bool:
        """Count misbehaviour; True when that bans the peer, who must then be disconnected."""
        record = self._record(peer)
        record.counters = replace(record.counters, rejects=record.counters.rejects + 1)
        record.score += compute_weight(reason)
        if record.score < SCORE_LIMIT:
            return False
        record.score = 0.0
        record.banned_until = record.seen + min(BAN_S * 2.0**record.bans, BAN_MAX_S)
        record.bans = min(record.bans + 1, 16)
        return True

    def is_banned(self, peer: PeerId) -> bool:
        """Whether connections from and to `peer` are refused now."""
        record = self._records.get(peer)
        return record is not None and self._clock() < record.banned_until

    def snapshot(self) -> Mapping[PeerId, PeerCounters]:
        """The counters of every peer remembered, frozen."""
        return MappingProxyType({peer: record.counters for peer, record in self._records.items()})

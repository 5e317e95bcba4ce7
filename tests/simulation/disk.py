"""What survives a crash in the simulation: the store, the vote log with its frames, and the highest place signed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from milon.base.codec import encode
from milon.consensus.messages import LoggedVote, LogRecord, decode_record, place_of_record
from milon.consensus.state import NO_PLACE
from milon.consensus.votes import Place
from milon.node.vote_log import FORMAT, _frame, read_log
from milon.state.memory_store import MemoryStore


@dataclass
class Disk:
    """One node's; batches reach the log as the node's own log writes them: whole, or not at all."""

    is_encoded: bool  # records are kept as bytes would give them back
    store: MemoryStore = field(default_factory=MemoryStore)  # final blocks and the ledger
    log: list[LogRecord] = field(default_factory=list)  # what the vote log would give back
    signed: Place = NO_PLACE  # of the small file beside the log
    signed_votes: int = 0  # of the same file

    def append(self, records: Sequence[LogRecord]) -> None:
        """A turn's records, synced, and then the highest place signed."""
        self.log.extend(decode_record(encode(record)) if self.is_encoded else record for record in records)
        for record in records:
            if isinstance(record, LoggedVote):
                place = place_of_record(record)
                if place >= self.signed:
                    self.signed_votes = self.signed_votes + 1 if place == self.signed else 1
                    self.signed = place

    def tear(self, records: Sequence[LogRecord], share: float) -> None:
        """The machine stops while a batch is written: `share` of its bytes arrived, and recovery cuts them off.

        With all of them there the votes are in the log, and the highest place signed is not yet in its file.
        """
        whole = FORMAT + _frame(records)
        arrived = len(FORMAT) + int(share * (len(whole) - len(FORMAT)))
        survivors, end = read_log(whole[:arrived], "votes.log")
        if len(survivors) not in (0, len(records)) or end > arrived:
            raise RuntimeError("half a batch survived")
        self.log.extend(survivors)

    def lose_newest(self, count: int) -> None:
        """An old copy of the log takes its place; the small file beside it stays."""
        del self.log[max(0, len(self.log) - count) :]

    def prune(self, place: Place) -> None:
        """Records up to this place leave."""
        self.log = [record for record in self.log if place_of_record(record) > place]

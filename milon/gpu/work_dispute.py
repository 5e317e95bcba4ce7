"""What a worker does in a dispute: the next move of a side, or the verdict."""

from __future__ import annotations

import time
from collections import OrderedDict

from milon.base.hashing import digest
from milon.base.ids import Digest
from milon.base.units import Count
from milon.gpu.attacks_steps import BIT_FLIP, stand_by
from milon.gpu.dispute_oracle import Oracle
from milon.gpu.dispute_referee import Referee
from milon.gpu.work_library import Files, Library
from milon.pol.dispute import spot_of
from milon.pol.work import (
    DisputeAnswer,
    DisputeAnswered,
    DisputeChoose,
    DisputeChosen,
    DisputeRequest,
    DisputeResult,
    DisputeWork,
    PieceRefereed,
    RefereePiece,
    Request,
)

ORACLES_KEPT = 2  # each holds a state or two between moves; a third dispute at a time starts anew at every move


class Disputes:
    """The disputes a worker plays in; between two moves it keeps what the next one is likely to need."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._oracles: OrderedDict[Digest, Oracle] = OrderedDict()

    def make_room(self, request: Request) -> None:
        """Let go of the larger part of what is kept before other work."""
        if not isinstance(request, DisputeRequest):
            for oracle in self._oracles.values():
                oracle.rest()

    def perform(self, request: DisputeRequest) -> DisputeResult:
        """A move, or the verdict.

        Raises `Rejected`: UNAVAILABLE where a blob is not here; NOT_FINITE where an honest run has no answer to give,
        which no honest trainer is asked for.
        """
        match request:
            case DisputeAnswer():
                oracle = self._find(request.work, request.tamper)
                return DisputeAnswered(oracle.answer(spot_of(request.work.game)))
            case DisputeChoose():
                return DisputeChosen(self._find(request.work).choose(request.work.game))
            case RefereePiece():
                return self._judge(request.work)

    def _judge(self, work: DisputeWork) -> PieceRefereed:
        began = time.perf_counter()
        files, item = Files(work.files), work.item
        referee = Referee(self._library.open_work(files, work.spec, work.seed, work.round), int(item.segment))
        verdict = referee.judge(
            work.game, item.record, lambda is_end: files.read(item.record.state if is_end else item.start)
        )
        return PieceRefereed(verdict, Count(int((time.perf_counter() - began) * 1000)))

    def _find(self, work: DisputeWork, tamper: str = "") -> Oracle:
        """The oracle of the segment, the least recently used given up for a new one.

        Of the adversaries one alone stands by its lie; the others have nothing to show but an honest run.
        """
        item, spec = work.item, work.spec
        numbers = (work.round, item.segment, spec.terms.batch_size, spec.terms.steps_per_segment)
        named = (spec.train, spec.train_rows, work.seed, item.start, *(number.to_bytes(8, "big") for number in numbers))
        key = digest("oracle", tamper.encode(), *named)
        if key in self._oracles:
            self._oracles.move_to_end(key)
            return self._oracles[key]
        while len(self._oracles) >= ORACLES_KEPT:
            self._oracles.popitem(last=False)
        files = Files(work.files)
        round_work = self._library.open_work(files, spec, work.seed, work.round)
        make = stand_by if tamper == BIT_FLIP else Oracle
        self._oracles[key] = make(round_work, files.read(item.start), int(item.segment))
        return self._oracles[key]

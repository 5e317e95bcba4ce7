"""How a node plays in disputes by bisection: what it shows as trainer, chooses as challenger and judges as referee.

Each move is computed from the ledger's game and the state before the segment, so that a node that was killed between
two moves goes on with the next one. A move that others wait for comes before all other work but what is under way.
"""

from __future__ import annotations

import logging

from milon.base.errors import Reason, Rejected
from milon.base.ids import NO_DIGEST
from milon.base.units import Count
from milon.chain.transaction import AnswerDispute, ChooseDispute, Judge
from milon.contracts.duties import DisputeAnswerDuty, DisputeChooseDuty, DisputeDuty, RefereeDuty
from milon.node.task_context import (
    EVIDENCE_FETCH_S,
    TaskContext,
    as_result,
    fetch_files,
    fetch_job,
    fetch_records,
    fetch_starts,
    size_of_state,
)
from milon.pol.claim import SegmentRecord
from milon.pol.dispute import Choice, Level, Pick
from milon.pol.verdict import Verdict
from milon.pol.work import (
    BlobFile,
    DisputeAnswer,
    DisputeAnswered,
    DisputeChoose,
    DisputeChosen,
    DisputeRequest,
    DisputeWork,
    PieceRefereed,
    RefereePiece,
    ReplayItem,
    Result,
)

_LOG = logging.getLogger(__name__)

PRIORITY = 0  # with aggregations: each move is short, and a clock runs against who is late
KIND = "dispute"  # of work, as people see it
START_DIFFERS = Choice(Pick.CHILD, Count(0))  # of the first answer: the root before the segment


async def perform_dispute(context: TaskContext, duty: DisputeDuty) -> AnswerDispute | ChooseDispute | Judge:
    """The next move of a side, or the own verdict. Raises `Rejected(UNAVAILABLE)` where it should be tried again."""
    claim, dispute = duty.claim, Count(duty.claim.dispute)
    match duty:
        case DisputeAnswerDuty():
            work = await _open_segment(context, duty)
            if work is None:
                raise Rejected(Reason.TOO_LARGE, "the state before the segment is none of this job's")
            is_false = claim.accusation.segment == claim.first + claim.count - 1
            request = DisputeAnswer(work, context.adversary if is_false else "")
            answered = as_result(DisputeAnswered, await _ask(context, duty, request))
            return AnswerDispute(claim.claim, dispute, duty.game.moves, answered.answer)
        case DisputeChooseDuty():
            work = await _open_segment(context, duty)
            choice = START_DIFFERS
            if work is not None:
                choice = as_result(DisputeChosen, await _ask(context, duty, DisputeChoose(work))).choice
            return ChooseDispute(claim.claim, dispute, duty.game.moves, choice)
        case RefereeDuty():
            return Judge(claim.claim, dispute, await _judge(context, duty))


async def _ask(context: TaskContext, duty: DisputeDuty, request: DisputeRequest) -> Result:
    claim = duty.claim
    with context.board.showing(KIND, claim.job, claim.round, 1, claim.trainer) as on_progress:
        return await context.work(request, PRIORITY, on_progress)


def _place_of(duty: DisputeDuty) -> int:
    """Of the segment in dispute, in the claim."""
    return int(duty.claim.accusation.segment - duty.claim.first)


async def _open_segment(context: TaskContext, duty: DisputeAnswerDuty | DisputeChooseDuty) -> DisputeWork | None:
    """The segment for one of the two sides; None where what the trainer names as the state before it is too large."""
    files = await fetch_job(context, duty.spec)
    found = await fetch_starts(context, duty.claim, duty.state, (_place_of(duty),))
    if found is None:
        raise Rejected(Reason.UNAVAILABLE, f"the state before segment {duty.claim.accusation.segment} is not to be had")
    if not isinstance(found, tuple):
        return None
    items, states = found
    return _make_work(duty, items[0], files + states)


def _make_work(duty: DisputeDuty, item: ReplayItem, files: tuple[BlobFile, ...]) -> DisputeWork:
    return DisputeWork(duty.spec, files, duty.seed, Count(duty.claim.round), item, duty.game)


async def _judge(context: TaskContext, duty: RefereeDuty) -> Verdict:
    """The verdict on a game at its end.

    UNAVAILABLE where a state that it hangs on is withheld, and the trainer had its time to show it.
    """
    if context.will_accept:
        return Verdict.TRUE
    files = await fetch_job(context, duty.spec)
    item, states = _make_bare_item(duty), tuple[BlobFile, ...]()
    if duty.game.level is Level.BINDING:
        found = await _fetch_bound(context, duty)
        if found is Verdict.UNAVAILABLE and not duty.may_be_withheld:
            raise Rejected(Reason.UNAVAILABLE, f"a state of segment {item.segment} is not to be had yet")
        if isinstance(found, Verdict):
            return found
        item, states = found
    request = RefereePiece(_make_work(duty, item, files + states))
    return as_result(PieceRefereed, await _ask(context, duty, request)).verdict


def _make_bare_item(duty: RefereeDuty) -> ReplayItem:
    """The segment by its number alone: only at BINDING does a verdict hang on what the trainer holds."""
    segment = duty.claim.accusation.segment
    return ReplayItem(segment, NO_DIGEST, SegmentRecord(segment, NO_DIGEST, NO_DIGEST, Count(0)))


async def _fetch_bound(context: TaskContext, duty: RefereeDuty) -> tuple[ReplayItem, tuple[BlobFile, ...]] | Verdict:
    """The record, and the state whose root is in dispute; FALSE where that is too large to be one of the job's."""
    limit, place = await size_of_state(context, duty.state), _place_of(duty)
    try:
        records = await fetch_records(context, duty.claim, EVIDENCE_FETCH_S)
        start = records[place - 1].state if place else duty.claim.start
        item = ReplayItem(records[place].segment, start, records[place])
        bound = item.record.state if duty.game.value else start
        return item, await fetch_files(context, [bound], limit, EVIDENCE_FETCH_S)
    except Rejected as error:
        _LOG.warning("claim %s: %s", duty.claim.claim.hex()[:8], error)
        if error.reason is Reason.TOO_LARGE:
            return Verdict.FALSE
        if error.reason is Reason.UNAVAILABLE:
            return Verdict.UNAVAILABLE
        raise

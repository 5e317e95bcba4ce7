"""`milon verify-block` on a round in which one trainer took over a segment of another."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from milon.base.codec import encode
from milon.base.hashing import digest
from milon.base.ids import ClaimId, Digest
from milon.base.units import Count
from milon.chain.learning import BlockReport, SettledClaim
from milon.chain.transaction import SubmitJob
from milon.gpu.work_library import write_blob
from milon.node.questions import BlockAnswer
from milon.node.verify_levels import Level
from milon.pol.claim import SegmentRecords, compute_records_root
from milon.pol.terms import JobSpec
from milon.pol.verdict import RoundOutcome
from milon.pol.work import AggregateRound, BlobFile, FinalState, TrainSegments, collect_finals
from tests.gpu.small_job import SEED, list_files, prepare_small
from tests.node.test_verify import FOLDER, KEYS, Records, block_of, job, outcome, perform, trained, verify

LAST = 5  # the segment that the second trainer was given and did not claim


def spec() -> JobSpec:
    submit = job().action
    assert isinstance(submit, SubmitJob)
    return submit.spec


@cache
def take_over(start: Digest) -> Records:
    """The last segment, trained from a state."""
    files = (*list_files(prepare_small()), BlobFile(start, str(FOLDER / start.hex())))
    request = TrainSegments(spec(), files, start, SEED, Count(0), Count(LAST), Count(1), str(FOLDER), "")
    records: Records = perform(request).records
    return records


def aggregate(finals: tuple[FinalState, ...]) -> RoundOutcome:
    files = [*list_files(prepare_small()), *(BlobFile(e.state, str(FOLDER / e.state.hex())) for e in finals)]
    request = AggregateRound(spec(), tuple(files), spec().initial_state, Count(0), finals, str(FOLDER))
    found: RoundOutcome = perform(request).outcome
    return found


def with_records(claim: SettledClaim, records: Records) -> SettledClaim:
    blob = write_blob(FOLDER, encode(SegmentRecords(records))).blob
    root, count = compute_records_root(records), Count(len(records))
    return replace(claim, count=count, records_root=root, records=blob, final_state=records[-1].state)


def closed_with(taken_records: Records, **changes: object) -> BlockAnswer:
    """Three segments and the last one of the first trainer, two of the second; `changes` to the claim of the last."""
    honest = trained(FOLDER)
    answer = block_of(honest, outcome(FOLDER))
    (closed,) = answer.report.closed
    own, late = closed.claims
    late = with_records(late, honest[1][:2])
    taken = with_records(own, taken_records)
    taken = replace(
        taken, claim=ClaimId(digest("test", b"taken")), first=Count(LAST), start=own.final_state, continues=own.claim
    )
    claims = (own, replace(taken, **changes), late)  # type: ignore[arg-type]
    steps = int(spec().terms.steps_per_segment)
    finals = collect_finals((claim.trainer, claim.count * steps, claim.final_state) for claim in claims)
    closed = replace(closed, claims=claims, outcome=aggregate(finals))
    return replace(answer, report=BlockReport((), (closed,)))


async def test_a_segment_that_was_taken_over_is_replayed_from_its_trainers_own_state() -> None:
    own = trained(FOLDER)[0]
    report = await verify(closed_with(take_over(own[-1].state)), level=Level.FULL)
    assert (report.verdict, report.segments_replayed) == ("valid", 6), report.detail
    assert len(report.proved) == 3


async def test_one_update_of_each_trainer_is_aggregated_with_all_its_steps() -> None:
    own, late = trained(FOLDER)
    answer = closed_with(take_over(own[-1].state))
    steps = int(spec().terms.steps_per_segment)
    expected = (
        FinalState(KEYS[0].account, Count(4 * steps), take_over(own[-1].state)[-1].state),
        FinalState(KEYS[1].account, Count(2 * steps), late[1].state),
    )
    (closed,) = answer.report.closed
    assert closed.outcome == aggregate(tuple(sorted(expected, key=lambda final: final.trainer)))
    assert len(closed.outcome.accepted) == 2


async def test_a_segment_trained_from_another_state_is_false() -> None:
    late = trained(FOLDER)[1]
    report = await verify(closed_with(take_over(late[1].state)), level=Level.SEGMENTS)
    assert (report.verdict, report.segment) == ("invalid", LAST)
    assert report.trainer == KEYS[0].account.hex()


async def test_a_claim_starts_from_nothing_but_the_round_or_an_accepted_claim_of_its_trainer() -> None:
    own, late = trained(FOLDER)
    records = take_over(late[1].state)
    for changes in (
        {"start": late[1].state},
        {"start": late[1].state, "continues": ClaimId(digest("test", bytes([1])))},
        {"start": late[1].state, "continues": None},
        {"continues": ClaimId(digest("test", b"unknown"))},
    ):
        report = await verify(closed_with(records, **changes), level=Level.SEGMENTS)
        assert report.verdict == "invalid" and "starts from state" in report.detail, changes
    assert own[-1].state != late[1].state

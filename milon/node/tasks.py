"""How each duty is done: fetch what it reads, ask the worker, and say what came of it as an action for the chain."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import trio

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.hashing import digest
from milon.base.ids import AccountId, VrfProof
from milon.base.signing import sign
from milon.base.units import Count
from milon.chain.transaction import (
    Action,
    AggregateVote,
    Attest,
    Challenge,
    CommitAttestation,
    Enrol,
    HoldJob,
    Judge,
    OpenTraces,
)
from milon.contracts.claims_records import ClaimRecord
from milon.contracts.duties import (
    AggregateDuty,
    CommitDuty,
    DisputeAnswerDuty,
    DisputeChooseDuty,
    Duty,
    EnrolDuty,
    HoldDuty,
    JudgeDuty,
    OpenDuty,
    RefereeDuty,
    RevealDuty,
    TrainDuty,
    WatchDuty,
    name_duty,
)
from milon.contracts.jobs import PROBLEM_CHARACTERS_MAX
from milon.node.dispute_tasks import perform_dispute
from milon.node.folder import PRIVATE, read_file, write_file
from milon.node.own_rounds import load_own_round
from milon.node.reports import keep_report
from milon.node.task_context import (
    EVIDENCE_FETCH_S,
    TaskContext,
    as_result,
    fetch_files,
    fetch_job,
    fetch_starts,
    recomputing_s,
    scratch,
    size_of_state,
)
from milon.node.train_tasks import train
from milon.node.watch import watch
from milon.pol.attestation import AttestationContent, commit_attestation
from milon.pol.claim import (
    key_traces,
)
from milon.pol.sampling import draw_sample
from milon.pol.terms import JobSpec, Settlement, audit_ppm_of
from milon.pol.verdict import Refusal, RoundOutcome, Verdict
from milon.pol.work import (
    AggregateRound,
    BlobFile,
    CheckJob,
    FinalState,
    JobChecked,
    ReplaySegments,
    RoundAggregated,
    SegmentReplayed,
    SegmentsReplayed,
)

_LOG = logging.getLogger(__name__)

PERCENTS = 100  # an aggregation's parts, as people see it
WITHHELD = "its final state was not to be had"  # part of signed outcomes: the same words everywhere
CHECKED_MAX = 64  # as many as jobs may be open
ATTESTATION_MAX_BYTES = 4_096  # one of some 300 bytes


async def perform(context: TaskContext, duty: Duty) -> Action | None:
    """Do one duty; what to say on the chain, if anything. Raises `Rejected(UNAVAILABLE)` to be tried again."""
    match duty:
        case HoldDuty():
            return await _hold(context, duty)
        case EnrolDuty():
            return Enrol(duty.job, (await _check(context, duty.spec)).segments_per_hour)
        case TrainDuty():
            return await train(context, duty)
        case CommitDuty():
            return await _commit(context, duty)
        case RevealDuty():
            return await _reveal(context, duty)
        case OpenDuty():
            place = (duty.job, int(duty.round), int(duty.first))
            own = await trio.to_thread.run_sync(load_own_round, context.folder, *place)
            return OpenTraces(duty.claim, own.records, own.traces)
        case JudgeDuty():
            return await _judge(context, duty)
        case DisputeAnswerDuty() | DisputeChooseDuty() | RefereeDuty():
            return await perform_dispute(context, duty)
        case AggregateDuty():
            return await _aggregate(context, duty)
        case WatchDuty():
            return await watch(context, duty)


async def _check(context: TaskContext, spec: JobSpec) -> JobChecked:
    known = context.checked.get(encode(spec))
    if known is not None:
        return known
    files = await fetch_job(context, spec)
    parameters = context.parameters
    request = CheckJob(spec, files, parameters.program_memory_bytes_max, parameters.program_operations_max)
    checked = as_result(JobChecked, await context.work(request, 3, lambda progress: None))
    while len(context.checked) >= CHECKED_MAX:
        del context.checked[next(iter(context.checked))]
    context.checked[encode(spec)] = checked
    return checked


async def _hold(context: TaskContext, duty: HoldDuty) -> HoldJob:
    try:
        await _check(context, duty.spec)
    except Rejected as error:
        if error.reason is Reason.UNAVAILABLE:
            raise
        return HoldJob(duty.job, str(error)[:PROBLEM_CHARACTERS_MAX])
    return HoldJob(duty.job, "")


async def _replay(
    context: TaskContext, duty: CommitDuty | RevealDuty | JudgeDuty, places: tuple[int, ...], kind: str
) -> tuple[SegmentReplayed, ...] | None:
    """Run the claim's segments at `places` again; None where the trainer withholds what that needs.

    Raises `Rejected` for what is not the trainer's fault: the job's own blobs, the worker, this disk.
    """
    claim = duty.claim
    job_files = await fetch_job(context, duty.spec)
    patience_s = 0.0 if isinstance(duty, JudgeDuty) else recomputing_s(duty.spec, context.parameters)
    found = await fetch_starts(context, claim, duty.state, places, patience_s)
    if found is None or isinstance(found, SegmentReplayed):
        return (found,) if found else None
    items, files = found
    request = ReplaySegments(duty.spec, job_files + files, duty.seed, Count(claim.round), items)
    with context.board.showing(kind, claim.job, claim.round, len(items), claim.trainer) as on_progress:
        return as_result(SegmentsReplayed, await context.work(request, 1, on_progress)).results


def _attestation_path(context: TaskContext, claim: ClaimRecord) -> Path:
    return context.folder / f"{claim.job.hex()}-{claim.round}-{claim.claim.hex()[:16]}.attestation"


def _draw(context: TaskContext, duty: CommitDuty | RevealDuty) -> tuple[VrfProof, tuple[int, ...]]:
    claim = duty.claim
    if claim.beacon is None:
        raise RuntimeError("a committee without a beacon")
    ppm = audit_ppm_of(duty.spec.terms, int(claim.round))
    return draw_sample(context.key, claim.claim, claim.beacon, int(claim.count), ppm)


def _make_attestation(
    context: TaskContext, claim: ClaimRecord, proof: VrfProof, results: tuple[SegmentReplayed, ...]
) -> Attest:
    """The own word; its salt is a secret that the key gives again after a restart."""
    keyed = key_traces(context.key.account, [result.trace for result in results])
    salt = digest("attestation-salt", sign(context.key, "attestation-salt", "", claim.claim))
    return Attest(claim.claim, proof, keyed, salt)


async def _commit(context: TaskContext, duty: CommitDuty) -> CommitAttestation | Challenge:
    """Replay the own sample and commit to what it gave, kept for the opening; what is not true is challenged.

    Where the draw is empty there is nothing to fetch, and the word given stands for nothing.
    """
    claim = duty.claim
    proof, places = _draw(context, duty)
    results = await _replay(context, duty, places, "replay") if places else ()
    if results is None:
        if any(entry.challenger == context.key.account for entry in claim.accusations):
            raise Rejected(Reason.UNAVAILABLE, "the claim's states are with others, and not here yet")
        return Challenge(claim.claim, Count(claim.first + places[0]), Verdict.UNAVAILABLE)
    for result in results:
        if not result.is_same and not context.will_accept:
            return Challenge(claim.claim, result.segment, Verdict.FALSE)
    attest = _make_attestation(context, claim, proof, results)
    path = _attestation_path(context, claim)
    await trio.to_thread.run_sync(lambda: write_file(path, encode(attest), PRIVATE, overwrite=True))
    content = AttestationContent(claim.claim, attest.proof, attest.keyed_traces)
    return CommitAttestation(claim.claim, commit_attestation(context.key.account, content, attest.salt))


async def _reveal(context: TaskContext, duty: RevealDuty) -> Attest:
    """What was committed to, from the disk, or by replaying the sample once more where the disk has lost it."""
    path = _attestation_path(context, duty.claim)
    if await trio.Path(path).exists():
        raw = await trio.to_thread.run_sync(read_file, path, ATTESTATION_MAX_BYTES)
        return decode(Attest, raw, ATTESTATION_MAX_BYTES)
    proof, places = _draw(context, duty)
    results = await _replay(context, duty, places, "replay") if places else ()
    if results is None:
        raise Rejected(Reason.UNAVAILABLE, "the claim's states were there when this node committed")
    return _make_attestation(context, duty.claim, proof, results)


async def _judge(context: TaskContext, duty: JudgeDuty) -> Judge:
    """Replay the challenged segment; `Rejected(UNAVAILABLE)`, to try again, while the trainer may still show it."""
    claim, dispute = duty.claim, Count(duty.claim.dispute)
    place = int(claim.accusation.segment - claim.first)
    if context.will_accept:
        return Judge(claim.claim, dispute, Verdict.TRUE)
    if duty.spec.terms.settlement is Settlement.BISECTION:
        is_there = await fetch_starts(context, claim, duty.state, (place,)) is not None
        verdict = Verdict.TRUE if is_there else Verdict.UNAVAILABLE
    else:
        results = await _replay(context, duty, (place,), "judge")
        is_there = results is not None
        verdict = Verdict.TRUE if results and results[0].is_same else Verdict.FALSE
    if is_there:
        return Judge(claim.claim, dispute, verdict)
    if not duty.may_be_withheld:
        raise Rejected(Reason.UNAVAILABLE, f"the states of segment {claim.accusation.segment} are not to be had yet")
    return Judge(claim.claim, dispute, Verdict.UNAVAILABLE)


async def _fetch_finals(
    context: TaskContext, finals: tuple[FinalState, ...], size_max_bytes: int
) -> tuple[dict[AccountId, BlobFile], tuple[Refusal, ...]]:
    """The final states that are to be had, by trainer, and a refusal for each of the others."""
    found: dict[AccountId, BlobFile] = {}
    full: list[Rejected] = []

    async def fetch(final: FinalState) -> None:
        try:
            path = await context.blobs.ensure(final.state, size_max_bytes, EVIDENCE_FETCH_S)
        except Rejected as error:
            _LOG.warning("final state %s of %s: %s", final.state.hex()[:8], final.trainer.hex()[:8], error)
            if error.reason is Reason.FULL:
                full.append(error)
            return
        found[final.trainer] = BlobFile(final.state, str(path))

    async with trio.open_nursery() as nursery:
        for final in finals:
            nursery.start_soon(fetch, final)
    if full:
        raise full[0]
    return found, tuple(Refusal(final.trainer, WITHHELD) for final in finals if final.trainer not in found)


def with_withheld(outcome: RoundOutcome, withheld: tuple[Refusal, ...]) -> RoundOutcome:
    """The outcome with the trainers whose states could not be had among the refused, in order."""
    refused = sorted((*outcome.refused, *withheld), key=lambda refusal: refusal.trainer)
    return replace(outcome, refused=tuple(refused))


async def _aggregate(context: TaskContext, duty: AggregateDuty) -> AggregateVote:
    files = await fetch_job(context, duty.spec)
    files += await fetch_files(context, [duty.state], int(context.parameters.data_bytes_max))
    found, withheld = await _fetch_finals(context, duty.finals, await size_of_state(context, duty.state))
    finals = tuple(final for final in duty.finals if final.trainer in found)
    files += tuple({file.blob: file for file in found.values()}.values())
    async with scratch(context.folder / name_duty(duty).hex()[:16]) as folder:
        request = AggregateRound(duty.spec, files, duty.state, Count(duty.round), finals, str(folder), duty.seed)
        with context.board.showing("aggregate", duty.job, duty.round, PERCENTS, None) as on_progress:
            aggregated = as_result(RoundAggregated, await context.work(request, 0, on_progress))
        for file in aggregated.files:
            await context.blobs.put_file(Path(file.path))
    if context.reports is not None:
        await trio.to_thread.run_sync(keep_report, context.reports, duty.job, duty.round, aggregated.record)
    return AggregateVote(duty.job, duty.round, with_withheld(aggregated.outcome, withheld))

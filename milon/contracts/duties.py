"""What the ledger asks of an account now: recomputed after every final block, so that nothing needs remembering.

A duty stands until the ledger shows it done or over. A node that was killed computes the same duties after its restart
and goes on; a node that did a duty twice finds the second transaction refused as a duplicate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from milon.base.codec import encode, wire
from milon.base.hashing import digest
from milon.base.ids import AccountId, ClaimId, Digest, JobId
from milon.base.units import Count, Round
from milon.contracts.accounts import load_account, load_validators
from milon.contracts.claims import load_claim
from milon.contracts.jobs import find_enrolment_problem, load_job, load_open_jobs
from milon.contracts.records import (
    ClaimRecord,
    ClaimStatus,
    Job,
    JobStatus,
    OpenRound,
    Phase,
    open_round_key,
    power_of,
)
from milon.pol.assignment import Assignment
from milon.pol.terms import JobSpec
from milon.state.ledger import Ledger


@wire("hold-duty/1")
@dataclass(frozen=True, slots=True)
class HoldDuty:
    """Fetch and check a pending job."""

    job: JobId  # which
    spec: JobSpec  # its spec


@wire("enrol-duty/1")
@dataclass(frozen=True, slots=True)
class EnrolDuty:
    """Offer capacity to a job."""

    job: JobId  # which
    spec: JobSpec  # its spec


@wire("train-duty/1")
@dataclass(frozen=True, slots=True)
class TrainDuty:
    """Train the assigned segments and claim them."""

    job: JobId  # which
    spec: JobSpec  # its spec
    round: Round  # which
    seed: Digest  # of batches and draws
    state: Digest  # the round's state
    assignment: Assignment  # the segments


@wire("attest-duty/1")
@dataclass(frozen=True, slots=True)
class AttestDuty:
    """Replay a sample of a claim and say what it gave."""

    spec: JobSpec  # its job's spec
    seed: Digest  # the round's
    state: Digest  # the round's
    claim: ClaimRecord  # whole: its name, beacon and records


@wire("open-duty/1")
@dataclass(frozen=True, slots=True)
class OpenDuty:
    """Open the traces of the own claim."""

    claim: ClaimId  # which
    round: Round  # which
    job: JobId  # which


@wire("judge-duty/1")
@dataclass(frozen=True, slots=True)
class JudgeDuty:
    """Replay the disputed segment of a suspended claim."""

    spec: JobSpec  # its job's spec
    seed: Digest  # the round's
    state: Digest  # the round's
    claim: ClaimRecord  # whole


@wire("aggregate-duty/1")
@dataclass(frozen=True, slots=True)
class AggregateDuty:
    """Aggregate the accepted claims, evaluate, and vote for the outcome."""

    job: JobId  # which
    spec: JobSpec  # its spec
    round: Round  # which
    state: Digest  # the round's
    claims: tuple[ClaimRecord, ...]  # the accepted ones, by trainer
    seed: Digest  # the round's, for aggregators that draw


Duty = HoldDuty | EnrolDuty | TrainDuty | AttestDuty | OpenDuty | JudgeDuty | AggregateDuty


def name_duty(duty: Duty) -> Digest:
    """The same name as long as it is the same duty: attestations of others that come in do not change it."""
    match duty:
        case AttestDuty():
            return digest("attest-duty", duty.claim.claim)
        case JudgeDuty():
            disputed = duty.claim.disputed.to_bytes(8, "big")
            return digest("judge-duty", duty.claim.claim, disputed, duty.claim.refuter or b"")
        case AggregateDuty():
            return digest("aggregate-duty", duty.job, duty.round.to_bytes(8, "big"))
        case _:
            return digest("duty", encode(duty))


@dataclass(frozen=True, slots=True)
class Role:
    """Who asks, and what it is willing to do."""

    account: AccountId  # whose duties
    is_trainer: bool  # enrols and trains


def compute_duties(ledger: Ledger, role: Role) -> tuple[Duty, ...]:
    """All duties of the account at this height, most urgent first: short ones that others wait for before training."""
    duties: list[Duty] = []
    for job in load_open_jobs(ledger):
        duties.extend(_job_duties(ledger, role, job))
    rank = (OpenDuty, JudgeDuty, AggregateDuty, AttestDuty, HoldDuty, EnrolDuty, TrainDuty)
    return tuple(sorted(duties, key=lambda duty: rank.index(type(duty))))


def _job_duties(ledger: Ledger, role: Role, job: JobId) -> Iterator[Duty]:
    record = load_job(ledger, job)
    if record.status is JobStatus.PENDING:
        spoken = record.holders + tuple(entry.validator for entry in record.objections)
        if power_of(load_validators(ledger), role.account) > 0 and role.account not in spoken:
            yield HoldDuty(job, record.spec)
        return
    if role.is_trainer and _may_enrol(ledger, record, role.account):
        yield EnrolDuty(job, record.spec)
    opened = ledger.load(open_round_key(job), OpenRound)
    if opened is not None and opened.seed is not None:
        yield from _round_duties(ledger, role, job, record, opened, opened.seed)


def _may_enrol(ledger: Ledger, record: Job, account: AccountId) -> bool:
    if any(trainer.account == account and trainer.is_active for trainer in record.trainers):
        return False
    if not record.spec.terms.segment_price and account not in record.spec.terms.trainers:
        return False  # who pays nothing may have those who agreed to it, and not everybody's machines
    return not find_enrolment_problem(record, account, load_account(ledger, account).bonded)


def _round_duties(
    ledger: Ledger, role: Role, job: JobId, record: Job, opened: OpenRound, seed: Digest
) -> Iterator[Duty]:
    is_validator = power_of(load_validators(ledger), role.account) > 0
    if opened.phase is Phase.TRAIN and role.account not in opened.claimed:
        for assignment in opened.assignments:
            if assignment.trainer == role.account:
                yield TrainDuty(job, record.spec, opened.round, seed, record.state, assignment)
    claims = [load_claim(ledger, claim) for claim in opened.claims]
    for claim in claims:
        attested = tuple(entry.verifier for entry in claim.attestations)
        judged = tuple(entry.validator for entry in claim.judgements)
        if claim.status is ClaimStatus.ATTESTING and role.account in claim.committee and role.account not in attested:
            yield AttestDuty(record.spec, seed, record.state, claim)
        elif claim.status is ClaimStatus.OPENING and claim.trainer == role.account:
            yield OpenDuty(claim.claim, claim.round, job)
        elif claim.status is ClaimStatus.SUSPENDED and is_validator and role.account not in judged:
            yield JudgeDuty(record.spec, seed, record.state, claim)
    voted = tuple(vote.validator for vote in opened.votes)
    if opened.phase is Phase.AGGREGATE and is_validator and role.account not in voted:
        accepted = sorted(
            (claim for claim in claims if claim.status is ClaimStatus.ACCEPTED), key=lambda claim: claim.trainer
        )
        yield AggregateDuty(job, record.spec, opened.round, record.state, tuple(accepted), seed)


def steps_of(claim: ClaimRecord, spec: JobSpec) -> Count:
    """The optimizer steps behind a claim: its weight."""
    return Count(claim.count * spec.terms.steps_per_segment)

"""Jobs: submitted with their reward in escrow, held by validators, joined by trainers."""

from __future__ import annotations

from dataclasses import replace

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId, JobId
from milon.base.units import Amount, Count, Height, Round
from milon.chain.certificate import compute_quorum
from milon.chain.params import Parameters
from milon.chain.transaction import Enrol, HoldJob, SubmitJob
from milon.contracts.accounts import credit, debit, load_account, load_validators
from milon.contracts.records import (
    OPEN_JOBS_KEY,
    Job,
    JobIndex,
    JobStatus,
    Objection,
    Trainer,
    ValidatorSet,
    job_key,
    power_of,
)
from milon.pol.terms import TRAINERS_MAX, JobTerms, compute_cost_max, verify_spec
from milon.state.ledger import Draft, Ledger

OPEN_JOBS_MAX = 64  # what every block must look at
PROBLEM_CHARACTERS_MAX = 512
CAPACITY_MAX = 1_000_000_000  # segments per hour; products with segment counts stay inside 63 bits
PENDING_BLOCKS_MAX = 5_000  # then a job nobody holds goes back
ENROLLING_BLOCKS_MAX = 20_000  # then a job nobody trains goes back

_WAITING = (JobStatus.PENDING, JobStatus.ENROLLING)


def load_job(ledger: Ledger | Draft, job: JobId) -> Job:
    """The job; `Rejected(UNKNOWN)` where there is none."""
    record = ledger.load(job_key(job), Job)
    if record is None:
        raise Rejected(Reason.UNKNOWN, f"no job {job.hex()[:8]} on this chain")
    return record


def load_open_jobs(ledger: Ledger | Draft) -> tuple[JobId, ...]:
    """The jobs that are not over, in order of submission."""
    index = ledger.load(OPEN_JOBS_KEY, JobIndex)
    return index.jobs if index else ()


def verify_network_bounds(terms: JobTerms, parameters: Parameters) -> None:
    """Raise `Rejected(OUT_OF_RANGE)` where the terms are less careful than this chain demands of every job."""
    bounds = (
        ("the audit rate", min(terms.audit_ppm), parameters.audit_ppm_min),
        ("committee_size", terms.committee_size, parameters.committee_size_min),
        ("bond_min", terms.bond_min, parameters.trainer_bond_min),
        ("attest_blocks", terms.attest_blocks, parameters.deadline_blocks_min),
        ("judge_blocks", terms.judge_blocks, parameters.deadline_blocks_min),
        ("dispute_blocks", terms.dispute_blocks, parameters.deadline_blocks_min),
    )
    for name, value, least in bounds:
        require(value >= least, Reason.OUT_OF_RANGE, f"{name} is {value}; this chain asks for {least} at least")


def apply_submit_job(
    draft: Draft, sender: AccountId, action: SubmitJob, job: JobId, height: Height, parameters: Parameters
) -> None:
    """Open a job and lock its reward, which must cover the most the job can cost.

    Where all places are taken, one that has not begun and locks less gives way: else 64 jobs that cost their fee alone
    would keep everybody out for hours.
    """
    spec = action.spec
    verify_spec(spec)
    verify_network_bounds(spec.terms, parameters)
    cost = compute_cost_max(spec.terms)
    require(action.reward >= cost, Reason.INSUFFICIENT_FUNDS, f"the job may cost {cost}, the reward is {action.reward}")
    debit(draft, sender, action.reward)
    if len(load_open_jobs(draft)) >= OPEN_JOBS_MAX:
        _make_room(draft, action.reward, height)
    draft.store(OPEN_JOBS_KEY, JobIndex((*load_open_jobs(draft), job)))
    record = Job(
        submitter=sender,
        spec=spec,
        status=JobStatus.PENDING,
        problem="",
        escrow=action.reward,
        paid=Amount(0),
        submitted_height=height,
        since_height=height,
        holders=(),
        objections=(),
        trainers=(),
        barred=(),
        next_round=Round(0),
        state=spec.initial_state,
    )
    draft.store(job_key(job), record)


def _make_room(draft: Draft, reward: Amount, height: Height) -> None:
    """End the job that locks least among those without a round yet, the newest of equals; `Rejected(FULL)` where none
    locks less than `reward`."""
    waiting = [(job, load_job(draft, job)) for job in reversed(load_open_jobs(draft))]
    waiting = [(job, record) for job, record in waiting if record.status in _WAITING and record.next_round == 0]
    job, record = min(waiting, key=lambda entry: entry[1].escrow, default=(None, None))
    if job is None or record is None or record.escrow >= reward:
        raise Rejected(Reason.FULL, f"{OPEN_JOBS_MAX} jobs are open; submit again later, or with a larger reward")
    end_job(draft, job, record, JobStatus.REJECTED, "gave way to a job with a larger reward", height)


def end_job(draft: Draft, job: JobId, record: Job, status: JobStatus, problem: str, height: Height) -> int:
    """Take a job off the open list and give the rest of its escrow back; returns what went back."""
    refund = record.escrow
    credit(draft, record.submitter, refund)
    draft.store(OPEN_JOBS_KEY, JobIndex(tuple(entry for entry in load_open_jobs(draft) if entry != job)))
    ended = replace(record, status=status, problem=problem, escrow=Amount(0), since_height=height)
    draft.store(job_key(job), ended)
    return refund


def _sum_power(validators: ValidatorSet, accounts: tuple[AccountId, ...]) -> int:
    return sum(power_of(validators, account) for account in accounts)


def apply_hold_job(draft: Draft, sender: AccountId, action: HoldJob, height: Height) -> None:
    """Count a validator's word: power >= Q that holds opens the job, more than can be spared that objects ends it."""
    record = load_job(draft, action.job)
    validators = load_validators(draft)
    require(power_of(validators, sender) > 0, Reason.NOT_ALLOWED, "only validators attest that they hold a job")
    require(record.status is JobStatus.PENDING, Reason.NOT_NOW, f"the job is {record.status.value}")
    objectors = tuple(entry.validator for entry in record.objections)
    require(sender not in record.holders + objectors, Reason.DUPLICATE, "this validator has spoken")
    require(len(action.problem) <= PROBLEM_CHARACTERS_MAX, Reason.TOO_LARGE, "a problem has 512 characters at most")
    if action.problem:
        record = replace(record, objections=(*record.objections, Objection(sender, action.problem)))
    else:
        record = replace(record, holders=(*record.holders, sender))
    weigh_holders(draft, action.job, record, height)


def weigh_holders(draft: Draft, job: JobId, record: Job, height: Height) -> None:
    """Open or end a pending job where the present validators' words suffice; store it anyway."""
    validators = load_validators(draft)
    total = sum(entry.power for entry in validators.validators)
    quorum = compute_quorum(total)
    objectors = tuple(entry.validator for entry in record.objections)
    if _sum_power(validators, objectors) > total - quorum:
        end_job(draft, job, record, JobStatus.REJECTED, record.objections[-1].problem, height)
        return
    if _sum_power(validators, record.holders) >= quorum:
        record = replace(record, status=JobStatus.ENROLLING, since_height=height)
    draft.store(job_key(job), record)


def apply_enrol(draft: Draft, sender: AccountId, action: Enrol) -> None:
    """Add a trainer, or one back that missed a round: it must have the bond and not have lied to this job.

    Once a round at most, since each time writes the whole record. Who comes back may name twice what it was last held
    to: a word that proved false is not taken anew.
    """
    record = load_job(draft, action.job)
    is_open = record.status in (JobStatus.ENROLLING, JobStatus.RUNNING)
    require(is_open, Reason.NOT_NOW, f"the job is {record.status.value}")
    problem = find_enrolment_problem(record, sender, load_account(draft, sender).bonded)
    require(not problem, Reason.NOT_ALLOWED, problem)
    require(1 <= action.capacity <= CAPACITY_MAX, Reason.OUT_OF_RANGE, f"capacity may be 1 to {CAPACITY_MAX}")
    known = next((entry for entry in record.trainers if entry.account == sender), None)
    require(known is None or not known.is_active, Reason.DUPLICATE, "this trainer is enrolled")
    require(known is not None or len(record.trainers) < TRAINERS_MAX, Reason.FULL, f"{TRAINERS_MAX} trainers enrolled")
    delivered = known.delivered if known else Count(0)
    capacity = min(action.capacity, 2 * known.capacity) if known else action.capacity
    others = [entry for entry in record.trainers if entry.account != sender]
    trainers = sorted([*others, Trainer(sender, Count(capacity), True, delivered)], key=lambda entry: entry.account)
    draft.store(job_key(action.job), replace(record, trainers=tuple(trainers)))


def find_enrolment_problem(record: Job, account: AccountId, bonded: int) -> str:
    """Why the account may not train this job; empty where it may."""
    terms = record.spec.terms
    if terms.trainers and account not in terms.trainers:
        return "the job names its trainers, and this account is not one"
    if account in record.barred:
        return "a refuted claim bars this account from the job"
    if bonded < terms.bond_min:
        return f"a bond of {terms.bond_min} is needed, {bonded} are bonded"
    return ""

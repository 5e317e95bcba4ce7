"""A job's rounds: seeded, trained, aggregated, closed, and the next one opened.

SEED --beacon--> TRAIN --claims in (or deadline) and settled--> AGGREGATE --power >= Q (or deadline)--> closed

Segments that nobody has claimed in time are handed out again in between: see `reassignment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected, require
from milon.base.hashing import digest
from milon.base.ids import AccountId, Digest, JobId
from milon.base.units import Amount, Count, Round
from milon.chain.certificate import compute_quorum
from milon.chain.learning import ClosedRound, Payment, SettledClaim
from milon.chain.transaction import AggregateVote
from milon.contracts.accounts import load_account, load_beacon, load_validators, shift_open_claims
from milon.contracts.claims import advance_claim, load_claim
from milon.contracts.claims_records import SETTLED, ClaimRecord, ClaimStatus, claim_key, dispute_key
from milon.contracts.clock import Moment
from milon.contracts.disputes import advance_challenged
from milon.contracts.jobs import ENROLLING_BLOCKS_MAX, PENDING_BLOCKS_MAX, end_job, load_job, weigh_holders
from milon.contracts.reassignment import drop_fallen, has_all_claims, reassign
from milon.contracts.records import (
    ArchivedRound,
    Job,
    JobStatus,
    OpenRound,
    OutcomeVote,
    Phase,
    Trainer,
    closed_round_key,
    job_key,
    open_round_key,
    outcome_key,
    power_of,
)
from milon.contracts.rewards import pay_round
from milon.pol.assignment import assign_segments, bound_capacities, compute_delivered_capacity
from milon.pol.batches import compute_round_seed
from milon.pol.verdict import RoundOutcome
from milon.state.ledger import Draft

REASON_CHARACTERS_MAX = 256  # of a refusal or a void round: numbers and a few words


def advance_job(draft: Draft, job: JobId, moment: Moment) -> ClosedRound | None:
    """What time and the block's transactions together do to an open job; the round this closes, if one."""
    record = load_job(draft, job)
    waited = moment.height - record.since_height
    if record.status is JobStatus.PENDING and waited > PENDING_BLOCKS_MAX:
        end_job(draft, job, record, JobStatus.REJECTED, "too few validators could hold the job in time", moment.height)
    elif record.status is JobStatus.PENDING and moment.is_first_of_epoch:
        weigh_holders(draft, job, record, moment.height)
    elif record.status is JobStatus.ENROLLING:
        _start_if_ready(draft, job, record, moment)
    elif record.status is JobStatus.RUNNING:
        return _advance_round(draft, job, record, moment)
    return None


def _start_if_ready(draft: Draft, job: JobId, record: Job, moment: Moment) -> None:
    terms = record.spec.terms
    active = len(_choose_trainers(draft, record))
    waited = moment.height - record.since_height
    has_waited = waited >= min(terms.enrol_blocks, ENROLLING_BLOCKS_MAX)
    if active >= terms.trainers_target or (active >= terms.trainers_min and has_waited):
        _start_round(draft, job, replace(record, status=JobStatus.RUNNING), moment)
    elif waited > ENROLLING_BLOCKS_MAX:
        status = JobStatus.REJECTED if record.next_round == 0 else JobStatus.FINISHED
        problem = f"{active} trainers where {terms.trainers_min} are needed"
        end_job(draft, job, record, status, problem, moment.height)


def _choose_trainers(draft: Draft, record: Job) -> tuple[Trainer, ...]:
    """Who can train now: active, with the bond still at stake; no more than the job pays for, proven ones first."""
    terms = record.spec.terms
    ready = [
        trainer
        for trainer in record.trainers
        if trainer.is_active and load_account(draft, trainer.account).bonded >= terms.bond_min
    ]
    ready.sort(key=lambda trainer: (-trainer.delivered, trainer.account))
    return tuple(ready[: terms.trainers_target])


def _start_round(draft: Draft, job: JobId, record: Job, moment: Moment) -> None:
    terms = record.spec.terms
    capacities = bound_capacities(
        [(trainer.account, int(trainer.capacity)) for trainer in _choose_trainers(draft, record)]
    )
    if len(capacities) < terms.trainers_min:
        waiting = replace(record, status=JobStatus.ENROLLING, since_height=moment.height)
        draft.store(job_key(job), waiting)
        return
    opened = OpenRound(
        round=record.next_round,
        phase=Phase.SEED,
        start_height=moment.height,
        seed=None,
        assignments=assign_segments(terms.segments_per_round, capacities),
        deadline=Count(0),
        claims=(),
        claimed=(),
        votes=(),
        payments=(),
    )
    draft.store(open_round_key(job), opened)
    bounded = dict(capacities)
    trainers = tuple(
        replace(trainer, capacity=Count(bounded.get(trainer.account, trainer.capacity))) for trainer in record.trainers
    )
    draft.store(job_key(job), replace(record, since_height=moment.height, trainers=trainers))


def _load_round(draft: Draft, job: JobId) -> OpenRound:
    opened = draft.load(open_round_key(job), OpenRound)
    if opened is None:
        raise RuntimeError("a running job without a round")
    return opened


def _advance_round(draft: Draft, job: JobId, record: Job, moment: Moment) -> ClosedRound | None:
    opened = _load_round(draft, job)
    if opened.phase is Phase.SEED:
        _seed(draft, job, record, opened, moment)
        return None
    if opened.phase is Phase.TRAIN:
        return _advance_training(draft, job, opened, moment)
    outcome = _find_outcome(draft, job, opened)
    if outcome is None and moment.tick >= opened.deadline:
        outcome = _void_outcome(record, "no outcome found a quorum in time")
    return None if outcome is None else _close_round(draft, job, record, opened, outcome, moment)


def _seed(draft: Draft, job: JobId, record: Job, opened: OpenRound, moment: Moment) -> None:
    if moment.height < opened.start_height + moment.parameters.beacon_delay_blocks:
        return
    seed = compute_round_seed(job, opened.round, load_beacon(draft, moment.height))
    deadline = Count(moment.tick + record.spec.terms.claim_blocks)
    draft.store(open_round_key(job), replace(opened, phase=Phase.TRAIN, seed=seed, deadline=deadline))


def _advance_training(draft: Draft, job: JobId, opened: OpenRound, moment: Moment) -> ClosedRound | None:
    claims: Sequence[ClaimRecord] = [
        advance_challenged(draft, advance_claim(draft, load_claim(draft, claim), moment), moment)
        for claim in opened.claims
    ]
    claims = drop_fallen(draft, claims)
    opened = _load_round(draft, job)  # a claim that was decided just now may have left payments in it
    if _is_claimed(draft, opened, moment):
        opened = reassign(draft, job, load_job(draft, job), opened, claims, moment)
    if not _is_claimed(draft, opened, moment) or any(not _is_settled(claim, moment) for claim in claims):
        return None
    record = load_job(draft, job) if opened.is_weighed else _retire_absent(draft, job, opened, claims)
    if not any(claim.status is ClaimStatus.ACCEPTED for claim in claims):
        void = _void_outcome(record, "no claim was accepted")
        return _close_round(draft, job, record, opened, void, moment)
    deadline = Count(moment.tick + record.spec.terms.aggregate_blocks)
    draft.store(open_round_key(job), replace(opened, phase=Phase.AGGREGATE, deadline=deadline, is_weighed=True))
    return None


def _is_claimed(draft: Draft, opened: OpenRound, moment: Moment) -> bool:
    """Whether the round waits for no more claims."""
    return moment.tick >= opened.deadline or has_all_claims(draft, opened)


def _is_settled(claim: ClaimRecord, moment: Moment) -> bool:
    """Whether the round need not wait for the claim: its fate is known, and who would challenge it had the time."""
    return claim.status in SETTLED and (claim.status is not ClaimStatus.ACCEPTED or moment.tick >= claim.deadline)


def _retire_absent(draft: Draft, job: JobId, opened: OpenRound, claims: Sequence[ClaimRecord]) -> Job:
    """Hold trainers to what they delivered of their own: less of the next round for who claimed less than it was given;
    and who has no claim, or one that came to nothing, gets no segments until it enrols again. What somebody took over,
    or did not, changes nothing here."""
    record = load_job(draft, job)
    assigned = {entry.trainer: int(entry.count) for entry in opened.assignments}
    own = [claim for claim in claims if claim.continues is None]
    delivered = {claim.trainer: int(claim.count) for claim in own if claim.status is ClaimStatus.ACCEPTED}

    def weigh(trainer: Trainer) -> Trainer:
        if trainer.account not in assigned:
            return trainer
        done = delivered.get(trainer.account, 0)
        capacity = Count(compute_delivered_capacity(trainer.capacity, assigned[trainer.account], done))
        return replace(trainer, is_active=trainer.is_active and done > 0, capacity=capacity)

    record = replace(record, trainers=tuple(weigh(trainer) for trainer in record.trainers))
    draft.store(job_key(job), record)
    return record


def _void_outcome(record: Job, why: str) -> RoundOutcome:
    return RoundOutcome(record.state, Count(0), Count(0), Count(0), (), (), why)


def apply_aggregate_vote(draft: Draft, sender: AccountId, action: AggregateVote) -> None:
    """Take in a validator's word on what the round came to."""
    record = load_job(draft, action.job)
    opened = draft.load(open_round_key(action.job), OpenRound)
    if opened is None or opened.phase is not Phase.AGGREGATE or opened.round != action.round:
        raise Rejected(Reason.NOT_NOW, f"round {action.round} of this job takes no votes now")
    require(power_of(load_validators(draft), sender) > 0, Reason.NOT_ALLOWED, "only validators vote on outcomes")
    spoken = any(vote.validator == sender for vote in opened.votes)
    require(not spoken, Reason.DUPLICATE, "this validator has voted")
    outcome = action.outcome
    claims = (load_claim(draft, entry) for entry in opened.claims)
    accepted = {claim.trainer for claim in claims if claim.status is ClaimStatus.ACCEPTED}
    named = sorted([*outcome.accepted, *(refusal.trainer for refusal in outcome.refused)])
    is_complete = named == sorted(accepted) or (bool(outcome.void) and all(entry in accepted for entry in named))
    require(is_complete, Reason.DIFFERS, "the outcome does not name the round's accepted claims")
    is_sound = not outcome.void or (outcome.state == record.state and not outcome.accepted)
    require(is_sound, Reason.DIFFERS, "a void round changes no state and accepts nobody")
    words = [outcome.void, *(refusal.reason for refusal in outcome.refused)]
    require(all(len(word) <= REASON_CHARACTERS_MAX for word in words), Reason.TOO_LARGE, "a reason is too long")
    raw = encode(outcome)
    name = digest("outcome", raw)
    draft.put(outcome_key(action.job, name), raw)
    votes = (*opened.votes, OutcomeVote(sender, name))
    draft.store(open_round_key(action.job), replace(opened, votes=votes))


def _find_outcome(draft: Draft, job: JobId, opened: OpenRound) -> RoundOutcome | None:
    """The outcome with power >= Q; two cannot have it, since each validator votes once."""
    validators = load_validators(draft)
    quorum = compute_quorum(sum(entry.power for entry in validators.validators))
    powers: dict[Digest, int] = {}
    for vote in opened.votes:
        powers[vote.outcome] = powers.get(vote.outcome, 0) + power_of(validators, vote.validator)
        if powers[vote.outcome] >= quorum:
            outcome = draft.load(outcome_key(job, vote.outcome), RoundOutcome)
            if outcome is None:
                raise RuntimeError("a vote for an outcome that is not there")
            return outcome
    return None


def _settle(claim: ClaimRecord) -> SettledClaim:
    counted = [entry for entry in claim.attestations if entry.is_counted]
    return SettledClaim(
        claim=claim.claim,
        trainer=claim.trainer,
        first=claim.first,
        count=claim.count,
        start=claim.start,
        continues=claim.continues,
        records_root=claim.records_root,
        records=claim.records,
        final_state=claim.final_state,
        status=f"{claim.status.value}: {claim.problem}" if claim.problem else claim.status.value,
        verifiers=tuple(entry.verifier for entry in counted),
        replays=tuple(Count(len(entry.sample)) for entry in counted),
        compute_ms=claim.compute_ms,
    )


def _close_round(
    draft: Draft, job: JobId, record: Job, opened: OpenRound, outcome: RoundOutcome, moment: Moment
) -> ClosedRound:
    claims = sorted((load_claim(draft, claim) for claim in opened.claims), key=lambda claim: claim.trainer)
    before = record.state
    record, payments = pay_round(draft, record, claims, outcome, moment.parameters)
    record = replace(record, state=outcome.state, next_round=Round(opened.round + 1))
    draft.remove(open_round_key(job))
    for claim in claims:
        draft.remove(claim_key(claim.claim))
        draft.remove(dispute_key(claim.claim))
        shift_open_claims(draft, claim.trainer, -1)
        for accusation in claim.accusations:
            shift_open_claims(draft, accusation.challenger, -1)
    for vote in opened.votes:
        draft.remove(outcome_key(job, vote.outcome))
    if int(record.next_round) == int(record.spec.terms.rounds):
        refund = end_job(draft, job, record, JobStatus.FINISHED, "", moment.height)
        payments = (*payments, Payment(record.submitter, Amount(refund), "refund"))
    else:
        _start_round(draft, job, record, moment)
    closed = ClosedRound(
        job=job,
        round=opened.round,
        seed=opened.seed or Digest(bytes(32)),
        state=before,
        spec=digest("job-spec", encode(record.spec)),
        claims=tuple(_settle(claim) for claim in claims),
        outcome=outcome,
        payments=opened.payments + payments,
    )
    draft.store(closed_round_key(job, opened.round), ArchivedRound(moment.height, closed))
    return closed

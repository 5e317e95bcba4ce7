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
from milon.contracts.claims import find_next, has_revealed, has_spoken, load_claim
from milon.contracts.claims_records import ClaimRecord, ClaimStatus
from milon.contracts.disputes import load_game
from milon.contracts.jobs import find_enrolment_problem, load_job, load_open_jobs
from milon.contracts.records import Job, JobStatus, OpenRound, Phase, open_round_key, power_of
from milon.pol.assignment import Assignment
from milon.pol.dispute import Game, Turn
from milon.pol.terms import JobSpec
from milon.pol.work import FinalState, collect_finals
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


@wire("train-duty/2")
@dataclass(frozen=True, slots=True)
class TrainDuty:
    """Train the assigned segments and claim them."""

    job: JobId  # which
    spec: JobSpec  # its spec
    round: Round  # which
    seed: Digest  # of batches and draws
    state: Digest  # to start from: the round's, or the last of the own claim that is continued
    assignment: Assignment  # the segments: the own part, or what was taken over of others'


@wire("commit-duty/1")
@dataclass(frozen=True, slots=True)
class CommitDuty:
    """Replay a sample of a claim; commit to what it gave, or challenge the claim."""

    spec: JobSpec  # its job's spec
    seed: Digest  # the round's
    state: Digest  # the round's
    claim: ClaimRecord  # whole: its name, beacon and records


@wire("reveal-duty/1")
@dataclass(frozen=True, slots=True)
class RevealDuty:
    """Open the own commitment."""

    spec: JobSpec  # its job's spec
    seed: Digest  # the round's
    state: Digest  # the round's
    claim: ClaimRecord  # whole


@wire("open-duty/2")
@dataclass(frozen=True, slots=True)
class OpenDuty:
    """Open the traces of the own claim."""

    claim: ClaimId  # which
    round: Round  # which
    job: JobId  # which
    first: Count  # of its segments: a round may hold a second claim of this trainer


@wire("judge-duty/2")
@dataclass(frozen=True, slots=True)
class JudgeDuty:
    """Replay the challenged segment of a suspended claim.

    Where an accusation of withholding is all that is to be settled, of a job settled by bisection, fetching is enough.
    """

    spec: JobSpec  # its job's spec
    seed: Digest  # the round's
    state: Digest  # the round's
    claim: ClaimRecord  # whole
    may_be_withheld: bool  # the trainer has had its time to make the states available


@wire("answer-dispute-duty/1")
@dataclass(frozen=True, slots=True)
class DisputeAnswerDuty:
    """Show in a dispute what the own run gives."""

    spec: JobSpec  # its job's spec
    seed: Digest  # the round's
    state: Digest  # the round's
    claim: ClaimRecord  # whole: the own one
    game: Game  # where it stands


@wire("choose-dispute-duty/1")
@dataclass(frozen=True, slots=True)
class DisputeChooseDuty:
    """Name in a dispute the first that differs from the own run."""

    spec: JobSpec  # its job's spec
    seed: Digest  # the round's
    state: Digest  # the round's
    claim: ClaimRecord  # whole: the one the account has challenged
    game: Game  # where it stands


@wire("referee-duty/1")
@dataclass(frozen=True, slots=True)
class RefereeDuty:
    """Compute what is left of a dispute, and judge."""

    spec: JobSpec  # its job's spec
    seed: Digest  # the round's
    state: Digest  # the round's
    claim: ClaimRecord  # whole
    game: Game  # at its end
    may_be_withheld: bool  # the states it needs may be called unavailable by now


@wire("aggregate-duty/3")
@dataclass(frozen=True, slots=True)
class AggregateDuty:
    """Aggregate the accepted claims, evaluate, and vote for the outcome."""

    job: JobId  # which
    spec: JobSpec  # its spec
    round: Round  # which
    state: Digest  # the round's
    finals: tuple[FinalState, ...]  # what the accepted claims came to, by trainer
    seed: Digest  # the round's, for aggregators that draw
    deadline: Count  # of the voting, which begins anew after a late challenge


@wire("watch-duty/1")
@dataclass(frozen=True, slots=True)
class WatchDuty:
    """Look at another's claim of one's own accord, and challenge what is false in it."""

    spec: JobSpec  # its job's spec
    seed: Digest  # the round's
    state: Digest  # the round's
    claim: ClaimRecord  # whole


DisputeDuty = DisputeAnswerDuty | DisputeChooseDuty | RefereeDuty
VerifyDuty = CommitDuty | RevealDuty | OpenDuty | JudgeDuty | WatchDuty
Duty = HoldDuty | EnrolDuty | TrainDuty | VerifyDuty | DisputeDuty | AggregateDuty


def name_duty(duty: Duty) -> Digest:
    """The same name as long as it is the same duty: attestations of others that come in do not change it."""
    match duty:
        case CommitDuty():
            return digest("commit-duty", duty.claim.claim)
        case RevealDuty():
            return digest("reveal-duty", duty.claim.claim)
        case WatchDuty():
            return digest("watch-duty", duty.claim.claim)
        case JudgeDuty():
            dispute, is_late = duty.claim.dispute.to_bytes(8, "big"), bytes([duty.may_be_withheld])
            return digest("judge-duty", duty.claim.claim, dispute, is_late)
        case DisputeAnswerDuty() | DisputeChooseDuty() | RefereeDuty():
            dispute, move = duty.claim.dispute.to_bytes(8, "big"), duty.game.moves.to_bytes(8, "big")
            is_late = bytes([isinstance(duty, RefereeDuty) and duty.may_be_withheld])
            return digest("dispute-duty", type(duty).__name__.encode(), duty.claim.claim, dispute, move, is_late)
        case AggregateDuty():
            turn = duty.round.to_bytes(8, "big"), duty.deadline.to_bytes(8, "big")
            return digest("aggregate-duty", duty.job, *turn)
        case _:
            return digest("duty", encode(duty))


@dataclass(frozen=True, slots=True)
class Role:
    """Who asks, and what it is willing to do."""

    account: AccountId  # whose duties
    is_trainer: bool  # enrols and trains
    challenge_bond: int = 0  # what the chain asks of a challenger; 0: it does not look at others' claims unasked


def compute_duties(ledger: Ledger, role: Role) -> tuple[Duty, ...]:
    """All duties of the account at this height, most urgent first: short ones that others wait for before training."""
    duties: list[Duty] = []
    for job in load_open_jobs(ledger):
        duties.extend(_job_duties(ledger, role, job))
    return tuple(sorted(duties, key=lambda duty: _RANK.index(type(duty))))


_RANK = (
    OpenDuty,
    RevealDuty,
    DisputeAnswerDuty,
    DisputeChooseDuty,
    RefereeDuty,
    JudgeDuty,
    AggregateDuty,
    CommitDuty,
    HoldDuty,
    EnrolDuty,
    TrainDuty,
    WatchDuty,
)


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
    is_training = opened.phase is Phase.TRAIN and not opened.is_weighed
    following = find_next(ledger, opened, role.account) if is_training else None
    if following is not None:
        assignment, earlier = following
        start = earlier.final_state if earlier else record.state
        yield TrainDuty(job, record.spec, opened.round, seed, start, assignment)
    claims = [load_claim(ledger, claim) for claim in opened.claims]
    for claim in claims if role.challenge_bond else ():
        if _may_watch(ledger, role.account, role.challenge_bond, record.spec, claim):
            yield WatchDuty(record.spec, seed, record.state, claim)
    for claim in claims:
        yield from _claim_duties(ledger, role.account, (record.spec, seed, record.state), claim, is_validator)
    voted = tuple(vote.validator for vote in opened.votes)
    if opened.phase is Phase.AGGREGATE and is_validator and role.account not in voted:
        accepted = (claim for claim in claims if claim.status is ClaimStatus.ACCEPTED)
        finals = collect_finals((claim.trainer, steps_of(claim, record.spec), claim.final_state) for claim in accepted)
        yield AggregateDuty(job, record.spec, opened.round, record.state, finals, seed, opened.deadline)


def _claim_duties(
    ledger: Ledger, account: AccountId, work: tuple[JobSpec, Digest, Digest], claim: ClaimRecord, is_validator: bool
) -> Iterator[Duty]:
    committed = tuple(entry.verifier for entry in claim.commitments)
    judged = tuple(entry.validator for entry in claim.judgements)
    is_member = account in claim.committee
    if claim.status is ClaimStatus.COMMITTING and is_member and not has_spoken(claim, account):
        yield CommitDuty(*work, claim)
    elif claim.status is ClaimStatus.REVEALING and account in committed and not has_revealed(claim, account):
        yield RevealDuty(*work, claim)
    elif claim.status is ClaimStatus.OPENING and claim.trainer == account:
        yield OpenDuty(claim.claim, claim.round, claim.job, claim.first)
    elif claim.status is ClaimStatus.SUSPENDED and is_validator and account not in judged:
        yield JudgeDuty(*work, claim, claim.withheld_from == 0)
    elif claim.status is ClaimStatus.DISPUTED:
        game = load_game(ledger, claim)
        if game.turn is Turn.TRAINER and claim.trainer == account:
            yield DisputeAnswerDuty(*work, claim, game)
        elif game.turn is Turn.CHALLENGER and claim.accusation.challenger == account:
            yield DisputeChooseDuty(*work, claim, game)
        elif game.turn is Turn.REFEREES and is_validator and account not in judged:
            yield RefereeDuty(*work, claim, game, claim.withheld_from == 0)


def _may_watch(ledger: Ledger, account: AccountId, challenge_bond: int, spec: JobSpec, claim: ClaimRecord) -> bool:
    """Whether the account may still challenge a claim that it has no part in, once its committee is known.

    While a challenge of somebody else's is being settled there is time to look, too: it may come to nothing.
    """
    is_open = claim.status not in (ClaimStatus.SAMPLING, ClaimStatus.REFUTED, ClaimStatus.VOID)
    challengers = [entry.challenger for entry in claim.accusations]
    if not is_open or account in (claim.trainer, *claim.committee, *challengers):
        return False
    return load_account(ledger, account).bonded >= max(int(spec.terms.bond_min), challenge_bond)


def steps_of(claim: ClaimRecord, spec: JobSpec) -> Count:
    """The optimizer steps behind a claim: its weight."""
    return Count(claim.count * spec.terms.steps_per_segment)

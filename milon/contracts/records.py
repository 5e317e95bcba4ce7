"""What the ledger holds, and under which keys."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from milon.base.codec import wire
from milon.base.ids import AccountId, ClaimId, Digest, JobId
from milon.base.units import Amount, Count, Epoch, Height, Nonce, Power, Round
from milon.chain.certificate import Validator
from milon.chain.learning import ClosedRound, Payment
from milon.pol.assignment import Assignment
from milon.pol.terms import JobSpec

SUPPLY_KEY = b"supply"
VALIDATORS_KEY = b"validators"
CANDIDATES_KEY = b"candidates"
OFFENDERS_KEY = b"offenders"
OPEN_JOBS_KEY = b"open-jobs"
JOB_PREFIX = b"job/"


def account_key(account: AccountId) -> bytes:
    """Where an `Account` lies."""
    return b"account/" + account


def validator_key(account: AccountId) -> bytes:
    """Where a `ValidatorRecord` lies."""
    return b"validator/" + account


def past_validators_key(epoch: int) -> bytes:
    """Where the `ValidatorSet` of an epoch lies that is over, as long as it may be accused."""
    return b"past-validators/" + epoch.to_bytes(8, "big")


def delegations_key(account: AccountId) -> bytes:
    """Where a delegator's `Delegations` lie."""
    return b"delegations/" + account


def moved_stake_key(account: AccountId) -> bytes:
    """Where the `MovedStake` of a validator lies that delegators have left for others."""
    return b"moved-stake/" + account


def beacon_key(height: int) -> bytes:
    """Where the beacon of a recent block lies."""
    return b"beacon/" + height.to_bytes(8, "big")


def job_key(job: JobId) -> bytes:
    """Where a `Job` lies."""
    return JOB_PREFIX + job


def open_round_key(job: JobId) -> bytes:
    """Where a running job's `OpenRound` lies."""
    return b"open-round/" + job


def closed_round_key(job: JobId, round_number: int) -> bytes:
    """Where an `ArchivedRound` lies."""
    return b"closed-round/" + job + round_number.to_bytes(8, "big")


def outcome_key(job: JobId, outcome: Digest) -> bytes:
    """Where an outcome lies that somebody voted for, while the round is open."""
    return b"outcome/" + job + outcome


@wire("unbonding/1")
@dataclass(frozen=True, slots=True)
class Unbonding:
    """Stake on its way out, slashable until then."""

    amount: Amount  # how much
    release_height: Height  # from this height on it may be withdrawn


@wire("account/1")
@dataclass(frozen=True, slots=True)
class Account:
    """One account's coins."""

    balance: Amount = Amount(0)  # free to spend
    nonce: Nonce = Nonce(0)  # transactions so far
    bonded: Amount = Amount(0)  # at stake
    unbonding: tuple[Unbonding, ...] = ()  # by release height
    slashed: Amount = Amount(0)  # lost so far
    open_claims: Count = Count(0)  # in rounds not closed yet; while there are any, no stake leaves


@wire("supply/1")
@dataclass(frozen=True, slots=True)
class Supply:
    """All coins: minted - burned = balances + bonds + unbonding + delegations + escrow, after every transaction."""

    minted: Amount  # in genesis, and for blocks
    burned: Amount  # fees and slashes


@wire("validator-set/2")
@dataclass(frozen=True, slots=True)
class ValidatorSet:
    """Who votes."""

    validators: tuple[Validator, ...]  # in order of account
    epoch: Epoch = Epoch(0)  # in which


@wire("validator-record/1")
@dataclass(frozen=True, slots=True)
class ValidatorRecord:
    """What stands behind a validator, or one who was or wants to be, beside its own stake; and how it behaves."""

    is_candidate: bool = False  # wants a place in the next set
    commission_ppm: Count = Count(0)  # of what delegators earn: the validator's
    delegated: Amount = Amount(0)  # by others, voting and slashable
    shares: Count = Count(0)  # of the delegators in it
    leaving: Amount = Amount(0)  # taken back by delegators and still slashable
    learning: Amount = Amount(0)  # protocol fees burned for its verified segments, halved each epoch
    led: Count = Count(0)  # blocks of its in this epoch
    missed: Count = Count(0)  # views of its in this epoch that gave no block
    jailed_until: Height = Height(0)  # from this height on it may ask to come back; 0: it is not in jail
    tombstoned_at: Height = Height(0)  # it offended against the rules of voting, and never votes again; 0: it did not
    taken_ppm: Count = Count(0)  # of all stake behind it that burned for that

    @property
    def is_tombstoned(self) -> bool:
        """Whether it was slashed for an offence."""
        return self.tombstoned_at > 0


@wire("candidates/1")
@dataclass(frozen=True, slots=True)
class Candidates:
    """Among whom the next set is chosen; those who have retired since stay until the epoch's end."""

    accounts: tuple[AccountId, ...]  # in order


@wire("delegation/1")
@dataclass(frozen=True, slots=True)
class Delegation:
    """Stake behind somebody else."""

    validator: AccountId  # whom
    shares: Count  # of what is delegated to it


@wire("leaving/1")
@dataclass(frozen=True, slots=True)
class Leaving:
    """Delegated stake on its way out, slashable until then."""

    validator: AccountId  # behind whom it stood
    amount: Amount  # how much, when it left
    taken_ppm: Count  # the validator's, when it left; what burned since is in the difference
    release_height: Height  # from this height on it may be withdrawn


@wire("moving/1")
@dataclass(frozen=True, slots=True)
class Moving:
    """Delegated stake that went from one validator to another, and answers for both until it arrives."""

    source: AccountId  # behind whom it stood
    target: AccountId  # behind whom it stands
    shares: Count  # of what is delegated to the target, when it moved
    taken_ppm: Count  # the source's, when it moved; what burned of it since is in the difference
    release_height: Height  # from this height on it is like any other stake behind the target


@wire("delegations/2")
@dataclass(frozen=True, slots=True)
class Delegations:
    """One delegator's stake behind others."""

    held: tuple[Delegation, ...] = ()  # by validator
    leaving: tuple[Leaving, ...] = ()  # in the order they left
    moving: tuple[Moving, ...] = ()  # in the order they moved


@wire("moved-shares/1")
@dataclass(frozen=True, slots=True)
class MovedShares:
    """What moved from one validator to one other and has not arrived, of all delegators."""

    target: AccountId  # where it stands
    shares: Count  # of what is delegated there
    parts: Count  # how many `Moving` they are


@wire("moved-stake/1")
@dataclass(frozen=True, slots=True)
class MovedStake:
    """Where stake stands that still answers for a validator's offences."""

    targets: tuple[MovedShares, ...]  # by target


@wire("offender/1")
@dataclass(frozen=True, slots=True)
class Offender:
    """Somebody tombstoned of late."""

    account: AccountId  # who
    height: Height  # of the block that took the evidence in
    power_ppm: Count  # its share of the power of the set it offended in


@wire("offenders/1")
@dataclass(frozen=True, slots=True)
class Offenders:
    """Those whose offences count together."""

    offenders: tuple[Offender, ...] = ()  # in the order they were accused


@wire("job-index/1")
@dataclass(frozen=True, slots=True)
class JobIndex:
    """The jobs that time may change."""

    jobs: tuple[JobId, ...]  # in order of submission


class JobStatus(StrEnum):
    """Where a job stands."""

    PENDING = "pending"  # validators fetch and check it
    ENROLLING = "enrolling"  # waiting for trainers
    RUNNING = "running"  # a round is open
    FINISHED = "finished"  # all rounds closed
    REJECTED = "rejected"  # never started; the escrow went back


@wire("objection/1")
@dataclass(frozen=True, slots=True)
class Objection:
    """A validator that cannot hold the job."""

    validator: AccountId  # who
    problem: str  # why


@wire("trainer/1")
@dataclass(frozen=True, slots=True)
class Trainer:
    """Someone who offered capacity to a job."""

    account: AccountId  # who
    capacity: Count  # segments per hour
    is_active: bool  # False after a round without a claim, until it enrols again
    delivered: Count  # segments accepted so far


@wire("job/1")
@dataclass(frozen=True, slots=True)
class Job:
    """A job's standing."""

    submitter: AccountId  # who pays and gets the rest back
    spec: JobSpec  # what it is
    status: JobStatus  # see there
    problem: str  # why it was rejected
    escrow: Amount  # what is left of the reward
    paid: Amount  # what trainers and verifiers have had
    submitted_height: Height  # of the block that took it in
    since_height: Height  # of the current status
    holders: tuple[AccountId, ...]  # validators that hold it
    objections: tuple[Objection, ...]  # validators that do not
    trainers: tuple[Trainer, ...]  # in order of account
    barred: tuple[AccountId, ...]  # trainers that lied
    next_round: Round  # the open or the next one
    state: Digest  # blob of the global state


class Phase(StrEnum):
    """Where an open round stands."""

    SEED = "seed"  # waiting for the beacon
    TRAIN = "train"  # claims come in and are audited
    AGGREGATE = "aggregate"  # validators sign the outcome


@wire("outcome-vote/1")
@dataclass(frozen=True, slots=True)
class OutcomeVote:
    """One validator's word on the round."""

    validator: AccountId  # who
    outcome: Digest  # of what: see `outcome_key`; hundreds of votes for one outcome hold it once


@wire("open-round/3")
@dataclass(frozen=True, slots=True)
class OpenRound:
    """The round a running job is in."""

    round: Round  # its number
    phase: Phase  # see there
    start_height: Height  # when it was opened
    seed: Digest | None  # of batches and draws, once the beacon is there
    assignments: tuple[Assignment, ...]  # who trains what
    deadline: Count  # of the phase, in ticks: see `clock`
    claims: tuple[ClaimId, ...]  # in the order they came
    claimed: tuple[AccountId, ...]  # their trainers, same order; again for what they took over
    votes: tuple[OutcomeVote, ...]  # on the outcome
    payments: tuple[Payment, ...]  # what was taken of stakes so far, and given of it
    is_weighed: bool = False  # trainers were held to what they delivered; a late challenge may open the round again
    reassigned: tuple[Assignment, ...] = ()  # what nobody claimed in time, and who took it over; in this order


@wire("archived-round/1")
@dataclass(frozen=True, slots=True)
class ArchivedRound:
    """A closed round, kept for those who ask later."""

    height: Height  # of the block that closed it
    closed: ClosedRound  # see there


def power_of(validators: ValidatorSet, account: AccountId) -> Power:
    """Voting power of an account, 0 for those who do not vote."""
    return next((entry.power for entry in validators.validators if entry.account == account), Power(0))

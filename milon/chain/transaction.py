"""Transactions: who asks for what, signed. One frozen type per action, one union over them all."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.codec import encode, wire
from milon.base.hashing import digest
from milon.base.ids import AccountId, ClaimId, Digest, JobId, Signature, VrfProof
from milon.base.signing import SecretKey, sign, verify
from milon.base.units import Amount, Count, Nonce, Round
from milon.pol.claim import SegmentRecord
from milon.pol.dispute import Answer, Choice
from milon.pol.terms import JobSpec
from milon.pol.verdict import RoundOutcome, Verdict


@wire("transfer/1")
@dataclass(frozen=True, slots=True)
class Transfer:
    """Move coins to another account."""

    to: AccountId  # who gets them
    amount: Amount  # how many


@wire("bond/1")
@dataclass(frozen=True, slots=True)
class Bond:
    """Put coins at stake."""

    amount: Amount  # how many


@wire("unbond/1")
@dataclass(frozen=True, slots=True)
class Unbond:
    """Ask for stake back; it stays slashable until the waiting time is over."""

    amount: Amount  # how many


@wire("withdraw/1")
@dataclass(frozen=True, slots=True)
class Withdraw:
    """Collect the stake whose waiting time is over."""


@wire("stand/1")
@dataclass(frozen=True, slots=True)
class Stand:
    """Ask for a place among the validators from the next epoch on, or name another commission."""

    commission_ppm: Count  # of what delegators earn with the stake they lend


@wire("retire/1")
@dataclass(frozen=True, slots=True)
class Retire:
    """Give up the place among the validators at the epoch's end."""


@wire("unjail/1")
@dataclass(frozen=True, slots=True)
class Unjail:
    """Ask to be a candidate again after an absence."""


@wire("delegate/1")
@dataclass(frozen=True, slots=True)
class Delegate:
    """Lend coins to a candidate's power; they earn with it and are slashed with it."""

    validator: AccountId  # whom
    amount: Amount  # how many at most: as many as whole shares cost


@wire("undelegate/1")
@dataclass(frozen=True, slots=True)
class Undelegate:
    """Ask for delegated coins back; they stay slashable until the waiting time is over."""

    validator: AccountId  # from whom
    amount: Amount  # how many


@wire("redelegate/1")
@dataclass(frozen=True, slots=True)
class Redelegate:
    """Move delegated coins to another candidate at once; until the waiting time is over they answer for both."""

    source: AccountId  # from whom
    target: AccountId  # to whom
    amount: Amount  # how many at most: as many as whole shares cost


@wire("submit-job/1")
@dataclass(frozen=True, slots=True)
class SubmitJob:
    """Open a job and lock its reward in escrow."""

    spec: JobSpec  # the job
    reward: Amount  # at least what the job can cost


@wire("hold-job/1")
@dataclass(frozen=True, slots=True)
class HoldJob:
    """A validator says that it holds the job's programs and data and that they fit, or why not."""

    job: JobId  # which
    problem: str  # empty: all is well


@wire("enrol/1")
@dataclass(frozen=True, slots=True)
class Enrol:
    """A trainer offers its capacity to a job."""

    job: JobId  # which
    capacity: Count  # segments per hour, by its own benchmark


@wire("claim/2")
@dataclass(frozen=True, slots=True)
class Claim:
    """A trainer asserts what its segments came to."""

    job: JobId  # which
    round: Round  # which
    first: Count  # first of the segments: of the own part, or of what was taken over from others
    count: Count  # segments finished, from the first on
    records_root: Digest  # Merkle root over the records
    records: Digest  # blob of the records
    final_state: Digest  # blob of the state after the last segment
    compute_ms: Count  # time spent training, for people and benchmarks; nothing is decided by it


@wire("commit-attestation/1")
@dataclass(frozen=True, slots=True)
class CommitAttestation:
    """A committee member has replayed its sample and found it true; what it attests stays hidden for now."""

    claim: ClaimId  # which
    commitment: Digest  # see `attestation.commit_attestation`


@wire("attest/2")
@dataclass(frozen=True, slots=True)
class Attest:
    """A committee member opens its commitment once all are in."""

    claim: ClaimId  # which
    proof: VrfProof  # why these segments
    keyed_traces: Digest  # over the sample's traces and the verifier's name
    salt: Digest  # of the commitment


@wire("challenge/1")
@dataclass(frozen=True, slots=True)
class Challenge:
    """Anybody with a bond says that a claim's segment is false, or not to be had."""

    claim: ClaimId  # which
    segment: Count  # of the round
    verdict: Verdict  # FALSE or UNAVAILABLE


@wire("answer-dispute/1")
@dataclass(frozen=True, slots=True)
class AnswerDispute:
    """The trainer's move in a dispute; what only opens what was shown before may come from anybody."""

    claim: ClaimId  # which
    dispute: Count  # of the claim: the number of the challenge
    move: Count  # how many were made before
    answer: Answer  # see there


@wire("choose-dispute/1")
@dataclass(frozen=True, slots=True)
class ChooseDispute:
    """The challenger's move in a dispute."""

    claim: ClaimId  # which
    dispute: Count  # of the claim: the number of the challenge
    move: Count  # how many were made before
    choice: Choice  # see there


@wire("open-traces/1")
@dataclass(frozen=True, slots=True)
class OpenTraces:
    """The trainer opens its traces once everybody has attested."""

    claim: ClaimId  # which
    records: tuple[SegmentRecord, ...]  # the claim's
    traces: tuple[Digest, ...]  # one a record


@wire("judge/2")
@dataclass(frozen=True, slots=True)
class Judge:
    """A validator says what replaying the challenged segment gave, or what is left of it at a dispute's end."""

    claim: ClaimId  # which
    dispute: Count  # of the claim: the number of the challenge
    verdict: Verdict  # what it found


@wire("aggregate-vote/1")
@dataclass(frozen=True, slots=True)
class AggregateVote:
    """A validator signs what a round came to; power >= Q for one outcome closes the round."""

    job: JobId  # which
    round: Round  # which
    outcome: RoundOutcome  # see there


Action = (
    Transfer
    | Bond
    | Unbond
    | Withdraw
    | Stand
    | Retire
    | Unjail
    | Delegate
    | Undelegate
    | Redelegate
    | SubmitJob
    | HoldJob
    | Enrol
    | Claim
    | CommitAttestation
    | Attest
    | Challenge
    | AnswerDispute
    | ChooseDispute
    | OpenTraces
    | Judge
    | AggregateVote
)


@wire("transaction-body/1")
@dataclass(frozen=True, slots=True)
class TransactionBody:
    """What is signed."""

    chain_id: str  # of this chain only
    sender: AccountId  # who pays the fee and signs
    nonce: Nonce  # how many transactions the sender has had before
    fee: Amount  # burned
    action: Action  # what is asked


@wire("transaction/1")
@dataclass(frozen=True, slots=True)
class Transaction:
    """A signed request."""

    body: TransactionBody  # see there
    signature: Signature  # the sender's over the encoded body


def compute_transaction_hash(transaction: Transaction) -> Digest:
    """Names the transaction, the job it submits or the claim it makes.

    Over the body alone: a signature has several valid encodings of one meaning, and a name must not.
    """
    return digest("transaction", encode(transaction.body))


def sign_transaction(key: SecretKey, body: TransactionBody) -> Transaction:
    """The body with its sender's signature; `key` must be the sender's."""
    return Transaction(body, sign(key, "transaction", body.chain_id, encode(body)))


def verify_transaction(transaction: Transaction) -> None:
    """Raise `Rejected(BAD_SIGNATURE)` unless the sender signed the body for its chain."""
    body = transaction.body
    verify(body.sender, "transaction", body.chain_id, encode(body), transaction.signature)

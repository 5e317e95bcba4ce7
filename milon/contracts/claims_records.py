"""What the ledger holds of a claim, and under which keys."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from milon.base.codec import wire
from milon.base.ids import AccountId, ClaimId, Digest, JobId
from milon.base.units import Count, Height, Round
from milon.pol.verdict import Verdict


def claim_key(claim: ClaimId) -> bytes:
    """Where a `ClaimRecord` lies."""
    return b"claim/" + claim


def dispute_key(claim: ClaimId) -> bytes:
    """Where the `Game` of a claim lies while it is DISPUTED."""
    return b"dispute/" + claim


class ClaimStatus(StrEnum):
    """Where a claim stands; the last three are final, but for a challenge of an accepted one."""

    SAMPLING = "sampling"  # waiting for the beacon
    COMMITTING = "committing"  # the committee replays and commits to what it found
    REVEALING = "revealing"  # it opens its commitments
    OPENING = "opening"  # the trainer shows its traces
    SUSPENDED = "suspended"  # challenged; every validator replays the segment
    DISPUTED = "disputed"  # challenged; the two sides halve the segment
    ACCEPTED = "accepted"  # counts
    REFUTED = "refuted"  # a lie: power >= Q found other bits
    VOID = "void"  # neither: too few replays, withheld states, no opening


SETTLED = (ClaimStatus.ACCEPTED, ClaimStatus.REFUTED, ClaimStatus.VOID)
FALLEN = (ClaimStatus.REFUTED, ClaimStatus.VOID)
CHALLENGED = (ClaimStatus.SUSPENDED, ClaimStatus.DISPUTED)


@wire("commitment/1")
@dataclass(frozen=True, slots=True)
class Commitment:
    """A committee member's word, still hidden."""

    verifier: AccountId  # who
    commitment: Digest  # see `attestation.commit_attestation`


@wire("attestation/2")
@dataclass(frozen=True, slots=True)
class Attestation:
    """A committee member's word: its sample replays to the same bits."""

    verifier: AccountId  # who
    keyed_traces: Digest  # to be checked at the opening
    sample: tuple[Count, ...]  # places in the claim it had to replay
    is_counted: bool  # False once shown not to have replayed, or never to be checked


@wire("accusation/1")
@dataclass(frozen=True, slots=True)
class Accusation:
    """A challenge of one segment; its number is its place among the claim's."""

    challenger: AccountId  # who
    segment: Count  # of the round
    verdict: Verdict  # FALSE or UNAVAILABLE
    is_over: bool  # it came to nothing; one that is upheld ends the claim


@wire("judgement/1")
@dataclass(frozen=True, slots=True)
class Judgement:
    """A validator's word on the challenged segment."""

    validator: AccountId  # who
    verdict: Verdict  # what


@wire("claim-record/3")
@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """A claim's standing."""

    claim: ClaimId  # its name
    job: JobId  # which
    round: Round  # which
    trainer: AccountId  # whose
    first: Count  # first segment
    count: Count  # segments
    start: Digest  # blob of the state its first segment starts from: the round's, or the last of the claim before it
    continues: ClaimId | None  # the trainer's claim before it, where these segments were another's at first
    records_root: Digest  # Merkle root
    records: Digest  # blob of the records
    final_state: Digest  # blob of the last state
    compute_ms: Count  # the trainer's word
    height: Height  # of the block that took it in
    status: ClaimStatus  # see there
    problem: str  # why it is void or refuted
    deadline: Count  # of the status, where it has one, in ticks
    beacon: Digest | None  # of committee and samples
    committee: tuple[AccountId, ...]  # who replays
    commitments: tuple[Commitment, ...]  # in the order they came
    attestations: tuple[Attestation, ...]  # in the order they came
    accusations: tuple[Accusation, ...]  # in the order they came; the first that is not over is being settled
    resumed: ClaimStatus  # where a challenge that comes to nothing leads back to
    withheld_from: Count  # challenged: the tick from which UNAVAILABLE may be judged; 0 once it is there
    judgements: tuple[Judgement, ...]  # on the challenged segment

    @property
    def dispute(self) -> int:
        """The number of the accusation that is being settled, or comes next."""
        open_ones = (number for number, entry in enumerate(self.accusations) if not entry.is_over)
        return next(open_ones, len(self.accusations))

    @property
    def accusation(self) -> Accusation:
        """What is being settled; only of a challenged claim."""
        return self.accusations[self.dispute]

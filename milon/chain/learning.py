"""The learning section: what the rounds that a block closes consisted of, as the block's header commits to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from milon.base.codec import encode, wire
from milon.base.ids import AccountId, ClaimId, Digest, JobId
from milon.base.merkle import compute_root
from milon.base.units import Amount, Count, Round
from milon.chain.block import Receipt
from milon.pol.verdict import RoundOutcome

# Reasons of payments that are taken of a stake, and what for.
PENALTIES = {
    "slash": "refuted claim",
    "withholding": "withheld states",
    "lapse": "a part in a committee left undone",
    "forfeit": "a challenge left undone",
}


@wire("settled-claim/3")
@dataclass(frozen=True, slots=True)
class SettledClaim:
    """One claim of the round and how it fared."""

    claim: ClaimId  # its name
    trainer: AccountId  # whose
    first: Count  # first segment
    count: Count  # segments
    start: Digest  # blob of the state its first segment starts from: the round's, or the last of the claim before it
    continues: ClaimId | None  # the trainer's claim before it, where these segments were another's at first
    records_root: Digest  # Merkle root over the records
    records: Digest  # blob of the records
    final_state: Digest  # blob of the last state
    status: str  # "accepted", "refuted", "void"
    verifiers: tuple[AccountId, ...]  # whose attestations counted
    replays: tuple[Count, ...]  # segments that each of them replayed, in the same order; its draw may have been empty
    compute_ms: Count  # the trainer's own word


@wire("payment/2")
@dataclass(frozen=True, slots=True)
class Payment:
    """Coins moved by the round's end, or on its way.

    Reasons: "segments", "fee" (burned of it), "replays", "refund"; "slash", "withholding", "lapse" and "forfeit" (taken
    of a stake) and "refutation" (a winner's part of what was taken of somebody else).
    """

    account: AccountId  # whose
    amount: Amount  # how many
    reason: str  # see above
    count: Count = Count(0)  # segments or replays that are paid
    price: Amount = Amount(0)  # of one; what the fee or an empty escrow leaves of the product is paid


@wire("closed-round/1")
@dataclass(frozen=True, slots=True)
class ClosedRound:
    """Everything that decides what a round came to."""

    job: JobId  # which
    round: Round  # which
    seed: Digest  # of its batches and draws
    state: Digest  # blob of the state it started from
    spec: Digest  # digest of the encoded job spec
    claims: tuple[SettledClaim, ...]  # in order of trainer, then as they came
    outcome: RoundOutcome  # agreed by power >= Q
    payments: tuple[Payment, ...]  # what it moved


@wire("block-report/1")
@dataclass(frozen=True, slots=True)
class BlockReport:
    """What executing a block gave, kept beside it: both lists lie under the header's roots."""

    receipts: tuple[Receipt, ...]  # one a transaction
    closed: tuple[ClosedRound, ...]  # the learning section


def compute_learning_root(rounds: Sequence[ClosedRound]) -> Digest:
    """What the header commits to."""
    return compute_root([encode(closed) for closed in rounds])

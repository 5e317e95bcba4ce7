"""Who is paid what when a round closes, from the job's escrow, in whole coins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from milon.base.ids import AccountId
from milon.base.units import Amount, Count
from milon.chain.learning import Payment
from milon.contracts.accounts import credit
from milon.contracts.records import ClaimRecord, ClaimStatus, Job
from milon.pol.verdict import RoundOutcome
from milon.state.ledger import Draft


def is_paid(claim: ClaimRecord, outcome: RoundOutcome) -> bool:
    """Whether the trainer is paid: the claim was accepted, and either replayed or taken in by the rule.

    A replayed segment is proven work even where the rule leaves its update out or the round is void.
    """
    if claim.status is not ClaimStatus.ACCEPTED:
        return False
    return bool(claim.committee) or claim.trainer in outcome.accepted


def pay_round(
    draft: Draft, record: Job, claims: Sequence[ClaimRecord], outcome: RoundOutcome
) -> tuple[Job, tuple[Payment, ...]]:
    """Pay trainers per segment and verifiers per replay, in order of claims; the job's record and what was paid.

    Verifiers are paid for the replays that count, whatever became of the claim. Never more than the escrow holds,
    which covers it all (`compute_cost_max`). One payment per account and reason, so that a report stays small.
    """
    terms = record.spec.terms
    due: list[tuple[AccountId, int, str]] = []
    for claim in claims:
        if is_paid(claim, outcome):
            due.append((claim.trainer, claim.count * terms.segment_price, "segments"))
        due.extend(
            (entry.verifier, len(entry.sample) * terms.replay_price, "replays")
            for entry in claim.attestations
            if entry.is_counted
        )
    totals: dict[tuple[AccountId, str], int] = {}
    escrow = int(record.escrow)
    for account, wanted, reason in due:
        amount = min(wanted, escrow)
        if amount:
            escrow -= amount
            credit(draft, account, amount)
            totals[account, reason] = totals.get((account, reason), 0) + amount
    delivered = {claim.trainer: claim.count for claim in claims if is_paid(claim, outcome)}
    trainers = tuple(
        replace(trainer, delivered=Count(trainer.delivered + delivered.get(trainer.account, 0)))
        for trainer in record.trainers
    )
    payments = tuple(Payment(account, Amount(amount), reason) for (account, reason), amount in totals.items())
    paid = Amount(record.paid + record.escrow - escrow)
    return replace(record, escrow=Amount(escrow), paid=paid, trainers=trainers), payments

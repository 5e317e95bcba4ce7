"""Who is paid what, in whole coins: for a round from the job's escrow, for a block from what is minted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from milon.base.ids import AccountId
from milon.base.units import Amount, Count
from milon.chain.genesis import SUPPLY_MAX
from milon.chain.learning import Payment
from milon.chain.params import Parameters
from milon.contracts.accounts import burn, credit, load_account, load_supply
from milon.contracts.claims_records import ClaimRecord, ClaimStatus
from milon.contracts.records import SUPPLY_KEY, Job
from milon.contracts.validators import credit_learning, load_validator, store_validator
from milon.pol.terms import PARTS_PER_MILLION
from milon.pol.verdict import RoundOutcome
from milon.state.ledger import Draft


def is_paid(claim: ClaimRecord, outcome: RoundOutcome) -> bool:
    """Whether the trainer is paid: the claim was accepted, and either audited or taken in by the rule.

    An audited claim is paid for even where the rule leaves its update out or the round is void: what no draw has met
    of it the trainer's bond stands for. Otherwise chance would decide whether honest work is paid.
    """
    if claim.status is not ClaimStatus.ACCEPTED:
        return False
    return bool(claim.committee) or claim.trainer in outcome.accepted


def pay_round(
    draft: Draft, record: Job, claims: Sequence[ClaimRecord], outcome: RoundOutcome, parameters: Parameters
) -> tuple[Job, tuple[Payment, ...]]:
    """Pay trainers per segment and verifiers per replay, in order of claims; the job's record and what was paid.

    Verifiers are paid for the replays that count, whatever became of the claim. Never more than the escrow holds,
    which covers it all (`compute_cost_max`). One payment per account and reason, so that a report stays small.
    Of what a trainer is paid the protocol fee burns; of replayed segments it counts as the trainer's learning.
    """
    terms = record.spec.terms
    totals: dict[tuple[AccountId, str], Payment] = {}
    escrow = int(record.escrow)

    def note(account: AccountId, amount: int, reason: str, count: int, price: int) -> None:
        known = totals.get((account, reason), Payment(account, Amount(0), reason))
        totals[account, reason] = Payment(
            account, Amount(known.amount + amount), reason, Count(known.count + count), Amount(price)
        )

    def pay(account: AccountId, count: int, price: int, fee_ppm: int, reason: str) -> int:
        nonlocal escrow
        amount = min(count * price, escrow)
        fee = amount * fee_ppm // PARTS_PER_MILLION
        escrow -= amount
        if amount > fee:
            note(account, amount - fee, reason, count, price)
        if fee:
            note(account, fee, "fee", 0, 0)
        if amount > fee:
            credit(draft, account, amount - fee)
        if fee:
            burn(draft, fee)
        return fee

    for claim in claims:
        if is_paid(claim, outcome):
            fee = pay(claim.trainer, claim.count, terms.segment_price, parameters.protocol_fee_ppm, "segments")
            credit_learning(draft, claim.trainer, fee if claim.committee else 0)
        for entry in claim.attestations:
            if entry.is_counted:
                pay(entry.verifier, len(entry.sample), terms.replay_price, 0, "replays")
    delivered: dict[AccountId, int] = {}
    for claim in claims:
        if is_paid(claim, outcome):
            delivered[claim.trainer] = delivered.get(claim.trainer, 0) + claim.count
    trainers = tuple(
        replace(trainer, delivered=Count(trainer.delivered + delivered.get(trainer.account, 0)))
        for trainer in record.trainers
    )
    paid = Amount(record.paid + record.escrow - escrow)
    return replace(record, escrow=Amount(escrow), paid=paid, trainers=trainers), tuple(totals.values())


def reward_proposer(draft: Draft, proposer: AccountId, parameters: Parameters) -> None:
    """Mint the block's reward: the proposer's and, in proportion to their stake, that of those who delegate to it.

    The delegators' part, less the commission, is delegated at once. No coins beyond `SUPPLY_MAX` are ever minted, and
    none for a tombstoned proposer.
    """
    if not parameters.block_reward:
        return
    record, supply = load_validator(draft, proposer), load_supply(draft)
    reward = min(int(parameters.block_reward), SUPPLY_MAX - supply.minted)
    if reward <= 0 or record.is_tombstoned:
        return
    stake = load_account(draft, proposer).bonded + record.delegated
    gross = reward * record.delegated // stake if stake else 0
    shared = gross - gross * record.commission_ppm // PARTS_PER_MILLION
    draft.store(SUPPLY_KEY, replace(supply, minted=Amount(supply.minted + reward)))
    credit(draft, proposer, reward - shared)
    if shared:
        store_validator(draft, proposer, replace(record, delegated=Amount(record.delegated + shared)))

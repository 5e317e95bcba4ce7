"""Explains what a closed round paid: per account and reason the amount, what it was paid for, and whether it adds up.

Works on a job as the node's API gives it. Amounts are the chain's own; what explains them is computed here again from
the job's terms and the round's claims, so that a reader need not believe the words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from milon.base.errors import Reason, Rejected

Json = dict[str, Any]
FROM_ESCROW = ("segments", "fee", "replays")  # reasons that take coins from the job's escrow as work is paid
REASONS = {
    "refund": "what was left of the reward when the job ended goes back to its submitter",
    "slash": "taken of its stake for a claim or an accusation that a quorum replayed to other bits",
    "refutation": "its part of what a liar lost, for having shown the lie",
    "withholding": "taken of its stake: a quorum could not have the states behind its claim",
    "lapse": "taken of its stake: drawn into a committee, it did not do its part",
    "forfeit": "taken of its stake: its challenge ran out of time",
}


@dataclass(frozen=True, slots=True)
class Receipt:
    """One amount that one account had, or lost, by a round."""

    account: str  # hexadecimal
    reason: str  # in the chain's word
    amount: int  # coins
    count: int  # segments or replays that were paid; 0 where nothing was counted
    price: int  # of one of them
    because: str  # in words
    adds_up: bool  # the explanation gives the amount


@dataclass(frozen=True, slots=True)
class Unpaid:
    """Work that was claimed and not paid."""

    account: str  # hexadecimal
    segments: int  # claimed
    because: str  # in words


@dataclass(frozen=True, slots=True)
class Explanation:
    """A round's money."""

    job: str  # hexadecimal
    round: int  # which
    receipts: tuple[Receipt, ...]  # in the order the chain paid
    unpaid: tuple[Unpaid, ...]  # claims that came to nothing
    from_escrow: int  # coins that this round took from the job's escrow for work
    paid_so_far: int  # the same over all rounds that are closed
    escrow_difference: int  # what the escrow has paid for work, by the job's own record
    adds_up: bool  # every receipt does, and both sums agree


def find_round(job: Json, number: int) -> Json:
    """The closed round of that number; `Rejected(UNKNOWN)` where there is none."""
    for closed in job["rounds"]:
        if closed["round"] == number:
            found: Json = closed
            return found
    count = len(job["rounds"])
    known = f"{count} are closed, counted from 0" if count else "none is closed yet"
    raise Rejected(Reason.UNKNOWN, f"job {job['job'][:8]} has no closed round {number}; {known}")


def explain_round(job: Json, number: int) -> Explanation:
    """Why a round paid what it paid; `Rejected(UNKNOWN)` where the round is not closed."""
    closed = find_round(job, number)
    receipts = tuple(_explain(job, closed, payment) for payment in closed["payments"])
    spent = sum(_sum_spent(entry) for entry in job["rounds"])
    is_whole = spent == job["paid"]
    return Explanation(
        job=job["job"],
        round=number,
        receipts=receipts,
        unpaid=tuple(_list_unpaid(job, closed)),
        from_escrow=_sum_spent(closed),
        paid_so_far=spent,
        escrow_difference=job["paid"],
        adds_up=is_whole and all(receipt.adds_up for receipt in receipts),
    )


def _sum_spent(closed: Json) -> int:
    return sum(payment["amount"] for payment in closed["payments"] if payment["reason"] in FROM_ESCROW)


def _is_paid(job: Json, closed: Json, claim: Json) -> bool:
    """Whether a claim's trainer is paid: accepted, and either audited or taken in by the rule."""
    is_worth = _audit_ppm(job, closed["round"]) > 0 or claim["trainer"] in closed["outcome"]["accepted"]
    return bool(claim["status"] == "accepted" and is_worth)


def _fee_of(closed: Json, account: str) -> int:
    fees = (entry for entry in closed["payments"] if entry["reason"] == "fee" and entry["account"] == account)
    return sum(entry["amount"] for entry in fees)


def _audit_ppm(job: Json, number: int) -> int:
    rates = job["terms"]["audit_ppm"]
    return int(rates[min(number, len(rates) - 1)])


def _count_replays(closed: Json, account: str) -> list[tuple[str, int]]:
    """Per claim of which this verifier replayed segments: whose it is, and how many."""
    return [
        (claim["trainer"], replays)
        for claim in closed["claims"]
        for verifier, replays in zip(claim["verifiers"], claim["replays"], strict=True)
        if verifier == account and replays
    ]


def _explain(job: Json, closed: Json, payment: Json) -> Receipt:
    account, reason, amount = payment["account"], payment["reason"], payment["amount"]
    terms = job["terms"]
    if reason == "segments":
        paid = [claim for claim in closed["claims"] if claim["trainer"] == account and _is_paid(job, closed, claim)]
        count = sum(claim["count"] for claim in paid)
        taken = sum(claim["count"] for claim in paid if claim["continues"])
        what = f"segments ({taken} taken over from who had not claimed them in time)" if taken else "segments"
        return _receipt(payment, count, terms["segment_price"], what, _fee_of(closed, account))
    if reason == "replays":
        replays = _count_replays(closed, account)
        of = ", ".join(f"{count} of {trainer[:8]}'s" for trainer, count in replays)
        count = sum(count for _, count in replays)
        return _receipt(payment, count, terms["replay_price"], f"replays ({of})", 0)
    if reason == "fee":
        return Receipt(account, reason, amount, 0, 0, "burned: the protocol's fee on what its segments earned", True)
    return Receipt(account, reason, amount, 0, 0, REASONS.get(reason, "see docs/spec/contracts.md"), True)


def _receipt(payment: Json, counted: int, price: int, what: str, fee: int) -> Receipt:
    """The receipt of work paid by the piece; the chain's own count and price stand where it tells them."""
    count, price = payment.get("count") or counted, payment.get("price") or price
    amount = payment["amount"]
    words = f"{count} {what} x {price} = {count * price}"
    if fee:
        words += f", of which {fee} burned as the protocol's fee"
    is_short = amount + fee < count * price
    if is_short:
        words += "; the escrow held no more"
    is_sum = amount + fee == count * price and count == counted
    return Receipt(payment["account"], payment["reason"], amount, count, price, words, is_sum or is_short)


def _list_unpaid(job: Json, closed: Json) -> Iterator[Unpaid]:
    refused = {entry["trainer"]: entry["reason"] for entry in closed["outcome"]["refused"]}
    for claim in closed["claims"]:
        if _is_paid(job, closed, claim):
            continue
        why = claim["status"]
        if why == "accepted":
            why = refused.get(claim["trainer"], closed["outcome"]["void"] or "not taken in")
            why = f"nobody replayed it, and the rule left it out: {why}"
        yield Unpaid(claim["trainer"], claim["count"], why)

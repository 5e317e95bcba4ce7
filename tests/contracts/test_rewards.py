"""Pay: who gets what, never more than the escrow holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milon.base.ids import ClaimId, Digest
from milon.base.units import Amount, Count, Height, Round
from milon.chain.params import Parameters
from milon.contracts.accounts import load_account, load_supply
from milon.contracts.claims_records import Attestation, ClaimRecord, ClaimStatus
from milon.contracts.records import Job, JobStatus, Trainer
from milon.contracts.rewards import is_paid, pay_round
from milon.pol.verdict import Refusal, RoundOutcome
from milon.state.ledger import Draft
from tests.contracts.helpers import Chain, account_id, make_spec, name_of

TRAINER, VERIFIER, OTHER = account_id(1), account_id(2), account_id(3)
TAKEN_IN = RoundOutcome(name_of("next"), Count(1), Count(2), Count(3), (TRAINER,), (), "")
REFUSED = replace(TAKEN_IN, accepted=(), refused=(Refusal(TRAINER, "far"),))
VOID = replace(TAKEN_IN, accepted=(), void="no outcome found a quorum in time")


def make_claim(status: ClaimStatus, is_audited: bool, counts: tuple[bool, ...] = (True, True)) -> ClaimRecord:
    """Four segments, of which two members replayed two each."""
    members = (VERIFIER, OTHER)
    words = (
        Attestation(member, name_of("traces"), (Count(0), Count(2)), is_counted)
        for member, is_counted in zip(members, counts, strict=True)
    )
    return ClaimRecord(
        claim=ClaimId(name_of("claim")),
        job=name_of("job"),  # type: ignore[arg-type]
        round=Round(0),
        trainer=TRAINER,
        first=Count(0),
        count=Count(4),
        start=name_of("start"),
        continues=None,
        records_root=name_of("root"),
        records=name_of("records"),
        final_state=name_of("final"),
        compute_ms=Count(1),
        height=Height(1),
        status=status,
        problem="",
        deadline=Height(0),
        beacon=None,
        committee=members if is_audited else (),
        attestations=tuple(words) if is_audited else (),
        commitments=(),
        accusations=(),
        resumed=status,
        withheld_from=Count(0),
        judgements=(),
    )


def make_job(escrow: int) -> Job:
    """A running job: 100 coins a segment, 7 a replay."""
    return Job(
        submitter=OTHER,
        spec=make_spec(),
        status=JobStatus.RUNNING,
        problem="",
        escrow=Amount(escrow),
        paid=Amount(10),
        submitted_height=Height(1),
        since_height=Height(1),
        holders=(),
        objections=(),
        trainers=(Trainer(TRAINER, Count(5), True, Count(8)),),
        barred=(),
        next_round=Round(0),
        state=Digest(bytes(32)),
    )


@pytest.mark.parametrize(
    ("status", "is_audited", "outcome", "expected"),
    [
        (ClaimStatus.ACCEPTED, True, TAKEN_IN, True),
        (ClaimStatus.ACCEPTED, True, REFUSED, True),
        (ClaimStatus.ACCEPTED, True, VOID, True),
        (ClaimStatus.ACCEPTED, False, TAKEN_IN, True),
        (ClaimStatus.ACCEPTED, False, REFUSED, False),
        (ClaimStatus.ACCEPTED, False, VOID, False),
        (ClaimStatus.REFUTED, True, TAKEN_IN, False),
        (ClaimStatus.VOID, True, TAKEN_IN, False),
    ],
)
def test_who_trained_is_paid_for_proven_work(
    status: ClaimStatus, is_audited: bool, outcome: RoundOutcome, expected: bool
) -> None:
    assert is_paid(make_claim(status, is_audited), outcome) is expected


FREE = Parameters(protocol_fee_ppm=Count(0))


def pay(
    escrow: int, *claims: ClaimRecord, parameters: Parameters = FREE
) -> tuple[Job, dict[tuple[bytes, str], int], dict[bytes, int]]:
    """The job after paying, the payments, and what each account has; fees burn."""
    draft = Draft(Chain().ledger)
    job, payments = pay_round(draft, make_job(escrow), claims, TAKEN_IN, parameters)
    burned = load_supply(draft).burned
    balances = {name: int(load_account(draft, name).balance) for name in (TRAINER, VERIFIER, OTHER)}
    found = {(payment.account, payment.reason): int(payment.amount) for payment in payments}
    assert len(found) == len(payments), "one payment per account and reason"
    assert sum(balances.values()) + burned == sum(found.values()) == escrow - job.escrow == job.paid - 10
    assert burned == found.get((TRAINER, "fee"), 0)
    return job, found, balances


def test_segments_and_replays() -> None:
    job, payments, _ = pay(1_000, make_claim(ClaimStatus.ACCEPTED, True))
    assert payments == {(TRAINER, "segments"): 400, (VERIFIER, "replays"): 14, (OTHER, "replays"): 14}
    assert job.escrow == 1_000 - 428
    assert job.trainers[0].delivered == 12


def test_replays_that_do_not_count_are_not_paid() -> None:
    _, payments, _ = pay(1_000, make_claim(ClaimStatus.ACCEPTED, True, (False, True)))
    assert payments == {(TRAINER, "segments"): 400, (OTHER, "replays"): 14}


def test_replays_of_a_claim_that_failed_are_paid_and_its_segments_are_not() -> None:
    for status in (ClaimStatus.VOID, ClaimStatus.REFUTED):
        job, payments, _ = pay(1_000, make_claim(status, True))
        assert payments == {(VERIFIER, "replays"): 14, (OTHER, "replays"): 14}
        assert job.trainers[0].delivered == 8


def test_several_claims_make_one_payment_per_account_and_reason() -> None:
    _, payments, _ = pay(5_000, *[make_claim(ClaimStatus.ACCEPTED, True)] * 3)
    assert payments == {(TRAINER, "segments"): 1_200, (VERIFIER, "replays"): 42, (OTHER, "replays"): 42}


def test_the_protocol_fee_is_a_part_of_a_trainers_pay_and_burns() -> None:
    claim = make_claim(ClaimStatus.ACCEPTED, True)
    _, payments, balances = pay(1_000, claim, parameters=Parameters(protocol_fee_ppm=Count(99_999)))
    assert payments[TRAINER, "segments"] == balances[TRAINER] == 361
    assert (payments[TRAINER, "fee"], payments[VERIFIER, "replays"]) == (39, 14)
    _, payments, balances = pay(1_000, claim, parameters=Parameters(protocol_fee_ppm=Count(1_000_000)))
    assert (payments[TRAINER, "fee"], balances[TRAINER]) == (400, 0)
    assert (TRAINER, "segments") not in payments


@pytest.mark.parametrize("escrow", [0, 1, 399, 400, 401, 414, 420, 428])
def test_never_more_than_the_escrow_holds(escrow: int) -> None:
    job, payments, _ = pay(escrow, make_claim(ClaimStatus.ACCEPTED, True))
    assert job.escrow == 0
    assert sum(payments.values()) == escrow
    assert all(amount > 0 for amount in payments.values())

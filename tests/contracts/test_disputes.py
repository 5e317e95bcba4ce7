"""Disputed claims: who is slashed, who is paid, and that nobody honest ever is slashed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milon.base.errors import Reason
from milon.base.units import Count
from milon.chain.transaction import Enrol, Judge
from milon.contracts.claims_records import ClaimStatus
from milon.contracts.duties import (
    AggregateDuty,
    CommitDuty,
    HoldDuty,
    JudgeDuty,
    OpenDuty,
    RevealDuty,
)
from milon.contracts.records import JobStatus
from milon.pol.verdict import Verdict
from tests.contracts.helpers import BALANCE, NO_CLAIM, STAKE, assert_refused
from tests.contracts.players import make_world, player_of, reach_claims, start_job

HALF_STAKE = STAKE // 2


def test_a_false_claim_is_refuted_its_trainer_slashed_and_barred() -> None:
    world = make_world(p0={"lies": frozenset(range(8))})
    job = start_job(world, rounds=Count(2))
    closed = world.finish(job)
    liar = world.chain.keys[0]
    refuted = next(claim for claim in closed[0].claims if claim.trainer == liar.account)
    assert refuted.status == "refuted: segment 0 replays to other bits"
    taken = next(payment for payment in closed[0].payments if payment.reason == "slash")
    given = next(payment for payment in closed[0].payments if payment.reason == "refutation")
    assert (taken.account, taken.amount) == (liar.account, HALF_STAKE)
    assert given.amount == HALF_STAKE // 2
    assert given.account in {key.account for key in world.chain.keys[1:]}
    assert refuted.verifiers == ()
    account = world.chain.account(liar)
    assert (account.bonded, account.slashed, account.open_claims) == (HALF_STAKE, HALF_STAKE, 0)
    assert liar.account not in closed[0].outcome.accepted
    assert liar.account in world.chain.job(job).barred
    assert [claim.trainer for claim in closed[1].claims] == [key.account for key in world.chain.keys[1:]]
    fees = sum(world.chain.account(key).nonce for key in (*world.chain.keys, *world.chain.others))
    fees += sum(payment.amount for entry in closed for payment in entry.payments if payment.reason == "fee")
    assert BALANCE * 5 + STAKE * 4 - fees - HALF_STAKE // 2 == sum(
        world.chain.account(key).balance + world.chain.account(key).bonded
        for key in (*world.chain.keys, *world.chain.others)
    )


def test_a_barred_trainer_does_not_come_back() -> None:
    world = make_world(p0={"lies": frozenset(range(8))})
    job = start_job(world)
    world.run(job, lambda record: bool(record.barred))
    assert_refused(world.chain, world.chain.keys[0], Enrol(job, Count(1)), Reason.NOT_ALLOWED, "bars")


def test_one_false_segment_is_enough_and_those_who_called_it_true_are_not_paid() -> None:
    """Player 1 attests TRUE without looking: its sample held the false segment, so that it cannot have replayed it."""
    world = make_world(p0={"lies": frozenset({1})}, p1={"is_lazy": True}, p2={"skips": (CommitDuty,)})
    job = start_job(world, rounds=Count(1))
    (closed,) = world.finish(job)
    refuted = next(claim for claim in closed.claims if claim.trainer == world.chain.keys[0].account)
    assert refuted.status == "refuted: segment 1 replays to other bits"
    assert refuted.verifiers == ()


def test_a_false_accusation_costs_the_accuser_and_the_claim_goes_on() -> None:
    world = make_world(p0={"attests": Verdict.FALSE, "judges": Verdict.FALSE})
    job = start_job(world, rounds=Count(1))
    (closed,) = world.finish(job)
    accuser = world.chain.keys[0]
    assert {claim.status for claim in closed.claims} == {"accepted"}
    left = STAKE - STAKE // 2
    for _ in range(2):
        left -= left // 2
    assert [entry.amount for entry in closed.payments if entry.reason == "slash"] == [STAKE - left]
    assert world.chain.account(accuser).bonded == left
    for key in world.chain.keys[1:]:
        assert world.chain.account(key).slashed == 0
    assert world.chain.job(job).barred == ()


def test_a_lone_false_accuser_cannot_void_a_true_claim() -> None:
    """In a committee of one: the quorum that overruled it replayed the segment in its place."""
    for verdict in (Verdict.FALSE, Verdict.UNAVAILABLE):
        world = make_world(**{f"p{number}": {"attests": verdict} for number in range(4)})
        job = start_job(world, rounds=Count(1), committee_size=Count(1))
        (closed,) = world.finish(job)
        assert {claim.status for claim in closed.claims} == {"accepted"}
        assert all(claim.verifiers == () for claim in closed.claims) == (verdict is Verdict.FALSE)


def test_a_false_accuser_and_an_absent_member_cannot_void_it_either() -> None:
    world = make_world(p1={"attests": Verdict.FALSE}, p2={"skips": (CommitDuty,)})
    job = start_job(world, rounds=Count(1))
    (closed,) = world.finish(job)
    fate = {claim.trainer: claim.status for claim in closed.claims}
    assert fate[world.chain.keys[0].account] == "accepted"


def test_a_withheld_claim_is_void_and_pays_nobody() -> None:
    """Not even a friend on the committee who attested before anybody asked for the data."""
    world = make_world(p0={"is_withholding": True}, p1={"is_lazy": True})
    job = start_job(world, rounds=Count(1))
    (closed,) = world.finish(job)
    claim = next(claim for claim in closed.claims if claim.trainer == world.chain.keys[0].account)
    assert claim.status == f"void: the states of segment {claim.first} were not to be had"
    assert claim.verifiers == ()
    assert [world.chain.account(key).slashed for key in world.chain.keys] == [STAKE // 20, 199, 0, 0]
    assert [entry.amount for entry in closed.payments if entry.reason == "withholding"] == [STAKE // 20]


def test_withheld_data_that_a_quorum_has_costs_the_accuser_nothing() -> None:
    world = make_world(p0={"attests": Verdict.UNAVAILABLE})
    job = start_job(world, rounds=Count(1))
    (closed,) = world.finish(job)
    assert {claim.status for claim in closed.claims} == {"accepted"}
    assert world.chain.account(world.chain.keys[0]).slashed == 0
    assert sum(world.chain.keys[0].account in claim.verifiers for claim in closed.claims) == 3  # it replayed later


@pytest.mark.parametrize("split", [(Verdict.FALSE, Verdict.TRUE), (Verdict.UNAVAILABLE, Verdict.FALSE)])
def test_judges_without_a_quorum_void_the_claim_in_time(split: tuple[Verdict, Verdict]) -> None:
    world = make_world(
        p0={"lies": frozenset({0}), "judges": split[0]},
        p1={"judges": split[0]},
        p2={"judges": split[1]},
        p3={"judges": split[1]},
    )
    job = start_job(world, rounds=Count(1))
    (closed,) = world.finish(job)
    claim = next(claim for claim in closed.claims if claim.trainer == world.chain.keys[0].account)
    assert claim.status == "void: no quorum judged segment 0 in time"
    assert claim.verifiers == ()
    assert all(world.chain.account(key).slashed == 0 for key in world.chain.keys)


def test_who_may_not_judge_and_what() -> None:
    world = make_world(p0={"lies": frozenset({0})}, **{f"p{n}": {"skips": (JudgeDuty,)} for n in (1, 2, 3)})
    player_of(world, 0).skips = (JudgeDuty,)
    job = start_job(world)
    chain = world.chain
    claim = reach_claims(world, job, ClaimStatus.SUSPENDED, 1)[0]
    good = Judge(claim.claim, Count(0), Verdict.FALSE)
    assert_refused(chain, chain.others[0], good, Reason.NOT_ALLOWED)
    assert_refused(chain, chain.keys[1], replace(good, claim=NO_CLAIM), Reason.UNKNOWN)
    assert_refused(chain, chain.keys[1], replace(good, dispute=Count(1)), Reason.DIFFERS)
    other = next(
        chain.claim_of(job, key) for key in chain.keys if chain.claim_of(job, key).status is not ClaimStatus.SUSPENDED
    )
    assert_refused(chain, chain.keys[1], replace(good, claim=other.claim), Reason.NOT_NOW)
    assert chain.do((chain.keys[1], good)) == ("",)
    assert_refused(chain, chain.keys[1], good, Reason.DUPLICATE)
    assert chain.do((chain.keys[2], good), (chain.keys[3], good)) == ("", "")
    assert chain.claim_of(job, chain.keys[0]).status is ClaimStatus.REFUTED
    assert_refused(chain, chain.keys[0], good, Reason.NOT_NOW)


def test_every_member_may_accuse_once_and_judgements_start_anew() -> None:
    """Three false accusers one after the other: three disputes, three slashes, and the claim is accepted."""
    behaviour = {f"p{number}": {"attests": Verdict.FALSE} for number in range(1, 4)}
    world = make_world(**behaviour, p0={"skips": (CommitDuty,)})
    job = start_job(world, rounds=Count(1), trainers_min=Count(1), trainers_target=Count(1))
    for number in range(1, 4):
        player_of(world, number).is_trainer = False
    (closed,) = world.finish(job)
    assert [claim.status for claim in closed.claims] == ["accepted"]
    assert [entry.amount for entry in closed.payments if entry.reason == "slash"] == [HALF_STAKE] * 3
    assert {entry.account for entry in closed.payments if entry.reason == "refutation"} == {world.chain.keys[0].account}


def test_nobody_honest_is_slashed_whatever_one_other_does() -> None:
    bad: list[dict[str, object]] = [
        {"lies": frozenset(range(8))},
        {"lies": frozenset({1, 3, 5, 7})},
        {"attests": Verdict.FALSE},
        {"attests": Verdict.UNAVAILABLE},
        {"is_lazy": True},
        {"is_withholding": True},
        {"judges": Verdict.TRUE, "lies": frozenset({0})},
        {"skips": (OpenDuty,)},
        {"skips": (RevealDuty,)},
        {"skips": (CommitDuty, JudgeDuty, AggregateDuty, HoldDuty)},
        {"is_here": False},
        {"claims": 1},
    ]
    for behaviour in bad:
        world = make_world(p2=behaviour)
        job = start_job(world)
        world.finish(job)
        assert world.chain.job(job).status is JobStatus.FINISHED, behaviour
        honest = [key for number, key in enumerate(world.chain.keys) if number != 2]
        assert [world.chain.account(key).slashed for key in honest] == [0, 0, 0], behaviour
        assert all(world.chain.account(key).open_claims == 0 for key in world.chain.keys), behaviour

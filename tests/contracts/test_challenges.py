"""Challenges by anybody with a bond, and what each costs whom."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from milon.base.errors import Reason
from milon.base.units import Amount, Count
from milon.chain.params import Parameters
from milon.chain.transaction import Bond, Challenge, Judge, SubmitJob, Withdraw
from milon.contracts.claims_records import ClaimStatus
from milon.contracts.disputes import STRANGERS_MAX
from milon.contracts.duties import (
    AggregateDuty,
    CommitDuty,
    DisputeAnswerDuty,
    JudgeDuty,
    OpenDuty,
    RefereeDuty,
)
from milon.contracts.records import JobStatus, Phase
from milon.pol.verdict import Verdict
from tests.contracts.helpers import NO_CLAIM, STAKE, Chain, assert_refused, make_spec
from tests.contracts.players import Player, World, make_world, player_of, reach_claims, reach_phase, start_job, until
from tests.contracts.watchers import BISECTION, BOND, LIE, first_claim, forbidden, lost, make_open_world, payments

# Challenges


def test_a_stranger_with_a_bond_refutes_what_the_committee_missed() -> None:
    """The committee's members are friends who know the liar's traces: the claim is accepted, and refuted yet."""
    friend = {"attests": Verdict.TRUE}
    world, watcher = make_open_world(p0={"lies": frozenset(range(8))}, p1=friend, p2=friend, p3=friend)
    job = start_job(world, rounds=Count(1), challenge_blocks=Count(3))
    claim = first_claim(world, job, ClaimStatus.ACCEPTED)
    assert world.chain.do((watcher, Challenge(claim.claim, Count(claim.first + 1), Verdict.FALSE))) == ("",)
    world.step()
    assert world.chain.claim_of(job, world.chain.keys[0]).status is ClaimStatus.REFUTED
    assert lost(world, world.chain.keys[0]) == STAKE // 2
    assert [lost(world, key) for key in world.chain.keys[1:]] == [STAKE // 100] * 3
    assert world.chain.account(watcher).open_claims == 1
    (closed,) = world.finish(job)
    assert world.chain.account(watcher).open_claims == 0
    refuted = next(entry for entry in closed.claims if entry.trainer == world.chain.keys[0].account)
    assert refuted.verifiers == ()


def test_a_late_challenge_opens_the_round_again_and_the_voting_begins_anew() -> None:
    world, watcher = make_open_world(p2={"skips": (AggregateDuty,)}, p3={"skips": (AggregateDuty,)})
    job = start_job(world, rounds=Count(1))
    reach_phase(world, job, Phase.AGGREGATE)
    world.step()
    assert len(world.chain.round(job).votes) == 2
    claim = world.chain.claim_of(job, world.chain.keys[0])
    assert world.chain.do((watcher, Challenge(claim.claim, claim.first, Verdict.FALSE))) == ("",)
    opened = world.chain.round(job)
    assert (opened.phase, opened.votes) == (Phase.TRAIN, ())
    assert not any(key.startswith(b"outcome/") for key in world.chain.table)
    player_of(world, 2).skips = player_of(world, 3).skips = ()
    (closed,) = world.finish(job)
    assert closed.outcome.void == ""
    assert {entry.status for entry in closed.claims} == {"accepted"}
    assert lost(world, watcher) == BOND // 2


def test_a_claim_nobody_audits_can_be_challenged() -> None:
    world, watcher = make_open_world(p0={"lies": frozenset({0})})
    job = start_job(world, rounds=Count(1), audit_ppm=(Count(0),), challenge_blocks=Count(2))
    claim = first_claim(world, job, ClaimStatus.ACCEPTED)
    assert world.chain.do((watcher, Challenge(claim.claim, Count(0), Verdict.FALSE))) == ("",)
    (closed,) = world.finish(job)
    fate = {entry.trainer: entry.status for entry in closed.claims}
    assert fate[world.chain.keys[0].account].startswith("refuted")
    assert (lost(world, world.chain.keys[0]), payments(world, "refutation")) == (STAKE // 2, [STAKE // 4])


def test_an_accepted_claim_waits_for_challenges_as_long_as_the_job_says() -> None:
    heights = {}
    for blocks in (0, 7):
        world = make_world()
        job = start_job(world, rounds=Count(1), challenge_blocks=Count(blocks))
        world.finish(job)
        heights[blocks] = world.chain.height
    assert heights[7] == heights[0] + 7


def test_who_may_not_challenge_and_what() -> None:
    world, watcher = make_open_world(**{f"p{number}": {"skips": (CommitDuty, JudgeDuty)} for number in range(4)})
    chain = world.chain
    job = start_job(world, attest_blocks=Count(30), judge_blocks=Count(30))
    claim = first_claim(world, job, ClaimStatus.COMMITTING)
    good = Challenge(claim.claim, claim.first, Verdict.FALSE)
    assert_refused(chain, chain.others[0], good, Reason.NOT_ALLOWED, "a bond of 1000 is needed")
    assert_refused(chain, chain.keys[0], good, Reason.NOT_ALLOWED, "own claim")
    assert_refused(chain, watcher, replace(good, claim=NO_CLAIM), Reason.UNKNOWN)
    assert_refused(chain, watcher, replace(good, verdict=Verdict.TRUE), Reason.OUT_OF_RANGE)
    for segment in (claim.first + claim.count, 1 << 62):
        assert_refused(chain, watcher, replace(good, segment=Count(segment)), Reason.OUT_OF_RANGE)
    assert chain.do((watcher, good)) == ("",)
    assert_refused(chain, watcher, good, Reason.DUPLICATE)
    assert_refused(chain, watcher, Withdraw(), Reason.NOT_NOW, "1 claims of this account are undecided")


def test_a_segment_that_a_quorum_has_replayed_is_not_challenged_again_but_others_are() -> None:
    world, watcher = make_open_world(**{f"p{number}": {"skips": (CommitDuty,)} for number in range(4)})
    chain = world.chain
    job = start_job(world, attest_blocks=Count(30))
    claim = first_claim(world, job, ClaimStatus.COMMITTING)
    assert chain.do((watcher, Challenge(claim.claim, claim.first, Verdict.FALSE))) == ("",)
    world.step()
    claim = chain.claim_of(job, chain.keys[0])
    assert claim.status is ClaimStatus.COMMITTING and claim.accusations[0].is_over
    again = Challenge(claim.claim, claim.first, Verdict.FALSE)
    assert_refused(chain, chain.keys[1], again, Reason.STALE)
    assert chain.do((chain.keys[1], replace(again, segment=Count(claim.first + 1)))) == ("",)
    assert chain.claim_of(job, chain.keys[0]).status is ClaimStatus.SUSPENDED


def test_strangers_fill_their_places_and_never_those_of_the_committee() -> None:
    chain = Chain(4, STRANGERS_MAX + 2)
    players = [Player(key, skips=(CommitDuty, JudgeDuty)) for key in chain.keys]
    world = World(chain, players)
    strangers = chain.others[1:]
    chain.do(*((key, Bond(BOND)) for key in strangers))
    job = start_job(world, attest_blocks=Count(30), judge_blocks=Count(30))
    claim = first_claim(world, job, ClaimStatus.COMMITTING)
    good = Challenge(claim.claim, claim.first, Verdict.FALSE)
    assert set(chain.do(*((key, good) for key in strangers[:-1]))) == {""}
    assert_refused(chain, strangers[-1], good, Reason.FULL)
    member = next(key for key in chain.keys if key.account in claim.committee)
    assert chain.do((member, good)) == ("",)
    player_of(world, 0).skips = ()
    for number in range(4):
        player_of(world, number).skips = ()
    world.step()
    assert [lost(world, key) for key in strangers] == [BOND // 2] * STRANGERS_MAX + [0]
    assert lost(world, member) == STAKE // 2


def test_the_first_of_those_who_name_the_false_segment_has_the_reward() -> None:
    world, watcher = make_open_world(p0={"lies": frozenset({1})}, p3={"skips": (CommitDuty,)})
    job = start_job(world, rounds=Count(1))
    world.finish(job)
    assert lost(world, world.chain.keys[0]) == STAKE // 2
    assert payments(world, "refutation") == [STAKE // 4]
    assert lost(world, watcher) == 0


def test_members_that_called_a_false_segment_true_lapse() -> None:
    lazy = {"is_lazy": True, "skips": (OpenDuty,)}
    world, watcher = make_open_world(p0={"lies": frozenset({1}), "skips": (OpenDuty,)}, p1=lazy, p2=lazy, p3=lazy)
    job = start_job(world, rounds=Count(1), attest_blocks=Count(20))
    claim = first_claim(world, job, ClaimStatus.OPENING)
    assert world.chain.do((watcher, Challenge(claim.claim, Count(1), Verdict.FALSE))) == ("",)
    (closed,) = world.finish(job)
    refuted = next(entry for entry in closed.claims if entry.trainer == world.chain.keys[0].account)
    assert refuted.status == "refuted: segment 1 replays to other bits"
    assert refuted.verifiers == ()
    assert [lost(world, key) for key in world.chain.keys[1:]] == [STAKE // 100] * 3


def test_withholding_is_judged_only_after_the_trainers_time() -> None:
    world, _ = make_open_world(p0={"is_withholding": True})
    chain = world.chain
    job = start_job(world, rounds=Count(1), judge_blocks=Count(6))
    reach_claims(world, job, ClaimStatus.SUSPENDED, 1)
    early = Judge(chain.claim_of(job, chain.keys[0]).claim, Count(0), Verdict.UNAVAILABLE)
    assert_refused(chain, chain.keys[1], early, Reason.NOT_NOW, "time")
    player_of(world, 0).is_withholding = False  # shown in time: judged TRUE, and nobody loses anything
    (closed,) = world.finish(job)
    assert {entry.status for entry in closed.claims} == {"accepted"}
    assert all(lost(world, key) == 0 for key in chain.keys)


@pytest.mark.parametrize("kind", ["silent", "replay", "bisection"])
def test_no_challenge_keeps_a_job_from_its_end(kind: str) -> None:
    """Everybody challenges everything; deadlines bring the job to its end and all stakes loose."""
    terms = BISECTION if kind == "bisection" else {}
    skips = (JudgeDuty, RefereeDuty, DisputeAnswerDuty) if kind == "silent" else ()
    chain = Chain(4, 5)
    world = World(chain, [Player(key, skips=skips, run=LIE) for key in chain.keys])
    strangers = chain.others[1:]
    chain.do(*((key, Bond(BOND)) for key in strangers))
    job = start_job(world, rounds=Count(1), **terms)
    while chain.job(job).status is not JobStatus.FINISHED:
        world.step()
        opened = chain.table.get(b"open-round/" + job)
        claims = chain.round(job).claims if opened else ()
        asked = [
            (key, Challenge(claim, Count(number % 8), verdict))
            for number, claim in enumerate(claims)
            for key, verdict in zip(strangers, (*Verdict, Verdict.FALSE), strict=True)
        ]
        chain.do(*asked)
        assert chain.height < 600
    for key in (*chain.keys, *strangers):
        assert chain.account(key).open_claims == 0
    assert not any(key.startswith((b"claim/", b"dispute/", b"outcome/")) for key in chain.table)


def test_network_bounds_hold_for_every_job() -> None:
    strict = Parameters(
        audit_ppm_min=Count(100_000),
        committee_size_min=Count(3),
        trainer_bond_min=Amount(500),
        deadline_blocks_min=Count(5),
    )
    chain = Chain(parameters=strict)
    key, reward = chain.others[0], Amount(100_000)
    for terms in (
        {"audit_ppm": (Count(1_000_000), Count(99_999))},
        {"committee_size": Count(2)},
        {"bond_min": Amount(499)},
        {"attest_blocks": Count(4)},
        {"judge_blocks": Count(4)},
        {"dispute_blocks": Count(4)},
    ):
        assert_refused(chain, key, SubmitJob(make_spec(**terms), reward), Reason.OUT_OF_RANGE, "this chain asks for")
    assert chain.do((key, SubmitJob(make_spec(), reward))) == ("",)


def test_a_member_that_missed_states_still_owes_its_replay() -> None:
    world, _ = make_open_world(p1={"attests": Verdict.UNAVAILABLE})
    job = start_job(world, rounds=Count(1))
    (closed,) = world.finish(job)
    assert {entry.status for entry in closed.claims} == {"accepted"}
    own = world.chain.keys[1].account
    assert all(own in entry.verifiers for entry in closed.claims if entry.trainer != own)
    assert payments(world, "lapse") == []
    assert forbidden(world) == []


def test_a_member_that_missed_states_and_then_falls_silent_lapses() -> None:
    world, _ = make_open_world()
    job = start_job(world, rounds=Count(1))
    claim = first_claim(world, job, ClaimStatus.COMMITTING)
    member = next(key for key in world.chain.keys if key.account == claim.committee[0])
    accusation = Challenge(claim.claim, claim.first, Verdict.UNAVAILABLE)
    assert world.chain.do((member, accusation)) == ("",)
    world.players[member.account].skips = (CommitDuty,)
    find_claim = partial(world.chain.claim_of, job, world.chain.keys[0])
    until(world, lambda: find_claim().status is ClaimStatus.COMMITTING)
    assert_refused(world.chain, member, accusation, Reason.DUPLICATE, "has challenged")
    world.finish(job)
    assert lost(world, member) >= STAKE // 100


@pytest.mark.parametrize("terms", [{}, BISECTION])
def test_states_that_come_late_rid_nobody_of_the_committee(terms: dict[str, object]) -> None:
    """All members are kept waiting until they say so, and served before the validators judge: yet they look."""
    kept = {"attests": Verdict.UNAVAILABLE}
    world, _ = make_open_world(p0={"lies": frozenset({1}), "run": LIE}, p1=kept, p2=kept, p3=kept)
    job = start_job(world, rounds=Count(1), audit_ppm=(Count(1_000_000),), **terms)
    (closed,) = world.finish(job)
    liar = world.chain.keys[0]
    refuted = next(entry for entry in closed.claims if entry.trainer == liar.account)
    assert refuted.status == "refuted: segment 1 replays to other bits"
    assert lost(world, liar) == STAKE // 2
    assert [lost(world, key) for key in world.chain.keys[1:]] == [0] * 3


def test_a_strangers_word_that_states_are_withheld_costs_it_the_challenge_bond_where_they_are_not() -> None:
    world, watcher = make_open_world()
    job = start_job(world, rounds=Count(1))
    claim = first_claim(world, job, ClaimStatus.COMMITTING)
    assert world.chain.do((watcher, Challenge(claim.claim, claim.first, Verdict.UNAVAILABLE))) == ("",)
    (closed,) = world.finish(job)
    assert {entry.status for entry in closed.claims} == {"accepted"}
    assert (lost(world, watcher), payments(world, "forfeit"), payments(world, "refutation")) == (100, [100], [50])

"""Segments handed out again within the round: who takes them, what is paid, and what a lie in them costs."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.errors import Reason
from milon.base.ids import JobId
from milon.base.units import Amount, Count
from milon.chain.transaction import Claim, Unbond
from milon.contracts.claims_records import ClaimStatus
from milon.contracts.duties import (
    AggregateDuty,
    EnrolDuty,
    OpenDuty,
    Role,
    TrainDuty,
    compute_duties,
)
from milon.contracts.jobs import ENROLLING_BLOCKS_MAX
from milon.contracts.records import JobStatus, Phase
from milon.pol.terms import compute_cost_max
from tests.contracts.helpers import assert_refused, make_spec, name_of
from tests.contracts.players import World, make_world, player_of, reach_phase, start_job, until
from tests.contracts.takeovers import (
    ONE_ROUND,
    assert_all_segments_accepted,
    claims_of,
    handed,
    job_runs,
    number_of,
    paid,
    parts,
    reach_reassigned,
    trainer_of,
)

# Who takes what


def test_the_segments_of_who_vanished_are_taken_over_within_the_round() -> None:
    world = make_world(p3={"skips": (TrainDuty,)})
    job = start_job(world, **ONE_ROUND)
    deadline = reach_phase(world, job, Phase.TRAIN).deadline
    player_of(world, 3).skips = (TrainDuty, EnrolDuty)
    reach_reassigned(world, job)
    assert handed(world, job) == [(0, 6, 1), (1, 7, 1)]
    assert world.chain.height == deadline and world.chain.round(job).deadline == deadline + 12
    (closed,) = world.finish(job)
    assert parts(world, closed.claims) == [(0, 0, 2), (0, 6, 1), (1, 2, 2), (1, 7, 1), (2, 4, 2)]
    assert_all_segments_accepted(closed)
    own, taken = closed.claims[:2]
    assert (own.start, own.continues) == (closed.state, None)
    assert (taken.start, taken.continues) == (own.final_state, own.claim)
    assert [paid(closed, key) for key in world.chain.keys] == [300, 300, 200, 0]
    assert [int(trainer_of(world, job, number).delivered) for number in range(4)] == [3, 3, 2, 0]
    assert [trainer_of(world, job, number).is_active for number in range(4)] == [True, True, True, False]
    assert closed.outcome.accepted == tuple(key.account for key in world.chain.keys[:3])


def test_who_took_segments_over_has_one_update_of_all_its_steps() -> None:
    world = make_world(p3={"skips": (TrainDuty,)})
    for number in range(4):
        player_of(world, number).skips += (AggregateDuty,)
    job = start_job(world, **ONE_ROUND)
    reach_phase(world, job, Phase.AGGREGATE)
    (duty,) = compute_duties(world.chain.ledger, Role(world.chain.keys[0].account, True))
    assert isinstance(duty, AggregateDuty)
    assert [(number_of(world, final.trainer), int(final.steps)) for final in duty.finals] == [(0, 6), (1, 6), (2, 4)]
    assert [final.state for final in duty.finals] == [
        claims_of(world, job, number)[-1].final_state for number in range(3)
    ]


def test_it_is_handed_out_at_once_where_all_have_claimed_and_the_late_one_keeps_its_part() -> None:
    world = make_world(p3={"claims": 1})
    job = start_job(world, claim_blocks=Count(40), **ONE_ROUND)
    reach_reassigned(world, job)
    assert world.chain.height < 20
    assert handed(world, job) == [(0, 7, 1)]
    (closed,) = world.finish(job)
    assert_all_segments_accepted(closed)
    assert [paid(closed, key) for key in world.chain.keys] == [300, 200, 200, 100]
    assert trainer_of(world, job, 3).is_active and trainer_of(world, job, 3).capacity == 5
    assert trainer_of(world, job, 0).capacity == 10, "more than its part makes nobody faster"


def test_the_segments_of_two_go_to_the_other_two() -> None:
    world = make_world(p1={"skips": (TrainDuty,)}, p3={"skips": (TrainDuty,)})
    job = start_job(world, **ONE_ROUND)
    reach_reassigned(world, job)
    assert handed(world, job) == [(0, 2, 2), (2, 6, 2)]
    (closed,) = world.finish(job)
    assert_all_segments_accepted(closed)


def test_shares_follow_capacity() -> None:
    world = make_world(p0={"skips": (TrainDuty,)}, p1={"capacity": 30})
    job = start_job(world, segments_per_round=Count(24), **ONE_ROUND)
    reach_reassigned(world, job)
    assert handed(world, job) == [(1, 0, 2), (2, 2, 1), (3, 3, 1)]


def test_a_single_one_left_takes_them_all_one_run_after_the_other() -> None:
    world = make_world(**{f"p{number}": {"skips": (TrainDuty,)} for number in (0, 1, 3)})
    job = start_job(world, **ONE_ROUND)
    reach_reassigned(world, job)
    assert handed(world, job) == [(2, 0, 4), (2, 6, 2)]
    (closed,) = world.finish(job)
    assert parts(world, closed.claims) == [(2, 4, 2), (2, 0, 4), (2, 6, 2)]
    assert_all_segments_accepted(closed)
    first, second, third = closed.claims
    assert (second.continues, third.continues) == (first.claim, second.claim)
    assert (second.start, third.start) == (first.final_state, second.final_state)
    assert paid(closed, world.chain.keys[2]) == 800


def test_where_nobody_is_left_the_round_waits_no_longer() -> None:
    world = make_world(**{f"p{number}": {"skips": (TrainDuty,)} for number in range(4)})
    job = start_job(world, **ONE_ROUND)
    deadline = reach_phase(world, job, Phase.TRAIN).deadline
    (closed,) = world.finish(job)
    assert world.chain.height == deadline
    assert closed.outcome.void == "no claim was accepted"


def test_a_job_may_do_without() -> None:
    world = make_world(p3={"skips": (TrainDuty,)})
    job = start_job(world, **{**ONE_ROUND, "reassign_blocks": Count(0)})
    (closed,) = world.finish(job)
    assert parts(world, closed.claims) == [(0, 0, 2), (1, 2, 2), (2, 4, 2)]


def test_whose_claim_has_fallen_is_handed_nothing() -> None:
    """Of the four one vanishes, and one's claim has fallen by then."""
    world = make_world(p0={"skips": (TrainDuty,)}, p1={"skips": (OpenDuty,)})
    job = start_job(world, claim_blocks=Count(30), **ONE_ROUND)
    until(world, lambda: job_runs(world, job) and len(world.chain.round(job).claims) == 3)
    until(world, lambda: claims_of(world, job, 1)[0].status is ClaimStatus.VOID)
    key = world.chain.keys[2]
    assert world.chain.do((key, Unbond(Amount(1))))[0] != "", "the bond stays while a claim is open"
    reach_reassigned(world, job)
    assert {number for number, _, _ in handed(world, job)} == {2, 3}


# Nobody has to


def test_who_does_no_extra_work_loses_nothing() -> None:
    world = make_world(p3={"skips": (TrainDuty,)})
    job = start_job(world, **ONE_ROUND)
    reach_reassigned(world, job)
    deadline = world.chain.round(job).deadline
    for number in range(3):
        player_of(world, number).skips = (TrainDuty,)
    until(world, lambda: world.chain.height >= deadline - 1)
    assert world.chain.round(job).phase is Phase.TRAIN
    (closed,) = world.finish(job)
    assert parts(world, closed.claims) == [(0, 0, 2), (1, 2, 2), (2, 4, 2)]
    assert [paid(closed, key) for key in world.chain.keys] == [200, 200, 200, 0]
    assert [trainer_of(world, job, number).is_active for number in range(3)] == [True] * 3
    assert [trainer_of(world, job, number).capacity for number in range(3)] == [10] * 3


def test_a_part_of_what_was_taken_over_counts_and_is_not_handed_out_a_third_time() -> None:
    world = make_world(p0={"skips": (TrainDuty,)}, p1={"skips": (TrainDuty,)})
    job = start_job(world, **ONE_ROUND)
    reach_reassigned(world, job)
    assert handed(world, job) == [(2, 0, 2), (3, 2, 2)]
    player_of(world, 2).claims = 1
    (closed,) = world.finish(job)
    assert parts(world, closed.claims) == [(2, 4, 2), (2, 0, 1), (3, 6, 2), (3, 2, 2)]
    assert [paid(closed, key) for key in world.chain.keys] == [0, 0, 300, 400]
    assert trainer_of(world, job, 2).capacity == 10


# What may be claimed


def at_reassigned() -> tuple[World, JobId]:
    """Player 3 has vanished; 0 and 1 have taken one segment each and do not claim it by themselves."""
    world = make_world(p3={"skips": (TrainDuty,)})
    job = start_job(world, **{**ONE_ROUND, "reassign_blocks": Count(40)})
    reach_reassigned(world, job)
    for number in range(3):
        player_of(world, number).skips = (TrainDuty,)
    return world, job


def test_only_what_was_given_is_claimed_and_once() -> None:
    world, job = at_reassigned()
    chain, keys = world.chain, world.chain.keys
    made_up = name_of("claimed")

    def claim(first: int, count: int = 1) -> Claim:
        number = chain.round(job).round
        return Claim(job, number, Count(first), Count(count), made_up, made_up, made_up, Count(1))

    assert_refused(chain, keys[0], claim(0, 2), Reason.DIFFERS, "from 6 on")
    assert_refused(chain, keys[0], claim(7), Reason.DIFFERS, "from 6 on")
    assert_refused(chain, keys[0], claim(6, 2), Reason.OUT_OF_RANGE, "2 segments claimed of 1")
    assert_refused(chain, keys[0], claim(6, 0), Reason.OUT_OF_RANGE)
    assert_refused(chain, keys[2], claim(6), Reason.DUPLICATE)
    assert_refused(chain, keys[3], claim(6, 2), Reason.NOT_NOW, "deadline")
    assert_refused(chain, chain.others[0], claim(6), Reason.NOT_ALLOWED)
    assert chain.do((keys[0], claim(6))) == ("",)
    assert_refused(chain, keys[0], claim(6), Reason.DUPLICATE)
    record = claims_of(world, job, 0)[-1]
    assert record.start == claims_of(world, job, 0)[0].final_state


def test_a_first_claim_sent_twice_is_never_taken_for_the_second() -> None:
    """A node that was killed before it saw its claim in a block sends it again, perhaps after the reassignment."""
    world, job = at_reassigned()
    old = claims_of(world, job, 0)[0]
    again = Claim(job, old.round, old.first, old.count, old.records_root, old.records, old.final_state, old.compute_ms)
    assert_refused(world.chain, world.chain.keys[0], again, Reason.DIFFERS)


def test_the_duty_names_the_state_to_start_from_and_ends_with_the_claim() -> None:
    world, job = at_reassigned()
    role = Role(world.chain.keys[0].account, True)

    def duties() -> list[TrainDuty]:
        return [duty for duty in compute_duties(world.chain.ledger, role) if isinstance(duty, TrainDuty)]

    (duty,) = duties()
    own = claims_of(world, job, 0)[0]
    assert (duty.state, duty.assignment.first, duty.assignment.count) == (own.final_state, 6, 1)
    player_of(world, 0).skips = ()
    world.step()
    assert duties() == []
    assert not [
        duty
        for duty in compute_duties(world.chain.ledger, Role(world.chain.keys[3].account, True))
        if isinstance(duty, TrainDuty)
    ], "who vanished has nothing to train any more"


# Whatever happens


def test_no_job_is_ever_stuck() -> None:
    """Wherever everybody falls silent, deadlines alone bring the job to its end and its coins home."""
    world = make_world(p1={"lies": frozenset({6})}, p3={"skips": (TrainDuty,)})
    job = start_job(world, **ONE_ROUND)
    reach_phase(world, job, Phase.TRAIN)
    while world.chain.job(job).status is not JobStatus.FINISHED:
        table, height = dict(world.chain.table), world.chain.height
        for _ in range(120):
            world.chain.apply()
            if world.chain.job(job).status is JobStatus.ENROLLING:
                world.chain.height += ENROLLING_BLOCKS_MAX
            if world.chain.job(job).escrow == 0:
                break
        assert world.chain.job(job).escrow == 0
        assert all(world.chain.account(key).open_claims == 0 for key in world.chain.keys)
        world.chain.table, world.chain.height = table, height
        world.step()


def test_the_escrow_covers_the_replay_more_of_each_claim_more() -> None:
    """Four claims of three segments, and three trainers that take over one each: at most one replay more for each."""
    terms = make_spec(segments_per_round=Count(12), audit_ppm=(Count(1),), rounds=Count(1)).terms
    without, with_it = (compute_cost_max(replace(terms, reassign_blocks=Count(blocks))) for blocks in (0, 12))
    assert without == 12 * 100 + (1 + 4) * 3 * 7
    assert with_it == 12 * 100 + (1 + 8) * 3 * 7


@settings(max_examples=12, deadline=None)
@given(
    players=st.lists(
        st.fixed_dictionaries({"claims": st.sampled_from((0, 1, None)), "capacity": st.integers(1, 40)}),
        min_size=4,
        max_size=4,
    ),
    lies=st.frozensets(st.integers(0, 10), max_size=1),
    ppm=st.sampled_from((0, 1, 300_000)),
)
def test_escrow_pays_all_work_and_every_segment_counts_once(
    players: list[dict[str, int | None]], lies: frozenset[int], ppm: int
) -> None:
    """However many vanish, claim less, or lie: what is due is paid in full, and nothing is claimed twice."""
    behaviour: dict[str, dict[str, object]] = {}
    for number, player in enumerate(players):
        skips = (TrainDuty,) if player["claims"] == 0 else ()
        behaviour[f"p{number}"] = {
            "skips": skips,
            "claims": player["claims"] or None,
            "capacity": player["capacity"],
            "lies": lies,
        }
    world = make_world(**behaviour)
    job = start_job(world, segments_per_round=Count(11), audit_ppm=(Count(ppm),), **ONE_ROUND)
    (closed,) = world.finish(job)
    claimed = [claim.first + place for claim in closed.claims for place in range(claim.count)]
    assert len(claimed) == len(set(claimed))
    work = [entry for entry in closed.payments if entry.reason in ("segments", "replays")]
    fees = {entry.account: int(entry.amount) for entry in closed.payments if entry.reason == "fee"}
    for entry in work:
        fee = fees.get(entry.account, 0) if entry.reason == "segments" else 0
        assert entry.amount + fee == entry.count * entry.price
    assert world.chain.job(job).escrow == 0
    assert all(world.chain.account(key).open_claims == 0 for key in world.chain.keys)

"""Rounds: a job's whole life to the coin, and everything that may go wrong with a round."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milon.base.errors import Reason
from milon.base.hashing import digest
from milon.base.ids import AccountId, JobId
from milon.base.units import Count, Round
from milon.chain.transaction import AggregateVote, Claim
from milon.contracts.claims_records import ClaimStatus
from milon.contracts.duties import AggregateDuty, EnrolDuty, OpenDuty, Role, TrainDuty, compute_duties
from milon.contracts.jobs import ENROLLING_BLOCKS_MAX
from milon.contracts.records import ArchivedRound, JobStatus, Phase, closed_round_key
from milon.contracts.rounds import REASON_CHARACTERS_MAX
from milon.contracts.validators import load_validator
from milon.pol.batches import compute_round_seed
from milon.pol.terms import compute_cost_max
from milon.pol.verdict import Refusal, RoundOutcome, Verdict
from tests.contracts.helpers import BALANCE, NO_JOB, STAKE, assert_refused, name_of
from tests.contracts.players import World, make_world, player_of, reach_claims, reach_phase, start_job

NO_AUDIT = (Count(0),)


def fees(world: World, number: int) -> int:
    """What a validator has burned in fees: each costs one coin."""
    return int(world.chain.account(world.chain.keys[number]).nonce)


def assert_nothing_is_left(world: World, job: JobId) -> None:
    """An ended job holds no coins and leaves no record that only an open round needs."""
    record = world.chain.job(job)
    assert record.status in (JobStatus.FINISHED, JobStatus.REJECTED)
    assert record.escrow == 0
    left = [key for key in world.chain.table if key.startswith((b"claim/", b"open-round/", b"outcome/"))]
    assert left == []
    assert all(world.chain.account(key).open_claims == 0 for key in world.chain.keys)


@pytest.mark.parametrize(("ppm", "replays"), [(0, 0), (1_000_000, 6), (1, 0)])
def test_a_whole_job_is_paid_to_the_coin(ppm: int, replays: int) -> None:
    """Four trainers, two rounds, two segments each; three claims of others, of which each member replays its sample.

    Of the 200 coins of two segments the protocol fee is two.
    """
    world = make_world()
    submitter = world.chain.others[0]
    job = start_job(world, audit_ppm=(Count(ppm),))
    cost = compute_cost_max(world.chain.job(job).spec.terms)
    closed = world.finish(job)
    earned = 2 * (2 * 100 + replays * 7)
    for number in range(4):
        account = world.chain.account(world.chain.keys[number])
        assert (account.balance, account.bonded) == (BALANCE + earned - 2 * 2 - fees(world, number), STAKE)
        assert load_validator(world.chain.ledger, world.chain.keys[number].account).learning == (2 * 2 if ppm else 0)
    record = world.chain.job(job)
    assert (record.status, record.paid, record.next_round) == (JobStatus.FINISHED, 4 * earned, 2)
    assert world.chain.account(submitter).balance == BALANCE - 1 - 4 * earned
    assert 4 * earned <= cost
    assert [len(entry.claims) for entry in closed] == [4, 4]
    assert closed[-1].payments[-1].reason == "refund"
    assert closed[-1].payments[-1].amount == cost - 4 * earned
    assert_nothing_is_left(world, job)


def test_what_is_offered_beyond_the_cost_comes_back() -> None:
    world = make_world()
    submitter = world.chain.others[0]
    spec = world.chain.job(start_job(world)).spec
    job = world.chain.submit(submitter, spec, 100_000)
    world.finish(job)
    paid = sum(payment.amount for closed in world.chain.closed if closed.job == job for payment in closed.payments)
    assert paid == 100_000
    assert_nothing_is_left(world, job)


def test_rounds_follow_each_other_in_state_and_seed() -> None:
    world = make_world()
    job = start_job(world, rounds=Count(3))
    first, second, third = world.finish(job)
    assert first.state == world.chain.job(job).spec.initial_state
    assert (second.state, third.state) == (first.outcome.state, second.outcome.state)
    assert world.chain.job(job).state == third.outcome.state
    assert len({first.seed, second.seed, third.seed}) == 3
    archived = world.chain.ledger.load(closed_round_key(job, 1), ArchivedRound)
    assert archived is not None
    assert archived.closed == second


def test_the_seed_is_of_a_block_after_the_rounds_start() -> None:
    world = make_world()
    job = start_job(world)
    start = reach_phase(world, job, Phase.SEED).start_height
    opened = reach_phase(world, job, Phase.TRAIN)
    assert world.chain.height == start + 2
    assert opened.seed == compute_round_seed(job, 0, world.chain.context(start + 2).beacon)


def test_a_trainer_without_a_claim_is_retired_and_may_enrol_again() -> None:
    world = make_world(p0={"skips": (TrainDuty, EnrolDuty)})
    job = start_job(world, rounds=Count(4), trainers_min=Count(2))
    absent = player_of(world, 0)
    absent.skips = (TrainDuty,)
    world.run(job, lambda record: record.status is JobStatus.RUNNING)
    absent.skips = (TrainDuty, EnrolDuty)
    world.run(job, lambda record: record.next_round == 1)
    trainer = next(entry for entry in world.chain.job(job).trainers if entry.account == absent.key.account)
    assert not trainer.is_active
    assert absent.key.account not in [entry.trainer for entry in world.chain.round(job).assignments]
    absent.skips = ()
    world.run(job, lambda record: record.next_round == 2)
    assert absent.key.account in [entry.trainer for entry in world.chain.round(job).assignments]
    closed = world.finish(job)
    assert [len(entry.claims) for entry in closed] == [3, 3, 4, 4]


def test_a_false_capacity_takes_one_round_and_no_second() -> None:
    """It names a billion and claims one segment of what that gives it; then it is held to that."""
    world = make_world(p0={"capacity": 1_000_000_000, "claims": 1})
    job = start_job(world, rounds=Count(3), segments_per_round=Count(44))
    liar = player_of(world, 0).key.account

    def shares(round_number: int) -> dict[bool, list[int]]:
        world.run(job, lambda record: record.next_round == round_number and record.status is JobStatus.RUNNING)
        found: dict[bool, list[int]] = {True: [], False: []}
        for entry in world.chain.round(job).assignments:
            found[entry.trainer == liar].append(int(entry.count))
        return found

    assert shares(0) == {True: [32], False: [4, 4, 4]}
    assert shares(1)[True][0] <= min(shares(1)[False])


def test_whose_claim_comes_to_nothing_must_enrol_again_for_less() -> None:
    world = make_world(p0={"skips": (OpenDuty,)})
    job = start_job(world, rounds=Count(3), trainers_min=Count(2))
    keeper = player_of(world, 0)
    world.run(job, lambda record: record.status is JobStatus.RUNNING)
    keeper.skips = (OpenDuty, EnrolDuty)
    world.run(job, lambda record: record.next_round == 1)
    assert keeper.key.account not in [entry.trainer for entry in world.chain.round(job).assignments]
    trainer = next(entry for entry in world.chain.job(job).trainers if entry.account == keeper.key.account)
    assert not trainer.is_active and trainer.capacity == max(1, keeper.capacity // 4)
    keeper.skips = ()
    world.run(job, lambda record: record.next_round == 2)
    trainer = next(entry for entry in world.chain.job(job).trainers if entry.account == keeper.key.account)
    assert trainer.is_active and trainer.capacity == 2 * max(1, keeper.capacity // 4)


def test_too_few_trainers_put_the_job_back_to_enrolling_and_it_goes_on_when_they_return() -> None:
    world = make_world(p0={"is_trainer": False})
    job = start_job(world)
    world.run(job, lambda record: record.status is JobStatus.RUNNING)
    gone = player_of(world, 1)
    gone.skips = (TrainDuty, EnrolDuty)
    world.run(job, lambda record: record.next_round == 1)
    assert world.chain.job(job).status is JobStatus.ENROLLING
    for _ in range(20):
        world.step()
    assert world.chain.job(job).status is JobStatus.ENROLLING
    gone.skips = ()
    world.finish(job)
    assert world.chain.job(job).next_round == 2
    assert_nothing_is_left(world, job)


def test_a_job_whose_trainers_never_return_ends_with_its_rest_paid_back() -> None:
    world = make_world(p0={"is_trainer": False})
    job = start_job(world)
    world.run(job, lambda record: record.status is JobStatus.RUNNING)
    player_of(world, 1).skips = (TrainDuty, EnrolDuty)
    world.run(job, lambda record: record.status is JobStatus.ENROLLING)
    world.chain.height += ENROLLING_BLOCKS_MAX
    world.step()
    record = world.chain.job(job)
    assert (record.status, record.problem) == (JobStatus.FINISHED, "2 trainers where 3 are needed")
    balance = world.chain.account(world.chain.others[0]).balance
    assert balance == BALANCE - 1 - record.paid
    assert_nothing_is_left(world, job)


def test_a_round_takes_no_more_trainers_than_the_job_pays_for() -> None:
    """Else the replays of many small claims, each rounded up, would outgrow the escrow."""
    world = make_world(6)
    job = start_job(world, audit_ppm=(Count(1),))
    world.run(job, lambda record: record.status is JobStatus.RUNNING)
    assert len(world.chain.job(job).trainers) == 6
    assert len(world.chain.round(job).assignments) == 4
    first, second = world.finish(job)
    assert [claim.trainer for claim in first.claims] == [claim.trainer for claim in second.claims]
    assert_nothing_is_left(world, job)


def test_a_part_of_the_segments_is_claimed_and_paid() -> None:
    world = make_world(p0={"claims": 1})
    job = start_job(world, rounds=Count(1))
    (closed,) = world.finish(job)
    part = next(claim for claim in closed.claims if claim.trainer == world.chain.keys[0].account)
    assert (part.count, part.status) == (1, "accepted")
    paid = {(payment.account, payment.reason): payment.amount for payment in closed.payments}
    assert (paid[part.trainer, "segments"], paid[part.trainer, "fee"]) == (99, 1)


# Outcomes


def at_aggregate(**terms: object) -> tuple[World, JobId, AggregateVote]:
    """A world whose validators could vote and do not; and the true vote."""
    world = make_world(**{f"p{number}": {"skips": (AggregateDuty,)} for number in range(4)})
    job = start_job(world, **terms)
    reach_phase(world, job, Phase.AGGREGATE)
    key = world.chain.keys[0]
    (duty,) = compute_duties(world.chain.ledger, Role(key.account, True))
    vote = world.perform(player_of(world, 0), duty)
    assert isinstance(vote, AggregateVote)
    return world, job, vote


def test_outcomes_that_do_not_fit_the_round_are_refused() -> None:
    world, job, good = at_aggregate()
    chain, key, outcome = world.chain, world.chain.keys[0], good.outcome
    accepted = outcome.accepted

    def changed(**parts: object) -> AggregateVote:
        return replace(good, outcome=replace(outcome, **parts))  # type: ignore[arg-type]

    stranger = Refusal(AccountId(bytes(32)), "far")
    own = Refusal(accepted[0], "far")
    for vote in (
        changed(accepted=accepted[:-1]),
        changed(accepted=(*accepted, accepted[0])),
        changed(refused=(stranger,)),
        changed(refused=(own,)),
        changed(accepted=(), refused=()),
        changed(void="too few", accepted=(), refused=tuple(Refusal(name, "") for name in accepted)),
        changed(void="too few", state=chain.job(job).state),
    ):
        assert_refused(chain, key, vote, Reason.DIFFERS)
    long = "x" * (REASON_CHARACTERS_MAX + 1)
    assert_refused(chain, key, changed(accepted=accepted[1:], refused=(Refusal(accepted[0], long),)), Reason.TOO_LARGE)
    refused = tuple(Refusal(name, "") for name in accepted)
    kept = changed(void=long, state=chain.job(job).state, accepted=(), refused=refused)
    assert_refused(chain, key, kept, Reason.TOO_LARGE)


def test_who_may_not_vote_and_when() -> None:
    world, _, good = at_aggregate()
    chain = world.chain
    assert_refused(chain, chain.others[0], good, Reason.NOT_ALLOWED)
    assert_refused(chain, chain.keys[0], replace(good, job=NO_JOB), Reason.UNKNOWN)
    assert_refused(chain, chain.keys[0], replace(good, round=Round(1)), Reason.NOT_NOW)
    assert chain.do((chain.keys[0], good)) == ("",)
    assert_refused(chain, chain.keys[0], good, Reason.DUPLICATE)
    assert_refused(
        chain, chain.keys[0], replace(good, outcome=replace(good.outcome, correct=Count(1))), Reason.DUPLICATE
    )
    early = make_world()
    other = start_job(early)
    reach_phase(early, other, Phase.TRAIN)
    assert_refused(early.chain, chain.keys[0], replace(good, job=other), Reason.NOT_NOW)


def test_a_minority_cannot_put_another_outcome_through() -> None:
    world = make_world(p0={"changes": lambda outcome: replace(outcome, state=name_of("mine"))})
    job = start_job(world)
    for closed in world.finish(job):
        assert closed.outcome.void == ""
        assert closed.outcome.state != name_of("mine")


def test_two_outcomes_without_a_quorum_close_the_round_void() -> None:
    def forked(outcome: RoundOutcome) -> RoundOutcome:
        return replace(outcome, loss_bits=Count(2))

    world = make_world(p0={"changes": forked}, p1={"changes": forked})
    job = start_job(world, rounds=Count(1))
    (closed,) = world.finish(job)
    assert closed.outcome.void == "no outcome found a quorum in time"
    assert closed.outcome.state == closed.state == world.chain.job(job).state
    reasons = [payment.reason for payment in closed.payments]
    assert reasons.count("segments") == 4, "replayed segments are proven work"
    assert_nothing_is_left(world, job)


def test_a_void_round_without_replays_pays_nobody() -> None:
    """What nobody replayed and no rule took in is not proven."""
    world, job, _ = at_aggregate(rounds=Count(1), audit_ppm=NO_AUDIT)
    (closed,) = world.finish(job)
    assert closed.outcome.void
    assert [payment.reason for payment in closed.payments] == ["refund"]
    assert_nothing_is_left(world, job)


def test_a_rule_that_cannot_bear_the_number_closes_the_round_void() -> None:
    def refuse_all(outcome: RoundOutcome) -> RoundOutcome:
        refused = tuple(Refusal(name, "too-few") for name in outcome.accepted)
        return RoundOutcome(state, Count(0), Count(0), Count(0), (), refused, "too-few: 5 are needed")

    world = make_world(**{f"p{number}": {"changes": refuse_all} for number in range(4)})
    job = start_job(world, rounds=Count(1))
    state = world.chain.job(job).state
    (closed,) = world.finish(job)
    assert closed.outcome.void == "too-few: 5 are needed"
    assert world.chain.job(job).state == state


def test_a_refused_update_is_paid_where_it_was_replayed_and_not_otherwise() -> None:
    def without_first(outcome: RoundOutcome) -> RoundOutcome:
        first, *others = outcome.accepted
        return replace(outcome, accepted=tuple(others), refused=(Refusal(first, "far"),))

    for ppm, is_paid in ((0, False), (1_000_000, True)):
        world = make_world(**{f"p{number}": {"changes": without_first} for number in range(4)})
        job = start_job(world, rounds=Count(1), audit_ppm=(Count(ppm),))
        (closed,) = world.finish(job)
        paid = [payment.account for payment in closed.payments if payment.reason == "segments"]
        assert (closed.outcome.refused[0].trainer in paid) is is_paid
        assert len(paid) == 3 + is_paid


def test_votes_in_the_last_block_count() -> None:
    world, job, good = at_aggregate(aggregate_blocks=Count(1), rounds=Count(1))
    assert world.chain.do(*((key, good) for key in world.chain.keys)) == ("", "", "", "")
    (closed,) = world.chain.closed
    assert closed.outcome == good.outcome
    assert_nothing_is_left(world, job)


def test_a_round_without_any_accepted_claim_closes_at_once() -> None:
    world = make_world(**{f"p{number}": {"skips": (OpenDuty,)} for number in range(4)})
    job = start_job(world, rounds=Count(1))
    (closed,) = world.finish(job)
    assert closed.outcome.void == "no claim was accepted"
    assert closed.outcome.state == closed.state


def test_many_quick_blocks_shorten_no_deadline() -> None:
    """Four blocks to a tick: somebody who needs a deadline's time has it, in four times the blocks."""
    blocks = {}
    for block_ms in (1_000, 250):
        world = make_world(p0={"skips": (TrainDuty,)})
        world.chain.block_ms = block_ms
        job = start_job(world, claim_blocks=Count(20))
        start = reach_phase(world, job, Phase.TRAIN) and world.chain.height
        reach_phase(world, job, Phase.AGGREGATE, 100)
        blocks[block_ms] = world.chain.height - start
    assert blocks[1_000] == 20
    assert 77 <= blocks[250] <= 80


def test_one_rounds_claim_is_none_in_the_next() -> None:
    world = make_world()
    job = start_job(world)
    old = reach_claims(world, job, ClaimStatus.SAMPLING)[0]
    world.run(job, lambda record: record.next_round == 1)
    reach_phase(world, job, Phase.TRAIN)
    said = (old.records_root, old.records, old.final_state, old.compute_ms)
    replayed = Claim(job, old.round, old.first, old.count, *said)
    key = next(key for key in world.chain.keys if key.account == old.trainer)
    assert_refused(world.chain, key, replayed, Reason.NOT_NOW, "round 0")


def test_no_job_is_ever_stuck() -> None:
    """Wherever everybody falls silent, deadlines alone bring the job to its end and its coins home."""
    world = make_world(p1={"attests": Verdict.FALSE}, p2={"lies": frozenset(range(8))})
    job = start_job(world, rounds=Count(1), trainers_min=Count(2))
    seen = set()
    blocks = 0
    while world.chain.job(job).status is not JobStatus.FINISHED:
        table, height = dict(world.chain.table), world.chain.height
        opened = table.get(b"open-round/" + job)
        seen.add((world.chain.job(job).status, world.chain.round(job).phase if opened else None))
        for _ in range(120):
            world.chain.apply()
            if world.chain.job(job).status is JobStatus.ENROLLING or not table.get(b"open-round/" + job):
                world.chain.height += ENROLLING_BLOCKS_MAX
            if world.chain.job(job).escrow == 0:
                break
        assert_nothing_is_left(world, job)
        world.chain.table, world.chain.height = table, height
        world.step()
        blocks += 1
    assert blocks > 8
    assert {phase for _, phase in seen} == {None, *Phase}


def test_ledgers_of_two_nodes_stay_equal() -> None:
    """The same blocks give the same table, byte for byte."""
    tables = []
    for _ in range(2):
        world = make_world(p1={"lies": frozenset({0, 3})})
        world.finish(start_job(world))
        tables.append(digest("table", *(part for entry in sorted(world.chain.table.items()) for part in entry)))
    assert tables[0] == tables[1]

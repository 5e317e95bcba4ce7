"""Duties: what the ledger asks of whom, the same every time it is asked, until it is done or over."""

from __future__ import annotations

from milon.base.ids import JobId
from milon.base.units import Amount, Count
from milon.chain.transaction import Bond, Transfer
from milon.contracts.claims_records import ClaimStatus
from milon.contracts.duties import (
    AggregateDuty,
    CommitDuty,
    Duty,
    EnrolDuty,
    HoldDuty,
    JudgeDuty,
    OpenDuty,
    RevealDuty,
    Role,
    TrainDuty,
    compute_duties,
    name_duty,
    steps_of,
)
from milon.contracts.records import JobStatus, Phase
from milon.pol.verdict import Verdict
from tests.contracts.helpers import account_id, make_spec
from tests.contracts.players import World, make_world, player_of, reach_claims, reach_phase, start_job


def duties_of(world: World, number: int, is_trainer: bool = True) -> tuple[Duty, ...]:
    """What the ledger asks of a validator."""
    return compute_duties(world.chain.ledger, Role(world.chain.keys[number].account, is_trainer))


def kinds(duties: tuple[Duty, ...]) -> list[type]:
    """Their types."""
    return [type(duty) for duty in duties]


def names(duties: tuple[Duty, ...]) -> set[bytes]:
    """Their names, all different."""
    found = {name_duty(duty) for duty in duties}
    assert len(found) == len(duties)
    return found


def someone_elses_block(world: World) -> None:
    """A block that has nothing to do with any job."""
    world.chain.do((world.chain.others[0], Transfer(account_id(9), Amount(1))))


def skipping(*kinds: type) -> World:
    """Four players of whom nobody does these duties."""
    return make_world(**{f"p{number}": {"skips": kinds} for number in range(4)})


def test_the_duties_of_a_job_from_its_first_block_to_its_last() -> None:
    world = make_world()
    assert duties_of(world, 0) == ()
    job = start_job(world)
    seen: list[type] = []
    while world.chain.job(job).escrow:
        for kind in kinds(duties_of(world, 0)):
            if not seen or seen[-1] is not kind:
                seen.append(kind)
        world.step()
    round_kinds = [TrainDuty, CommitDuty, RevealDuty, OpenDuty, AggregateDuty]
    assert seen == [HoldDuty, EnrolDuty, *round_kinds, *round_kinds]
    assert duties_of(world, 0) == ()


def test_a_duty_stands_until_it_is_done_and_asking_changes_nothing() -> None:
    for kind in (HoldDuty, EnrolDuty, TrainDuty, CommitDuty, RevealDuty, OpenDuty, AggregateDuty):
        world = skipping(kind)
        job = start_job(world, claim_blocks=Count(30), attest_blocks=Count(30), aggregate_blocks=Count(30))
        for _ in range(14):
            world.step()
        before = duties_of(world, 0)
        assert kind in kinds(before)
        assert compute_duties(world.chain.ledger, Role(world.chain.keys[0].account, True)) == before
        for _ in range(3):
            someone_elses_block(world)
            assert names(duties_of(world, 0)) == names(before)
        player_of(world, 0).skips = ()
        world.step()
        assert names(duties_of(world, 0)).isdisjoint(names(before)), kind
        assert world.chain.job(job).escrow


def test_names_stay_while_others_words_come_in() -> None:
    world = skipping(CommitDuty, AggregateDuty)
    job = start_job(world)
    reach_claims(world, job, ClaimStatus.COMMITTING)
    before = names(duties_of(world, 0))
    assert len(before) == 3
    player_of(world, 1).skips = (AggregateDuty,)
    world.step()
    assert names(duties_of(world, 0)) == before
    for number in range(4):
        player_of(world, number).skips = (AggregateDuty,)
    reach_phase(world, job, Phase.AGGREGATE)
    before = names(duties_of(world, 0))
    assert kinds(duties_of(world, 0)) == [AggregateDuty]
    player_of(world, 1).skips = ()
    world.step()
    assert names(duties_of(world, 0)) == before


def test_a_second_dispute_of_a_claim_is_a_duty_of_its_own() -> None:
    accusing = {"attests": Verdict.FALSE, "skips": (JudgeDuty,)}
    world = make_world(**{f"p{number}": accusing for number in range(1, 4)}, p0={"skips": (CommitDuty,)})
    for number in range(1, 4):
        player_of(world, number).is_trainer = False
    job = start_job(world, trainers_min=Count(1), trainers_target=Count(1))
    reach_claims(world, job, ClaimStatus.SUSPENDED, 1)
    first = names(tuple(duty for duty in duties_of(world, 3) if isinstance(duty, JudgeDuty)))
    for number in range(1, 4):
        player_of(world, number).skips = ()
    world.step()
    reach_claims(world, job, ClaimStatus.SUSPENDED, 1)
    second = names(tuple(duty for duty in duties_of(world, 3) if isinstance(duty, JudgeDuty)))
    assert len(first) == len(second) == 1
    assert first.isdisjoint(second)


def test_an_outsider_is_asked_for_nothing_and_a_bonded_one_to_train() -> None:
    world = make_world()
    chain = world.chain
    job = start_job(world)
    outsider = chain.others[0]
    while chain.job(job).escrow:
        assert compute_duties(chain.ledger, Role(outsider.account, True)) == ()
        world.step()
    world = skipping(EnrolDuty)
    job = world.chain.submit(world.chain.keys[0], make_spec())
    world.step()
    world.chain.do((outsider, Bond(Amount(1_000))))
    assert kinds(compute_duties(world.chain.ledger, Role(outsider.account, True))) == [EnrolDuty]
    assert compute_duties(world.chain.ledger, Role(outsider.account, False)) == ()


def test_who_does_not_train_is_asked_for_the_rest() -> None:
    world = make_world(p0={"is_trainer": False})
    job = start_job(world)
    seen: set[type] = set()
    while world.chain.job(job).escrow:
        seen |= set(kinds(duties_of(world, 0, is_trainer=False)))
        world.step()
    assert seen == {HoldDuty, CommitDuty, RevealDuty, AggregateDuty}


def test_a_job_for_named_trainers_asks_nobody_else_to_enrol() -> None:
    world = skipping(EnrolDuty)
    named = tuple(key.account for key in world.chain.keys[1:])
    start_job(world, trainers=named)
    world.step()
    assert kinds(duties_of(world, 0)) == []
    assert kinds(duties_of(world, 1)) == [EnrolDuty]


def test_a_job_that_pays_nothing_asks_only_those_it_names() -> None:
    for trainers, asked in (((), False), (tuple(player.account for player in make_world().chain.keys), True)):
        world = skipping(EnrolDuty)
        job = start_job(world, segment_price=Amount(0), replay_price=Amount(0), trainers=trainers)
        world.run(job, lambda record: record.status is JobStatus.ENROLLING)
        assert (EnrolDuty in kinds(duties_of(world, 0))) is asked


def test_what_others_wait_for_comes_first() -> None:
    """Several jobs at different stages: openings and judgements before votes, votes before replays, training last."""
    order = [OpenDuty, RevealDuty, JudgeDuty, AggregateDuty, CommitDuty, HoldDuty, EnrolDuty, TrainDuty]
    world = make_world(p1={"lies": frozenset({2})})
    seen: set[type] = set()
    for block in range(25):
        if block < 6:
            start_job(world)
        for number in range(4):
            found = kinds(duties_of(world, number))
            assert found == sorted(found, key=order.index)
            seen |= set(found)
        world.step()
    assert seen == set(order)


def test_judging_is_asked_of_every_validator_the_trainer_included() -> None:
    world = make_world(**{f"p{number}": {"skips": (JudgeDuty,)} for number in range(1, 4)}, p0={"skips": (JudgeDuty,)})
    player_of(world, 0).lies = frozenset({0})
    job = start_job(world)
    claim = reach_claims(world, job, ClaimStatus.SUSPENDED, 1)[0]
    for number in range(4):
        (duty,) = (duty for duty in duties_of(world, number) if isinstance(duty, JudgeDuty))
        assert duty.claim.claim == claim.claim
        assert duty.claim.accusation == claim.accusation


def test_train_duty_names_what_training_reads() -> None:
    world = skipping(TrainDuty)
    job: JobId = start_job(world)
    opened = reach_phase(world, job, Phase.TRAIN)
    (duty,) = duties_of(world, 2)
    assert isinstance(duty, TrainDuty)
    assert (duty.seed, duty.state) == (opened.seed, world.chain.job(job).state)
    assert duty.assignment == next(
        entry for entry in opened.assignments if entry.trainer == world.chain.keys[2].account
    )


def test_the_weight_of_a_claim_is_its_steps() -> None:
    world = make_world(p0={"claims": 1})
    job = start_job(world)
    reach_claims(world, job, ClaimStatus.SAMPLING)
    spec = world.chain.job(job).spec
    assert [steps_of(world.chain.claim_of(job, key), spec) for key in world.chain.keys] == [2, 4, 4, 4]

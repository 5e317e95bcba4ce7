"""Jobs: submitted, held or objected to, joined; every refusal leaves everything as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milon.base.codec import encode
from milon.base.errors import Reason
from milon.base.units import Amount, Count
from milon.chain.transaction import Bond, Enrol, HoldJob, SubmitJob, Unbond
from milon.contracts.jobs import (
    CAPACITY_MAX,
    ENROLLING_BLOCKS_MAX,
    OPEN_JOBS_MAX,
    PENDING_BLOCKS_MAX,
    PROBLEM_CHARACTERS_MAX,
    load_open_jobs,
)
from milon.contracts.records import JobStatus, Trainer, job_key
from milon.pol.terms import TRAINERS_MAX, EvaluationProgram, compute_cost_max
from tests.contracts.helpers import BALANCE, NO_JOB, STAKE, Chain, account_id, assert_refused, make_spec, name_of
from tests.contracts.players import make_world, start_job

COST = compute_cost_max(make_spec().terms)


def hold(chain: Chain, job: bytes, count: int) -> None:
    """The first validators say that they hold the job, a block each."""
    for key in chain.keys[:count]:
        assert chain.do((key, HoldJob(job, ""))) == ("",)  # type: ignore[arg-type]


def test_the_reward_is_locked() -> None:
    chain = Chain()
    job = chain.submit(chain.others[0], make_spec(), COST + 5)
    record = chain.job(job)
    assert (record.status, record.escrow, record.submitted_height) == (JobStatus.PENDING, COST + 5, 1)
    assert chain.account(chain.others[0]).balance == BALANCE - COST - 5 - 1
    assert load_open_jobs(chain.ledger) == (job,)


@pytest.mark.parametrize(
    ("spec", "reward", "reason"),
    [
        (make_spec(), COST - 1, Reason.INSUFFICIENT_FUNDS),
        (make_spec(), BALANCE, Reason.INSUFFICIENT_FUNDS),
        (make_spec(rounds=Count(0)), COST, Reason.OUT_OF_RANGE),
        (make_spec(rounds=Count(1 << 62)), COST, Reason.OUT_OF_RANGE),
        (make_spec(segments_per_round=Count(2_001)), BALANCE // 2, Reason.OUT_OF_RANGE),
        (make_spec(audit_ppm=()), COST, Reason.OUT_OF_RANGE),
        (make_spec(trainers=(account_id(1),) * 3), COST, Reason.OUT_OF_RANGE),
        (replace(make_spec(), name=""), COST, Reason.OUT_OF_RANGE),
        (replace(make_spec(), name="a\x1b[2J"), COST, Reason.OUT_OF_RANGE),
        (replace(make_spec(), name="\u202egnp.scr"), COST, Reason.OUT_OF_RANGE),
        (replace(make_spec(), evaluate=()), COST, Reason.OUT_OF_RANGE),
        (replace(make_spec(), evaluate=(EvaluationProgram(Count(0), name_of("e")),)), COST, Reason.OUT_OF_RANGE),
    ],
)
def test_a_job_that_cannot_be_is_refused(spec: object, reward: int, reason: Reason) -> None:
    chain = Chain()
    assert_refused(chain, chain.others[0], SubmitJob(spec, Amount(reward)), reason)  # type: ignore[arg-type]


def test_the_most_expensive_terms_are_unaffordable_and_quick_to_refuse() -> None:
    """The cost passes 63 bits and is computed without a loop over the rounds."""
    dear = make_spec(rounds=Count(10_000), segments_per_round=Count(2_000), segment_price=Amount(1 << 40))
    assert compute_cost_max(dear.terms) > 1 << 63
    chain = Chain()
    assert_refused(chain, chain.others[0], SubmitJob(dear, Amount((1 << 63) - 1)), Reason.INSUFFICIENT_FUNDS)


def test_only_so_many_jobs_are_open() -> None:
    chain = Chain()
    spec = make_spec(segment_price=Amount(0), replay_price=Amount(0))
    problems = chain.do(*[(chain.others[0], SubmitJob(spec, Amount(0)))] * OPEN_JOBS_MAX)
    assert set(problems) == {""}
    assert_refused(chain, chain.others[0], SubmitJob(spec, Amount(0)), Reason.FULL)
    assert len(load_open_jobs(chain.ledger)) == OPEN_JOBS_MAX


def test_a_job_that_locks_more_takes_the_place_of_one_that_waits() -> None:
    chain = Chain()
    spec = make_spec(segment_price=Amount(0), replay_price=Amount(0))
    chain.do(*[(chain.others[0], SubmitJob(spec, Amount(3)))] * OPEN_JOBS_MAX)
    first, newest = load_open_jobs(chain.ledger)[0], load_open_jobs(chain.ledger)[-1]
    before = chain.account(chain.others[0]).balance
    assert_refused(chain, chain.others[0], SubmitJob(spec, Amount(3)), Reason.FULL)
    job = chain.submit(chain.others[0], make_spec())
    assert chain.job(job).status is JobStatus.PENDING
    assert chain.job(newest).status is JobStatus.REJECTED
    assert chain.job(first).status is JobStatus.PENDING
    assert len(load_open_jobs(chain.ledger)) == OPEN_JOBS_MAX
    assert chain.account(chain.others[0]).balance == before + 3 - chain.job(job).escrow - 1  # and the fee


def test_a_job_that_runs_gives_way_to_nobody() -> None:
    world = make_world()
    job = start_job(world)
    world.run(job, lambda record: record.status is JobStatus.RUNNING)
    chain, spec = world.chain, make_spec(segment_price=Amount(0), replay_price=Amount(0))
    chain.do(*[(chain.others[0], SubmitJob(spec, Amount(0)))] * (OPEN_JOBS_MAX - 1))
    for _ in range(OPEN_JOBS_MAX - 1):
        chain.submit(chain.others[0], make_spec(), int(chain.job(job).escrow) + 1)
    assert chain.job(job).next_round > 0
    assert job in load_open_jobs(chain.ledger)


def test_a_quorum_that_holds_a_job_opens_it() -> None:
    chain = Chain()
    job = chain.submit(chain.others[0], make_spec())
    hold(chain, job, 2)
    assert chain.job(job).status is JobStatus.PENDING
    assert chain.do((chain.keys[2], HoldJob(job, ""))) == ("",)
    assert chain.job(job).status is JobStatus.ENROLLING
    assert_refused(chain, chain.keys[3], HoldJob(job, ""), Reason.NOT_NOW)


def test_objections_that_leave_no_quorum_end_a_job() -> None:
    chain = Chain()
    job = chain.submit(chain.others[0], make_spec())
    assert chain.do((chain.keys[0], HoldJob(job, "does-not-fit: 7 columns"))) == ("",)
    assert chain.job(job).status is JobStatus.PENDING
    assert chain.do((chain.keys[1], HoldJob(job, "does-not-fit: 8 columns"))) == ("",)
    record = chain.job(job)
    assert (record.status, record.problem, record.escrow) == (JobStatus.REJECTED, "does-not-fit: 8 columns", 0)
    assert chain.account(chain.others[0]).balance == BALANCE - 1
    assert load_open_jobs(chain.ledger) == ()
    assert_refused(chain, chain.keys[2], HoldJob(job, ""), Reason.NOT_NOW)
    assert_refused(chain, chain.keys[2], Enrol(job, Count(1)), Reason.NOT_NOW)


def test_who_may_not_speak_about_a_job() -> None:
    chain = Chain()
    job = chain.submit(chain.others[0], make_spec())
    hold(chain, job, 1)
    chain.do((chain.keys[1], HoldJob(job, "no")))
    assert_refused(chain, chain.others[0], HoldJob(job, ""), Reason.NOT_ALLOWED)
    assert_refused(chain, chain.keys[0], HoldJob(job, "no"), Reason.DUPLICATE)
    assert_refused(chain, chain.keys[1], HoldJob(job, ""), Reason.DUPLICATE)
    assert_refused(chain, chain.keys[2], HoldJob(NO_JOB, ""), Reason.UNKNOWN)
    assert_refused(chain, chain.keys[2], HoldJob(job, "x" * (PROBLEM_CHARACTERS_MAX + 1)), Reason.TOO_LARGE)


def test_a_job_nobody_holds_goes_back() -> None:
    chain = Chain()
    job = chain.submit(chain.others[0], make_spec())
    chain.height += PENDING_BLOCKS_MAX - 1
    chain.apply()
    assert chain.job(job).status is JobStatus.PENDING
    chain.apply()
    assert chain.job(job).status is JobStatus.REJECTED
    assert chain.account(chain.others[0]).balance == BALANCE - 1


def test_a_job_nobody_trains_goes_back() -> None:
    chain = Chain()
    job = chain.submit(chain.others[0], make_spec())
    hold(chain, job, 3)
    chain.height += ENROLLING_BLOCKS_MAX
    chain.apply()
    assert chain.job(job).status is JobStatus.REJECTED
    assert chain.job(job).problem == "0 trainers where 3 are needed"
    assert chain.account(chain.others[0]).balance == BALANCE - 1


def test_a_job_starts_at_once_with_the_target_and_later_with_the_least() -> None:
    for count, waits in ((4, 0), (3, 3)):
        chain = Chain()
        job = chain.submit(chain.others[0], make_spec())
        hold(chain, job, 3)
        chain.do(*((key, Enrol(job, Count(1))) for key in chain.keys[:count]))
        for _ in range(waits - 1):
            assert chain.job(job).status is JobStatus.ENROLLING
            chain.apply()
        assert chain.job(job).status is JobStatus.RUNNING


def test_a_job_with_enough_trainers_starts_however_long_it_would_wait_for_more() -> None:
    chain = Chain()
    job = chain.submit(chain.others[0], make_spec(enrol_blocks=Count(1_000_000)))
    hold(chain, job, 3)
    chain.do(*((key, Enrol(job, Count(1))) for key in chain.keys[:3]))
    chain.height += ENROLLING_BLOCKS_MAX
    chain.apply()
    assert chain.job(job).status is JobStatus.RUNNING


def test_who_may_not_enrol() -> None:
    chain = Chain()
    job = chain.submit(chain.others[0], make_spec(trainers=tuple(key.account for key in chain.keys[:3])))
    assert_refused(chain, chain.keys[0], Enrol(job, Count(1)), Reason.NOT_NOW)
    hold(chain, job, 3)
    assert_refused(chain, chain.keys[3], Enrol(job, Count(1)), Reason.NOT_ALLOWED, "names its trainers")
    assert_refused(chain, chain.keys[0], Enrol(job, Count(0)), Reason.OUT_OF_RANGE)
    assert_refused(chain, chain.keys[0], Enrol(job, Count(CAPACITY_MAX + 1)), Reason.OUT_OF_RANGE)
    assert_refused(chain, chain.keys[0], Enrol(NO_JOB, Count(1)), Reason.UNKNOWN)


def test_a_trainer_needs_its_bond() -> None:
    chain = Chain()
    job = chain.submit(chain.keys[0], make_spec())
    hold(chain, job, 3)
    key = chain.others[0]
    assert_refused(chain, key, Enrol(job, Count(1)), Reason.NOT_ALLOWED, "a bond of 1000 is needed")
    chain.do((key, Bond(Amount(1_000))))
    assert chain.do((key, Enrol(job, Count(1)))) == ("",)


def test_a_trainer_enrols_once_while_it_is_active() -> None:
    chain = Chain()
    job = chain.submit(chain.others[0], make_spec())
    hold(chain, job, 3)
    chain.do((chain.keys[1], Enrol(job, Count(5))))
    assert_refused(chain, chain.keys[1], Enrol(job, Count(9)), Reason.DUPLICATE)
    assert chain.job(job).trainers == (Trainer(chain.keys[1].account, Count(5), True, Count(0)),)


def test_a_job_has_a_last_trainer() -> None:
    chain = Chain()
    job = chain.submit(chain.others[0], make_spec())
    hold(chain, job, 3)
    crowd = tuple(Trainer(account_id(number), Count(1), False, Count(0)) for number in range(TRAINERS_MAX))
    chain.table[job_key(job)] = encode(replace(chain.job(job), trainers=crowd))
    assert_refused(chain, chain.keys[0], Enrol(job, Count(1)), Reason.FULL)


def test_a_trainer_whose_bond_has_gone_does_not_count() -> None:
    chain = Chain()
    job = chain.submit(chain.keys[0], make_spec())
    hold(chain, job, 3)
    key = chain.others[0]
    chain.do((key, Bond(Amount(STAKE))), (key, Enrol(job, Count(1))), (key, Unbond(Amount(STAKE))))
    chain.do(*((other, Enrol(job, Count(1))) for other in chain.keys[:2]))
    for _ in range(10):
        chain.apply()
    assert chain.job(job).status is JobStatus.ENROLLING
    chain.do((key, Bond(Amount(1_000))))
    assert chain.job(job).status is JobStatus.RUNNING


def test_a_job_record_stays_small() -> None:
    """Everybody's transactions to the job read it."""
    spec = make_spec(audit_ppm=(Count(1),) * 256, trainers=tuple(account_id(number) for number in range(256)))
    assert len(encode(spec)) < 16_000


def test_an_ended_job_gives_everything_back_once() -> None:
    world = make_world()
    job = start_job(world)
    world.finish(job)
    balance = world.chain.account(world.chain.others[0]).balance
    for _ in range(3):
        world.step()
    assert world.chain.job(job).escrow == 0
    assert world.chain.account(world.chain.others[0]).balance == balance

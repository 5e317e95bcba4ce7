"""Jobs over changing validators: who votes on a round is who votes on the chain then, and training earns leadership."""

from __future__ import annotations

from dataclasses import replace

from milon.base.ids import ClaimId, JobId
from milon.base.units import Amount, Count
from milon.chain.params import Parameters
from milon.chain.transaction import Bond, HoldJob, Retire, Stand
from milon.contracts.accounts import load_validators
from milon.contracts.claims import load_claim
from milon.contracts.claims_records import ClaimStatus
from milon.contracts.duties import EnrolDuty, JudgeDuty
from milon.contracts.records import JobStatus, open_round_key
from tests.contracts.helpers import STAKE, Chain, accuse, make_spec
from tests.contracts.players import Player, World, until

EPOCHS = Parameters(epoch_blocks=Count(4), unbond_blocks=Count(6), evidence_age_blocks=Count(5))


def make_world(epoch_blocks: int = 4) -> World:
    """Four validators who train, and a newcomer who only votes once it is a validator."""
    chain = Chain(4, 2, replace(EPOCHS, epoch_blocks=Count(epoch_blocks)))
    newcomer = chain.others[1]
    players = [*(Player(key) for key in chain.keys), Player(newcomer, is_trainer=False)]
    chain.do((newcomer, Bond(Amount(STAKE))), (newcomer, Stand(Count(0))))
    return World(chain, players)


def test_a_job_outlives_the_sets_that_saw_it_begin() -> None:
    """One validator retires, one is tombstoned, one comes: the rounds go on, and nobody honest is slashed."""
    world = make_world()
    chain = world.chain
    leaver, offender, newcomer = chain.keys[0], chain.keys[1], chain.others[1]
    job = chain.submit(chain.others[0], make_spec(rounds=Count(3)))
    world.run(job, lambda record: record.status is JobStatus.RUNNING)
    chain.do((leaver, Retire()))
    chain.evidence = [accuse(offender)]
    closed = world.finish(job)
    members = {member.account for member in load_validators(chain.ledger).validators}
    assert members == {chain.keys[2].account, chain.keys[3].account, newcomer.account}
    assert chain.job(job).status is JobStatus.FINISHED
    assert [entry.outcome.void for entry in closed] == ["", "", ""]
    assert all(chain.account(key).slashed == 0 for key in (leaver, newcomer, *chain.keys[2:]))
    assert chain.account(offender).slashed > 0
    assert chain.job(job).escrow == 0


def test_what_burned_of_a_trainers_pay_counts_in_the_next_set() -> None:
    world = make_world(epoch_blocks=40)
    job = world.chain.submit(world.chain.others[0], make_spec(rounds=Count(1)))
    world.finish(job)
    fees = [entry for closed in world.chain.closed for entry in closed.payments if entry.reason == "fee"]
    paid = {entry.account: int(entry.amount) for entry in fees}
    earned = {key.account: int(world.chain.behind(key).learning) for key in world.chain.keys}
    assert earned == paid and sum(paid.values()) == 8
    chosen = {member.account: int(member.learning) for member in world.chain.end_epoch()}
    assert chosen == {**earned, world.chain.others[1].account: 0}


def test_a_job_opens_when_those_who_hold_it_become_a_quorum() -> None:
    """Two of four hold it; the others retire, and the next epoch's first block weighs the words again."""
    chain = Chain(4, 1, EPOCHS)
    job = chain.submit(chain.others[0], make_spec())
    chain.do(*[(key, HoldJob(job, "")) for key in chain.keys[:2]], *[(key, Retire()) for key in chain.keys[2:]])
    chain.end_epoch()
    assert chain.job(job).status is JobStatus.PENDING
    chain.apply()
    assert chain.job(job).status is JobStatus.ENROLLING


def test_a_job_ends_when_those_who_object_can_no_longer_be_spared() -> None:
    chain = Chain(4, 1, EPOCHS)
    job = chain.submit(chain.others[0], make_spec())
    chain.do((chain.keys[0], HoldJob(job, "does not fit")), *[(key, Retire()) for key in chain.keys[1:]])
    chain.end_epoch()
    chain.apply()
    assert (chain.job(job).status, chain.job(job).problem) == (JobStatus.REJECTED, "does not fit")


def judged_by_half(epoch_blocks: int) -> tuple[World, JobId, ClaimId]:
    """A lie, judged by two of four validators; the other two have retired and will not judge."""
    chain = Chain(4, 2, replace(EPOCHS, epoch_blocks=Count(epoch_blocks)))
    liar = chain.others[1]
    skips = {2: (EnrolDuty, JudgeDuty), 3: (EnrolDuty, JudgeDuty)}
    players = [Player(key, skips=skips.get(number, (EnrolDuty,))) for number, key in enumerate(chain.keys)]
    world = World(chain, [*players, Player(liar, lies=frozenset(range(8)))])
    chain.do((liar, Bond(Amount(2_000))))
    job = chain.submit(chain.others[0], make_spec(rounds=Count(1), trainers_min=Count(1), judge_blocks=Count(60)))
    until(world, lambda: bool(chain.job(job).trainers) and chain.ledger.get(open_round_key(job)) is not None)
    until(world, lambda: any(len(load_claim(chain.ledger, claim).judgements) == 2 for claim in chain.round(job).claims))
    return world, job, chain.round(job).claims[0]


def test_a_claim_is_refuted_when_those_who_judged_it_become_a_quorum() -> None:
    world, job, claim = judged_by_half(epoch_blocks=40)
    chain = world.chain
    chain.do(*[(key, Retire()) for key in chain.keys[2:]])
    chain.end_epoch()
    assert load_claim(chain.ledger, claim).status is ClaimStatus.SUSPENDED
    liar = chain.others[1]
    chain.apply()
    assert chain.account(liar).slashed == 1_000
    assert liar.account in chain.job(job).barred
    (closed,) = world.finish(job)
    assert [entry.amount for entry in closed.payments if entry.reason == "slash"] == [1_000]


def test_waiting_for_judges_ends_in_an_epochs_first_block_too() -> None:
    """With epochs of one block each block is a first one: the deadline counts all the same."""
    world, job, _ = judged_by_half(epoch_blocks=1)
    (closed,) = world.finish(job)
    assert [entry.status for entry in closed.claims] == ["void: no quorum judged segment 0 in time"]

"""Jobs over changing validators: who votes on a round is who votes on the chain then, and training earns leadership."""

from __future__ import annotations

from dataclasses import replace

from milon.base.units import Amount, Count
from milon.chain.params import Parameters
from milon.chain.transaction import Bond, Retire, Stand
from milon.contracts.accounts import load_validators
from milon.contracts.records import JobStatus
from tests.contracts.helpers import STAKE, Chain, accuse, make_spec
from tests.contracts.players import Player, World

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

"""Claims: made, sampled, attested, opened; and every refusal on the way."""

from __future__ import annotations

from dataclasses import replace

from milon.base.errors import Reason
from milon.base.ids import AccountId, Digest, JobId, VrfProof
from milon.base.signing import SecretKey
from milon.base.units import Amount, Count, Round
from milon.chain.params import Parameters
from milon.chain.transaction import Bond, Claim, Enrol, OpenTraces, Unbond, Withdraw
from milon.contracts.claims_records import ClaimRecord, ClaimStatus
from milon.contracts.duties import (
    CommitDuty,
    EnrolDuty,
    OpenDuty,
    Role,
    TrainDuty,
    compute_duties,
)
from milon.contracts.records import Phase
from milon.pol.sampling import draw_sample
from milon.pol.terms import PARTS_PER_MILLION
from tests.contracts.helpers import NO_CLAIM, Chain, assert_refused, make_spec
from tests.contracts.players import (
    Player,
    World,
    lapses,
    make_world,
    player_of,
    reach_claims,
    reach_phase,
    start_job,
)

NOTHING = Digest(bytes(32))
NO_PROOF = VrfProof(bytes(80))


def key_of(world: World, account: AccountId) -> SecretKey:
    """That account's key."""
    return world.players[account].key


def sample_of(world: World, claim: ClaimRecord, key: SecretKey) -> tuple[VrfProof, tuple[int, ...]]:
    """The member's draw."""
    assert claim.beacon is not None
    return draw_sample(key, claim.claim, claim.beacon, claim.count, PARTS_PER_MILLION)


# Making a claim


def good_claim(world: World, job: JobId, count: int = 2, first: int = 0) -> Claim:
    opened = world.chain.round(job)
    return Claim(job, opened.round, Count(first), Count(count), NOTHING, NOTHING, NOTHING, Count(1))


def test_a_claim_in_a_round_that_takes_none_is_refused() -> None:
    world = make_world()
    job = start_job(world)
    key = world.chain.keys[0]
    never = Claim(job, Round(0), Count(0), Count(1), NOTHING, NOTHING, NOTHING, Count(1))
    assert_refused(world.chain, key, never, Reason.NOT_NOW)
    reach_phase(world, job, Phase.SEED)
    assert_refused(world.chain, key, never, Reason.NOT_NOW)
    reach_phase(world, job, Phase.TRAIN)
    assert_refused(world.chain, key, replace(never, round=Round(1)), Reason.NOT_NOW)
    reach_phase(world, job, Phase.AGGREGATE)
    assert_refused(world.chain, key, never, Reason.NOT_NOW)


def test_a_claim_is_for_assigned_segments_once() -> None:
    world = make_world()
    job = start_job(world)
    reach_phase(world, job, Phase.TRAIN)
    chain, key = world.chain, world.chain.keys[0]
    assert_refused(chain, chain.others[0], good_claim(world, job), Reason.NOT_ALLOWED, "no segments")
    assert_refused(chain, key, good_claim(world, job, 0), Reason.OUT_OF_RANGE)
    assert_refused(chain, key, good_claim(world, job, 3), Reason.OUT_OF_RANGE, "3 segments claimed of 2")
    chain.do((key, good_claim(world, job)))
    assert_refused(chain, key, good_claim(world, job), Reason.DUPLICATE)


def test_a_late_claim_is_refused_and_the_last_block_still_counts() -> None:
    world = make_world(p0={"skips": (TrainDuty,)})
    job = start_job(world, claim_blocks=Count(9))
    deadline = reach_phase(world, job, Phase.TRAIN).deadline
    while world.chain.height < deadline - 1:
        world.step()
    chain, key = world.chain, world.chain.keys[0]
    at_deadline = chain.sign(key, good_claim(world, job))
    chain.apply()
    assert chain.round(job).phase is Phase.AGGREGATE
    assert_refused(chain, key, good_claim(world, job), Reason.NOT_NOW)
    world = make_world(p0={"skips": (TrainDuty,)})
    job = start_job(world, claim_blocks=Count(9))
    reach_phase(world, job, Phase.TRAIN)
    while world.chain.height < deadline - 1:
        world.step()
    assert world.chain.apply(at_deadline).receipts[0].problem == ""
    assert world.chain.round(job).phase is Phase.TRAIN


def test_a_claim_after_the_deadline_is_late_even_while_others_are_settled() -> None:
    idle = {"skips": (TrainDuty,)}
    world = make_world(p0=idle, p1={"skips": (OpenDuty,)})
    job = start_job(world, attest_blocks=Count(50))
    deadline = reach_phase(world, job, Phase.TRAIN).deadline
    while world.chain.height <= deadline:
        world.step()
    assert world.chain.round(job).phase is Phase.TRAIN
    assert_refused(world.chain, world.chain.keys[0], good_claim(world, job), Reason.NOT_NOW, "deadline")


def test_a_claim_needs_the_bond_that_may_be_slashed() -> None:
    """Enrolled with a bond, and unbonded since: the work is not taken in."""
    chain = Chain()
    trainer = chain.others[0]
    players = [Player(key, skips=(EnrolDuty,) if index == 0 else ()) for index, key in enumerate(chain.keys)]
    world = World(chain, players)
    job = chain.submit(chain.keys[0], make_spec())
    for _ in range(2):
        world.step()
    chain.do((trainer, Bond(Amount(1_000))), (trainer, Enrol(job, Count(10))))
    reach_phase(world, job, Phase.TRAIN)
    chain.do((trainer, Unbond(Amount(1))))
    (first,) = [int(entry.first) for entry in chain.round(job).assignments if entry.trainer == trainer.account]
    assert_refused(chain, trainer, good_claim(world, job, first=first), Reason.NOT_ALLOWED, "a bond of 1000 is needed")
    chain.do((trainer, Bond(Amount(1))))
    assert chain.do((trainer, good_claim(world, job, first=first))) == ("",)


def test_stake_behind_an_open_claim_neither_leaves_nor_escapes() -> None:
    """The waiting time is shorter than the claim's life; the stake is on its way out and is slashed all the same."""
    chain = Chain(parameters=Parameters(unbond_blocks=Count(2), evidence_age_blocks=Count(1)))
    trainer = chain.others[0]
    players = [Player(key, skips=(EnrolDuty,) if index == 0 else ()) for index, key in enumerate(chain.keys)]
    liar = Player(trainer, lies=frozenset(range(8)), skips=(EnrolDuty,))
    world = World(chain, [*players, liar])
    job = chain.submit(chain.keys[0], make_spec())
    for _ in range(2):
        world.step()
    chain.do((trainer, Bond(Amount(1_000))), (trainer, Enrol(job, Count(10))))
    reach_claims(world, job, ClaimStatus.COMMITTING, 3)
    chain.do((trainer, Unbond(Amount(1_000))))
    chain.apply()
    chain.apply()
    assert_refused(chain, trainer, Withdraw(), Reason.NOT_NOW, "1 claims of this account are undecided")
    world.run(job, lambda record: record.next_round == 1)
    assert chain.account(trainer).slashed == 500
    assert chain.do((trainer, Withdraw())) == ("",)
    assert chain.account(trainer).bonded == 0


# Opening


def at_opening() -> tuple[World, ClaimRecord, OpenTraces]:
    """A world where all have attested and nobody opens; player 0's claim, and what opens it."""
    silent = {"skips": (OpenDuty,)}
    world = make_world(p0=silent, p1=silent, p2=silent, p3=silent)
    job = start_job(world)
    reach_claims(world, job, ClaimStatus.OPENING)
    claim = world.chain.claim_of(job, world.chain.keys[0])
    duty = next(
        duty
        for duty in compute_duties(world.chain.ledger, Role(claim.trainer, True))
        if isinstance(duty, OpenDuty) and duty.claim == claim.claim
    )
    action = world.perform(player_of(world, 0), duty)
    assert isinstance(action, OpenTraces)
    return world, claim, action


def test_only_true_openings_by_the_trainer_count() -> None:
    world, claim, good = at_opening()
    chain, key = world.chain, world.chain.keys[0]
    assert_refused(chain, chain.keys[1], good, Reason.NOT_ALLOWED)
    assert_refused(chain, key, replace(good, claim=NO_CLAIM), Reason.UNKNOWN)
    assert_refused(chain, key, replace(good, records=good.records[:1]), Reason.DIFFERS)
    assert_refused(chain, key, replace(good, records=good.records[::-1]), Reason.DIFFERS)
    assert_refused(chain, key, replace(good, records=()), Reason.DIFFERS)
    other = replace(good.records[0], loss_bits=Count(9))
    assert_refused(chain, key, replace(good, records=(other, good.records[1])), Reason.BAD_PROOF)
    assert_refused(chain, key, replace(good, traces=good.traces[:1]), Reason.DIFFERS)
    assert_refused(chain, key, replace(good, traces=good.traces[::-1]), Reason.BAD_PROOF)
    assert chain.do((key, good)) == ("",)
    assert chain.claim_of(claim.job, key).status is ClaimStatus.ACCEPTED
    assert_refused(chain, key, good, Reason.NOT_NOW, "accepted")


def test_traces_kept_back_void_the_claim_and_the_verifiers_are_paid() -> None:
    world = make_world(p0={"skips": (OpenDuty,)})
    job = start_job(world, rounds=Count(1))
    (closed,) = world.finish(job)
    fate = {claim.trainer: claim.status for claim in closed.claims}
    liar = world.chain.keys[0].account
    assert fate.pop(liar) == "void: the trainer did not open its traces in time"
    assert set(fate.values()) == {"accepted"}
    assert liar not in closed.outcome.accepted
    paid = {(payment.account, payment.reason): payment.amount for payment in closed.payments}
    assert (liar, "segments") not in paid
    for key in world.chain.keys[1:]:
        assert paid[key.account, "replays"] == 3 * 2 * 7
    assert world.chain.account(world.chain.keys[0]).slashed == 0


def test_who_has_not_replayed_is_struck_out_and_unpaid() -> None:
    world = make_world(p0={"is_lazy": True})
    job = start_job(world, rounds=Count(1))
    (closed,) = world.finish(job)
    lazy = world.chain.keys[0].account
    assert all(lazy not in claim.verifiers for claim in closed.claims)
    assert {claim.status for claim in closed.claims} == {"accepted"}
    assert (lazy, "replays") not in {(payment.account, payment.reason) for payment in closed.payments}
    assert lapses(world) == {lazy: 297}
    assert (lazy, "segments") in {(payment.account, payment.reason) for payment in closed.payments}


def test_made_up_attestations_alone_void_the_claim_and_cost_a_slice() -> None:
    world = make_world(**{f"p{number}": {"is_lazy": True} for number in range(4)})
    job = start_job(world, rounds=Count(1))
    (closed,) = world.finish(job)
    assert {claim.status for claim in closed.claims} == {"void: no attestation fits the opened traces"}
    assert lapses(world) == {key.account: 297 for key in world.chain.keys}


# Drawing


def test_nobody_else_with_stake_voids_a_claim_that_must_be_audited() -> None:
    world = make_world(1)
    job = start_job(world, rounds=Count(1), trainers_min=Count(1), trainers_target=Count(1))
    (closed,) = world.finish(job)
    assert [claim.status for claim in closed.claims] == ["void: nobody with stake can verify this claim"]


def test_without_an_audit_a_claim_is_accepted_as_it_comes() -> None:
    world = make_world()
    job = start_job(world, audit_ppm=(Count(0),))
    claims = reach_claims(world, job, ClaimStatus.ACCEPTED)
    assert all(claim.committee == () and claim.beacon is None for claim in claims)
    assert not any(
        isinstance(duty, CommitDuty)
        for key in world.chain.keys
        for duty in compute_duties(world.chain.ledger, Role(key.account, True))
    )


def test_the_beacon_of_a_claim_is_of_a_block_after_it() -> None:
    world = make_world()
    job = start_job(world)
    claim = reach_claims(world, job, ClaimStatus.SAMPLING)[0]
    world.step()
    assert world.chain.claim_of(job, key_of(world, claim.trainer)).beacon is None
    world.step()
    drawn = world.chain.claim_of(job, key_of(world, claim.trainer))
    assert drawn.beacon == world.chain.context(claim.height + 2).beacon
    assert world.chain.height == claim.height + 2

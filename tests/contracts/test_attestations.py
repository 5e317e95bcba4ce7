"""Attestations: committed to, opened, and what not doing so costs."""

from __future__ import annotations

from dataclasses import replace

from milon.base.errors import Reason
from milon.base.ids import AccountId, Digest, JobId, VrfProof
from milon.base.signing import SecretKey
from milon.base.units import Count
from milon.chain.transaction import CommitAttestation
from milon.contracts.claims_records import ClaimRecord, ClaimStatus
from milon.contracts.duties import (
    CommitDuty,
    RevealDuty,
)
from milon.pol.sampling import draw_sample
from milon.pol.terms import PARTS_PER_MILLION
from tests.contracts.helpers import NO_CLAIM, STAKE, assert_refused, name_of
from tests.contracts.players import (
    World,
    lapses,
    make_attestation,
    make_world,
    player_of,
    reach_claims,
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


def at_committing(**behaviour: dict[str, object]) -> tuple[World, JobId, ClaimRecord]:
    """A world where claims wait for attestations that nobody makes; the claim of player 0."""
    idle = {f"p{number}": {"skips": (CommitDuty,), **behaviour.get(f"p{number}", {})} for number in range(4)}
    world = make_world(**idle)
    job = start_job(world)
    reach_claims(world, job, ClaimStatus.COMMITTING)
    return world, job, world.chain.claim_of(job, world.chain.keys[0])


def test_the_committee_is_never_the_trainer() -> None:
    world, job, _ = at_committing()
    for key in world.chain.keys:
        claim = world.chain.claim_of(job, key)
        assert len(claim.committee) == 3
        assert key.account not in claim.committee


def test_who_may_not_commit_and_when() -> None:
    world, _, claim = at_committing()
    chain, trainer = world.chain, world.chain.keys[0]
    member = key_of(world, claim.committee[0])
    good = CommitAttestation(claim.claim, NOTHING)
    assert_refused(chain, trainer, good, Reason.NOT_ALLOWED, "committee")
    assert_refused(chain, chain.others[0], good, Reason.NOT_ALLOWED, "committee")
    assert_refused(chain, member, replace(good, claim=NO_CLAIM), Reason.UNKNOWN)
    assert chain.do((member, good)) == ("",)
    assert_refused(chain, member, good, Reason.DUPLICATE)
    young = make_world()
    other_job = start_job(young)
    early = reach_claims(young, other_job, ClaimStatus.SAMPLING)[0]
    assert_refused(young.chain, chain.keys[1], replace(good, claim=early.claim), Reason.NOT_NOW, "sampling")


def at_revealing() -> tuple[World, JobId, ClaimRecord]:
    """A world where all have committed and nobody attests; the claim of player 0."""
    world = make_world(**{f"p{number}": {"skips": (RevealDuty,)} for number in range(4)})
    job = start_job(world)
    reach_claims(world, job, ClaimStatus.REVEALING)
    return world, job, world.chain.claim_of(job, world.chain.keys[0])


def test_only_what_was_committed_to_is_taken_in_and_once() -> None:
    world, _, claim = at_revealing()
    chain, member = world.chain, key_of(world, claim.committee[0])
    other = key_of(world, claim.committee[1])
    good = world.opened[member.account, claim.claim]
    of_other = world.opened[other.account, claim.claim]
    assert_refused(chain, chain.keys[0], good, Reason.NOT_ALLOWED, "nothing")
    for wrong in (
        replace(good, salt=NOTHING),
        replace(good, keyed_traces=NOTHING),
        replace(good, proof=NO_PROOF),
        of_other,
    ):
        assert_refused(chain, member, wrong, Reason.DIFFERS)
    assert_refused(chain, member, replace(good, claim=NO_CLAIM), Reason.UNKNOWN)
    assert chain.do((member, good)) == ("",)
    assert_refused(chain, member, good, Reason.DUPLICATE)
    late = CommitAttestation(claim.claim, NOTHING)
    assert_refused(chain, other, late, Reason.NOT_NOW, "revealing")


def test_a_copied_commitment_opens_nothing() -> None:
    """The commitment holds the name: whoever repeats another's cannot open it, with the other's words or own ones."""
    world, _, claim = at_committing()
    first, second = (key_of(world, account) for account in claim.committee[:2])
    proof, _ = sample_of(world, claim, first)
    attest, commitment = make_attestation(first.account, claim, proof, name_of("traces"))
    third = key_of(world, claim.committee[2])
    assert world.chain.do(*((key, commitment) for key in (first, second, third))) == ("", "", "")
    assert_refused(world.chain, second, attest, Reason.DIFFERS)
    assert world.chain.do((first, attest)) == ("",)


def test_a_proof_that_is_not_the_members_own_is_refused() -> None:
    world, _, claim = at_committing()
    members = [key_of(world, account) for account in claim.committee]
    member, other = members[:2]
    assert claim.beacon is not None
    of_other, _ = sample_of(world, claim, other)
    of_claim, _ = draw_sample(member, NO_CLAIM, claim.beacon, 2, PARTS_PER_MILLION)
    of_beacon, _ = draw_sample(member, claim.claim, name_of("beacon"), 2, PARTS_PER_MILLION)
    own, _ = sample_of(world, claim, member)
    broken = VrfProof(own[:32] + bytes(48))
    table, height = dict(world.chain.table), world.chain.height
    for proof in (NO_PROOF, of_other, of_claim, of_beacon, broken):
        world.chain.table, world.chain.height = dict(table), height
        attest, commitment = make_attestation(member.account, claim, proof, NOTHING)
        others = [(key, CommitAttestation(claim.claim, NOTHING)) for key in members[1:]]
        assert world.chain.do((member, commitment), *others) == ("", "", "")
        assert_refused(world.chain, member, attest, Reason.BAD_PROOF)


def test_who_commits_and_does_not_attest_loses_fee_and_a_slice() -> None:
    world = make_world(p0={"skips": (RevealDuty,)})
    job = start_job(world, rounds=Count(1))
    (closed,) = world.finish(job)
    silent = world.chain.keys[0].account
    assert {claim.status for claim in closed.claims} == {"accepted"}
    assert all(silent not in claim.verifiers for claim in closed.claims)
    assert lapses(world) == {silent: 100 + 99 + 98}
    assert world.chain.account(world.chain.keys[0]).bonded == STAKE - 297


def test_who_is_silent_where_most_are_not_loses_a_slice_and_otherwise_nothing() -> None:
    world = make_world(p0={"skips": (CommitDuty,)})
    world.finish(start_job(world, rounds=Count(1)))
    assert lapses(world) == {world.chain.keys[0].account: 297}
    world = make_world(**{f"p{number}": {"skips": (CommitDuty,)} for number in range(3)})
    world.finish(start_job(world, rounds=Count(1)))
    assert lapses(world) == {}


def test_too_few_attestations_void_the_claim() -> None:
    world, job, _ = at_committing()
    for number in range(4):
        player_of(world, number).skips = (CommitDuty,) if number else ()
    closed = world.finish(job)[0]
    assert {claim.status for claim in closed.claims if claim.trainer != world.chain.keys[0].account} == {
        "void: 1 of 3 committee members attested in time"
    }
    assert closed.outcome.void == "no claim was accepted"


def test_more_than_half_of_the_committee_is_enough() -> None:
    world, job, _ = at_committing()
    for number in range(3):
        player_of(world, number).skips = ()
    closed = world.finish(job)[0]
    fate = {claim.trainer: claim.status for claim in closed.claims}
    assert fate == {key.account: "accepted" for key in world.chain.keys}


def test_whom_the_draw_has_spared_says_so_in_the_end_and_is_not_paid() -> None:
    """At one in a million nobody has anything to replay: claims, false ones too, are taken in at the audit's risk."""
    world = make_world(p1={"lies": frozenset(range(8))}, p2={"skips": (CommitDuty,)})
    (closed,) = world.finish(start_job(world, rounds=Count(1), audit_ppm=(Count(1),)))
    assert {claim.status for claim in closed.claims} == {"accepted"}
    assert {replays for claim in closed.claims for replays in claim.replays} == {0}
    assert not [payment for payment in closed.payments if payment.reason == "replays"]
    silent = world.chain.keys[2].account
    assert all(silent not in claim.verifiers for claim in closed.claims), "nobody can tell that it had nothing to do"
    assert lapses(world) == {silent: 297}


def test_a_made_up_digest_over_nothing_costs_a_slice() -> None:
    world = make_world(p0={"is_lazy": True})
    (closed,) = world.finish(start_job(world, rounds=Count(1), audit_ppm=(Count(1),)))
    lazy = world.chain.keys[0].account
    assert lapses(world) == {lazy: 297} and {claim.status for claim in closed.claims} == {"accepted"}
    assert all(lazy not in claim.verifiers for claim in closed.claims)

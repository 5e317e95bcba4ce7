"""Watchers: who looks at claims unasked, what comes of it, and who is heard after a committee of one."""

from __future__ import annotations

from milon.base.units import Amount, Count
from milon.chain.transaction import Unbond
from milon.contracts.claims_records import ClaimRecord, ClaimStatus
from milon.contracts.duties import CommitDuty, DisputeChooseDuty, Role, WatchDuty, compute_duties
from milon.pol.verdict import Verdict
from tests.contracts.players import World, lapses, player_of, start_job, until
from tests.contracts.watchers import BISECTION, BOND, LIE, first_claim, lost, make_open_world, payments

NOBODY_DRAWS = (Count(1),)  # one segment in a million
BONDED = 100  # what the chain asks of a challenger


def watched(world: World, role: Role) -> list[ClaimRecord]:
    """The claims that the account may look at now."""
    duties = compute_duties(world.chain.ledger, role)
    assert all(not isinstance(duty, WatchDuty) for duty in duties[: -sum(isinstance(d, WatchDuty) for d in duties)])
    return [duty.claim for duty in duties if isinstance(duty, WatchDuty)]


def test_a_lie_that_the_committee_missed_is_found_by_a_watcher_within_the_window() -> None:
    world, _ = make_open_world(p1={"lies": frozenset({3})}, watcher={"is_watcher": True})
    liar = world.chain.keys[1]
    job = start_job(world, rounds=Count(1), audit_ppm=NOBODY_DRAWS, challenge_blocks=Count(3))
    (closed,) = world.finish(job)
    fate = {claim.trainer: claim.status for claim in closed.claims}
    assert fate.pop(liar.account) == "refuted: segment 3 replays to other bits"
    assert set(fate.values()) == {"accepted"} and liar.account not in closed.outcome.accepted
    assert lost(world, liar) > 0 and payments(world, "refutation") == [lost(world, liar) // 2]
    assert lapses(world) == {}, "nobody had called that segment true"


def test_without_a_watcher_the_same_lie_stands() -> None:
    world, _ = make_open_world(p1={"lies": frozenset({3})})
    job = start_job(world, rounds=Count(1), audit_ppm=NOBODY_DRAWS, challenge_blocks=Count(3))
    (closed,) = world.finish(job)
    assert {claim.status for claim in closed.claims} == {"accepted"}


def test_members_that_called_it_true_lapse_when_a_watcher_shows_the_lie() -> None:
    blind = {f"p{number}": {"attests": Verdict.TRUE} for number in range(4)}
    blind["p1"] = {**blind["p1"], "lies": frozenset({3})}
    world, watcher = make_open_world(**blind)
    job = start_job(world, rounds=Count(1), challenge_blocks=Count(9))
    first_claim(world, job, ClaimStatus.ACCEPTED)
    world.players[watcher.account].is_watcher = True
    world.finish(job)
    assert lapses(world).keys() == {world.chain.keys[number].account for number in (0, 2, 3)}


def test_who_may_watch_what() -> None:
    idle = {f"p{number}": {"skips": (CommitDuty,)} for number in range(4)}
    world, watcher = make_open_world(**idle)
    job = start_job(world, audit_ppm=NOBODY_DRAWS)
    stranger = Role(watcher.account, False, BONDED)
    until(world, lambda: len(watched(world, stranger)) == 4)
    assert {claim.status for claim in watched(world, stranger)} == {ClaimStatus.COMMITTING}
    assert watched(world, Role(watcher.account, False)) == [], "only who wants to"
    assert watched(world, Role(watcher.account, False, int(BOND) + 1)) == [], "only with the bond of a challenger"
    assert watched(world, Role(world.chain.others[0].account, False, BONDED)) == []
    for key in world.chain.keys:  # a committee is all but the trainer here
        assert watched(world, Role(key.account, True, BONDED)) == []
    claim = world.chain.claim_of(job, world.chain.keys[0])
    assert claim in watched(world, stranger)


def test_a_committee_of_one_that_runs_out_of_time_bars_nobody() -> None:
    """Its accusation came to nothing and counts as its word: the claim is as good as one that a liar attested, and is
    accepted; whoever else looks is heard as long as the round is open."""
    members = {f"p{number}": {"skips": (DisputeChooseDuty,)} for number in range(4)}
    members["p0"] = {**members["p0"], "run": LIE, "lies": frozenset({0, 1})}
    terms = {**BISECTION, "rounds": Count(1), "committee_size": Count(1), "challenge_blocks": Count(30)}
    world, _ = make_open_world(**members)
    job = start_job(world, **terms)
    claim = first_claim(world, job, ClaimStatus.ACCEPTED)
    (member,) = claim.committee
    assert claim.accusations[0].challenger == member and claim.accusations[0].is_over
    assert not claim.attestations, "nobody has attested: the accusation alone stands for the committee"
    world.players[world.chain.others[1].account].is_watcher = True
    (closed,) = world.finish(job)
    fate = {entry.trainer: entry.status for entry in closed.claims}
    assert fate[claim.trainer].startswith("refuted"), "the same segment, challenged again"


def test_a_watcher_that_has_taken_its_bond_out_is_asked_for_nothing() -> None:
    world, watcher = make_open_world(**{f"p{number}": {"skips": (CommitDuty,)} for number in range(4)})
    start_job(world)
    role = Role(watcher.account, False, BONDED)
    until(world, lambda: bool(watched(world, role)))
    assert world.chain.do((watcher, Unbond(Amount(int(BOND))))) == ("",)
    assert watched(world, role) == []
    assert player_of(world, 0).is_here

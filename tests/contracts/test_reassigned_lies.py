"""Lies in claims of one trainer that hang together, and what comes to nothing: who is paid, and what counts."""

from __future__ import annotations

import pytest

from milon.base.ids import JobId
from milon.base.signing import SecretKey
from milon.base.units import Count
from milon.chain.transaction import Action, Challenge, Judge
from milon.contracts.claims_records import ClaimStatus
from milon.contracts.duties import (
    AggregateDuty,
    JudgeDuty,
    OpenDuty,
    TrainDuty,
    compute_duties,
)
from milon.contracts.records import Phase
from milon.pol.verdict import Verdict
from tests.contracts.helpers import STAKE
from tests.contracts.players import World, make_world, player_of, reach_phase, start_job, until
from tests.contracts.takeovers import (
    NO_AUDIT,
    ONE_ROUND,
    claims_of,
    handed,
    job_runs,
    number_of,
    paid,
    parts,
    reach_reassigned,
    trainer_of,
)
from tests.contracts.watchers import make_open_world


def test_a_lie_in_what_was_taken_over_takes_the_whole_update_out() -> None:
    world = make_world(p0={"lies": frozenset({6})}, p3={"skips": (TrainDuty,)})
    job = start_job(world, **ONE_ROUND)
    (closed,) = world.finish(job)
    own, taken = (claim for claim in closed.claims if number_of(world, claim.trainer) == 0)
    assert own.status == "void: another claim of this trainer in the round was refuted"
    assert taken.status == "refuted: segment 6 replays to other bits"
    assert world.chain.keys[0].account not in closed.outcome.accepted
    assert [paid(closed, key) for key in world.chain.keys] == [0, 300, 200, 0]
    assert world.chain.account(world.chain.keys[0]).bonded < STAKE
    assert world.chain.job(job).barred == (world.chain.keys[0].account,)
    assert not trainer_of(world, job, 0).is_active
    replays = {entry.account for entry in closed.payments if entry.reason == "replays"}
    assert len(replays) == 4, "who replayed the first claim is paid for it"


def test_what_was_taken_over_and_came_to_nothing_leaves_the_first_claim_alone() -> None:
    world = make_world(p3={"skips": (TrainDuty,)})
    job = start_job(world, **ONE_ROUND)
    reach_reassigned(world, job)
    until(world, lambda: claims_of(world, job, 0)[0].status is ClaimStatus.ACCEPTED)
    player_of(world, 0).skips = (OpenDuty,)
    (closed,) = world.finish(job)
    own, taken = (claim for claim in closed.claims if number_of(world, claim.trainer) == 0)
    assert (own.status, taken.status) == ("accepted", "void: the trainer did not open its traces in time")
    assert world.chain.keys[0].account in closed.outcome.accepted
    assert [paid(closed, key) for key in world.chain.keys] == [200, 300, 200, 0]
    assert world.chain.account(world.chain.keys[0]).bonded == STAKE
    assert trainer_of(world, job, 0).is_active and trainer_of(world, job, 0).capacity == 10


def at_both_claimed(challenged: int, **terms: object) -> tuple[World, SecretKey, JobId]:
    """Nothing is audited; player 0 lied in `challenged`, and a stranger challenges that once both claims are there."""
    world, watcher = make_open_world(p0={"lies": frozenset({challenged})}, p3={"skips": (TrainDuty,)})
    chosen = {**ONE_ROUND, "audit_ppm": NO_AUDIT, "challenge_blocks": Count(15), **terms}
    job = start_job(world, **chosen)
    until(world, lambda: job_runs(world, job) and len(claims_of(world, job, 0)) == 2)
    own, taken = claims_of(world, job, 0)
    claim = own if challenged < taken.first else taken
    assert world.chain.do((watcher, Challenge(claim.claim, Count(challenged), Verdict.FALSE))) == ("",)
    return world, watcher, job


def test_a_lie_in_the_first_claim_takes_with_it_what_goes_on_from_it() -> None:
    world, _, job = at_both_claimed(0)
    (closed,) = world.finish(job)
    own, taken = (claim for claim in closed.claims if number_of(world, claim.trainer) == 0)
    assert own.status == "refuted: segment 0 replays to other bits"
    assert taken.status == "void: another claim of this trainer in the round was refuted"
    assert [paid(closed, key) for key in world.chain.keys] == [0, 300, 200, 0]


def test_a_first_claim_that_comes_to_nothing_takes_with_it_what_goes_on_from_it() -> None:
    """No quorum judges the challenge in time: the first claim is void, and the state behind the second is nobody's."""
    world, _, job = at_both_claimed(0)
    for player in world.players.values():
        player.judges = Verdict.TRUE if player.key.account < world.chain.keys[2].account else None
    (closed,) = world.finish(job)
    own, taken = (claim for claim in closed.claims if number_of(world, claim.trainer) == 0)
    assert own.status.startswith("void: no quorum")
    assert taken.status == "void: the claim that it goes on from came to nothing"
    assert world.chain.account(world.chain.keys[0]).bonded == STAKE


def test_a_lie_found_while_validators_vote_opens_the_round_again() -> None:
    world, watcher = make_open_world(p0={"lies": frozenset({6})}, p3={"skips": (TrainDuty,)})
    for player in world.players.values():
        player.skips += (AggregateDuty,)
    job = start_job(world, **{**ONE_ROUND, "audit_ppm": NO_AUDIT, "aggregate_blocks": Count(30)})
    reach_phase(world, job, Phase.AGGREGATE)
    claim = claims_of(world, job, 0)[-1]
    assert world.chain.do((watcher, Challenge(claim.claim, Count(6), Verdict.FALSE))) == ("",)
    for player in world.players.values():
        player.skips = tuple(kind for kind in player.skips if kind is not AggregateDuty)
    (closed,) = world.finish(job)
    statuses = [claim.status.split(":")[0] for claim in closed.claims if number_of(world, claim.trainer) == 0]
    assert statuses == ["void", "refuted"]
    assert [paid(closed, key) for key in world.chain.keys] == [0, 300, 200, 0]
    assert parts(world, closed.claims) == [(0, 0, 2), (0, 6, 1), (1, 2, 2), (1, 7, 1), (2, 4, 2)], "handed out once"


def test_who_is_waited_for_ends_with_its_first_claim() -> None:
    """Its first claim falls after it was handed more: the round does not wait for a second that cannot come."""
    world = make_world(p0={"skips": (OpenDuty,)}, p3={"skips": (TrainDuty,)})
    job = start_job(world, **{**ONE_ROUND, "reassign_blocks": Count(60), "attest_blocks": Count(8)})
    reach_reassigned(world, job)
    assert handed(world, job)[0][0] == 0
    player_of(world, 0).skips = (OpenDuty, TrainDuty)
    deadline = world.chain.round(job).deadline
    (closed,) = world.finish(job)
    assert world.chain.height < deadline - 20
    assert parts(world, closed.claims) == [(0, 0, 2), (1, 2, 2), (1, 7, 1), (2, 4, 2)]


def judge_false(world: World, job: JobId) -> list[tuple[SecretKey, Action]]:
    """All validators' word on player 0's first claim."""
    claim = claims_of(world, job, 0)[0]
    return [(key, Judge(claim.claim, Count(0), Verdict.FALSE)) for key in world.chain.keys]


def test_a_challenge_of_the_second_claim_is_settled_though_the_first_has_fallen() -> None:
    """From the state that it starts from the second claim is true: who says otherwise pays; the liar gains nothing."""
    world, _, job = at_both_claimed(0, judge_blocks=Count(20))
    for player in world.players.values():
        player.skips += (JudgeDuty,)
    wrong = world.chain.keys[1]
    taken = claims_of(world, job, 0)[1]
    assert world.chain.do((wrong, Challenge(taken.claim, taken.first, Verdict.FALSE))) == ("",)
    assert world.chain.do(*judge_false(world, job))[:3] == ("", "", "")
    assert [claim.status for claim in claims_of(world, job, 0)] == [ClaimStatus.REFUTED, ClaimStatus.SUSPENDED]
    world.step()
    assert claims_of(world, job, 0)[1].status is ClaimStatus.SUSPENDED
    for player in world.players.values():
        player.skips = tuple(kind for kind in player.skips if kind is not JudgeDuty)
    (closed,) = world.finish(job)
    own, taken_over = (claim for claim in closed.claims if number_of(world, claim.trainer) == 0)
    assert own.status.startswith("refuted")
    assert taken_over.status == "void: another claim of this trainer in the round was refuted"
    assert [paid(closed, key) for key in world.chain.keys] == [0, 300, 200, 0]
    assert world.chain.account(wrong).slashed > 0


@pytest.mark.parametrize("is_claim_first", [True, False])
def test_a_second_claim_in_the_block_that_refutes_the_first_counts_for_nothing(is_claim_first: bool) -> None:
    world, watcher = make_open_world(p0={"lies": frozenset({0})}, p3={"skips": (TrainDuty,)})
    job = start_job(world, **{**ONE_ROUND, "audit_ppm": NO_AUDIT, "challenge_blocks": Count(15)})
    until(world, lambda: job_runs(world, job) and len(claims_of(world, job, 0)) == 1)
    liar = player_of(world, 0)
    liar.skips = (TrainDuty,)
    reach_reassigned(world, job)
    assert world.chain.do((watcher, Challenge(claims_of(world, job, 0)[0].claim, Count(0), Verdict.FALSE))) == ("",)
    (duty,) = (duty for duty in compute_duties(world.chain.ledger, liar.role) if isinstance(duty, TrainDuty))
    claim = world.perform(liar, duty)
    assert claim is not None
    words = judge_false(world, job)[1:]
    asked = [(liar.key, claim), *words] if is_claim_first else [*words, (liar.key, claim)]
    problems = world.chain.do(*asked)
    assert [bool(problem) for problem in problems] == ([False] * 4 if is_claim_first else [False] * 3 + [True])
    (closed,) = world.finish(job)
    statuses = [claim.status.split(":")[0] for claim in closed.claims if number_of(world, claim.trainer) == 0]
    assert statuses == (["refuted", "void"] if is_claim_first else ["refuted"])
    assert paid(closed, liar.key) == 0
    assert world.chain.account(liar.key).open_claims == 0

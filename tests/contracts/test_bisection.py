"""Disputes by bisection on the chain, and what each ending costs whom."""

from __future__ import annotations

from dataclasses import replace

from milon.base.codec import encode
from milon.base.errors import Reason
from milon.base.ids import JobId
from milon.base.signing import SecretKey
from milon.base.units import Count
from milon.chain.transaction import AnswerDispute, Bond, Challenge, ChooseDispute, Judge
from milon.contracts.claims_records import ClaimRecord, ClaimStatus
from milon.contracts.disputes import load_game
from milon.contracts.duties import (
    DisputeAnswerDuty,
    DisputeChooseDuty,
    RefereeDuty,
)
from milon.pol.dispute import MOVE_BYTES_MAX, MOVES_MAX, Answer, Choice, Pick, Turn, spot_of
from milon.pol.verdict import Verdict
from tests.contracts.helpers import NO_CLAIM, STAKE, Chain, assert_refused
from tests.contracts.players import HONEST, Player, World, make_world, reach_claims, start_job
from tests.contracts.watchers import BISECTION, BOND, LIE, first_claim, forbidden, lost, make_open_world, payments

# Disputes


def dispute(world: World, challenger: SecretKey, job: JobId, place: int = 1) -> ClaimRecord:
    """The claim of player 0, challenged once all its committee has committed."""
    claim = first_claim(world, job, ClaimStatus.REVEALING)
    asked = Challenge(claim.claim, Count(claim.first + place), Verdict.FALSE)
    assert world.chain.do((challenger, asked)) == ("",)
    return world.chain.claim_of(job, world.chain.keys[0])


def test_a_lie_is_settled_by_bisection_and_the_liar_slashed() -> None:
    world, watcher = make_open_world(p0={"run": LIE})
    job = start_job(world, rounds=Count(1), **BISECTION)
    claim = dispute(world, watcher, job)
    assert claim.status is ClaimStatus.DISPUTED
    moves = 0
    while world.chain.claim_of(job, world.chain.keys[0]).status is ClaimStatus.DISPUTED:
        game = load_game(world.chain.ledger, world.chain.claim_of(job, world.chain.keys[0]))
        moves = max(moves, int(game.moves))
        world.step()
    assert 8 <= moves <= MOVES_MAX
    assert world.chain.claim_of(job, world.chain.keys[0]).status is ClaimStatus.REFUTED
    assert not any(key.startswith(b"dispute/") for key in world.chain.table)
    (closed,) = world.finish(job)
    assert (lost(world, world.chain.keys[0]), lost(world, watcher)) == (STAKE // 2, 0)
    assert payments(world, "refutation") == [STAKE // 4]
    assert world.chain.keys[0].account in world.chain.job(job).barred
    assert closed.outcome.void == ""
    assert forbidden(world) == []


def test_a_lying_challenger_loses_its_stake_and_the_claim_goes_on() -> None:
    world, watcher = make_open_world(watcher={"run": LIE})
    job = start_job(world, rounds=Count(1), **BISECTION)
    dispute(world, watcher, job)
    (closed,) = world.finish(job)
    assert {entry.status for entry in closed.claims} == {"accepted"}
    assert lost(world, watcher) == BOND // 2
    assert all(lost(world, key) == 0 for key in world.chain.keys)
    assert forbidden(world) == []


def test_a_trainer_without_an_answer_loses_its_pay_alone() -> None:
    world, watcher = make_open_world(p0={"skips": (DisputeAnswerDuty,)})
    job = start_job(world, rounds=Count(1), **BISECTION)
    claim = dispute(world, watcher, job)
    (closed,) = world.finish(job)
    fate = {entry.trainer: entry.status for entry in closed.claims}
    assert fate[claim.trainer] == f"void: the trainer gave no answer on segment {claim.first + 1} in time"
    assert all(lost(world, key) == 0 for key in (watcher, *world.chain.keys))
    paid = {(entry.account, entry.reason) for entry in closed.payments}
    assert (claim.trainer, "segments") not in paid


def test_a_challenger_without_a_choice_forfeits_the_challenge_bond() -> None:
    world, watcher = make_open_world(watcher={"skips": (DisputeChooseDuty,)})
    job = start_job(world, rounds=Count(1), **BISECTION)
    dispute(world, watcher, job)
    (closed,) = world.finish(job)
    assert {entry.status for entry in closed.claims} == {"accepted"}
    assert (lost(world, watcher), payments(world, "forfeit"), payments(world, "refutation")) == (100, [100], [50])


def test_referees_without_a_quorum_void_the_claim_and_nobody_loses_stake() -> None:
    silent = {"skips": (RefereeDuty,)}
    world, watcher = make_open_world(p0={"run": LIE}, p1=silent, p2=silent)
    job = start_job(world, rounds=Count(1), **BISECTION)
    claim = dispute(world, watcher, job)
    (closed,) = world.finish(job)
    fate = {entry.trainer: entry.status for entry in closed.claims}
    assert fate[claim.trainer] == f"void: no quorum judged segment {claim.first + 1} in time"
    assert all(lost(world, key) == 0 for key in (watcher, *world.chain.keys))


def test_a_friends_mock_dispute_protects_nobody() -> None:
    """The friend challenges first and falls silent; the next challenger of the same segment is heard all the same."""
    chain = Chain(4, 3)
    friend, watcher = chain.others[1:]
    players = [Player(key, run=LIE if not number else HONEST) for number, key in enumerate(chain.keys)]
    friends = [Player(friend, is_trainer=False, skips=(DisputeChooseDuty,)), Player(watcher, is_trainer=False)]
    world = World(chain, [*players, *friends])
    chain.do((friend, Bond(BOND)), (watcher, Bond(BOND)))
    job = start_job(world, rounds=Count(1), **BISECTION)
    claim = dispute(world, friend, job)
    assert chain.do((watcher, Challenge(claim.claim, Count(claim.first + 1), Verdict.FALSE))) == ("",)
    world.finish(job)
    assert (lost(world, friend), lost(world, watcher)) == (100, 0)
    assert lost(world, chain.keys[0]) == STAKE // 2
    assert chain.account(friend).open_claims == chain.account(watcher).open_claims == 0


def test_withholding_in_a_job_of_bisection_is_judged_by_everybody_too() -> None:
    world, _ = make_open_world(p0={"is_withholding": True})
    job = start_job(world, rounds=Count(1), **BISECTION)
    (closed,) = world.finish(job)
    fate = {entry.trainer: entry.status for entry in closed.claims}
    assert fate[world.chain.keys[0].account].startswith("void: the states")
    assert lost(world, world.chain.keys[0]) == STAKE // 20


def at_move(turn: Turn) -> tuple[World, SecretKey, ClaimRecord]:
    """A dispute that waits for that side's second move."""
    skips = (DisputeAnswerDuty,) if turn is Turn.TRAINER else (DisputeChooseDuty,)
    world, watcher = make_open_world(p0={"run": LIE})
    job = start_job(world, rounds=Count(1), **{**BISECTION, "dispute_blocks": Count(50)})
    claim = dispute(world, watcher, job)
    for _ in range(5 if turn is Turn.TRAINER else 4):
        world.step()
    for player in world.players.values():
        player.skips = skips
    world.step()
    claim = world.chain.claim_of(job, world.chain.keys[0])
    assert load_game(world.chain.ledger, claim).turn is turn
    return world, watcher, claim


def test_who_may_not_move_and_when() -> None:
    world, watcher, claim = at_move(Turn.TRAINER)
    chain, trainer = world.chain, world.chain.keys[0]
    game = load_game(chain.ledger, claim)
    good = AnswerDispute(claim.claim, Count(0), game.moves, LIE.answer(spot_of(game)))
    assert_refused(chain, trainer, replace(good, claim=NO_CLAIM), Reason.UNKNOWN)
    assert_refused(chain, trainer, replace(good, dispute=Count(1)), Reason.DIFFERS)
    assert_refused(chain, trainer, replace(good, move=Count(0)), Reason.STALE)
    early = ChooseDispute(claim.claim, Count(0), game.moves, Choice(Pick.CHILD))
    assert_refused(chain, watcher, early, Reason.NOT_NOW)
    assert_refused(chain, trainer, replace(good, answer=Answer(raw=bytes(32))), Reason.BAD_PROOF)
    judge = Judge(claim.claim, Count(0), Verdict.FALSE)
    assert_refused(chain, chain.keys[1], judge, Reason.NOT_NOW)
    assert len(encode(chain.sign(trainer, good))) <= MOVE_BYTES_MAX
    assert chain.do((chain.others[0], good)) == ("",), "an opening that only one answer fits comes from anybody"
    world, watcher, claim = at_move(Turn.CHALLENGER)
    game = load_game(world.chain.ledger, claim)
    choice = ChooseDispute(claim.claim, Count(0), game.moves, Choice(Pick.SHAPE))
    assert_refused(world.chain, world.chain.keys[1], choice, Reason.NOT_ALLOWED)
    assert_refused(world.chain, watcher, replace(choice, choice=Choice(Pick.CHILD, Count(99))), Reason.OUT_OF_RANGE)
    assert world.chain.do((watcher, choice)) == ("",)


def test_nobody_but_the_trainer_says_what_its_run_gives() -> None:
    world, watcher = make_open_world(p0={"skips": (DisputeAnswerDuty,)})
    job = start_job(world, rounds=Count(1), **BISECTION)
    claim = dispute(world, watcher, job)
    game = load_game(world.chain.ledger, claim)
    answer = AnswerDispute(claim.claim, Count(0), Count(0), LIE.answer(spot_of(game)))
    assert_refused(world.chain, watcher, answer, Reason.NOT_ALLOWED)
    idle = make_world()
    other = reach_claims(idle, start_job(idle), ClaimStatus.SAMPLING)[0]
    stray = replace(answer, claim=other.claim)
    assert_refused(idle.chain, idle.chain.keys[0], stray, Reason.NOT_NOW, "sampling")

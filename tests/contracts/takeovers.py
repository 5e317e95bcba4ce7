"""Rounds whose segments are handed out again: terms, and what tests ask of them."""

from __future__ import annotations

from milon.base.ids import AccountId, JobId
from milon.base.signing import SecretKey
from milon.base.units import Count
from milon.chain.learning import ClosedRound, SettledClaim
from milon.contracts.claims import load_claim
from milon.contracts.claims_records import ClaimRecord
from milon.contracts.records import JobStatus, Trainer
from tests.contracts.players import World, until

ONE_ROUND: dict[str, object] = {"rounds": Count(1), "reassign_blocks": Count(12), "trainers_min": Count(1)}
NO_AUDIT = (Count(0),)


def number_of(world: World, account: AccountId) -> int:
    return [key.account for key in world.chain.keys].index(account)


def parts(world: World, claims: tuple[SettledClaim, ...]) -> list[tuple[int, int, int]]:
    """(player, first, count) of the claims, in their order."""
    return [(number_of(world, claim.trainer), int(claim.first), int(claim.count)) for claim in claims]


def reach_reassigned(world: World, job: JobId) -> None:
    until(world, lambda: job_runs(world, job) and world.chain.round(job).reassigned != ())


def job_runs(world: World, job: JobId) -> bool:
    return world.chain.job(job).status is JobStatus.RUNNING


def handed(world: World, job: JobId) -> list[tuple[int, int, int]]:
    """(player, first, count) of what was handed out again."""
    return [
        (number_of(world, entry.trainer), int(entry.first), int(entry.count))
        for entry in world.chain.round(job).reassigned
    ]


def paid(closed: ClosedRound, key: SecretKey) -> int:
    """What the round paid a trainer for segments, fee included."""
    wanted = ("segments", "fee")
    return sum(
        int(entry.amount) for entry in closed.payments if entry.account == key.account and entry.reason in wanted
    )


def trainer_of(world: World, job: JobId, number: int) -> Trainer:
    account = world.chain.keys[number].account
    return next(entry for entry in world.chain.job(job).trainers if entry.account == account)


def claims_of(world: World, job: JobId, number: int) -> list[ClaimRecord]:
    """A player's claims of the open round, in the order they came."""
    claims = [load_claim(world.chain.ledger, claim) for claim in world.chain.round(job).claims]
    return [claim for claim in claims if claim.trainer == world.chain.keys[number].account]


def assert_all_segments_accepted(closed: ClosedRound, segments: int = 8) -> None:
    accepted = [claim for claim in closed.claims if claim.status == "accepted"]
    covered = sorted(claim.first + place for claim in accepted for place in range(claim.count))
    assert covered == list(range(segments))

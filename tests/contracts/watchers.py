"""Worlds with somebody who watches and challenges."""

from __future__ import annotations

from milon.base.ids import JobId
from milon.base.signing import SecretKey
from milon.base.units import Amount, Count
from milon.chain.transaction import Bond
from milon.contracts.claims_records import ClaimRecord, ClaimStatus
from milon.pol.terms import Settlement
from tests.contracts.helpers import Chain
from tests.contracts.players import HONEST, Player, World, reach_claims
from tests.pol.dispute_toy import Run

BISECTION = {"settlement": Settlement.BISECTION, "dispute_blocks": Count(4), "steps_per_segment": Count(HONEST.steps)}
LIE = Run(HONEST.steps, tamper={(1, 7, 90): 1})
BOND = Amount(2_000)


def make_open_world(**behaviour: dict[str, object]) -> tuple[World, SecretKey]:
    """Four validators, and a stranger with a bond who watches."""
    chain = Chain(4, 2)
    players = [Player(key, **behaviour.get(f"p{index}", {})) for index, key in enumerate(chain.keys)]  # type: ignore[arg-type]
    watcher = chain.others[1]
    behaviour.setdefault("watcher", {})
    players.append(Player(watcher, is_trainer=False, **behaviour["watcher"]))  # type: ignore[arg-type]
    chain.do((watcher, Bond(BOND)))
    return World(chain, players), watcher


def lost(world: World, key: SecretKey) -> int:
    return int(world.chain.account(key).slashed)


def payments(world: World, reason: str) -> list[int]:
    return [int(entry.amount) for closed in world.chain.closed for entry in closed.payments if entry.reason == reason]


def forbidden(world: World) -> list[str]:
    """Refusals other than of what came a block too late."""
    return [problem for problem in world.refusals if not problem.startswith("not-now")]


def first_claim(world: World, job: JobId, status: ClaimStatus, count: int = 4) -> ClaimRecord:
    reach_claims(world, job, status, count)
    return world.chain.claim_of(job, world.chain.keys[0])

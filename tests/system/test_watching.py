"""A watcher in a network: of a round that nobody audits, it finds the lie by itself, and every validator follows it."""

from __future__ import annotations

from pathlib import Path

from milon.base.units import Count
from milon.gpu.attacks_steps import BIT_FLIP
from milon.node.view import JobView
from milon.pol.terms import JobSpec
from tests.system.in_process import QUICK, STAKE, make_small_spec, running_network, submit_small, wait_for_job

LIAR = 3
WATCHER = 0


def make_spec() -> JobSpec:
    """The small job, for one round of four trainers with one segment each, which nobody is asked to replay."""
    return make_small_spec(
        LIAR + 1,
        rounds=Count(1),
        segments_per_round=Count(LIAR + 1),
        audit_ppm=(Count(0),),
        challenge_blocks=Count(5_000),
    )


async def test_a_lie_that_no_committee_looked_for_is_found_and_paid_for(tmp_path: Path) -> None:
    spec = make_spec()
    async with running_network(tmp_path, LIAR + 1, {LIAR: BIT_FLIP}, QUICK, WATCHER) as network:
        job = await submit_small(network, spec, tmp_path / "upload")
        liar, watcher = network.keys[LIAR].account, network.keys[WATCHER].account

        def is_found(found: JobView) -> bool:
            claims = found.current.claims if found.current else ()
            return len(claims) == LIAR + 1 and any(claim.status == "refuted" for claim in claims)

        view = await wait_for_job(network.nodes[1], job, is_found, 900)
        assert view.current is not None
        fate = {claim.trainer: claim.status for claim in view.current.claims}
        assert fate.pop(liar) == "refuted" and set(fate.values()) == {"accepted"}
        accounts = {name: network.nodes[1].account(name) for name in (liar, watcher)}
        assert accounts[liar].bonded == STAKE // 2
        assert accounts[watcher].balance + accounts[watcher].bonded > 2 * STAKE, "a quarter of the liar's is its own"

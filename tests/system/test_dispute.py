"""A dispute by bisection that nodes play by themselves: real nodes and a real worker over the memory transport."""

from __future__ import annotations

from pathlib import Path

from milon.base.units import Count
from milon.gpu.attacks_steps import BIT_FLIP
from milon.node.view import JobView
from milon.pol.terms import JobSpec, Settlement
from tests.system.in_process import QUICK, STAKE, make_small_spec, running_network, submit_small, wait_for_job

LIAR = 3


def make_spec() -> JobSpec:
    """The small job, for one round of four trainers with one segment each, all of them audited."""
    return make_small_spec(
        LIAR + 1,
        rounds=Count(1),
        segments_per_round=Count(LIAR + 1),
        audit_ppm=(Count(1_000_000),),
        settlement=Settlement.BISECTION,
    )


async def test_a_liar_that_stands_by_one_bit_is_refuted_and_the_others_finish(tmp_path: Path) -> None:
    spec = make_spec()
    async with running_network(tmp_path, LIAR + 1, {LIAR: BIT_FLIP}, QUICK) as network:
        job = await submit_small(network, spec, tmp_path / "upload")
        seen: set[str] = set()

        def is_over(found: JobView) -> bool:
            if found.current is not None:
                seen.update(claim.status for claim in found.current.claims)
            return found.status in ("finished", "rejected")

        view = await wait_for_job(network.nodes[0], job, is_over, 900)
        assert view.status == "finished", view.reason
        assert "disputed" in seen and "suspended" not in seen  # nobody had to replay the segment but its challengers
        liar, honest = network.keys[LIAR].account, sorted(key.account for key in network.keys[:LIAR])
        (closed,) = view.rounds
        assert next(claim for claim in closed.claims if claim.trainer == liar).status.startswith("refuted")
        taken = [payment for payment in closed.payments if payment.reason == "slash"]
        assert [(payment.account, payment.amount) for payment in taken] == [(liar, STAKE // 2)]
        (found,) = [payment for payment in closed.payments if payment.reason == "refutation"]
        assert found.account in honest and found.amount == STAKE // 4
        assert list(closed.outcome.accepted) == honest

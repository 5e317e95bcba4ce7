"""A dispute by bisection that nodes play by themselves: real nodes and a real worker over the memory transport."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from milon.base.units import Count
from milon.chain.params import Parameters
from milon.gpu.attacks_steps import BIT_FLIP
from milon.node.view import JobView
from milon.pol.terms import JobSpec, Settlement, compute_cost_max
from tests.gpu.small_job import prepare_small
from tests.system.in_process import STAKE, running_network, submit, wait_for_job

LIAR = 3
LONG = Count(5_000)  # on a loaded machine nobody's deadline may end the job: it is tested what happens, not how fast


def make_spec() -> JobSpec:
    """The small job, for one round of four trainers with one segment each, all of them audited."""
    spec = prepare_small().spec
    terms = replace(
        spec.terms,
        rounds=Count(1),
        segments_per_round=Count(LIAR + 1),
        trainers_target=Count(LIAR + 1),
        audit_ppm=(Count(1_000_000),),
        settlement=Settlement.BISECTION,
        claim_blocks=LONG,
        attest_blocks=LONG,
        judge_blocks=LONG,
        aggregate_blocks=LONG,
        dispute_blocks=LONG,
    )
    return replace(spec, terms=terms)


async def test_a_liar_that_stands_by_one_bit_is_refuted_and_the_others_finish(tmp_path: Path) -> None:
    spec, blobs = make_spec(), tuple(path for _, path in prepare_small().blobs)
    parameters = Parameters(block_time_ms=Count(300), busy_block_time_ms=Count(50))
    async with running_network(tmp_path, LIAR + 1, {LIAR: BIT_FLIP}, parameters) as network:
        job = await submit(network, spec, compute_cost_max(spec.terms), blobs, tmp_path / "upload")
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

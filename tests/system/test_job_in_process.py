"""A job over the memory transport in one process: poisoned, audited, slashed, paid, and the same everywhere.

A small job on random rows: that the main job comes to a good model is for `test_demo`.
"""

from __future__ import annotations

from pathlib import Path

from milon.base.units import Count
from milon.pol.terms import JobSpec
from tests.system.in_process import QUICK, STAKE, make_small_spec, running_network, submit_small, wait_for_job

NODES, POISONER = 5, 4
AUDITED = 1  # the round in which everything is replayed


def make_spec() -> JobSpec:
    """The small job, for three rounds of five trainers with two segments each."""
    return make_small_spec(
        NODES, rounds=Count(3), segments_per_round=Count(2 * NODES), audit_ppm=(Count(0), Count(1_000_000), Count(0))
    )


async def test_five_nodes_train_and_catch_the_poisoner(tmp_path: Path) -> None:
    spec = make_spec()
    async with running_network(tmp_path, NODES, {POISONER: "sign-flip"}, QUICK) as network:
        job = await submit_small(network, spec, tmp_path / "upload")
        view = await wait_for_job(network.nodes[0], job, lambda found: found.status == "finished", 900)
        poisoner = network.keys[POISONER].account
        assert [refusal.trainer for refusal in view.rounds[0].outcome.refused] == [poisoner]  # the rule alone
        caught = next(claim for claim in view.rounds[AUDITED].claims if claim.trainer == poisoner)
        assert caught.status.startswith("refuted")
        taken = [payment for payment in view.rounds[AUDITED].payments if payment.reason == "slash"]
        assert [(payment.account, payment.amount) for payment in taken] == [(poisoner, STAKE // 2)]
        honest = sorted(key.account for key in network.keys[:POISONER])
        assert [list(closed.outcome.accepted) for closed in view.rounds] == [honest] * 3
        assert poisoner not in [claim.trainer for claim in view.rounds[-1].claims]  # barred
        assert view.state != spec.initial_state
        for node in network.nodes[1:]:
            other = await wait_for_job(node, job, lambda found: found.status == "finished", 300)
            assert other.state == view.state

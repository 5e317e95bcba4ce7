"""The main job over the memory transport in one process: trained, poisoned, audited, slashed, paid."""

from __future__ import annotations

import struct
from pathlib import Path

from milon.base.units import Count
from milon.chain.params import Parameters
from tests.system.in_process import STAKE, prepare_example, running_network, submit, wait_for_job

POISONER = 4
# On a loaded machine nobody's deadline may end the job: what is tested is what happens, not how fast.
PATIENT = [word for what in ("claim", "attest", "judge", "aggregate") for word in (f"--{what}-blocks", "5000")]


async def test_five_nodes_train_digits_and_catch_the_poisoner(tmp_path: Path) -> None:
    spec, reward, blobs = prepare_example(tmp_path / "job", "--rounds", "3", "--audit", "0,1,0", *PATIENT)
    parameters = Parameters(block_time_ms=Count(500), busy_block_time_ms=Count(200))
    async with running_network(tmp_path, 5, {POISONER: "sign-flip"}, parameters) as network:
        job = await submit(network, spec, reward, blobs, tmp_path / "upload")
        view = await wait_for_job(network.nodes[0], job, lambda found: found.status == "finished", 600)
        poisoner = network.keys[POISONER].account
        assert [refusal.trainer for refusal in view.rounds[0].outcome.refused] == [poisoner]  # the rule alone
        caught = next(claim for claim in view.rounds[1].claims if claim.trainer == poisoner)
        assert caught.status.startswith("refuted")
        taken = [payment for payment in view.rounds[1].payments if payment.reason == "slash"]
        assert [(payment.account, payment.amount) for payment in taken] == [(poisoner, STAKE // 2)]
        assert all(poisoner not in [claim.trainer for claim in closed.claims] for closed in view.rounds[2:])
        last = view.rounds[-1].outcome
        loss = struct.unpack("<f", struct.pack("<I", last.loss_bits))[0]
        assert last.correct >= 0.95 * last.rows, f"accuracy {last.correct}/{last.rows}, loss {loss}"
        for node in network.nodes[1:]:
            other = await wait_for_job(node, job, lambda found: found.status == "finished", 30)
            assert other.state == view.state

"""A dispute by bisection that nodes play by themselves: real nodes and a real worker over the memory transport."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from milon.base.codec import decode
from milon.base.units import Count
from milon.chain.params import Parameters
from milon.gpu.attacks_steps import BIT_FLIP
from milon.node.view import JobView
from milon.pol.terms import JobSpec
from tests.system.in_process import STAKE, running_network, submit, wait_for_job
from tests.system.live import MLP_JOB, REPOSITORY

LIAR = 3
# On a loaded machine nobody's deadline may end the job: what is tested is what happens, not how fast.
PATIENT = [
    word for what in ("claim", "attest", "judge", "aggregate", "dispute") for word in (f"--{what}-blocks", "5000")
]
TERMS = ("--rounds", "2", "--segments-per-round", "4", "--trainers-target", "4", "--settlement", "bisection")


def prepare(folder: Path) -> tuple[JobSpec, int, tuple[Path, ...]]:
    """The small job as the user's machine prepares it: spec, reward, blob files."""
    command = [sys.executable, "-m", "milon.client.prepare", str(MLP_JOB), "--out", str(folder), *TERMS, *PATIENT]
    finished = subprocess.run([*command, "--audit", "1"], check=True, capture_output=True, text=True, cwd=REPOSITORY)
    spec = decode(JobSpec, (folder / "spec.cbor").read_bytes())
    blobs = tuple(sorted(path for path in folder.iterdir() if path.name != "spec.cbor"))
    return spec, int(json.loads(finished.stdout)["reward"]), blobs


async def test_a_liar_that_stands_by_one_bit_is_refuted_and_the_job_goes_on(tmp_path: Path) -> None:
    spec, reward, blobs = prepare(tmp_path / "job")
    parameters = Parameters(block_time_ms=Count(500), busy_block_time_ms=Count(100))
    async with running_network(tmp_path, LIAR + 1, {LIAR: BIT_FLIP}, parameters) as network:
        job = await submit(network, spec, reward, blobs, tmp_path / "upload")
        seen: set[str] = set()

        def is_over(found: JobView) -> bool:
            if found.current is not None:
                seen.update(claim.status for claim in found.current.claims)
            return found.status == "finished"

        view = await wait_for_job(network.nodes[0], job, is_over, 900)
        assert "disputed" in seen and "suspended" not in seen  # nobody had to replay the segment but its challengers
        liar, honest = network.keys[LIAR].account, sorted(key.account for key in network.keys[:LIAR])
        one, two = view.rounds
        assert next(claim for claim in one.claims if claim.trainer == liar).status.startswith("refuted")
        taken = [payment for payment in one.payments if payment.reason == "slash"]
        assert [(payment.account, payment.amount) for payment in taken] == [(liar, STAKE // 2)]
        (found,) = [payment for payment in one.payments if payment.reason == "refutation"]
        assert found.account in honest and found.amount == STAKE // 4
        assert list(one.outcome.accepted) == list(two.outcome.accepted) == honest
        assert [claim.trainer for claim in two.claims] == honest

"""`milon testnet down` in the middle of a job and `up` again: the same chain, and the job goes on to its end."""

from __future__ import annotations

import pytest

from tests.system.live import PATIENT, Live, run_milon, wait_for

pytestmark = pytest.mark.system

ROUNDS = 2


def test_down_in_the_middle_and_up_again(network: Live) -> None:
    job = network.submit("--rounds", str(ROUNDS), "--audit", "0.25", "--term", "trainers-target=4", *PATIENT)
    network.wait_round(0, job, 1)
    running = network.wait_job(0, job, "an open round", lambda found: found["current"] is not None)
    height = network.wait_same_tip()
    known = network.block(0, height)
    assert known is not None and running["status"] == "running"

    ended = network.down()
    assert ended == {"ended": 4, "killed": []}
    assert run_milon("testnet", "status", "--dir", network.root, codes=(1,)).answer["nodes"][0]["height"] is None

    network.up()
    hashes = {(network.block(index, height) or {}).get("hash") for index in range(4)}
    assert hashes == {known["hash"]}
    found = network.wait_finished(3, job)
    assert len(found["rounds"]) == ROUNDS and found["rounds"][0] == running["rounds"][0]
    assert sum(bool(closed["outcome"]["void"]) for closed in found["rounds"]) <= 1
    wait_for("all nodes at the job's end", lambda: all(is_over(network, index, job) for index in range(4)))
    tip = network.wait_same_tip()
    assert tip > height


def is_over(network: Live, index: int, job: str) -> bool:
    """Whether the node has seen the job's end."""
    found = network.job(index, job)
    return found is not None and found["status"] == "finished"


def test_a_true_block_is_valid_for_a_stranger(network: Live) -> None:
    """The last learning block of the chain, by its hash; as text, as a person asks for it."""
    jobs = network.ask(0, lambda client: client.jobs())
    job = network.job(0, jobs[-1]["job"]) if jobs else None
    if not job or not job["rounds"]:
        job = network.wait_finished(0, network.submit("--rounds", "1", "--audit", "0.25", *PATIENT))
    closed = [closed for closed in job["rounds"] if not closed["outcome"]["void"]][-1]
    block, status = network.block(0, closed["height"]), network.status(0)
    assert block is not None and status is not None
    known = ("--bootstrap", status["addresses"][0], "--genesis-hash", status["genesis_hash"])
    ran = run_milon("verify-block", block["hash"], *known)
    assert ran.answer["verdict"] == "valid" and ran.answer["height"] == closed["height"]
    total = sum(claim["count"] for claim in closed["claims"] if claim["status"] == "accepted")
    assert ran.answer["segments_replayed"] == ran.answer["segments_total"] == total > 0

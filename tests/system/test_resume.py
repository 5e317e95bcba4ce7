"""kill -9 of a trainer between two segments: it goes on where it stood, and its claim is accepted.

The node comes back with no room for checkpoints at all: its verifiers get states that it computes again, and accept.
"""

from __future__ import annotations

import dataclasses

import pytest

from milon.node.config import load_config, save_config
from milon.node.folder import NodeFolder
from tests.system.live import PATIENT, Json, Live, wait_for

pytestmark = pytest.mark.system

SUBMITTING = 0
TRIES = 3  # to kill a node in the right moment
TERMS = ("--rounds", "1", "--audit", "1", "--term", "trainers-min=4", "--term", "trainers-target=4", *PATIENT)
WORK = ("--term", "segments-per-round=12", "--term", "steps-per-segment=80", "--term", "committee-size=2")


def wait_between_segments(network: Live) -> tuple[int, int]:
    """A trainer that has finished some of its segments and not all, and how many: who gets how many, speed decides."""

    def probe() -> tuple[int, int] | None:
        for index in range(len(network.folders)):
            status = network.status(index)
            for work in status["working"] if status else ():
                if work["kind"] == "train" and 0 < work["segment"] < work["total"]:
                    return index, int(work["segment"])
        return None

    found: tuple[int, int] = wait_for("a trainer in the middle of its segments", probe, pause_s=0.05)
    return found


def kill_in_the_middle(network: Live) -> tuple[str, int, int]:
    """A job, the trainer that was killed in it, and how many segments it had finished at least."""
    for _ in range(TRIES):
        job = network.submit(*TERMS, *WORK, node=SUBMITTING)
        victim, done = wait_between_segments(network)
        network.kill(victim)
        if not [*network.folders[victim].work.glob(f"{job}-0-*.round")]:
            return job, victim, done
        network.up()
        network.wait_finished(victim, job)
    raise AssertionError(f"{TRIES} times a trainer had finished all its segments by the time it was killed")


def lines_after(folder: NodeFolder, mark: int, words: str) -> list[str]:
    """What a node's log says with these words since it was `mark` characters long."""
    said = folder.log.read_text(errors="replace")[mark:]
    return [line for line in said.splitlines() if words in line]


def claim_of(found: Json, account: str) -> Json:
    claims: list[Json] = [claim for claim in found["rounds"][0]["claims"] if claim["trainer"] == account]
    assert len(claims) == 1
    return claims[0]


def test_a_killed_trainer_goes_on_and_shows_states_it_did_not_keep(network: Live) -> None:
    job, victim, done = kill_in_the_middle(network)
    folder = network.folders[victim]
    settings = load_config(folder)
    mark = len(folder.log.read_text(errors="replace"))
    try:
        save_config(folder, dataclasses.replace(settings, checkpoint_bytes_max=0))
        network.up()
        found = network.wait_finished((victim + 1) % len(network.folders), job)
    finally:
        save_config(folder, settings)
    resumed = [int(line.rpartition(" after ")[2].split()[0]) for line in lines_after(folder, mark, "goes on after")]
    assert len(resumed) == 1 and resumed[0] >= done, "it trains again only what was not finished"
    assert lines_after(folder, mark, "is here again"), "nobody asked for a state that was not kept"
    claim = claim_of(found, network.accounts[victim])
    assert claim["status"] == "accepted" and claim["count"] > done, claim
    assert not found["rounds"][0]["outcome"]["void"] and not found["rounds"][0]["outcome"]["refused"]
    assert not [pay for pay in found["rounds"][0]["payments"] if pay["reason"] == "slash"]
    network.wait_same_tip()
    wait_for("what was kept of the round is gone", lambda: not [*folder.work.glob(f"{job}-*")])

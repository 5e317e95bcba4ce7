"""kill -9 in the middle of a round: the job goes on, at most one round is lost, and who comes back takes part again."""

from __future__ import annotations

import pytest

from tests.system.live import Json, Live, wait_for

pytestmark = pytest.mark.system

ROUNDS = 24  # some eight for each of two kills and returns, and a few to begin and to end with
CLAIM_BLOCKS = 15  # a round waits so long for the dead
TERMS = ("--audit", "0", "--term", "trainers-target=4", "--term", f"claim-blocks={CLAIM_BLOCKS}")


def find_next_proposer(network: Live, index: int) -> int:
    """The node whose turn comes next, where all have equal stake: the one that proposed as many blocks ago."""
    tip = network.status(index)
    assert tip is not None
    proposers = [(network.block(index, tip["height"] - back) or {}) for back in range(len(network.folders))]
    return network.accounts.index(proposers[-1]["header"]["proposer"])


def wait_middle(network: Live, index: int, job: str) -> Json:
    """A moment in which a round is being trained and somebody's claim is missing."""

    def is_in_the_middle(found: Json) -> bool:
        current = found["current"]
        return bool(current and current["phase"] == "train" and len(current["claims"]) < len(current["assignments"]))

    return network.wait_job(index, job, "the middle of a round", is_in_the_middle)


def has_claimed(found: Json, account: str, first: int) -> bool:
    """Whether the account has an accepted claim in a closed round from `first` on."""
    return any(
        claim["trainer"] == account and claim["status"] == "accepted"
        for closed in found["rounds"][first:]
        for claim in closed["claims"]
    )


def kill_and_bring_back(network: Live, victim: int, witness: int, job: str) -> None:
    """Kill a node; two rounds close without it; start it again; it comes to the same tip and has a claim accepted."""
    before = wait_middle(network, witness, job)["round"]
    network.kill(victim)
    network.wait_round(witness, job, before + 2)
    network.up()
    network.wait_same_tip()
    back = network.job(victim, job)
    assert back is not None and back["status"] == "running", "the job ended before the node was back"
    account, first = network.accounts[victim], back["round"]
    network.wait_job(witness, job, f"node {victim} trains again", lambda found: has_claimed(found, account, first))


def test_kill_9_of_the_proposer_and_of_the_node_that_took_the_job(network: Live) -> None:
    job = network.submit("--rounds", str(ROUNDS), *TERMS, node=0)
    network.wait_round(1, job, 1)
    victim = find_next_proposer(network, 1)
    kill_and_bring_back(network, victim, witness=(victim + 1) % 4, job=job)
    kill_and_bring_back(network, 0, witness=1, job=job)  # the first bootstrap address of all others, too
    found = network.wait_finished(1, job)
    void = [closed["round"] for closed in found["rounds"] if closed["outcome"]["void"]]
    assert len(found["rounds"]) == ROUNDS and len(void) <= 2, f"void rounds: {void}"
    assert not [pay for closed in found["rounds"] for pay in closed["payments"] if pay["reason"] == "slash"]
    states = wait_for("the same model everywhere", lambda: same_state(network, job, ROUNDS))
    assert states == {found["state"]}
    network.assert_all_run()


def same_state(network: Live, job: str, rounds: int) -> set[str] | None:
    """The states of all nodes once each has seen all rounds."""
    views = [network.job(index, job) for index in range(len(network.folders))]
    is_there = all(view is not None and view["round"] == rounds for view in views)
    return {view["state"] for view in views if view is not None} if is_there else None

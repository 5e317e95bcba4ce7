"""kill -9 in the middle of a round: others take its segments over, the job goes on, and who comes back is in again."""

from __future__ import annotations

import pytest

from tests.system.live import Json, Live, wait_for

pytestmark = pytest.mark.system

CLAIM_BLOCKS = 20  # a round waits so long for the dead
TERMS = ("--audit", "0", "--term", "trainers-target=4", "--term", f"claim-blocks={CLAIM_BLOCKS}")


def find_next_proposer(network: Live, index: int) -> int:
    """The node whose turn comes next, where all have equal stake: the one that proposed as many blocks ago."""
    tip = network.status(index)
    assert tip is not None
    oldest = network.block(index, tip["height"] - len(network.folders) + 1)
    assert oldest is not None
    return network.accounts.index(oldest["header"]["proposer"])


def wait_middle(network: Live, index: int, job: str) -> Json:
    """A moment in which a round is being trained and somebody's claim is missing."""

    def is_in_the_middle(found: Json) -> bool:
        current = found["current"]
        return bool(current and current["phase"] == "train" and len(current["claims"]) < len(current["assignments"]))

    return network.wait_job(index, job, "the middle of a round", is_in_the_middle)


def assert_nothing_but_one_round_lost(found: Json, rounds: int) -> None:
    """The job is whole, at most one of its rounds is void, and nobody lost stake."""
    void = [closed["round"] for closed in found["rounds"] if closed["outcome"]["void"]]
    assert len(found["rounds"]) == rounds and len(void) <= 1, f"void rounds: {void}"
    assert not [pay for closed in found["rounds"] for pay in closed["payments"] if pay["reason"] == "slash"]


def assert_taken_over(found: Json, first: int, missing: str) -> None:
    """In the first round from `first` on without a claim of `missing`, others trained its segments beside their own."""
    closed = next(
        closed for closed in found["rounds"][first:] if missing not in [claim["trainer"] for claim in closed["claims"]]
    )
    accepted = [claim for claim in closed["claims"] if claim["status"] == "accepted"]
    segments = sorted(claim["first"] + place for claim in accepted for place in range(claim["count"]))
    assert segments == list(range(found["terms"]["segments_per_round"])), f"round {closed['round']}: {closed['claims']}"
    own = {claim["claim"]: claim["trainer"] for claim in accepted}
    taken = [claim for claim in accepted if claim["continues"]]
    assert taken and all(own[claim["continues"]] == claim["trainer"] for claim in taken)


def assert_same_everywhere(network: Live, job: str, found: Json) -> None:
    """All nodes come to the job's end with the same model."""

    def views() -> list[Json]:
        seen = [network.job(index, job) for index in range(len(network.folders))]
        return [view for view in seen if view is not None and view["status"] == "finished"]

    wait_for("the job's end on all nodes", lambda: len(views()) == len(network.folders))
    assert {view["state"] for view in views()} == {found["state"]}
    network.wait_same_tip()


def test_kill_9_of_the_proposer(network: Live) -> None:
    """Nobody touches anything until the job is finished by the other three, who take over the dead one's segments."""
    rounds = 5
    job = network.submit("--rounds", str(rounds), "--term", "trainers-min=3", *TERMS, node=0)
    network.wait_round(0, job, 1)
    before = wait_middle(network, 0, job)["round"]
    victim = find_next_proposer(network, 0)
    network.kill(victim)
    witness = (victim + 1) % len(network.folders)
    found = network.wait_finished(witness, job)
    assert_nothing_but_one_round_lost(found, rounds)
    assert_taken_over(found, before, network.accounts[victim])
    late = [claim for closed in found["rounds"][before + 1 :] for claim in closed["claims"]]
    assert late and network.accounts[victim] not in [claim["trainer"] for claim in late]
    network.up()
    assert_same_everywhere(network, job, found)


def test_kill_9_of_the_first_node_which_returns_to_the_job(network: Live) -> None:
    """Bootstrap address of the others, and the node that took the job; four trainers are needed, so the job waits."""
    rounds = 4
    job = network.submit("--rounds", str(rounds), "--term", "trainers-min=4", *TERMS, node=0)
    network.wait_round(1, job, 1)
    before = wait_middle(network, 1, job)["round"]
    network.kill(0)
    network.wait_round(1, job, before + 1)
    network.up()
    network.wait_same_tip()
    found = network.wait_finished(1, job)
    assert_nothing_but_one_round_lost(found, rounds)
    for closed in found["rounds"][before + 2 :]:
        accepted = [claim["trainer"] for claim in closed["claims"] if claim["status"] == "accepted"]
        assert network.accounts[0] in accepted, f"round {closed['round']} without the node that came back"
    assert_same_everywhere(network, job, found)

"""The main job: five processes train the digits, the poisoner is caught, and anyone checks the result."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.demo import ACCURACY_MIN, NODES, list_faults, poisoner_of, run_demo
from tests.system.live import PATIENT, group_members

pytestmark = pytest.mark.system

ROUNDS = 4  # three with the poisoner, one without
FEW = 3  # nodes: a plain mean fails with any number of them

ROUND_KEYS = {"round", "accuracy", "loss", "accepted", "refused"}
KEYS = {
    "rounds", "slashed", "rewards", "model_digest", "digests_by_node", "verify", "plain_torch_accuracy", "seconds",
}  # fmt: skip


def test_five_nodes_train_the_digits_and_catch_the_poisoner(tmp_path: Path) -> None:
    report, text = run_demo(tmp_path, "--rounds", str(ROUNDS))
    poisoner = poisoner_of(tmp_path)
    assert set(report) == KEYS and len(report["rounds"]) == ROUNDS
    for number, entry in enumerate(report["rounds"]):
        assert set(entry) == ROUND_KEYS and entry["round"] == number
        assert all(set(refusal) == {"trainer", "reason"} for refusal in entry["refused"])
    assert list_faults(report, poisoner) == []

    reasons = [
        [refusal["reason"] for refusal in entry["refused"] if refusal["trainer"] == poisoner]
        for entry in report["rounds"]
    ]
    assert all("points against" in reasons[number][0] for number in (0, 1)), reasons  # the rule alone
    assert "refuted" in reasons[2][0] and "replays to other bits" in reasons[2][0]  # every validator's replay
    assert not any(reasons[3:])  # barred: it has no part in later rounds
    (slash,) = report["slashed"]
    assert set(slash) == {"account", "amount", "reason"} and slash["account"] == poisoner
    assert slash["amount"] == 500_000 and "refuted" in slash["reason"]

    assert len(report["digests_by_node"]) == NODES and set(report["verify"]) == {
        "height", "verdict", "segments_replayed",
    }  # fmt: skip
    assert report["verify"]["segments_replayed"] > 0 and report["seconds"] > 0
    assert sum(report["rewards"].values()) > 0 and "the same on all 5 nodes" in text
    pids = [int(path.read_text().split()[0]) for path in (tmp_path / "net").glob("node*/node.pid")]
    assert not [pid for pid in pids if group_members(pid)]  # all ended


def test_the_same_run_without_a_robust_rule_and_without_audit_collapses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten times the update, turned around and taken by a plain mean, undoes what two honest trainers learn."""
    terms = (f"--term=trainers-min={FEW}", *PATIENT)
    options = ("--rounds=2", "--aggregator=mean", "--audit=0", "--expect=collapse", "--verify-segments=0")
    report, text = run_demo(tmp_path, f"--nodes={FEW}", *options, *terms)
    accuracy = report["rounds"][-1]["accuracy"]
    assert accuracy < ACCURACY_MIN and report["slashed"] == []
    assert all(poisoner_of(tmp_path) in entry["accepted"] for entry in report["rounds"])
    assert report["plain_torch_accuracy"] == accuracy
    assert f"{100 * accuracy:.2f} % on the chain, {100 * accuracy:.2f} % in plain PyTorch" in text
    with capsys.disabled():
        print(f"\nmean without audit: accuracy {accuracy:.4f}, where the default reaches {ACCURACY_MIN} and more")

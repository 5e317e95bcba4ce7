"""The figures of `make bench-proof`: what is counted, and that what is measured is measured."""

from __future__ import annotations

import pytest

from bench import proof


def test_bytes_of_a_claim_grow_with_its_segments_and_its_verifiers() -> None:
    small, large = proof.count_claim_bytes(4, 3), proof.count_claim_bytes(64, 3)
    assert large["claim"] - small["claim"] <= 2 and small["attestations"] == large["attestations"]
    assert large["opening"] > 10 * small["opening"]
    assert proof.count_claim_bytes(4, 6)["commitments"] == 2 * small["commitments"]
    assert small["total"] == sum(small[name] for name in ("claim", "commitments", "attestations", "opening"))


def test_three_replays_of_64_cost_a_twentieth_and_catch_a_quarter() -> None:
    found = proof.weigh("3 of 64", 1.0, beacons=40)
    assert found["verification_over_training"] == pytest.approx(3 / 64)
    assert found["is_within_goal"]
    chances = {row["false_percent"]: row for row in found["detection"]}
    assert chances[10]["caught_a_round"] == pytest.approx(0.2708, abs=1e-4)
    assert chances[10]["rounds_until_99_percent"] == 15
    assert found["measured_replays_of_a_claim"] == 3 and chances[50]["measured_a_round"] > 0.6


def test_the_default_keeps_to_the_goal_and_a_quarter_does_not() -> None:
    usual = proof.weigh("default", 1.0, beacons=1)
    assert usual["verification_over_training"] == pytest.approx(3 / 64) and usual["is_within_goal"]
    large = proof.weigh("a quarter", 1.0, beacons=1)
    assert large["verification_over_training"] == pytest.approx(0.75) and not large["is_within_goal"]
    found = {"audits": [usual, large], "models": [], "large_models": []}
    rows = {row["name"]: row for row in proof.make_rows(found)}
    assert rows["audit default: verification"]["ratio"] == pytest.approx(0.9375, abs=1e-3)
    assert all(set(row) == {"name", "ours", "theirs", "ratio", "unit"} for row in rows.values())


def test_a_model_is_measured() -> None:
    row = proof.measure_model("perceptron", 1, 1)
    assert row["step_s"] > 0 and row["replay_over_training"] > 0 and row["commitments_over_step"] > 0
    assert row["state_bytes"] > 1_000

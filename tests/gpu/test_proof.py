"""The figures of `make bench-proof`: what is counted, and that what is measured is measured."""

from __future__ import annotations

import pytest

from bench import proof


def test_bytes_of_a_claim_grow_with_its_segments_and_its_verifiers() -> None:
    small, large = proof.count_claim_bytes(4, 3), proof.count_claim_bytes(64, 3)
    assert large["claim"] - small["claim"] <= 1 and small["attestations"] == large["attestations"]
    assert large["opening"] > 10 * small["opening"]
    assert proof.count_claim_bytes(4, 6)["commitments"] == 2 * small["commitments"]
    assert small["total"] == sum(small[name] for name in ("claim", "commitments", "attestations", "opening"))


def test_three_replays_of_64_cost_a_twentieth_and_catch_a_quarter() -> None:
    found = proof.weigh("3 of 64", 1.0)
    assert found["verification_over_training"] == pytest.approx(3 / 64)
    assert found["is_within_goal"]
    chances = {row["false_percent"]: row for row in found["detection"]}
    assert chances[10]["caught_a_round"] == pytest.approx(0.271) and chances[10]["rounds_until_99_percent"] == 15
    assert not proof.weigh("default", 1.0)["is_within_goal"]


def test_a_model_is_measured() -> None:
    row = proof.measure_model("perceptron", 1, 1)
    assert row["step_s"] > 0 and row["replay_over_training"] > 0 and row["commitments_over_step"] > 0
    assert row["state_bytes"] > 1_000

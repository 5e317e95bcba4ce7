"""A few attempts at every attack of the campaign, none accepted; and the published ones fool a plain verifier."""

from __future__ import annotations

import dataclasses
from itertools import islice

import pytest

from tests.attacks import campaign, chain_attacks, spoofing, tolerance
from tests.attacks.campaign import ATTACKS, CONTROL, is_good, run_attack, run_sampling
from tests.attacks.rates import compute_catch, compute_catch_exactly, estimate


@pytest.mark.parametrize("name", [CONTROL, *ATTACKS])
def test_no_attempt_is_accepted(name: str) -> None:
    row = run_attack(name, 2)
    assert is_good(row), row
    if name in spoofing.ATTACKS:
        assert row["fools_a_tolerance_verifier"] == row["attempts"]


def test_a_tolerance_verifier_accepts_honest_proofs_and_refuses_nonsense() -> None:
    """So that what the published attacks get past is a verifier at all."""
    proof = tolerance.train_honestly(3, 12)
    assert tolerance.accepts(proof) and tolerance.accepts(proof, 2)
    jump = dataclasses.replace(proof, checkpoints=(*proof.checkpoints[:-1], spoofing.steal(3)))
    assert not tolerance.accepts(jump)
    assert not tolerance.accepts(jump, 1)
    unlike_a_draw = dataclasses.replace(proof, checkpoints=(spoofing.steal(3), *proof.checkpoints[1:]))
    assert not tolerance.looks_random({name: tensor * 2 for name, tensor in unlike_a_draw.checkpoints[0].items()})


def test_samples_catch_as_often_as_predicted() -> None:
    for sampling in (campaign.SAMPLINGS[2], campaign.SAMPLINGS[5]):
        row = run_sampling(sampling, 20)
        assert is_good(row), row


def test_a_sample_that_follows_from_the_claim_alone_is_ground_away() -> None:
    """The careless design, so that the product's measured rate under grinding says something."""
    caught = sum(islice(chain_attacks.try_plain_grinding(6, 4), 10))
    assert caught == 0
    assert compute_catch_exactly(64, 6, 1, 4) > 0.3


def test_claims_with_false_segments_are_refuted_on_the_chain() -> None:
    row = run_sampling(campaign.SAMPLINGS[-1], 8)
    assert is_good(row), row


def test_rates() -> None:
    assert compute_catch(0.1, 3) == pytest.approx(0.271)
    assert compute_catch_exactly(4, 2, 1, 3) == 1.0
    assert compute_catch_exactly(64, 1, 1, 16) == pytest.approx(0.25)
    found = estimate(500, 1_000)
    assert found.holds(0.5) and found.low == pytest.approx(0.469, abs=1e-3)
    assert estimate(0, 1_000).low == pytest.approx(0.0)

"""A user's terms: sensible without a word, and refused in clear words where they cannot work."""

from typing import Any

import pytest

from milon.client.terms import DEFAULT_SLASH_PPM, JobError, compute_evaluation_batches, compute_terms
from milon.pol.quote import compute_quote
from milon.pol.terms import compute_cost_max, verify_terms


def test_the_defaults_work() -> None:
    terms, reward = compute_terms({})
    verify_terms(terms)
    assert reward == compute_cost_max(terms) > 0
    assert (terms.aggregator, terms.trainers_min, terms.trainers_target) == ("arc,nnm,trimmed-mean", 3, 5)


def test_a_reward_sets_the_prices_and_covers_the_job() -> None:
    terms, reward = compute_terms({"reward": 1_000_000, "audit": (0, 1)})
    assert reward == 1_000_000 >= compute_cost_max(terms)
    assert terms.segment_price == terms.replay_price > 0
    assert reward - compute_cost_max(terms) < compute_cost_max(terms) // terms.segment_price


def test_prices_set_the_reward() -> None:
    terms, reward = compute_terms({"segment_price": 70, "replay_price": 7, "audit": 0.5, "rounds": 2})
    assert (terms.segment_price, terms.replay_price) == (70, 7)
    assert reward == compute_cost_max(terms)


def test_audit_is_a_share_or_parts_per_million() -> None:
    assert compute_terms({"audit": 0.25})[0].audit_ppm == (250_000,)
    assert compute_terms({"audit": (0, 0, 1)})[0].audit_ppm == (0, 0, 1_000_000)
    assert compute_terms({"audit_ppm": [5]})[0].audit_ppm == (5,)


def test_the_bond_outweighs_what_one_false_segment_gains() -> None:
    """Where all of a bond is lost, it must be 38 prices at an audit rate of 5 % (docs/security.md); half of it is."""
    lone = {"committee_size": 1, "segment_price": 10}
    assert compute_terms({"audit": 0.05, **lone})[0].bond_min == 2 * 380
    assert compute_terms({"audit": 0})[0].bond_min == 0


def test_the_default_audit_is_the_goals_and_its_bond_is_enough() -> None:
    terms, _ = compute_terms({})
    found = compute_quote(terms, DEFAULT_SLASH_PPM)
    assert int(found.replays_ppm) / int(found.segments) == 46_875, "4.7 % of the training, all verifiers together"
    assert found.is_bond_enough and terms.bond_min == found.bond
    assert 82 * terms.segment_price < terms.bond_min < 84 * terms.segment_price


def test_a_larger_tolerance_asks_for_more_trainers() -> None:
    terms, _ = compute_terms({"faulty_count": 2, "aggregator": "multi-krum"})
    assert (terms.trainers_min, terms.trainers_target) == (7, 7)


def test_named_trainers_are_sorted_accounts() -> None:
    terms, _ = compute_terms({"trainers": ["02" * 32, "01" * 32, "03" * 32]})
    assert [account[0] for account in terms.trainers] == [1, 2, 3]


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"round": 3}, "did you mean rounds"),
        ({"xyzzy": 3}, "the terms are"),
        ({"rounds": 0}, "rounds is 0; it may be 1 to 10000"),
        ({"rounds": 1.5}, "whole number"),
        ({"batch_size": True}, "whole number"),
        ({"aggregator": "best"}, "trimmed-mean"),
        ({"audit": 25}, "0 to 1"),
        ({"audit": ()}, "0 to 1"),
        ({"audit": 0.1, "audit_ppm": (1,)}, "twice"),
        ({"audit_ppm": (2_000_000,)}, "more than everything"),
        ({"reward": 5}, "offer at least"),
        ({"reward": 5, "segment_price": 1}, "raise the reward"),
        ({"trainers_min": 2}, "raise trainers_min to 3"),
        ({"segments_per_round": 2}, "Raise segments_per_round"),
        ({"trainers": ["xy"]}, "hexadecimal"),
        ({"trainers": ["01"]}, "64 hexadecimal"),
        ({"trainers": ["01" * 32]}, "1 trainers are named where 3 are needed"),
        ({"trainers_target": 2}, "trainers_target is 2"),
    ],
)
def test_what_cannot_work_is_said(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(JobError, match=words):
        compute_terms(choices)


@pytest.mark.parametrize(("rows", "sizes"), [(1, (1,)), (512, (512,)), (1024, (512,)), (1025, (512, 1))])
def test_evaluation_batches_cover_all_rows(rows: int, sizes: tuple[int, ...]) -> None:
    assert compute_evaluation_batches(rows, 32) == sizes


def test_how_challenges_are_settled_is_a_term() -> None:
    assert compute_terms({})[0].settlement.value == "replay"
    assert compute_terms({"settlement": "bisection", "dispute_blocks": 9})[0].settlement.value == "bisection"
    with pytest.raises(JobError, match="replay or bisection"):
        compute_terms({"settlement": "duel"})

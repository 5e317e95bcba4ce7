"""The terms of a job: ranges, audit rates, and the most it can cost."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.base.units import Amount, Count
from milon.pol.aggregation import Rule
from milon.pol.terms import (
    EvaluationProgram,
    JobSpec,
    JobTerms,
    audit_ppm_of,
    compute_cost_max,
    replays_max_per_member,
    verify_spec,
    verify_terms,
)

TERMS = JobTerms(
    rounds=Count(3),
    segments_per_round=Count(20),
    steps_per_segment=Count(8),
    batch_size=Count(32),
    aggregator=Rule.TRIMMED_MEAN,
    faulty_count=Count(1),
    audit_ppm=(Count(0), Count(250_000)),
    committee_size=Count(3),
    trainers_min=Count(3),
    trainers_target=Count(5),
    enrol_blocks=Count(20),
    claim_blocks=Count(60),
    attest_blocks=Count(20),
    judge_blocks=Count(20),
    aggregate_blocks=Count(20),
    segment_price=Amount(100),
    replay_price=Amount(10),
    bond_min=Amount(1_000),
    trainers=(),
)
SPEC = JobSpec(
    name="digits",
    train=Digest(bytes(32)),
    evaluate=(EvaluationProgram(Count(64), Digest(bytes(32))), EvaluationProgram(Count(8), Digest(bytes(32)))),
    predict=Digest(bytes(32)),
    initial_state=Digest(bytes(32)),
    train_rows=Digest(bytes(32)),
    evaluation_rows=Digest(bytes(32)),
    terms=TERMS,
)


def test_good_terms_pass_and_travel() -> None:
    verify_spec(SPEC)
    assert decode(JobSpec, encode(SPEC)) == SPEC


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rounds", 0),
        ("rounds", 10_001),
        ("segments_per_round", 0),
        ("steps_per_segment", 0),
        ("batch_size", 0),
        ("committee_size", 33),
        ("trainers_target", 2),
        ("claim_blocks", 2),
        ("reassign_blocks", 1_000_001),
        ("audit_ppm", ()),
        ("audit_ppm", (1_000_001,)),
        ("bond_min", 1 << 61),
    ],
)
def test_terms_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(Rejected) as refused:
        verify_terms(dataclasses.replace(TERMS, **{field: value}))
    assert refused.value.reason is Reason.OUT_OF_RANGE


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "x" * 129},
        {"name": "a\x1b[2J"},
        {"evaluate": ()},
        {"evaluate": SPEC.evaluate * 2},
        {"evaluate": SPEC.evaluate[::-1]},
        {"evaluate": (EvaluationProgram(Count(0), Digest(bytes(32))),)},
        {"terms": dataclasses.replace(TERMS, rounds=Count(0))},
    ],
)
def test_a_bad_spec_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Rejected) as refused:
        verify_spec(dataclasses.replace(SPEC, **change))
    assert refused.value.reason is Reason.OUT_OF_RANGE


def test_the_last_audit_rate_holds_for_the_rest() -> None:
    assert [audit_ppm_of(TERMS, number) for number in range(4)] == [0, 250_000, 250_000, 250_000]


def test_replays_are_at_most_rounded_up() -> None:
    assert [replays_max_per_member(4, ppm) for ppm in (0, 1, 250_000, 250_001, 1_000_000)] == [0, 1, 1, 2, 4]


def test_the_cost_of_a_small_job() -> None:
    """Round 0 pays 20 segments; rounds 1 and 2 also 3 members with 5 + 5 replays at the most."""
    assert compute_cost_max(TERMS) == 3 * 20 * 100 + 2 * 3 * 10 * 10


@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=5), ppm=st.integers(0, 1_000_000))
def test_no_split_among_the_wanted_trainers_costs_more(counts: list[int], ppm: int) -> None:
    terms = dataclasses.replace(TERMS, rounds=Count(1), segments_per_round=Count(sum(counts)), audit_ppm=(Count(ppm),))
    replays = sum(replays_max_per_member(count, ppm) for count in counts)
    paid = sum(counts) * terms.segment_price + replays * terms.committee_size * terms.replay_price
    assert paid <= compute_cost_max(terms)

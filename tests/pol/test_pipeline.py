"""The text that names an aggregation, and how many updates it needs."""

from __future__ import annotations

import pytest

from milon.base.errors import Reason, Rejected
from milon.pol.pipeline import FACTS, Outer, Preparation, Rule, Step, compute_count_needed, parse_pipeline


def test_a_rule_alone_is_a_pipeline() -> None:
    for rule in Rule:
        found = parse_pipeline(rule)
        assert (found.text, found.preparations, found.rule, found.outer) == (rule.value, (), rule, Outer.PLAIN)
        assert type(found.text) is str


def test_parts_and_their_numbers() -> None:
    found = parse_pipeline("clip:1500,arc,nnm,bucketing:3,centered-clipping:800,nesterov:950:300")
    kinds = [step.kind for step in found.preparations]
    assert kinds == [Preparation.CLIP, Preparation.ARC, Preparation.NNM, Preparation.BUCKETING]
    assert found.preparations[0] == Step(Preparation.CLIP, (1_500,))
    assert (found.rule, found.rule_numbers) == (Rule.CENTERED_CLIPPING, (800,))
    assert (found.outer, found.outer_numbers) == (Outer.NESTEROV, (950, 300))
    assert parse_pipeline("median,nesterov:800").outer_numbers == (800, 700)
    assert parse_pipeline("bucketing,median").preparations[0].numbers == (2,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Reason.MALFORMED),
        ("best", Reason.UNKNOWN),
        ("Median", Reason.UNKNOWN),
        (" median", Reason.UNKNOWN),
        ("arc", Reason.MALFORMED),
        ("nesterov", Reason.MALFORMED),
        ("nesterov,median", Reason.MALFORMED),
        ("median,arc", Reason.MALFORMED),
        ("median,krum", Reason.MALFORMED),
        ("arc,arc,median", Reason.MALFORMED),
        ("median,plain,adam", Reason.MALFORMED),
        ("median,nesterov,", Reason.UNKNOWN),
        ("median:2", Reason.MALFORMED),
        ("bucketing:,median", Reason.MALFORMED),
        ("bucketing:02,median", Reason.MALFORMED),
        ("bucketing:-2,median", Reason.MALFORMED),
        ("bucketing:\u0662,median", Reason.MALFORMED),
        ("bucketing:1,median", Reason.OUT_OF_RANGE),
        ("bucketing:65,median", Reason.OUT_OF_RANGE),
        ("median,momentum:1000", Reason.OUT_OF_RANGE),
        ("median," + "a" * 200, Reason.MALFORMED),
    ],
)
def test_what_is_no_pipeline(text: str, reason: Reason) -> None:
    with pytest.raises(Rejected) as refusal:
        parse_pipeline(text)
    assert refusal.value.reason is reason


@pytest.mark.parametrize(
    ("text", "faulty_count", "needed"),
    [
        ("mean", 3, 1),
        ("clip,mean", 3, 7),
        ("nnm,median", 2, 5),
        ("arc,nnm,multi-krum", 2, 7),
        ("bucketing:2,median", 2, 9),
        ("bucketing:3,multi-krum", 1, 13),
        ("bucketing:2,nnm,median", 2, 9),
        ("arc,bucketing:2,bulyan,adam", 1, 13),
    ],
)
def test_preparations_add_to_what_is_needed(text: str, faulty_count: int, needed: int) -> None:
    assert compute_count_needed(text, faulty_count) == needed


def test_every_part_says_what_it_bears_and_needs() -> None:
    assert set(FACTS) == {*Rule, *Preparation, *Outer}
    assert all(facts.summary and facts.breakdown and facts.needs and facts.source for facts in FACTS.values())

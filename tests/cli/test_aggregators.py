"""The list of aggregators, and a round's aggregation for people."""

from __future__ import annotations

import pytest

from milon.pol.pipeline import FACTS, parse_pipeline
from milon_cli.aggregators import describe_report
from tests.cli.conftest import Milon


def test_every_part_is_listed_with_what_it_bears_and_needs(milon: Milon) -> None:
    told = milon("aggregators")
    assert told.code == 0
    for name, facts in FACTS.items():
        line = next(line for line in told.out.splitlines() if line.split()[:1] == [str(name)])
        assert facts.breakdown in line and facts.needs in line
    parts = milon("aggregators", "--json").json["aggregators"]
    assert {part["name"] for part in parts} == {str(name) for name in FACTS}
    forms = {"preparation": "{},median", "rule": "{}", "outer optimizer": "median,{}"}
    for part in parts:
        text = forms[part["kind"]].format(part["name"])
        assert parse_pipeline(text).text == text


@pytest.mark.parametrize(("is_agreed", "words"), [(True, "as validators agreed"), (False, "OTHERWISE")])
def test_a_report_names_everybody_and_why(is_agreed: bool, words: str) -> None:
    standing = {"account": "aa" * 32, "steps": 40, "weight": 40, "part_ppm": 250_000, "distance_percent": 101}
    taken = {**standing, "score_percent": 99, "reason": ""}
    refused = {**standing, "account": "bb" * 32, "score_percent": 0, "reason": "too far"}
    report = {"pipeline": "arc,multi-krum", "faulty_count": 1, "steps": 40, "standings": [taken, refused]}
    found = {
        "round": 3, "is_agreed": is_agreed, "report": report, "finals": ["cc" * 32, "dd" * 32], "before": "11" * 32,
        "after": "22" * 32, "void": "",
    }  # fmt: skip
    lines = list(describe_report(found))
    assert "arc,multi-krum" in lines[0] and words in lines[2]
    assert "part 25.00 %, distance 101 %, score 99 %" in lines[3]
    assert lines[-1].strip() == "refused: too far"
    assert "void: too few" in list(describe_report({**found, "void": "too few"}))[1]

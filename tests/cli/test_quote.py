"""`milon job quote`: what it prints, from words and from a job on the chain."""

from pathlib import Path

import pytest

from tests.api.fake_node import JOB
from tests.cli.conftest import Milon

# 64 segments for one trainer and three members that replay one each: the figures of docs/security.md.
WORDS = (
    "--rounds", 2, "--audit", "0.015625", "--term", "segments-per-round=64", "--term", "trainers-min=1",
    "--term", "trainers-target=1", "--term", "aggregator=mean", "--term", "faulty-count=0",
    "--term", "segment-price=100", "--term", "replay-price=10",
)  # fmt: skip


def test_price_chances_and_bond(milon: Milon) -> None:
    found = milon("job", "quote", *WORDS, "--false-share", "0.05", "--json").json
    assert (found["segments"], found["replays_ppm"]) == (64, 3_000_000)
    assert found["segments_max"] == 2 * 64 * 100
    chances = {row["false_share"]: row for row in found["chances"]}
    assert set(chances) == {0.01, 0.05, 0.1, 0.25, 0.5}
    assert chances[0.1]["chance_a_round"] == pytest.approx(0.2708, abs=1e-4)
    assert chances[0.1]["rounds_until_99_percent"] == 15
    audit = 1 - (1 - 1 / 64) ** 3
    assert found["bond"] == pytest.approx(4 * (1 - audit) / audit * 100, rel=1e-3)  # half of a stake is slashed


def test_people_read_the_same(milon: Milon) -> None:
    told = milon("job", "quote", *WORDS, "--term", "bond-min=1")
    assert told.code == 0
    assert "27.08 %" in told.out and "15 rounds" in told.out and "NOT ENOUGH" in told.out
    assert "4.61 % only" in told.out
    assert "never" in milon("job", "quote", *WORDS[:2], "--audit", "0", *WORDS[4:]).out


def test_a_job_on_the_chain_is_quoted(milon: Milon, node: Path) -> None:
    """The fake node's first round is not audited: no bond makes a lie there a loss."""
    found = milon("job", "quote", JOB.hex(), "--node", node, "--json")
    assert found.code == 0
    assert (found.json["bond"], found.json["bond_min"], found.json["slash_ppm"]) == (0, 1_000, 500_000)


@pytest.mark.parametrize("words", [("--rounds", 0), ("--audit", "x"), ("--audit", "2"), ("--term", "rounds=x")])
def test_terms_that_cannot_be_are_refused(milon: Milon, words: tuple[object, ...]) -> None:
    told = milon("job", "quote", *words)
    assert told.code == 2 and told.err

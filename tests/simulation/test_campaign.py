"""A hundred seeds of the campaign: no invariant broken, and every network recovers within its bound."""

import pytest

from tests.simulation.campaign import KINDS, compute_fingerprint, run_seed

SEEDS = 100


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_no_seed_breaks_an_invariant(first: int) -> None:
    outcomes = [run_seed(seed) for seed in range(first, first + 10)]
    assert [(outcome.seed, outcome.problem) for outcome in outcomes if outcome.problem] == []


def test_every_adversary_has_its_turn() -> None:
    assert {KINDS[seed % len(KINDS)] for seed in range(SEEDS)} == set(KINDS)


def test_the_same_seed_gives_the_same_chain() -> None:
    chain = compute_fingerprint(9)
    assert len(chain) > 3
    assert chain == compute_fingerprint(9)
    assert chain != compute_fingerprint(16)

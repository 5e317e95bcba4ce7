"""Quotes: chances as the formulas say, and a bond that makes lying a loss."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import pytest

from milon.base.units import Amount, Count
from milon.pol.quote import (
    compute_audit_chance,
    compute_bond,
    compute_catch_chance,
    compute_catch_chance_of,
    compute_quote,
    compute_rounds_until,
)
from milon.pol.sampling import draw_places
from milon.pol.terms import compute_cost_max
from tests.contracts.helpers import TERMS

SURE = Fraction(99, 100)


def test_the_chances_that_the_plan_names() -> None:
    """docs/security.md: what a sample proves."""
    assert 1 - Fraction(9, 10) ** 44 >= SURE > 1 - Fraction(9, 10) ** 43
    assert compute_rounds_until(compute_catch_chance(Fraction(1, 10), 64, 15_625, 1), SURE) == 44
    assert compute_rounds_until(compute_catch_chance(Fraction(1, 2), 64, 15_625, 1), SURE) == 7
    three = compute_catch_chance(Fraction(1, 10), 640, 1_562, 3)
    assert abs(three - Fraction(271, 1000)) < Fraction(1, 10_000)
    assert compute_rounds_until(three, SURE) == 15


def enumerate_misses(false: set[int], segments: int, ppm: int) -> Fraction:
    """The chance that one member's draw holds no false segment, over all draws there are."""
    whole, rest = divmod(segments * ppm, 1_000_000)
    more = Fraction(rest, 1_000_000)
    missed = Fraction(0)
    for drawn, weight in ((whole, 1 - more), (whole + 1, more)):
        draws = list(combinations(range(segments), drawn)) if weight else []
        missed += sum((weight for draw in draws if not false & set(draw)), Fraction(0)) / max(1, len(draws))
    return missed


@pytest.mark.parametrize("segments", [1, 4, 7])
@pytest.mark.parametrize("ppm", [0, 15_625, 250_000, 333_333, 1_000_000])
def test_chances_are_those_of_all_draws_there_are(segments: int, ppm: int) -> None:
    one = 1 - enumerate_misses({segments // 2}, segments, ppm) ** 3
    assert compute_audit_chance(ppm, 3) == one == compute_catch_chance_of(1, segments, ppm, 3)
    for false in range(segments + 1):
        places = set(range(0, 2 * false, 2)) if 2 * false <= segments else set(range(false))
        assert compute_catch_chance_of(false, segments, ppm, 2) == 1 - enumerate_misses(places, segments, ppm) ** 2
    halves = [compute_catch_chance_of(false, segments, ppm, 3) for false in (segments // 2, -(-segments // 2))]
    assert compute_catch_chance(Fraction(1, 2), segments, ppm, 3) == sum(halves) / 2, "a half, on average"


def test_chances_are_those_of_the_draws_that_members_make() -> None:
    """Over 2,000 claims: three members at one in 64, claims of four of which one is false, and of 64 with six."""
    for segments, false in ((4, {1}), (64, {3, 9, 20, 21, 40, 63})):
        chance = compute_catch_chance_of(len(false), segments, 15_625, 3)
        caught = 0
        for number in range(2_000):
            draws = (draw_places(bytes([member]) + number.to_bytes(63, "big"), segments, 15_625) for member in range(3))
            caught += any(false & set(draw) for draw in draws)
        assert (caught - 2_000 * chance) ** 2 < 16 * 2_000 * chance * (1 - chance), "four standard deviations"


@pytest.mark.parametrize("chance", [Fraction(1, 3), Fraction(1, 100), Fraction(999, 1000), Fraction(1, 5_000)])
def test_rounds_are_the_least_that_suffice(chance: Fraction) -> None:
    rounds = compute_rounds_until(chance, SURE)
    missed = 1 - chance
    assert missed**rounds <= 1 - SURE < missed ** (rounds - 1)


def test_what_is_never_caught_and_what_is_at_once() -> None:
    assert compute_rounds_until(Fraction(0), SURE) == 0
    assert compute_rounds_until(Fraction(1), SURE) == 1
    assert compute_rounds_until(Fraction(1, 10**9), SURE) == 0, "beyond a million rounds a quote says never"


def test_one_of_several_members_draws_a_segment() -> None:
    assert compute_audit_chance(250_000, 1) == Fraction(1, 4)
    assert compute_audit_chance(250_000, 2) == Fraction(7, 16)
    assert compute_audit_chance(1_000_000, 1) == 1


@pytest.mark.parametrize(("percent", "times"), [(5, 38), (25, 6), (50, 2), (100, 0)])
def test_the_bond_is_that_many_gains(percent: int, times: int) -> None:
    assert compute_bond(Fraction(percent, 100), 10) == 10 * times
    assert compute_bond(Fraction(0), 10) == 0


def test_with_the_bond_of_the_quote_a_false_segment_loses_money() -> None:
    """Half of what is slashed may come back through a friend; what is left, times the chance, exceeds the gain."""
    terms = replace(TERMS, audit_ppm=(Count(250_000),), committee_size=Count(1), segments_per_round=Count(64))
    quote = compute_quote(terms, 500_000)
    chance = Fraction(int(quote.audit_ppm), 1_000_000)
    kept = Fraction(int(quote.bond)) * Fraction(500_000, 1_000_000) * Fraction(1, 2)
    assert chance * kept >= (1 - chance) * terms.segment_price
    assert quote.bond > 0 and not quote.is_bond_enough
    enough = compute_quote(replace(terms, bond_min=Amount(quote.bond)), 500_000)
    assert enough.is_bond_enough


def test_a_quote_adds_up() -> None:
    terms = replace(TERMS, audit_ppm=(Count(1_000_000), Count(250_000)))
    quote = compute_quote(terms, 500_000)
    assert quote.price_max == compute_cost_max(terms) == quote.segments_max + quote.replays_max
    assert quote.segments == terms.segments_per_round // terms.trainers_target
    assert quote.replays_ppm == quote.segments * 250_000 * terms.committee_size, "in the least audited round"
    mean = int(quote.segments_max) + 8 * 1_250_000 * terms.committee_size * int(terms.replay_price) // 1_000_000
    assert quote.price_expected == mean < quote.price_max, "round 0 replays all of its 8 segments, round 1 a quarter"
    shares = [int(entry.false_ppm) for entry in quote.detections]
    assert shares == [10_000, 100_000, 250_000, 500_000]
    assert [entry.chance_ppm for entry in quote.detections] == sorted(entry.chance_ppm for entry in quote.detections)
    unaudited = compute_quote(replace(TERMS, audit_ppm=(Count(0),)), 500_000)
    assert (unaudited.bond, unaudited.is_bond_enough, unaudited.audit_ppm) == (0, False, 0)
    assert all(entry.rounds == 0 for entry in unaudited.detections)

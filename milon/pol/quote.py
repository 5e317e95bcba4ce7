"""What a job costs and what its audit is worth: prices, chances to catch a liar, and the bond that makes lying a loss.

Chances are exact fractions; shares and chances come in and go out in parts per million. Each member of a committee
draws `count * rate` of a claim's segments, rounded up or down by chance (`sampling`), and every segment alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import comb

from milon.base.codec import wire
from milon.base.units import Amount, Count
from milon.pol.terms import PARTS_PER_MILLION, JobTerms, audit_ppm_of, compute_cost_max

SURE_PPM = 990_000  # a liar counts as caught from this chance on
ROUNDS_TOLD_MAX = 1_000_000  # beyond so many rounds a quote says never
FALSE_SHARES_PPM = (10_000, 100_000, 250_000, 500_000)  # 1, 10, 25, 50 %


@wire("detection/1")
@dataclass(frozen=True, slots=True)
class Detection:
    """How surely a liar is caught that makes a share of its segments up."""

    false_ppm: Count  # the share
    chance_ppm: Count  # to be caught in one round, rounded down
    rounds: Count  # until the chance is 99 %; 0: never


@wire("quote/2")
@dataclass(frozen=True, slots=True)
class Quote:
    """What a submitter should know of its terms before it locks a reward."""

    price_max: Amount  # every segment accepted and every replay paid that chance may ask for: the least reward
    price_expected: Amount  # the same with the replays that are drawn on average, rounded up; the rest goes back
    segments_max: Amount  # of it, for segments
    replays_max: Amount  # of it, for replays
    segments: Count  # of one trainer in a round, where all share evenly
    replays_ppm: Count  # expected of them by the whole committee, in millionths of a replay
    audit_ppm: Count  # chance that one given segment is replayed by anybody, in the least audited round
    detections: tuple[Detection, ...]  # per share of false segments
    bond: Amount  # that makes one false segment a loss; 0: no bond does, since nothing is replayed
    is_bond_enough: bool  # the terms' own bond is at least that


def compute_catch_chance(false_share: Fraction, segments: int, audit_ppm: int, members: int) -> Fraction:
    """The chance that one claim is caught of a trainer that makes up `false_share` of its segments, round for round.

    Where the share is no whole number of segments it makes up one more as often as it takes to come to the share.
    """
    whole, rest = divmod(false_share * segments, 1)
    chance = (1 - rest) * compute_catch_chance_of(whole, segments, audit_ppm, members)
    return chance + rest * compute_catch_chance_of(whole + 1, segments, audit_ppm, members) if rest else chance


def compute_catch_chance_of(false: int, segments: int, audit_ppm: int, members: int) -> Fraction:
    """The chance that a claim is caught with exactly `false` of its segments false, wherever they lie.

    For whole draws, q in all, a little more than `1 - (1 - f)^q`, since a member draws no segment twice.
    """
    whole, rest = divmod(segments * audit_ppm, PARTS_PER_MILLION)
    more = Fraction(rest, PARTS_PER_MILLION)

    def miss(drawn: int) -> Fraction:
        return Fraction(comb(segments - false, drawn), comb(segments, drawn))

    missed = (1 - more) * miss(whole) + (more * miss(whole + 1) if rest else 0)
    return 1 - missed**members


def compute_rounds_until(chance: Fraction, wanted: Fraction) -> int:
    """Rounds until a liar is caught with chance `wanted` (less than 1), each with `chance`; 0 where that is never."""
    if chance <= 0:
        return 0
    if chance >= wanted:
        return 1
    low, high = 1, 2
    while 1 - _power_above(1 - chance, high) < wanted:
        low, high = high, 2 * high
        if high > ROUNDS_TOLD_MAX:
            return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if 1 - _power_above(1 - chance, middle) >= wanted else (middle, high)
    return high


SCALE = 1 << 128  # chances of a million rounds keep thirty digits


def _power_above(base: Fraction, exponent: int) -> Fraction:
    """`base` (0 to 1) to a power, rounded up at each product: exact powers would have millions of digits."""
    result, square = SCALE, -(-base.numerator * SCALE // base.denominator)
    while exponent:
        if exponent & 1:
            result = -(-result * square // SCALE)
        square = -(-square * square // SCALE)
        exponent >>= 1
    return Fraction(result, SCALE)


def compute_audit_chance(audit_ppm: int, members: int) -> Fraction:
    """The chance that at least one of `members` draws a given segment, of a claim of any length."""
    return 1 - (1 - Fraction(audit_ppm, PARTS_PER_MILLION)) ** members


def compute_bond(audit: Fraction, gain: int) -> int:
    """The least bond that makes one false segment a loss: `2 (1 - a) / a` times what it can gain.

    Caught with chance a, the liar loses its slashed stake, of which a friend may win half back; uncaught it gains.
    0 where nothing is ever replayed: no bond helps there.
    """
    if audit <= 0:
        return 0
    missed = 2 * gain * (audit.denominator - audit.numerator)
    return -(-missed // audit.numerator)


def compute_stake(audit: Fraction, gain: int, slash_ppm: int) -> int:
    """The least stake of which a slash takes as much as `compute_bond` says; 0 where nothing is ever taken."""
    return -(-compute_bond(audit, gain) * PARTS_PER_MILLION // slash_ppm) if slash_ppm else 0


def find_least_audit(terms: JobTerms) -> int:
    """The audit rate of the least audited of the job's rounds, in parts per million."""
    return min(audit_ppm_of(terms, number) for number in range(min(terms.rounds, len(terms.audit_ppm))))


def compute_quote(terms: JobTerms, slash_ppm: int) -> Quote:
    """The quote for a job whose trainers share its segments evenly, where a liar loses `slash_ppm` of its bond."""
    segments = max(1, terms.segments_per_round // max(1, terms.trainers_target))
    ppm = find_least_audit(terms)
    members = int(terms.committee_size)
    audit = compute_audit_chance(ppm, members)
    sure = Fraction(SURE_PPM, PARTS_PER_MILLION)
    detections = []
    for share in FALSE_SHARES_PPM:
        chance = compute_catch_chance(Fraction(share, PARTS_PER_MILLION), segments, ppm, members)
        rounds = compute_rounds_until(chance, sure)
        detections.append(Detection(Count(share), Count(_to_ppm(chance)), Count(rounds)))
    bond = compute_stake(audit, int(terms.segment_price), slash_ppm)
    price = compute_cost_max(terms)
    paid = terms.rounds * terms.segments_per_round * terms.segment_price
    is_enough = terms.bond_min >= bond and (bond > 0 or audit == 1)
    return Quote(
        price_max=Amount(price),
        price_expected=Amount(paid + _compute_replays_expected(terms)),
        segments_max=Amount(paid),
        replays_max=Amount(price - paid),
        segments=Count(segments),
        replays_ppm=Count(segments * ppm * members),
        audit_ppm=Count(_to_ppm(audit)),
        detections=tuple(detections),
        bond=Amount(bond),
        is_bond_enough=is_enough,
    )


def _compute_replays_expected(terms: JobTerms) -> int:
    """What the replays of all rounds cost on average, rounded up."""
    ppm = sum(audit_ppm_of(terms, number) for number in range(terms.rounds))
    return -(-terms.segments_per_round * ppm * terms.committee_size * terms.replay_price // PARTS_PER_MILLION)


def _to_ppm(chance: Fraction) -> int:
    return chance.numerator * PARTS_PER_MILLION // chance.denominator

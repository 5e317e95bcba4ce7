"""What a job's terms cost and what their audit is worth: of words as `submit-job` takes them, or of a job there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from milon.base.errors import Reason, Rejected
from milon.client.terms import JobError, compute_terms
from milon.pol.quote import (
    SURE_PPM,
    Quote,
    compute_catch_chance,
    compute_quote,
    compute_rounds_until,
    find_least_audit,
)
from milon.pol.terms import PARTS_PER_MILLION, JobTerms

# What a quote depends on; the rest of a job's terms changes neither price nor chances.
QUOTED = (
    "rounds", "segments_per_round", "steps_per_segment", "batch_size", "audit_ppm", "committee_size", "trainers_min",
    "trainers_target", "segment_price", "replay_price", "bond_min",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chance:
    """How surely a share of false segments is caught."""

    false_share: float  # of a trainer's segments
    chance_a_round: float  # that its committee meets one of them
    rounds_until_99_percent: int | None  # none: never


@dataclass(frozen=True, slots=True)
class JobQuote:
    """A quote with what it was made for."""

    quote: Quote  # see there
    committee_size: int  # members
    bond_min: int  # that the terms ask for
    slash_ppm: int  # of a liar's stake
    chances: tuple[Chance, ...]  # the smallest share first


def choose_terms(words: Mapping[str, str]) -> JobTerms:
    """The terms that `submit-job` would make of these words; `Rejected(DOES_NOT_FIT)` with what is wrong."""
    choices: dict[str, Any] = {}
    for word, text in words.items():
        name = word.replace("-", "_")
        try:
            if name in ("audit", "audit_ppm"):
                kind: Any = float if name == "audit" else int
                choices[name] = [kind(part) for part in text.split(",")]
            else:
                choices[name] = text if name in ("aggregator", "trainers") else int(text)
        except ValueError as error:
            raise Rejected(Reason.DOES_NOT_FIT, f"{word}={text[:80]!r}: {error}") from None
    return _compute(choices)


def read_terms(shown: Mapping[str, Any]) -> JobTerms:
    """The terms of a job as the node's API gives them, as far as a quote depends on them."""
    return _compute({**{name: shown[name] for name in QUOTED}, "aggregator": "mean", "faulty_count": 0})


def _compute(choices: dict[str, Any]) -> JobTerms:
    try:
        return compute_terms(choices)[0]
    except JobError as error:
        raise Rejected(Reason.DOES_NOT_FIT, str(error)) from None


def quote_terms(terms: JobTerms, slash_ppm: int, shares: Sequence[float]) -> JobQuote:
    """The quote, with the chances for `shares` beside those that every quote tells."""
    found = compute_quote(terms, slash_ppm)
    asked = {int(entry.false_ppm) for entry in found.detections} | {
        round(share * PARTS_PER_MILLION) for share in shares
    }
    sure = Fraction(SURE_PPM, PARTS_PER_MILLION)
    chances = []
    for ppm in sorted(asked):
        share = Fraction(ppm, PARTS_PER_MILLION)
        chance = compute_catch_chance(share, int(found.segments), find_least_audit(terms), int(terms.committee_size))
        rounds = compute_rounds_until(chance, sure) or None
        chances.append(Chance(ppm / PARTS_PER_MILLION, float(chance), rounds))
    return JobQuote(found, int(terms.committee_size), int(terms.bond_min), slash_ppm, tuple(chances))

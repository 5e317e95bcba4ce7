"""`milon job quote`: what a job's terms cost, and what their audit is worth, before a reward is locked."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .connection import open_node
from .job import JobArgument, noun, parse_terms
from .options import DEFAULT_NODE, JsonOption, NodeOption
from .output import print_json, print_lines, print_pairs, print_table

if TYPE_CHECKING:
    from milon.pol.quote import Quote
    from milon.pol.terms import JobTerms

MILLION = 1_000_000
# What a quote depends on; the rest of a job's terms changes neither price nor chances.
QUOTED = (
    "rounds", "segments_per_round", "steps_per_segment", "batch_size", "audit_ppm", "committee_size", "trainers_min",
    "trainers_target", "segment_price", "replay_price", "bond_min",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command to the noun of jobs."""
    noun.command(epilog="Example: milon job quote --rounds 10 --audit 0.1 --term segments-per-round=64")(quote)


def quote(
    job: Annotated[
        JobArgument | None, typer.Argument(help="A job on the chain; left out: the terms named here.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="How many rounds.")] = None,
    reward: Annotated[int | None, typer.Option(help="Coins to lock; prices follow from it.")] = None,
    audit: Annotated[str | None, typer.Option(help="Share of segments replayed: 0.25, or one a round: 0,0,1.")] = None,
    term: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of another term, such as committee-size=5.")
    ] = None,
    false_share: Annotated[
        list[float] | None, typer.Option(min=0, max=1, help="Tell the chance for this share as well; repeat.")
    ] = None,
    root: NodeOption = DEFAULT_NODE,
    as_json: JsonOption = False,
) -> None:
    """Print price, the chance that a liar is caught, and the bond that makes one false segment a loss.

    Nothing is sent. With a job's name its terms and the chain's parameters are asked of the node.
    """
    from milon.chain.params import Parameters
    from milon.pol.quote import compute_quote

    slash_ppm = int(Parameters().slash_ppm)
    if job is not None:
        with open_node(root) as client:
            terms = _read_terms(client.find_job(job)["terms"])
            slash_ppm = int(client.genesis()["parameters"]["slash_ppm"])
    else:
        named = {"rounds": rounds, "reward": reward, "audit": audit}
        words = {name: str(value) for name, value in named.items() if value is not None}
        terms = _choose_terms({**parse_terms(term or []), **words})
    found = compute_quote(terms, slash_ppm)
    rows = _list_chances(found, false_share or [])
    if as_json:
        from milon.api.shapes import to_json

        print_json({**to_json(found), "slash_ppm": slash_ppm, "bond_min": terms.bond_min, "chances": rows})
        return
    _print(found, terms, slash_ppm, rows)


def _choose_terms(words: dict[str, str]) -> JobTerms:
    """The terms that `submit-job` would make of these words; `Rejected(DOES_NOT_FIT)` with what is wrong."""
    from milon.base.errors import Reason, Rejected

    choices: dict[str, Any] = {}
    try:
        for name, text in words.items():
            known = name.replace("-", "_")
            if known in ("audit", "audit_ppm"):
                kind: Any = float if known == "audit" else int
                choices[known] = [kind(part) for part in text.split(",")]
            else:
                choices[known] = text if known in ("aggregator", "trainers") else int(text)
    except ValueError as error:
        raise Rejected(Reason.DOES_NOT_FIT, f"{name}={text[:80]!r}: {error}") from None
    return _compute(choices)


def _compute(choices: dict[str, Any]) -> JobTerms:
    from milon.base.errors import Reason, Rejected
    from milon.client.terms import JobError, compute_terms

    try:
        return compute_terms(choices)[0]
    except JobError as error:
        raise Rejected(Reason.DOES_NOT_FIT, str(error)) from None


def _read_terms(shown: dict[str, Any]) -> JobTerms:
    """The terms of a job that is on the chain, as far as a quote depends on them."""
    return _compute({**{name: shown[name] for name in QUOTED}, "aggregator": "mean", "faulty_count": 0})


def _list_chances(found: Quote, shares: list[float]) -> list[dict[str, Any]]:
    """Per share of false segments: the chance to be caught in a round, and rounds until it is 99 %."""
    from milon.pol.quote import SURE_PPM, compute_catch_chance, compute_rounds_until

    sure = Fraction(SURE_PPM, MILLION)
    asked = sorted(
        {*(int(entry.false_ppm) for entry in found.detections), *(round(share * MILLION) for share in shares)}
    )
    rows = []
    for ppm in asked:
        chance = compute_catch_chance(Fraction(ppm, MILLION), int(found.replays))
        rows.append(
            {
                "false_share": ppm / MILLION,
                "chance_a_round": float(chance),
                "rounds_until_99_percent": compute_rounds_until(chance, sure) or None,
            }
        )
    return rows


def _print(found: Quote, terms: JobTerms, slash_ppm: int, rows: list[dict[str, Any]]) -> None:
    enough = "enough" if found.is_bond_enough else "NOT ENOUGH: raise bond_min, or the audit"
    bond = f"{found.bond}; the terms ask for {terms.bond_min}, {enough}" if found.bond else "none helps or is needed"
    print_pairs(
        [
            ("price", f"at most {found.price_max}: {found.segments_max} for segments, {found.replays_max} for replays"),
            ("replays", f"{found.replays} of one trainer's segments a round, by {terms.committee_size} members"),
            (
                "one segment",
                f"is replayed with a chance of {found.audit_ppm / 10_000:.2f} % in the least audited round",
            ),
            ("bond", f"{bond} (a slash takes {slash_ppm / 10_000:.0f} %)"),
        ]
    )
    print_table(
        ("false segments", "caught in a round", "99 % after"),
        [
            (
                f"{100 * row['false_share']:g} %",
                f"{100 * row['chance_a_round']:.2f} %",
                "never" if row["rounds_until_99_percent"] is None else f"{row['rounds_until_99_percent']} rounds",
            )
            for row in rows
        ],
    )
    print_lines(["the bond is for a lie that gains one segment's price; docs/security.md says what else it may gain"])

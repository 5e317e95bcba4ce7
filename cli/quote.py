"""`milon job quote`: what a job's terms cost, and what their audit is worth, before a reward is locked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .connection import open_node
from .job import JobArgument, noun, parse_terms
from .options import DEFAULT_NODE, JsonOption, NodeOption
from .output import print_json, print_lines, print_pairs, print_table

if TYPE_CHECKING:
    from milon.client.quote import JobQuote

LOW_AUDIT_PPM = 250_000  # with a smaller chance to meet a false segment, people are told what they rely on


def register(app: typer.Typer) -> None:
    """Add the command to the noun of jobs."""
    noun.command(epilog="Example: milon job quote --rounds 10 --audit 0.1 --term segments-per-round=64")(quote)


def quote(
    job: Annotated[
        JobArgument | None, typer.Argument(help="A job on the chain; left out: the terms named here.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="How many rounds.")] = None,
    reward: Annotated[int | None, typer.Option(help="Coins to lock; prices follow from it.")] = None,
    audit: Annotated[
        str | None, typer.Option(help="Share of segments each verifier replays: 0.25, or one a round: 0,0,1.")
    ] = None,
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
    from milon.api.shapes import to_json
    from milon.client.quote import choose_terms, quote_terms, read_terms
    from milon.client.terms import DEFAULT_SLASH_PPM

    slash_ppm = DEFAULT_SLASH_PPM
    if job is not None:
        with open_node(root) as client:
            terms = read_terms(client.find_job(job)["terms"])
            slash_ppm = int(client.genesis()["parameters"]["slash_ppm"])
    else:
        named = {"rounds": rounds, "reward": reward, "audit": audit}
        words = {name: str(value) for name, value in named.items() if value is not None}
        terms = choose_terms({**parse_terms(term or []), **words})
    found = quote_terms(terms, slash_ppm, false_share or [])
    if as_json:
        shaped = to_json(found)
        print_json({**shaped.pop("quote"), **shaped})
        return
    _print(found)


def _print(made: JobQuote) -> None:
    found = made.quote
    enough = "enough" if found.is_bond_enough else "NOT ENOUGH: raise bond_min, or the audit"
    bond = f"{found.bond}; the terms ask for {made.bond_min}, {enough}" if found.bond else "none helps or is needed"
    replays = found.replays_ppm / 1_000_000
    one = f"is replayed with a chance of {found.audit_ppm / 10_000:.2f} % in the least audited round"
    print_pairs(
        [
            ("price", f"at most {found.price_max}: {found.segments_max} for segments, {found.replays_max} for replays"),
            ("expected", f"{found.price_expected}, by the replays that are drawn on average; the rest goes back"),
            ("replays", f"{replays:.6g} of one trainer's {found.segments} segments, by {made.committee_size} members"),
            ("one segment", one),
            ("bond", f"{bond} (a slash takes {made.slash_ppm / 10_000:.0f} %)"),
        ]
    )
    print_table(
        ("false segments", "caught in a round", "99 % after"),
        [
            (
                f"{100 * row.false_share:g} %",
                f"{100 * row.chance_a_round:.2f} %",
                "never" if row.rounds_until_99_percent is None else f"{row.rounds_until_99_percent} rounds",
            )
            for row in made.chances
        ],
    )
    print_lines(["the bond is for a lie that gains one segment's price; docs/security.md says what else it may gain"])
    if 0 < found.audit_ppm < LOW_AUDIT_PPM:
        print_lines(
            [
                f"a false segment is met with {found.audit_ppm / 10_000:.2f} % only: at this rate the bond deters, and "
                "the sample catches who goes on lying; for few segments, few rounds or strangers: --audit 0.25, or 1"
            ]
        )

"""`milon validator`: who votes, and a validator on its way to another machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .connection import open_node
from .options import DEFAULT_NODE, DataOption, JsonOption, NodeOption
from .output import percent, print_json, print_lines, print_pairs, print_table

if TYPE_CHECKING:
    from milon.node.moving import Bundle

_noun = typer.Typer(help="Who votes, and a validator on its way to another machine.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.add_typer(_noun, name="validator")


def _describe(bundle: Bundle) -> dict[str, str | int]:
    return {
        "account": bundle.account.hex(),
        "epoch": int(bundle.epoch),
        "view": int(bundle.view),
        "move": int(bundle.move),
        "genesis_hash": bundle.genesis_hash,
    }


@_noun.command(name="list", epilog="Example: milon validator list")
def list_(root: NodeOption = DEFAULT_NODE, as_json: JsonOption = False) -> None:
    """Members of the running epoch and candidates for the next, the most powerful first."""
    with open_node(root) as client:
        found = client.validators()
    if as_json:
        print_json({"validators": found})
        return
    ranked = sorted(found, key=lambda entry: (-entry["power"], -entry["bonded"] - entry["delegated"]))
    head = ("account", "status", "power", "bonded", "delegated", "commission", "learning")
    rows = [{**entry, "commission": _commission(entry)} for entry in ranked]
    print_table(head, [[row[name] for name in head] for row in rows])


@_noun.command(epilog="Example: milon validator show")
def show(
    account: Annotated[str, typer.Argument(help="64 hexadecimal digits; the node's own where left out.")] = "",
    root: NodeOption = DEFAULT_NODE,
    as_json: JsonOption = False,
) -> None:
    """Show an account as a validator: its stake, its turns, and whether it is in jail."""
    with open_node(root) as client:
        found = client.validator(account or client.status()["account"])
    if as_json:
        print_json(found)
        return
    names = ("account", "status", "power", "bonded", "delegated", "learning")
    print_pairs([*((name, found[name]) for name in names), ("commission", _commission(found))])
    lines = [f"led {found['led']} views of this epoch, missed {found['missed']}"]
    if found["jailed_until"]:
        lines.append(f"in jail: `milon stake unjail` is accepted from height {found['jailed_until']} on")
    if found["is_tombstoned"]:
        lines.append(f"out for good: {percent(found['taken_ppm'] / 1_000_000)} of the stake behind it burned")
    print_lines(lines)


def _commission(entry: dict[str, Any]) -> str:
    return percent(entry["commission_ppm"] / 1_000_000)


@_noun.command(name="export", epilog="Example: milon validator export validator.bundle --data ./milon-data")
def export_(
    path: Annotated[Path, typer.Argument(help="Where the bundle goes; the file must not exist yet.")],
    root: DataOption = DEFAULT_NODE,
    as_json: JsonOption = False,
) -> None:
    """Take the validator out of a stopped node's folder. The folder refuses to start from then on.

    The bundle holds the secret keys and how far they have signed. Copy it to the other machine over a safe channel and
    keep no second copy: two machines that import copies of it sign twice, and the stake is lost.
    """
    from milon.node.folder import NodeFolder
    from milon.node.moving import export_validator

    bundle = export_validator(NodeFolder(root), path)
    if as_json:
        print_json({**_describe(bundle), "bundle": str(path)})
        return
    print_pairs(list(_describe(bundle).items()))
    print_lines(
        [
            f"{path} holds the secret keys; {root} has none any more and will not start",
            f"on the other machine: milon validator import {path.name} --data DIR, then milon join --data DIR",
        ]
    )


@_noun.command(name="import", epilog="Example: milon validator import validator.bundle --data ./milon-data")
def import_(
    path: Annotated[Path, typer.Argument(help="A bundle of `milon validator export`.")],
    root: DataOption = DEFAULT_NODE,
    is_back: Annotated[
        bool, typer.Option("--back", help="Undo an export whose bundle was imported nowhere, in the same folder.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a validator into a folder that has none; the bundle loses its keys, so that it serves once."""
    from milon.node.folder import NodeFolder
    from milon.node.moving import import_validator

    bundle = import_validator(path, NodeFolder(root), is_back=is_back)
    if as_json:
        print_json({**_describe(bundle), "folder": str(root)})
        return
    print_pairs(list(_describe(bundle).items()))
    print_lines([f"start it with `milon join --data {root}`; it signs above epoch {bundle.epoch}, view {bundle.view}"])


@_noun.command(name="sign-above", epilog="Example: milon validator sign-above 120000 --data ./milon-data")
def sign_above_(
    view: Annotated[int, typer.Argument(min=0, max=2**62, help="Nothing is signed up to this view.")],
    epoch: Annotated[int, typer.Option(min=0, max=2**62, help="Of this epoch.")] = 0,
    root: DataOption = DEFAULT_NODE,
    as_json: JsonOption = False,
) -> None:
    """For a folder that lost votes/votes.signed: name a view well above any that its validator can have signed in."""
    from milon.base.units import Epoch, View
    from milon.node.folder import NodeFolder
    from milon.node.moving import sign_above

    found = sign_above(NodeFolder(root), Epoch(epoch), View(view))
    if as_json:
        print_json({"epoch": int(found[0]), "view": int(found[1])})
    else:
        print_lines([f"the validator of {root} signs above epoch {found[0]}, view {found[1]}"])

"""`milon account`: coins, and what an account has at stake."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .connection import open_node, send_action
from .options import DEFAULT_NODE, AmountArgument, FeeOption, JsonOption, KeyOption, NodeOption
from .output import print_json, print_lines, print_pairs

_noun = typer.Typer(help="Coins; `milon stake` puts them at stake.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.add_typer(_noun, name="account")


@_noun.command(epilog="Example: milon account show")
def show(
    account: Annotated[str, typer.Argument(help="64 hexadecimal digits; the node's own where left out.")] = "",
    root: NodeOption = DEFAULT_NODE,
    as_json: JsonOption = False,
) -> None:
    """Show an account: balance, stake, what is on its way back, and what was taken."""
    with open_node(root) as client:
        found = client.account(account or client.status()["account"])
    if as_json:
        print_json(found)
        return
    print_pairs([(name, found[name]) for name in ("account", "balance", "bonded", "nonce")])
    print_lines(f"unbonding {entry['amount']} until height {entry['height']}" for entry in found["unbonding"])
    for entry in found["delegations"]:
        print_lines([_describe_delegation(entry)])
    print_lines(
        f"slashed {entry['amount']} at height {entry['height']}: {entry['reason']}" for entry in found["slashes"]
    )


def _describe_delegation(entry: dict[str, Any]) -> str:
    told = f"delegated {entry['amount']} to {entry['validator']}"
    if entry["source"] is not None:
        return f"{told}, moved there from {entry['source']}; answers for both until height {entry['height']}"
    return told if entry["height"] is None else f"{told}, back at height {entry['height']}"


@_noun.command(epilog="Example: milon account transfer ACCOUNT 100")
def transfer(
    to: Annotated[str, typer.Argument(help="Who gets the coins, 64 hexadecimal digits.")],
    amount: AmountArgument,
    root: NodeOption = DEFAULT_NODE,
    key: KeyOption = None,
    fee: FeeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Move coins to another account."""
    from milon.base.units import Amount
    from milon.chain.transaction import Transfer
    from milon.node.keys import parse_account

    send_action(Transfer(parse_account(to), Amount(amount)), root, key, fee, as_json)

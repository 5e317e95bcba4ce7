"""`milon account`: coins and stake."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .connection import load_signer, open_node
from .options import DEFAULT_NODE, FeeOption, JsonOption, KeyOption, NodeOption
from .output import print_json, print_lines, print_pairs

if TYPE_CHECKING:
    from milon.chain.transaction import Action

_noun = typer.Typer(help="Coins and stake.", no_args_is_help=True)

AmountArgument = Annotated[int, typer.Argument(min=1, help="How many coins.")]


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
    print_lines(
        f"slashed {entry['amount']} at height {entry['height']}: {entry['reason']}" for entry in found["slashes"]
    )


def _send(action: Action, root: Path, key: Path | None, fee: int, as_json: bool) -> None:
    signer = load_signer(root, key)
    with open_node(root, is_spending=True) as client:
        receipt = client.wait_receipt(client.send(signer, action, fee))
    if as_json:
        print_json(receipt)
    else:
        print_lines([f"done at height {receipt['height']}: transaction {receipt['transaction']}"])


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

    _send(Transfer(parse_account(to), Amount(amount)), root, key, fee, as_json)


@_noun.command(epilog="Example: milon account bond 1000")
def bond(
    amount: AmountArgument,
    root: NodeOption = DEFAULT_NODE,
    key: KeyOption = None,
    fee: FeeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Put coins at stake; a trainer needs what the job's terms ask for."""
    from milon.base.units import Amount
    from milon.chain.transaction import Bond

    _send(Bond(Amount(amount)), root, key, fee, as_json)


@_noun.command(epilog="Example: milon account unbond 1000")
def unbond(
    amount: AmountArgument,
    root: NodeOption = DEFAULT_NODE,
    key: KeyOption = None,
    fee: FeeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Ask for stake back; until the waiting time is over it can still be slashed."""
    from milon.base.units import Amount
    from milon.chain.transaction import Unbond

    _send(Unbond(Amount(amount)), root, key, fee, as_json)


@_noun.command(epilog="Example: milon account withdraw")
def withdraw(
    root: NodeOption = DEFAULT_NODE,
    key: KeyOption = None,
    fee: FeeOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Collect the stake whose waiting time is over."""
    from milon.chain.transaction import Withdraw

    _send(Withdraw(), root, key, fee, as_json)

"""`milon keys`: make and show the keys that own accounts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import DEFAULT_NODE, JsonOption, NodeOption
from .output import print_json, print_lines, print_pairs, print_table

_noun = typer.Typer(help="Keys that own accounts and sign.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.add_typer(_noun, name="keys")


@_noun.command(epilog="Example: milon keys generate alice.key")
def generate(
    path: Annotated[Path, typer.Argument(help="Where the key goes; the file must not exist yet.")],
    as_json: JsonOption = False,
) -> None:
    """Make a key; the file has mode 0600 and is never overwritten."""
    from milon.node.keys import generate_key, write_key

    key = generate_key()
    write_key(path, key)
    account = key.account.hex()
    if as_json:
        print_json({"account": account, "path": str(path)})
    else:
        print_lines([account])


@_noun.command(epilog="Example: milon keys show alice.key")
def show(
    path: Annotated[Path, typer.Argument(help="A key file.")],
    as_json: JsonOption = False,
) -> None:
    """Show which account a key file is for, and the peer id it would make; never the secret."""
    from milon.node.keys import compute_peer_id_of, load_key

    key = load_key(path)
    found = {"account": key.account.hex(), "peer_id": compute_peer_id_of(key)}
    if as_json:
        print_json(found)
    else:
        print_pairs(list(found.items()))


@_noun.command(name="list", epilog="Example: milon keys list --node ./milon-data")
def list_keys(
    root: NodeOption = DEFAULT_NODE,
    as_json: JsonOption = False,
) -> None:
    """List the key files of a node's or a test network's folder with their accounts."""
    from milon.node.keys import read_account

    found = [(str(path), read_account(path).hex()) for path in sorted((root / "keys").glob("*.key"))]
    if as_json:
        print_json({"keys": [{"path": path, "account": account} for path, account in found]})
    else:
        print_table(("file", "account"), found)

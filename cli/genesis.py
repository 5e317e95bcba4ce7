"""`milon genesis`: make, show and name the file a chain starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .exits import Exit
from .options import JsonOption
from .output import print_json, print_lines, print_pairs
from .parameters import SetOption, make_parameters

_noun = typer.Typer(help="The file a chain starts from.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.add_typer(_noun, name="genesis")


FileArgument = Annotated[Path, typer.Argument(help="A genesis file.")]


def parse_entry(text: str, count: int) -> tuple[str, list[int]]:
    """An account and `count` amounts from `ACCOUNT:AMOUNT[:AMOUNT]`; a usage error for anything else."""
    account, *amounts = text.split(":")
    if len(amounts) != count or not all(amount.isascii() and amount.isdigit() for amount in amounts):
        wanted = "ACCOUNT" + ":AMOUNT" * count
        raise typer.BadParameter(f"{text!r} is not {wanted}, such as {'ab' * 32}{':1000' * count}")
    return account, [int(amount) for amount in amounts]


@_noun.command(epilog="Example: milon genesis create genesis.cbor --chain-id mynet --validator ACCOUNT:1000:1000000")
def create(
    path: Annotated[Path, typer.Argument(help="Where the file goes; it must not exist yet.")],
    chain_id: Annotated[str, typer.Option(help="Name of the chain, 1 to 64 characters.")],
    validator: Annotated[list[str], typer.Option(help="ACCOUNT:BALANCE:BONDED of a validator; repeat.")],
    account: Annotated[list[str] | None, typer.Option(help="ACCOUNT:BALANCE of another account; repeat.")] = None,
    block_time_ms: Annotated[int, typer.Option(min=1, help="Pause before an empty block.")] = 1_000,
    busy_block_time_ms: Annotated[int, typer.Option(min=1, help="Pause before a block with transactions.")] = 200,
    delta_ms: Annotated[int, typer.Option(min=1, help="Assumed delay of a message.")] = 1_000,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a genesis file from accounts; its hash is what newcomers must be told."""
    import time

    from milon.base.codec import encode
    from milon.base.units import Amount, TimeMs
    from milon.chain.genesis import compute_genesis_hash
    from milon.node.folder import write_file
    from milon.node.keys import parse_account
    from milon.node.testnet_files import make_genesis

    voting = [parse_entry(text, 2) for text in validator]
    others = [parse_entry(text, 1) for text in account or ()]
    genesis = make_genesis(
        chain_id,
        TimeMs(time.time_ns() // 1_000_000),
        make_parameters(block_time_ms, busy_block_time_ms, delta_ms, settings or ()),
        [(parse_account(name), Amount(amounts[0]), Amount(amounts[1])) for name, amounts in voting],
        [(parse_account(name), Amount(amounts[0])) for name, amounts in others],
    )
    write_file(path, encode(genesis), overwrite=False)
    found = compute_genesis_hash(genesis).hex()
    if as_json:
        print_json({"genesis_hash": found, "path": str(path)})
    else:
        print_lines([found])


@_noun.command(epilog="Example: milon genesis show genesis.cbor")
def show(path: FileArgument, as_json: JsonOption = False) -> None:
    """Show what is in a genesis file."""
    from milon.api.shapes import shape_genesis
    from milon.node.testnet_files import load_genesis

    shaped = shape_genesis(load_genesis(path))
    if as_json:
        print_json(shaped)
        return
    print_pairs([(name, shaped[name]) for name in ("chain_id", "genesis_hash", "time_ms")])
    for entry in shaped["accounts"]:
        kind = "validator" if entry["is_validator"] else "account"
        print_lines([f"{kind:9}  {entry['account']}  balance {entry['balance']}  bonded {entry['bonded']}"])
    print_pairs(list(shaped["parameters"].items()))


@_noun.command(name="hash", epilog="Example: milon genesis hash genesis.cbor")
def show_hash(
    path: FileArgument,
    expect: Annotated[str, typer.Option(help="Exit with 1 unless the hash is this one.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Print the hash of a genesis file."""
    from milon.chain.genesis import compute_genesis_hash
    from milon.node.testnet_files import load_genesis

    found = compute_genesis_hash(load_genesis(path)).hex()
    if as_json:
        print_json({"genesis_hash": found})
    else:
        print_lines([found])
    if expect and expect.lower() != found:
        raise typer.Exit(Exit.NO)

"""`milon light`: follow the chain without keeping it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .block import parse_block_name
from .exits import Exit
from .options import BootstrapOption, JsonOption
from .output import print_error, print_json, print_lines, print_pairs

if TYPE_CHECKING:
    from milon.base.ids import AccountId, Digest
    from milon.base.units import Height
    from milon.node.light_sync import LightReport

_noun = typer.Typer(help="Follow the chain without keeping it: by certificates and proofs.", no_args_is_help=True)

FolderOption = Annotated[Path, typer.Option("--data", help="Folder that keeps what was verified.")]
GenesisOption = Annotated[str, typer.Option("--genesis-hash", help="The chain's genesis hash.")]
TrustedOption = Annotated[
    str, typer.Option("--trusted-hash", help="Hash of a recent final block you trust; without one, the genesis.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.add_typer(_noun, name="light")


@_noun.command(epilog="Example: milon light sync --bootstrap ADDRESS --genesis-hash HASH --trusted-hash HASH")
def sync(
    bootstrap: BootstrapOption = None,
    genesis_hash: GenesisOption = "",
    trusted_hash: TrustedOption = "",
    data: FolderOption = Path("milon-light"),
    as_json: JsonOption = False,
) -> None:
    """Prove the newest header from what was verified before, a trusted hash, or the genesis."""
    from milon.base.units import Height

    _report(_follow(bootstrap, genesis_hash, trusted_hash, data, Height(0), None), as_json)


@_noun.command(epilog="Example: milon light verify 1200 --bootstrap ADDRESS --genesis-hash HASH")
def verify(
    name: Annotated[str, typer.Argument(help="Height or hash of a block; left out with --account.")] = "",
    account: Annotated[str, typer.Option(help="Prove this account's record at the newest block instead.")] = "",
    bootstrap: BootstrapOption = None,
    genesis_hash: GenesisOption = "",
    trusted_hash: TrustedOption = "",
    data: FolderOption = Path("milon-light"),
    as_json: JsonOption = False,
) -> None:
    """Prove that a block is final, or what an account has.

    Exit codes: 0 proved; 1 the chain has another block there, or two chains are proved; 2 it cannot be proved.
    """
    from milon.base.errors import Reason, Rejected
    from milon.base.units import Height
    from milon.node.keys import parse_account

    if bool(name) == bool(account):
        raise typer.BadParameter("name a block, or an account with --account")
    whose = parse_account(account) if account else None
    block = parse_block_name(name) if name else Height(0)
    try:
        found = _follow(bootstrap, genesis_hash, trusted_hash, data, block, whose)
    except Rejected as error:
        if error.reason is not Reason.DIFFERS:
            raise
        print_error(error.reason.value, error.detail, as_json)
        raise typer.Exit(Exit.NO) from None
    _report(found, as_json)


def _follow(
    bootstrap: list[str] | None,
    genesis_hash: str,
    trusted: str,
    data: Path,
    name: Height | Digest,
    account: AccountId | None,
) -> LightReport:
    from milon.base.errors import Reason, require
    from milon.node.config import parse_digest, verify_multiaddress
    from milon.node.light import follow_lightly

    require(bool(bootstrap), Reason.UNAVAILABLE, "from whom? give --bootstrap with the address of a running node")
    addresses = tuple(bootstrap or ())
    for address in addresses:
        verify_multiaddress(address)
    genesis = parse_digest("--genesis-hash", genesis_hash)
    start = parse_digest("--trusted-hash", trusted) if trusted else None
    return follow_lightly(data, addresses, genesis, trusted=start, name=name, account=account)


def _report(found: LightReport, as_json: bool) -> None:
    from milon.api.shapes import to_json

    if as_json:
        print_json(to_json(found))
        return
    print_pairs(
        [
            ("height", f"{found.height}  of epoch {found.epoch}"),
            ("hash", found.hash.hex()),
            ("state root", found.state_root.hex()),
            ("trusted", "genesis" if found.trusted_height == 0 else f"height {found.trusted_height}"),
            ("witnesses", found.witnesses),
            *(to_json(found.record).items() if found.record is not None else ()),
        ]
    )
    if found.account is not None and found.record is None:
        print_lines(["the account is proved to have never been used"])
    if found.caution:
        print_lines([found.caution])
    if not found.witnesses:
        print_lines(["no second peer was asked: give another --bootstrap to have it witnessed"])

"""`milon block`: look at a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .connection import open_node
from .options import DEFAULT_NODE, JsonOption, NodeOption
from .output import print_json, print_lines, print_pairs

if TYPE_CHECKING:
    from milon.base.ids import Digest
    from milon.base.units import Height

_noun = typer.Typer(help="Blocks of the chain.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.add_typer(_noun, name="block")


@_noun.callback()
def root_of_noun() -> None:
    """Blocks of the chain."""


@_noun.command(epilog="Example: milon block show latest")
def show(
    name: Annotated[str, typer.Argument(help='Height, hash or "latest".')],
    root: NodeOption = DEFAULT_NODE,
    as_json: JsonOption = False,
) -> None:
    """Show a block as a node holds it."""
    with open_node(root) as client:
        found = client.block(name)
    if as_json:
        print_json(found)
        return
    header = found["header"]
    print_pairs(
        [
            ("height", header["height"]),
            ("hash", found["hash"]),
            ("parent", header["parent_hash"]),
            ("proposer", header["proposer"]),
            ("time", header["time_ms"]),
            ("transactions", f"{found['transaction_count']}, {found['refused_count']} refused"),
            ("final", f"{found['is_final']}, power {found['certificate_power']} of {found['total_power']}"),
        ]
    )
    print_lines(f"closes round {closed['round']} of job {closed['job'][:8]}" for closed in found["closed"])


def parse_block_name(text: str) -> Height | Digest:
    """A height, or a hash of 64 hexadecimal digits; a usage error for anything else."""
    from milon.base.ids import Digest
    from milon.base.units import Height

    if text.isascii() and text.isdigit() and len(text) < 19:
        return Height(int(text))
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise typer.BadParameter(f"{text[:80]!r} is neither a height nor a hash of 64 hexadecimal digits")
    return Digest(raw)

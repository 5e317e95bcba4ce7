"""Options that several commands share, so that each reads the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from milon.client.devices import HELP

DEFAULT_NODE = Path("milon-data")
DEFAULT_TESTNET = Path("milon-testnet")

NodeOption = Annotated[Path, typer.Option("--node", envvar="MILON_DATA", help="Folder of the node to ask.")]
DataOption = Annotated[Path, typer.Option("--data", "--node", envvar="MILON_DATA", help="The node's folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]
KeyOption = Annotated[
    Path | None, typer.Option("--key", help="Key file that signs and pays; the node's own where none is named.")
]
FeeOption = Annotated[int, typer.Option("--fee", min=0, help="Coins burned for the transaction.")]
DeviceOption = Annotated[str, typer.Option("--device", help=HELP)]
AmountArgument = Annotated[int, typer.Argument(min=1, help="How many coins.")]
TestnetOption = Annotated[Path, typer.Option("--dir", help="The test network's folder.")]
BootstrapOption = Annotated[
    list[str] | None,
    typer.Option("--bootstrap", "--initial-peers", help="Address of a running node, /ip4/.../tcp/.../p2p/...; repeat."),
]

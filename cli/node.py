"""`milon init`, `join`, `stop`, `status` and `peers`: a node's life."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .connection import open_node
from .join import join
from .options import DEFAULT_NODE, BootstrapOption, DataOption, JsonOption, NodeOption
from .output import decimal, print_json, print_lines, print_pairs, print_table
from .prepare_folder import describe_folder, prepare_folder


def register(app: typer.Typer) -> None:
    """Add the commands of this noun."""
    app.command(epilog="Example: milon init --data ./milon-data --genesis genesis.cbor")(init)
    app.command(epilog="Example: milon join --bootstrap /ip4/10.0.0.1/tcp/4001/p2p/12D3... --genesis-hash HASH")(join)
    app.command(epilog="Example: milon stop --node ./milon-data")(stop)
    app.command(epilog="Example: milon status --node ./milon-data --json")(status)
    app.command(epilog="Example: milon peers --node ./milon-data")(peers)


def init(
    root: DataOption = DEFAULT_NODE,
    genesis: Annotated[Path | None, typer.Option(help="Genesis file of the chain, copied into the folder.")] = None,
    bootstrap: BootstrapOption = None,
    role: Annotated[str, typer.Option(help="validator, trainer or full.")] = "validator",
    listen_port: Annotated[int, typer.Option(help="TCP port for other nodes; 0: a free one.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a node's folder: keys, settings, token. What is there already stays."""
    from milon.node.config import Config
    from milon.node.folder import NodeFolder

    folder = NodeFolder(root)
    prepare_folder(
        folder, Config(role=role, bootstrap=tuple(bootstrap or ()), listen_port=listen_port), genesis_file=genesis
    )
    found = describe_folder(folder)
    if as_json:
        print_json(found)
    else:
        print_pairs(list(found.items()))
        print_lines([f"settings are in {folder.config}; start the node with `milon join --data {root}`"])


def stop(root: NodeOption = DEFAULT_NODE, as_json: JsonOption = False) -> None:
    """Ask a running node to end in good order."""
    with open_node(root, is_spending=True) as client:
        client.stop()
    if as_json:
        print_json({"stopping": True})


def status(root: NodeOption = DEFAULT_NODE, as_json: JsonOption = False) -> None:
    """Show a node at a glance: height, peers, what it computes."""
    with open_node(root) as client:
        found = client.status()
    if as_json:
        print_json(found)
        return
    print_pairs(
        [
            ("chain", f"{found['chain_id']}  genesis {found['genesis_hash']}"),
            ("account", found["account"]),
            ("role", found["role"]),
            ("height", f"{found['height']}  {found['tip_hash']}" + ("  syncing" if found["is_syncing"] else "")),
            ("view", f"{found['view']} of epoch {found['epoch']}"),
            ("peers", len(found["peers"])),
            ("validators", len(found["validators"])),
            ("waiting", f"{found['mempool_count']} transactions"),
            ("balance", f"{found['balance']}  bonded {found['bonded']}"),
            ("supply", f"{found['minted'] - found['burned']}  burned {found['burned']}"),
            ("computing", "; ".join(describe_work(work) for work in found["working"]) or "nothing"),
            ("version", f"{found['version']}  numerics {found['numerics']}"),
            *(("address", address) for address in found["addresses"]),
        ]
    )


def describe_work(work: dict[str, Any]) -> str:
    """What a worker does, in a few words."""
    whose = f" of {work['trainer'][:8]}" if work["trainer"] else ""
    loss = f", loss {decimal(work['loss'])}" if work["loss"] is not None else ""
    done = f" {work['segment']}/{work['total']}" if work["total"] else ""
    resumed = f", resumed at segment {work['resumed']}" if work.get("resumed") else ""
    return f"{work['kind']}{whose}, round {work['round']}{done}{loss}{resumed}"


def peers(root: NodeOption = DEFAULT_NODE, as_json: JsonOption = False) -> None:
    """List the peers a node is connected to."""
    with open_node(root) as client:
        found = client.status()["peers"]
    if as_json:
        print_json({"peers": found})
        return
    print_table(
        ("peer", "address", "received", "sent", "refused"),
        [
            (peer["peer_id"], peer["address"] or "-", peer["bytes_in"], peer["bytes_out"], peer["rejects"])
            for peer in found
        ],
    )

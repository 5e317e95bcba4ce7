"""`milon join`: run a node."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from milon.client.devices import HELP, verify_device

from .options import DEFAULT_NODE, BootstrapOption, DataOption, JsonOption
from .output import print_json
from .prepare_folder import describe_folder, prepare_folder

if TYPE_CHECKING:
    from milon.node.config import Config
    from milon.node.folder import NodeFolder


def join(
    root: DataOption = DEFAULT_NODE,
    bootstrap: BootstrapOption = None,
    genesis: Annotated[Path | None, typer.Option(help="Genesis file of the chain.")] = None,
    genesis_hash: Annotated[str, typer.Option(help="Its hash; enough, the file then comes from a peer.")] = "",
    role: Annotated[str | None, typer.Option(help="validator, trainer or full.")] = None,
    device: Annotated[str | None, typer.Option(help=HELP)] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the worker.")] = None,
    listen_host: Annotated[str | None, typer.Option(help="IP address for other nodes.")] = None,
    announce_host: Annotated[str | None, typer.Option(help="IP address others reach it at, if another.")] = None,
    listen_port: Annotated[int | None, typer.Option(help="TCP port for other nodes; 0: a free one.")] = None,
    api_port: Annotated[int | None, typer.Option(help="TCP port of the HTTP API; 0: a free one.")] = None,
    mode: Annotated[str | None, typer.Option(help="archive, default or light: how much of the past is kept.")] = None,
    checkpoint_budget: Annotated[
        str | None,
        typer.Option(help="For states of own segments in open rounds: 8GiB, 500MB; the rest is recomputed."),
    ] = None,
    watch: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of others' segments to replay unasked; lies are challenged."),
    ] = None,
    trusted_hash: Annotated[
        str, typer.Option(help="Hash of a recent final block that you trust: begin with a snapshot near it.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Run a node until Ctrl-C or `milon stop`. The folder is made where there is none; options given are kept in it.

    With --json it first prints the node's folder, account and peer id.
    """
    from milon.node.folder import NodeFolder

    folder = NodeFolder(root)
    given: dict[str, Any] = {
        "bootstrap": tuple(bootstrap) if bootstrap else None,
        "genesis_hash": genesis_hash.lower() or None,
        "role": role,
        "device": device,
        "threads": threads,
        "listen_host": listen_host,
        "announce_host": announce_host,
        "listen_port": listen_port,
        "api_port": api_port,
        "mode": mode,
        "watch_ppm": None if watch is None else round(watch * 1_000_000),
        "checkpoint_bytes_max": _read_size("--checkpoint-budget", checkpoint_budget),
        "trusted_hash": trusted_hash.lower() or None,
    }
    config = _settle(folder, given, genesis)
    if as_json:
        print_json(describe_folder(folder))
    raise typer.Exit(_run(folder, config))


def _read_size(name: str, text: str | None) -> int | None:
    from milon.node.config import parse_bytes

    return None if text is None else parse_bytes(name, text)


def _settle(folder: NodeFolder, given: dict[str, Any], genesis: Path | None) -> Config:
    """The folder's settings with those given, kept in it; `Rejected` where they do not say which chain."""
    from milon.base.errors import Reason, require
    from milon.node.config import Config, load_config, save_config

    current = load_config(folder) if folder.config.exists() else Config()
    verify_device(given["device"] or current.device)
    old_hash, new_hash = current.genesis_hash, given["genesis_hash"]
    is_same = not old_hash or new_hash in (None, old_hash)
    require(is_same, Reason.WRONG_CHAIN, f"{folder.root} belongs to chain {old_hash[:8]}; name another folder")
    config = dataclasses.replace(current, **{name: value for name, value in given.items() if value is not None})
    if folder.config.exists() and config != current:
        save_config(folder, config)
    config = prepare_folder(folder, config, genesis)
    is_known = folder.genesis.exists() or (config.genesis_hash and config.bootstrap)
    require(
        bool(is_known),
        Reason.UNAVAILABLE,
        "which chain? give --genesis FILE, or --bootstrap ADDRESS and --genesis-hash",
    )
    return config


def _run(folder: NodeFolder, config: Config) -> int:
    from milon.api.server import make_server
    from milon.node.keys import load_token
    from milon.node.wiring import run_node

    server = make_server(load_token(folder), config.api_port, folder.work, config.blob_bytes_max)
    return run_node(folder.root, config, server)

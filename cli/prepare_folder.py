"""Makes or completes a node's folder before a start."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from milon.node.config import Config
    from milon.node.folder import NodeFolder


def prepare_folder(folder: NodeFolder, config: Config, genesis_file: Path | None) -> Config:
    """Write what the folder lacks: keys, token, genesis, settings; the settings that hold in the end.

    `config` is for a folder without settings of its own. A genesis file is copied where none is yet; another one than
    the folder's is refused, and so is one that is not the chain of the settings.
    """
    from milon.base.codec import encode
    from milon.base.errors import Reason, require
    from milon.chain.genesis import compute_genesis_hash
    from milon.node.config import load_config, save_config, verify_config
    from milon.node.folder import write_file
    from milon.node.keys import ensure_key, ensure_token
    from milon.node.moving import require_here
    from milon.node.testnet_files import load_genesis

    require_here(folder)
    settled = load_config(folder) if folder.config.exists() else config
    verify_config(settled)
    given = load_genesis(genesis_file) if genesis_file is not None else None
    genesis = load_genesis(folder.genesis) if folder.genesis.exists() else given
    if genesis is not None:
        found = compute_genesis_hash(genesis).hex()
        if given is not None:
            other = compute_genesis_hash(given).hex()
            require(other == found, Reason.WRONG_CHAIN, f"{folder.root} belongs to chain {found[:8]}, not {other[:8]}")
        expected = settled.genesis_hash or config.genesis_hash or found
        require(found == expected, Reason.WRONG_CHAIN, f"the genesis has hash {found}, not {expected}")
        settled = dataclasses.replace(settled, genesis_hash=found)
    folder.make()
    ensure_key(folder.validator_key)
    ensure_key(folder.network_key)
    ensure_token(folder)
    if genesis is not None and not folder.genesis.exists():
        write_file(folder.genesis, encode(genesis))
    if not folder.config.exists() or settled != load_config(folder):
        save_config(folder, settled)
    return settled


def describe_folder(folder: NodeFolder) -> dict[str, str]:
    """Whose folder it is."""
    from milon.node.keys import compute_peer_id_of, load_key

    return {
        "folder": str(folder.root),
        "account": load_key(folder.validator_key).account.hex(),
        "peer_id": compute_peer_id_of(load_key(folder.network_key)),
    }

"""Opens the HTTP client of the node that runs on a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .output import print_json, print_lines

if TYPE_CHECKING:
    from milon.base.signing import SecretKey
    from milon.chain.transaction import Action
    from milon.client.http import NodeClient


def open_node(root: Path, is_spending: bool = False) -> NodeClient:
    """The client of the node on a folder; with its token where something is spent. `NoNode` where none runs."""
    from milon.client.http import NodeClient
    from milon.client.refusals import NoNode
    from milon.node.folder import NodeFolder, read_address
    from milon.node.keys import load_token

    folder = NodeFolder(root)
    url = read_address(folder)
    if url is None:
        raise NoNode(f"no node runs on {root}; start one with `milon join ...`, or name its folder with --node")
    return NodeClient(url, load_token(folder) if is_spending else "")


def load_signer(root: Path, key: Path | None) -> SecretKey:
    """The key that signs: the file named, or the node's own."""
    from milon.node.folder import NodeFolder
    from milon.node.keys import load_key

    return load_key(key if key is not None else NodeFolder(root).validator_key)


def send_action(action: Action, root: Path, key: Path | None, fee: int, as_json: bool) -> None:
    """Sign an action, send it, wait until it is in a final block, and say so; `Refused` with the chain's reason."""
    signer = load_signer(root, key)
    with open_node(root, is_spending=True) as client:
        receipt = client.wait_receipt(client.send(signer, action, fee))
    if as_json:
        print_json(receipt)
    else:
        print_lines([f"done at height {receipt['height']}: transaction {receipt['transaction']}"])

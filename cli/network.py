"""Raises a test network on this machine and waits until it is one: every node answers and sees all the others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milon.client.devices import CPU
from milon.client.waiting import wait_until

from .processes import find_process, read_last_lines, start_node, stop_nodes

if TYPE_CHECKING:
    from milon.chain.params import Parameters
    from milon.node.folder import NodeFolder
    from milon.node.testnet_files import Testnet

UP_S = 60.0  # five nodes need a few seconds; a slow machine more
UP_EACH_S = 12.0  # and so much of a node where there are more: a start is two seconds of a core


def read_adversaries(texts: list[str]) -> dict[int, str]:
    """Adversaries by index from `INDEX=KIND`; a usage error for anything else."""
    import typer

    found: dict[int, str] = {}
    for text in texts:
        index, sign, kind = text.partition("=")
        if not sign or not index.isdigit() or not kind:
            raise typer.BadParameter(f"{text!r} is not INDEX=KIND, such as 4=sign-flip", param_hint="--adversary")
        found[int(index)] = kind
    return found


def make_local(
    root: Path, nodes: int, adversaries: Mapping[int, str], parameters: Parameters, threads: int, device: str = CPU
) -> Testnet:
    """Write a test network for this machine, on ports that are free."""
    from milon.base.units import TimeMs
    from milon.node.ports import find_free_ports
    from milon.node.testnet_files import Place, TestnetPlan, make_testnet

    now_ms = time.time_ns() // 1_000_000
    ports = find_free_ports(2 * nodes)
    places = tuple(Place("127.0.0.1", ports[2 * index], ports[2 * index + 1]) for index in range(nodes))
    chain_id = f"testnet-{now_ms}"
    time_ms = TimeMs(now_ms)
    plan = TestnetPlan(chain_id, time_ms, places, parameters, adversaries=adversaries, threads=threads, device=device)
    return make_testnet(root, plan)


def read_status(folder: NodeFolder) -> dict[str, Any] | None:
    """A node's status, or None while it does not answer."""
    from milon.base.errors import Rejected
    from milon.client.refusals import NoNode

    from .connection import open_node

    try:
        with open_node(folder.root) as client:
            return client.status()
    except (NoNode, Rejected):
        return None


def raise_network(testnet: Testnet, say: Callable[[str], None]) -> None:
    """Start what does not run, and wait until all see all; on failure or Ctrl-C what was started here ends again."""
    from milon.base.errors import Reason, Rejected

    nodes = testnet.nodes
    timeout_s = max(UP_S, UP_EACH_S * len(nodes))
    sleeping = [folder for folder in nodes if find_process(folder) is None]
    with contextlib.ExitStack() as undo:
        undo.callback(stop_nodes, sleeping)
        for folder in sleeping:
            start_node(folder)
        say(f"started {len(sleeping)} of {len(nodes)} nodes; waiting until they see each other")
        if not wait_until(lambda: _is_whole(nodes), timeout_s):
            raise Rejected(Reason.UNAVAILABLE, f"the network did not come up in {timeout_s:.0f} s; {_describe(nodes)}")
        undo.pop_all()


def _is_whole(nodes: tuple[NodeFolder, ...]) -> bool:
    from milon.base.errors import Reason, Rejected

    for folder in nodes:
        if find_process(folder) is None:
            raise Rejected(Reason.UNAVAILABLE, f"the node on {folder.root} ended:\n{read_last_lines(folder, 5)}")
    statuses = (read_status(folder) for folder in nodes)
    return all(status is not None and len(status["peers"]) >= len(nodes) - 1 for status in statuses)


def _describe(nodes: tuple[NodeFolder, ...]) -> str:
    words = []
    for index, folder in enumerate(nodes):
        status = read_status(folder)
        words.append(f"node {index} " + ("does not answer" if status is None else f"sees {len(status['peers'])} peers"))
    return ", ".join(words) + f"; logs: {nodes[0].root.parent}/node*/node.log"

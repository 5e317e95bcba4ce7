"""A test network in which each node has a network of its own (Linux namespaces), so that its cable can be pulled.

Node i is 10.77.0.(i + 1) on a bridge in a namespace that nothing else is in: neither the machine's own network nor
another run's is touched. It takes iproute2 and the right to make namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CDLL, get_errno
from pathlib import Path
from typing import Any

from milon.base.units import TimeMs
from milon.chain.params import Parameters
from milon.node.testnet_files import Place, TestnetPlan, make_testnet
from milon_cli.processes import start_node
from tests.system.live import KEPT, Live, end_network, wait_for

LISTEN_PORT, API_PORT = 4_001, 4_002
NEW_NETWORK = 0x40000000  # CLONE_NEWNET, setns(2)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"


def find_obstacle() -> str:
    """Why no namespaces can be made here; empty: they can."""
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    name = f"milon-{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return tried.stderr.strip().splitlines()[-1]
    bridge = ["ip", "-n", name, "link", "add", "name", "bridge0", "type", "bridge"]
    bridged = subprocess.run(bridge, capture_output=True, text=True, check=False)
    _ip("netns", "del", name)
    return bridged.stderr.strip()


class Cables:
    """The namespaces of some nodes, and the bridge between them."""

    def __init__(self, count: int) -> None:
        """Make them; `close` removes them."""
        self._hub = f"milon-{os.getpid()}-hub"
        self._names = [f"milon-{os.getpid()}-{index}" for index in range(count)]
        self._made: list[str] = []
        for name in (self._hub, *self._names):
            _ip("netns", "add", name)
            self._made.append(name)
        _ip("-n", self._hub, "link", "add", "name", "bridge0", "type", "bridge")
        _ip("-n", self._hub, "link", "set", "bridge0", "up")
        for index, name in enumerate(self._names):
            port = f"port{index}"
            _ip("-n", self._hub, "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", self._hub, "link", "set", port, "master", "bridge0")
            _ip("-n", self._hub, "link", "set", port, "up")
            _ip("-n", name, "addr", "add", f"{self.address(index)}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _ip("-n", name, "link", "set", device, "up")

    def address(self, index: int) -> str:
        """Where a node is."""
        return f"10.77.0.{index + 1}"

    def pull(self, index: int) -> None:
        """Nothing reaches the node any more, and nothing of it gets out; the machine itself still talks to its API."""
        _ip("-n", self._hub, "link", "set", f"port{index}", "down")

    def plug(self, index: int) -> None:
        """The node is back."""
        _ip("-n", self._hub, "link", "set", f"port{index}", "up")

    @contextmanager
    def inside(self, index: int) -> Iterator[None]:
        """This thread's new sockets, and the processes that it starts, are in the node's network."""
        library = CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as home, Path(f"/run/netns/{self._names[index]}").open() as there:
            assert library.setns(there.fileno(), NEW_NETWORK) == 0, os.strerror(get_errno())
            try:
                yield
            finally:
                assert library.setns(home.fileno(), NEW_NETWORK) == 0, os.strerror(get_errno())

    def close(self) -> None:
        """Remove what was made."""
        while self._made:
            _ip("netns", "del", self._made.pop())


class CabledLive(Live):
    """A running network whose cables can be pulled."""

    def __init__(self, root: Path, cables: Cables) -> None:
        """Of nodes that are started."""
        super().__init__(root)
        self.cables = cables

    def ask(self, index: int, question: Callable[[Any], Any]) -> Any:
        """See `Live.ask`: the API listens in the node's own network."""
        with self.cables.inside(index):
            return super().ask(index, question)

    def start(self, index: int) -> None:
        """Start a node in its own network."""
        with self.cables.inside(index):
            start_node(self.folders[index])


@contextmanager
def cabled_network(root: Path, count: int, parameters: Parameters) -> Iterator[CabledLive]:
    """A running network of its own, each node behind a cable; whatever happens, processes and namespaces are ended."""
    cables = Cables(count)
    KEPT.append(root)
    try:
        places = tuple(Place(cables.address(index), LISTEN_PORT, API_PORT) for index in range(count))
        make_testnet(root, TestnetPlan("cabled", TimeMs(time.time_ns() // 1_000_000), places, parameters))
        live = CabledLive(root, cables)
        for index in range(count):
            live.start(index)
        wait_for("all nodes see all", lambda: all(_sees(live, index, count - 1) for index in range(count)))
        yield live
    finally:
        end_network(root)
        cables.close()
        KEPT.remove(root)


def _sees(live: CabledLive, index: int, others: int) -> bool:
    status = live.status(index)
    return status is not None and len(status["peers"]) >= others

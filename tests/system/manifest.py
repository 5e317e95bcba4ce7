"""Runs a network of real processes through a manifest of misfortunes, and then asks it over HTTP what came of it.

A manifest is a TOML file: how many nodes, which chain parameters, the steps with the heights at which they happen, and
what must hold at the end. Actions: `kill` (SIGKILL), `end` (SIGTERM), `start`, `pause` and `resume` (SIGSTOP, SIGCONT),
`upgrade` (ended, and started as another version), `double` (the validator's key runs on a second host, too).
"""

from __future__ import annotations

import os
import shutil
import signal
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from milon.node.config import load_config, save_config
from milon.node.folder import NodeFolder
from milon.node.keys import generate_key, write_key
from milon_cli.processes import find_process, start_node, stop_nodes
from tests.system.live import Json, Live, live_network, wait_for

NEXT_VERSION = "9.9.9"  # of the software that an upgraded node runs
TIMES = ("--block-time-ms", "300", "--delta-ms", "300")


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to a node."""

    height: int  # once the chain is so high
    action: str  # see the module
    node: int  # its index


@dataclass(frozen=True, slots=True)
class Manifest:
    """A run."""

    nodes: int  # how many, all validators of equal stake
    blocks: int  # the chain has at least so many at the end
    parameters: tuple[str, ...]  # of the chain, NAME=NUMBER
    steps: tuple[Step, ...]  # in order of height
    tombstoned: tuple[int, ...]  # nodes whose validators are out for good at the end
    stays: tuple[int, ...]  # nodes whose validators lead and vote at the end


def load_manifest(path: Path) -> Manifest:
    """Read a manifest."""
    found = tomllib.loads(path.read_text())
    steps = tuple(Step(**step) for step in found.pop("step"))
    lists = {name: tuple(found.pop(name)) for name in ("parameters", "tombstoned", "stays")}
    return Manifest(steps=steps, **lists, **found)


class Run:
    """A network under way through its manifest."""

    def __init__(self, live: Live, scratch: Path) -> None:
        """Of a running network; `scratch` takes the folders of second hosts."""
        self.live = live
        self._scratch = scratch
        self._paused: set[int] = set()
        self.doubles: list[NodeFolder] = []
        self._actions: dict[str, Callable[[int], None]] = {
            "kill": live.kill,
            "end": lambda node: _end(live.folders[node]),
            "start": lambda node: _start(live.folders[node]),
            "pause": self._pause,
            "resume": self._resume,
            "upgrade": self._upgrade,
            "double": self._double,
        }

    def height(self) -> int:
        """Of the highest node that answers."""
        awake = [node for node in range(len(self.live.folders)) if node not in self._paused]
        return max((status["height"] for node in awake if (status := self.live.status(node))), default=0)

    def take(self, step: Step) -> None:
        """Wait for the step's height, and do it."""
        wait_for(f"height {step.height}, to {step.action} node {step.node}", lambda: self.height() >= step.height)
        self._actions[step.action](step.node)

    def _pause(self, node: int) -> None:
        os.killpg(self.live.pid(node), signal.SIGSTOP)
        self._paused.add(node)

    def _resume(self, node: int) -> None:
        os.killpg(self.live.pid(node), signal.SIGCONT)
        self._paused.discard(node)

    def _upgrade(self, node: int) -> None:
        folder = self.live.folders[node]
        _end(folder)
        place = self._scratch / "next-version"
        place.mkdir(exist_ok=True)
        (place / "sitecustomize.py").write_text(f"import milon.version\n\nmilon.version.VERSION = {NEXT_VERSION!r}\n")
        with _environment("PYTHONPATH", str(place)):
            _start(folder)
        wait_for("the new version answers", lambda: (self.live.status(node) or {}).get("version") == NEXT_VERSION)

    def _double(self, node: int) -> None:
        original, copy = self.live.folders[node], NodeFolder(self._scratch / f"double-{node}")
        copy.make()
        shutil.copy(original.validator_key, copy.validator_key)
        write_key(copy.network_key, generate_key())
        for name in ("genesis", "token"):
            shutil.copy(getattr(original, name), getattr(copy, name))
        first = self.live.status(0)
        assert first is not None
        settings = replace(load_config(original), listen_port=0, api_port=0, bootstrap=(first["addresses"][0],))
        save_config(copy, settings)
        self.doubles.append(copy)
        _start(copy)

    def close(self) -> None:
        """Let sleepers wake, and end the second hosts."""
        for node in sorted(self._paused):
            self._resume(node)
        stop_nodes(self.doubles)


def _start(folder: NodeFolder) -> None:
    start_node(folder)
    assert find_process(folder) is not None


def _end(folder: NodeFolder) -> None:
    stop_nodes([folder])
    assert find_process(folder) is None


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def running(manifest: Manifest, scratch: Path) -> Iterator[Run]:
    """The network after all steps of the manifest."""
    options = [word for parameter in manifest.parameters for word in ("--set", parameter)]
    with live_network(scratch / "net", manifest.nodes, *TIMES, *options) as live:
        run = Run(live, scratch)
        try:
            for step in manifest.steps:
                run.take(step)
            yield run
        finally:
            run.close()


def list_faults(run: Run, manifest: Manifest) -> list[str]:
    """What does not hold of the network at the end, asked over HTTP alone; waits for what takes time."""
    live, faults = run.live, []
    wait_for(f"height {manifest.blocks}", lambda: run.height() >= manifest.blocks)
    views: dict[str, Json] = {}

    def are_out() -> bool:
        for account in live.accounts:  # one by one: who is out for good is no longer listed
            views[account] = live.ask(0, lambda client, account=account: client.validator(account)) or {}
        out = [views[live.accounts[node]] for node in manifest.tombstoned]
        return all(view.get("is_tombstoned") and view["power"] == 0 for view in out)

    wait_for("offenders out of the set", are_out)
    since = run.height()  # from here on the expected lead
    wait_for("each leads a few times", lambda: run.height() > since + 3 * len(manifest.stays))
    tip = live.wait_same_tip()
    for height in range(1, tip + 1):
        headers = [(live.block(node, height) or {}).get("header") for node in manifest.stays]
        if any(header != headers[0] for header in headers) or headers[0] is None:
            faults.append(f"height {height}: headers differ, or are not there: {headers}")
    expected = {live.accounts[node] for node in manifest.stays}
    members = {account for account, view in views.items() if view["power"] > 0}
    if members != expected:
        faults.append(f"members {sorted(members)}, expected {sorted(expected)}")
    last: list[Any] = [live.block(0, height) for height in range(since + 1, tip + 1)]
    leaders = {block["header"]["proposer"] for block in last}
    if leaders != expected:
        faults.append(f"leaders {sorted(leaders)}, expected {sorted(expected)}")
    for account, view in views.items():
        is_guilty = account in {live.accounts[node] for node in manifest.tombstoned}
        if bool(view["taken_ppm"]) != is_guilty or view["is_tombstoned"] != is_guilty:
            faults.append(f"{account}: {view}")
    return faults

"""Test networks of real processes, driven as a user drives them: by the `milon` command and the nodes' HTTP API."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milon.base.errors import Rejected
from milon.client.http import NodeClient
from milon.client.refusals import NoNode
from milon.node.folder import NodeFolder, read_address
from milon.node.testnet_files import Testnet, load_testnet
from milon_cli.processes import find_process, read_last_lines, stop_nodes

Json = dict[str, Any]

REPOSITORY = Path(__file__).parents[2]
MLP_JOB = Path(__file__).parent / "mlp_job.py"
# Terms of a job that waits for a slow machine instead of going on without it; for tests in which nobody stays away.
PATIENT = tuple(f"--term={name}-blocks=2000" for name in ("claim", "attest", "judge", "aggregate"))
DEADLINE_S = 240.0  # of one step; seconds on a quiet machine, and machines are shared
LOG_LINES = 40  # of each node's log, in the report of a failed test

KEPT: list[Path] = []  # networks whose logs a failed test shows; see conftest.py


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command came to."""

    code: int  # exit code
    answer: Json  # the JSON it printed; empty where it printed none
    told: str  # standard error


class Running:
    """A `milon` command with `--json` that runs; leaving the context kills it where it has not ended."""

    def __init__(self, *arguments: str | Path) -> None:
        """Start it."""
        self._command = [sys.executable, "-m", "milon_cli", *map(str, arguments), "--json"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, cwd=REPOSITORY
        )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *details: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def end(self, codes: tuple[int, ...] = (0,), timeout_s: float = DEADLINE_S) -> Ran:
        """Wait for its end, which must be one of `codes`."""
        stdout, stderr = self._process.communicate(timeout=timeout_s)
        code = self._process.returncode
        assert code in codes, f"{' '.join(self._command)}: {code}\n{stdout[-2000:]}\n{stderr[-4000:]}"
        return Ran(code, json.loads(stdout) if stdout.strip() else {}, stderr)


def run_milon(*arguments: str | Path, codes: tuple[int, ...] = (0,), timeout_s: float = DEADLINE_S) -> Ran:
    """Run a `milon` command with `--json` to its end, which must be one of `codes`."""
    with Running(*arguments) as running:
        return running.end(codes, timeout_s)


def wait_for(what: str, probe: Callable[[], Any], timeout_s: float = DEADLINE_S, pause_s: float = 0.2) -> Any:
    """The first answer of `probe` that is true; fails, naming `what`, once `timeout_s` seconds are over."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < deadline, f"not in {timeout_s:.0f} s: {what}"
        time.sleep(pause_s)  # between two looks; the deadline decides


class Live:
    """A test network on this machine: its files, and ways to ask and to harm its nodes."""

    def __init__(self, root: Path) -> None:
        """Of the network in `root`, running or not."""
        self.root = root
        self.files: Testnet = load_testnet(root)

    @property
    def folders(self) -> tuple[NodeFolder, ...]:
        """The nodes' folders, in order of index."""
        return self.files.nodes

    @property
    def accounts(self) -> tuple[str, ...]:
        """The nodes' accounts, in order of index."""
        return self.files.accounts

    def up(self) -> Json:
        """Start the nodes that do not run, and wait until all see all."""
        return run_milon("testnet", "up", "--dir", self.root).answer

    def down(self) -> Json:
        """End all nodes in good order."""
        return run_milon("testnet", "down", "--dir", self.root).answer

    def client(self, index: int, is_spending: bool = False) -> NodeClient:
        """The HTTP client of a node; close it."""
        folder = self.folders[index]
        token = folder.token.read_text().strip() if is_spending else ""
        return NodeClient(read_address(folder) or "http://127.0.0.1:9", token)

    def ask(self, index: int, question: Callable[[NodeClient], Any]) -> Any:
        """The answer of a node, or None where it gives none."""
        with contextlib.suppress(NoNode, Rejected), self.client(index) as client:
            return question(client)
        return None

    def status(self, index: int) -> Json | None:
        """A node's status, or None."""
        return self.ask(index, lambda client: client.status())

    def job(self, index: int, job: str) -> Json | None:
        """The job as a node sees it, or None."""
        return self.ask(index, lambda client: client.job(job))

    def block(self, index: int, name: int | str) -> Json | None:
        """A block as a node holds it, or None."""
        return self.ask(index, lambda client: client.block(name))

    def submit(self, *options: str, node: int = 0, file: Path = MLP_JOB) -> str:
        """Submit a job as a user does; its name."""
        place = ("--node", self.folders[node].root, "--key", self.files.submitter_key)
        name: str = run_milon("submit-job", file, *place, *options).answer["job"]
        return name

    def wait_job(self, index: int, job: str, what: str, is_there: Callable[[Json], Any]) -> Json:
        """The job as a node sees it, once `is_there` holds of it."""
        seen: list[Json] = []

        def probe() -> bool:
            found = self.job(index, job)
            if found is not None:
                seen[:] = [found]
                assert found["status"] != "rejected", f"the job was rejected: {found['reason']}"
                assert found["status"] != "finished" or is_there(found), f"the job ended before: {what}"
            return found is not None and bool(is_there(found))

        wait_for(f"job {job[:8]} on node {index}: {what}", probe)
        return seen[0]

    def wait_round(self, index: int, job: str, number: int) -> Json:
        """The job, once at least `number` of its rounds are closed."""
        return self.wait_job(index, job, f"{number} rounds", lambda found: found["round"] >= number)

    def wait_finished(self, index: int, job: str) -> Json:
        """The job, once it is finished."""
        return self.wait_job(index, job, "its end", lambda found: found["status"] == "finished")

    def pid(self, index: int) -> int:
        """The running process of a node."""
        process = find_process(self.folders[index])
        assert process is not None, f"node {index} does not run:\n{read_last_lines(self.folders[index], LOG_LINES)}"
        return process.pid

    def kill(self, index: int) -> None:
        """kill -9 of the node's process alone; its worker has to notice by itself."""
        pid = self.pid(index)
        os.kill(pid, signal.SIGKILL)
        wait_for(f"node {index} is gone with its worker", lambda: not group_members(pid))

    def assert_all_run(self) -> None:
        """No node has ended by itself."""
        for index in range(len(self.folders)):
            self.pid(index)

    def wait_same_tip(self) -> int:
        """Wait until all nodes answer and hold the same block at the lowest of their heights; that height."""

        def probe() -> int:
            statuses = [self.status(index) for index in range(len(self.folders))]
            if any(status is None for status in statuses):
                return 0
            height = min(status["height"] for status in statuses if status)
            if max(status["height"] for status in statuses if status) - height > 3:
                return 0
            hashes = {(self.block(index, height) or {}).get("hash") for index in range(len(self.folders))}
            assert len(hashes - {None}) < 2, f"two blocks at height {height}: {hashes}"
            return height if None not in hashes else 0

        found: int = wait_for("all nodes at the same tip", probe)
        return found


def list_differences(live: Live, first: int, tip: int, looks: int = 120) -> list[str]:
    """Heights from `first` to `tip` at which nodes do not hold the same header; every one, or so many spread evenly.

    A header names the one below by its hash: what is the same at the tip is the same all the way down, and the looks
    further down are for what the stores give out.
    """
    found = []
    for height in sorted({*range(first, tip + 1, max(1, (tip - first) // looks)), tip}):
        headers = [(live.block(node, height) or {}).get("header") for node in range(len(live.folders))]
        if headers[0] is None or any(header != headers[0] for header in headers):
            found.append(f"height {height}: headers differ, or are not there: {headers}")
    return found


def group_members(group: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] not in "ZX" and int(fields[2]) == group:
                    found.append(int(entry.name))
    return found


@contextlib.contextmanager
def live_network(root: Path, nodes: int, *options: str) -> Iterator[Live]:
    """A running test network of its own; whatever happens, its processes are ended."""
    KEPT.append(root)
    try:
        run_milon("testnet", "up", "--nodes", str(nodes), "--dir", root, *options)
        yield Live(root)
    finally:
        end_network(root)
        KEPT.remove(root)


def end_network(root: Path) -> None:
    """End what runs of a network, and its workers."""
    folders = Testnet(root).nodes
    groups = [process.pid for process in map(find_process, folders) if process is not None]
    stop_nodes(folders)
    left = [pid for group in groups for pid in group_members(group)]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def tail_logs(root: Path) -> str:
    """Where a network's logs are, and the end of each."""
    words = [f"logs: {root}/node*/node.log"]
    for folder in Testnet(root).nodes:
        words += [f"--- {folder.log}", read_last_lines(folder, LOG_LINES)]
    return "\n".join(words)

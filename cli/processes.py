"""Starts and ends the node processes of a test network on this machine, and never a process that is not one of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from milon.client.waiting import wait_until

if TYPE_CHECKING:
    from milon.node.folder import NodeFolder

GRACE_S = 10.0  # a node ends in well under a second; one that is being written to disk gets this long
KILL_S = 5.0  # the system needs no longer to end a killed process


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """A process, named so that a later one with the same number is not taken for it."""

    pid: int  # its number, and that of its process group
    started: str  # when it started, in the system's own words


def pid_file(folder: NodeFolder) -> Path:
    """Where a node's process is written down."""
    return folder.root / "node.pid"


def _read_start(pid: int) -> str | None:
    """When a living process started; None for one that is gone or only waits to be reaped."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            return None if fields[0] in "ZX" else fields[19]  # proc(5): state is field 3, starttime field 22
        return None
    told = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = told.stdout.strip().partition(" ")
    return started.strip() if state and not state.startswith("Z") else None


def find_process(folder: NodeFolder) -> NodeProcess | None:
    """The running process of a node that `start_node` started, or None."""
    try:
        pid, _, started = pid_file(folder).read_text().strip().partition(" ")
        process = NodeProcess(int(pid), started)
    except (OSError, ValueError):
        return None
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)  # our own child, where this process started it: let it be gone
    return process if _read_start(process.pid) == process.started else None


def start_node(folder: NodeFolder, arguments: Sequence[str] = ()) -> NodeProcess:
    """Start a node's process in a group of its own, its words in node.log; one that runs already is left alone."""
    from milon.base.errors import Reason, Rejected
    from milon.node.folder import refusing_os_errors, withdraw_address, write_file

    running = find_process(folder)
    if running is not None:
        return running
    with refusing_os_errors(f"cannot start a node on {folder.root}"):
        withdraw_address(folder)  # left by one that was killed
        with folder.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "milon_cli", "join", "--data", str(folder.root), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the terminal is for the command, which then ends its nodes in order
                env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )
    started = _read_start(process.pid)
    if started is None:
        process.wait()
        raise Rejected(Reason.UNAVAILABLE, f"the node on {folder.root} ended at once: {read_last_lines(folder, 3)}")
    found = NodeProcess(process.pid, started)
    write_file(pid_file(folder), f"{found.pid} {found.started}\n".encode())
    return found


def stop_nodes(folders: Iterable[NodeFolder], grace_s: float = GRACE_S) -> tuple[int, ...]:
    """End nodes: ask all of them, wait, then kill what is left with its workers; the indices of those killed."""
    everyone = list(enumerate(folders))

    def is_over() -> bool:
        return all(find_process(folder) is None for _, folder in everyone)

    with ignoring_interrupts():
        for _, folder in everyone:
            _signal(folder, signal.SIGTERM)
        wait_until(is_over, grace_s)
        killed = tuple(index for index, folder in everyone if kill_node(folder))
        wait_until(is_over, KILL_S)
        for _, folder in everyone:
            if find_process(folder) is None:
                pid_file(folder).unlink(missing_ok=True)
                folder.address.unlink(missing_ok=True)
    return killed


@contextlib.contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Let nobody's second Ctrl-C leave processes behind; the deadlines inside keep the wait short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def kill_node(folder: NodeFolder) -> bool:
    """End a node and its workers at once (SIGKILL to its group); whether there was one."""
    process = find_process(folder)
    if process is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return True


def _signal(folder: NodeFolder, number: signal.Signals) -> None:
    process = find_process(folder)
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def read_last_lines(folder: NodeFolder, count: int) -> str:
    """The end of a node's log, for messages."""
    try:
        with folder.log.open("rb") as file:
            file.seek(max(0, folder.log.stat().st_size - 16_384))  # far more than a few lines
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-count:])

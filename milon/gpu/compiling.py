"""Loops are compiled once per machine: processes take turns, and the later ones find the machine code on disk."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import monotonic

_LOG = logging.getLogger(__name__)
_WAIT_SECONDS_MAX = 300.0  # ten times what compiling takes on two busy cores; then the lock's holder must be stuck
_POLL_SECONDS = 0.1
_NOTABLE_SECONDS = 3.0  # reading kept machine code takes less


def lock_path() -> Path:
    """Where the lock lies: with the machine code, or where anybody may write if that folder is read-only."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(chosen) if chosen else Path(__file__).parent / "__pycache__"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK):
        return folder / "milon-kernels.lock"
    return Path(tempfile.gettempdir()) / f"milon-kernels-{os.getuid() if hasattr(os, 'getuid') else 0}.lock"


def pause(seconds: float) -> None:
    """Wait, in a thread that has nothing else to do: locks of files cannot be waited for with a deadline."""
    Event().wait(seconds)


def _wait_for(descriptor: int) -> None:
    """Until the lock is this process's; where there are no locks, or its holder is stuck, go on without."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: each process compiles for itself
        return
    deadline = monotonic() + _WAIT_SECONDS_MAX
    while monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pause(_POLL_SECONDS)
        else:
            return
    _LOG.warning("another process has been compiling for %d s; not waiting any longer", _WAIT_SECONDS_MAX)


@contextlib.contextmanager
def turn(what: str) -> Iterator[None]:
    """Within, no other process of this machine compiles; says so in the log where it took long. Not to be nested."""
    try:
        descriptor = os.open(lock_path(), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:  # a lock is a matter of speed alone
        _LOG.warning("no lock for compiling: %s", error)
        yield
        return
    try:
        _wait_for(descriptor)
        begun = monotonic()
        yield
        taken = monotonic() - begun
        if taken > _NOTABLE_SECONDS:
            _LOG.warning("compiling %s took %d s; later processes read it from %s", what, taken, lock_path().parent)
    finally:
        os.close(descriptor)  # gives the lock back

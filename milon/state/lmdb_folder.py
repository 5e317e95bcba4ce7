"""The folder around the store's data file: its lock, its length, and the room left on its disk."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from milon.base.errors import Reason, Rejected

LOCK_NAME = "store.lock"
DATA_NAME = "data.mdb"


def refuse_corrupt(folder: Path, cause: str) -> Rejected:
    """The refusal of a damaged store."""
    return Rejected(
        Reason.CORRUPT,
        f"the store in {folder} is damaged ({cause}); this node cannot use it; "
        "move the folder away and let the node fetch the chain anew, the keys are not in it",
    )


def count_free_bytes(folder: Path) -> int:
    """Bytes that this user may still write on the folder's disk."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def require_room(folder: Path, free_bytes_min: int) -> None:
    """Raise `Rejected(FULL)` while there is room left: the vote log and other programs need some to end in order."""
    free = count_free_bytes(folder)
    if free < free_bytes_min:
        raise Rejected(
            Reason.FULL,
            f"{free >> 20} MiB are free on the disk of {folder} and {free_bytes_min >> 20} MiB must stay free; "
            "nothing of this block was stored and nothing is damaged; free space and start again",
        )


def verify_length(folder: Path) -> None:
    """Raise `Rejected(CORRUPT)` if the data file is shorter than it was after some commit; it never shrinks."""
    hint, data = folder / LOCK_NAME, folder / DATA_NAME
    text = hint.read_bytes()[:32].strip() if hint.exists() else b""
    size = data.stat().st_size if data.exists() else 0
    if text.isdigit() and size < int(text):
        raise refuse_corrupt(folder, f"{DATA_NAME} has {size} bytes where {int(text)} were written")


class FolderLock:
    """The right to a folder, held by one process until it ends, and the length hint."""

    def __init__(self, folder: Path) -> None:
        """Take it; `Rejected(IN_USE)` while another process has it."""
        self._folder = folder
        self._descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise Rejected(
                Reason.IN_USE,
                f"another process has {folder} open; two would damage the chain's store; stop the other one first",
            ) from None

    def note_length(self) -> None:
        """Remember the data file's length; a hint, so it need not be synced."""
        size = (self._folder / DATA_NAME).stat().st_size
        os.pwrite(self._descriptor, b"%-24d" % size, 0)

    def release(self) -> None:
        """Let it go."""
        os.close(self._descriptor)

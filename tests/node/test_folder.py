"""The folder: private files, whole writes, one process at a time."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from milon.base.errors import Reason, Rejected
from milon.node.folder import PRIVATE, NodeFolder, locked, read_file, refusing_os_errors, write_file


def test_a_private_file_is_for_the_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        write_file(tmp_path / "key", b"secret", PRIVATE)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_write_replaces_the_whole_file_and_leaves_no_other(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"a long first content")
    write_file(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_must_be_new_is_not_overwritten(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"first", overwrite=False)
    with pytest.raises(Rejected) as refusal:
        write_file(tmp_path / "file", b"second", overwrite=False)
    assert refusal.value.reason is Reason.DUPLICATE
    assert (tmp_path / "file").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_reading_too_much_or_nothing_is_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "file", bytes(11))
    for path, limit, reason in ((tmp_path / "file", 10, Reason.TOO_LARGE), (tmp_path / "no", 10, Reason.UNAVAILABLE)):
        with pytest.raises(Rejected) as refusal:
            read_file(path, limit)
        assert refusal.value.reason is reason


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, Reason.FULL), (errno.EACCES, Reason.NOT_ALLOWED), (errno.EIO, Reason.UNAVAILABLE)],
)
def test_system_errors_name_the_action_and_a_cause(number: int, reason: Reason) -> None:
    with pytest.raises(Rejected) as refusal, refusing_os_errors("cannot write the votes"):
        raise OSError(number, "x")
    assert refusal.value.reason is reason
    assert refusal.value.detail.startswith("cannot write the votes: ")


def test_only_one_process_runs_on_a_folder_and_a_dead_one_leaves_it_free(tmp_path: Path) -> None:
    folder = NodeFolder(tmp_path / "node")
    folder.make()
    script = (
        "import sys; from pathlib import Path; from milon.node.folder import NodeFolder, locked\n"
        f"with locked(NodeFolder(Path({str(folder.root)!r}))):\n print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Rejected) as refusal, locked(folder):
        pass
    assert refusal.value.reason is Reason.IN_USE
    holder.kill()
    holder.communicate()
    with locked(folder):
        assert folder.lock.read_text() == f"{os.getpid()}\n"

"""What only the store on disk can meet: kill -9, a second process, a full disk, damaged files, a full map."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.hashing import sha256
from milon.state import lmdb_store
from milon.state.lmdb_store import LmdbStore, LmdbVisit
from tests.state.writer import KEYS, commit_number

ROOT = Path(__file__).parents[2]


def python(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def refused(folder: Path) -> Rejected:
    with pytest.raises(Rejected) as caught:
        LmdbStore(folder)
    assert caught.value.detail.count(";") >= 2  # cause, consequence, next step
    return caught.value


def check_whole(store: LmdbStore) -> int:
    """Everything in the store tells one and the same number, and every earlier block is there; returns the number."""
    tip = store.tip()
    assert tip is not None
    text = b"%d" % tip[0]
    assert store.state_root() == sha256(b"root" + text)
    for key in range(KEYS):
        name = sha256(b"%d" % key)
        assert (store.get(name), store.node(name)) == (text.ljust(500), text.ljust(500))
    assert store.get(b"odd") == store.node(b"odd") == (None if tip[0] % 2 == 0 else text)
    for height in range(tip[0] + 1):
        raw = b"%d" % height
        assert store.block_by_height(height) == store.block_by_hash(sha256(raw)) == raw  # type: ignore[arg-type]
        assert store.certificate_at(height) == store.receipts_at(height) == raw  # type: ignore[arg-type]
    assert store.block_by_height(tip[0] + 1) is None  # type: ignore[arg-type]
    return tip[0]


def test_kill_in_the_middle_of_commits(tmp_path: Path) -> None:
    chance = random.Random(2)
    last = -1
    for _ in range(6):
        process = python("-m", "tests.state.writer", str(tmp_path / "store"))
        assert process.stdout is not None
        for _ in range(chance.randrange(3, 40)):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        told = process.stdout.read().split()  # through the same buffer: it may hold lines already
        process.communicate()
        last = int(told[-1]) if told else last
        store = LmdbStore(tmp_path / "store")
        number = check_whole(store)
        assert number in (last, last + 1)  # nothing that was told durable is lost
        last = number
        store.close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    process = python("-m", "tests.state.writer", str(tmp_path))
    assert process.stdout is not None
    process.stdout.readline()
    assert refused(tmp_path).reason is Reason.IN_USE
    process.kill()
    process.communicate()
    store = LmdbStore(tmp_path)
    assert refused(tmp_path).reason is Reason.IN_USE
    store.close()
    LmdbStore(tmp_path).close()


def test_what_was_committed_is_there_after_opening_again(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    for number in range(3):
        store.commit(commit_number(number))
    store.close()
    store = LmdbStore(tmp_path)
    assert check_whole(store) == 2
    store.close()


def test_the_map_grows(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, map_bytes=256 << 10)
    snapshot = store.snapshot()
    with pytest.raises(Rejected) as caught:
        for number in range(1000):
            store.commit(commit_number(number))
    assert caught.value.reason is Reason.FULL  # a snapshot holds addresses in the map
    at = check_whole(store)
    assert snapshot.tip() is None
    snapshot.close()
    for number in range(at + 1, 100):
        store.commit(commit_number(number))
    assert check_whole(store) == 99
    assert (tmp_path / "data.mdb").stat().st_size > 256 << 10
    store.close()


FILL_THE_DISK = """
import resource, sys
from pathlib import Path
from milon.base.errors import Rejected
from milon.state.lmdb_store import LmdbStore, LmdbVisit
from tests.state.writer import commit_number
store = LmdbStore(Path(sys.argv[1]))
for number in range(3):
    store.commit(commit_number(number))
size = (Path(sys.argv[1]) / "data.mdb").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    for number in range(3, 1000):
        store.commit(commit_number(number))
except Rejected as error:
    print(error.reason.value, number, store.tip()[0], flush=True)
    print(error.detail)
"""


def test_a_full_disk_refuses_and_keeps_what_is_there(tmp_path: Path) -> None:
    out, errors = python("-c", FILL_THE_DISK, str(tmp_path)).communicate()
    assert out, errors
    reason, number, tip = out.split()[:3]
    assert reason == Reason.FULL.value
    assert int(tip) == int(number) - 1
    store = LmdbStore(tmp_path)
    assert check_whole(store) == int(tip)
    store.commit(commit_number(int(number)))
    store.close()


def committed(folder: Path) -> Path:
    store = LmdbStore(folder)
    for number in range(3):
        store.commit(commit_number(number))
    store.close()
    return folder / "data.mdb"


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    cut = committed(tmp_path / "cut")
    os.truncate(cut, cut.stat().st_size // 2)
    assert refused(tmp_path / "cut").reason is Reason.CORRUPT
    committed(tmp_path / "gone").unlink()
    assert refused(tmp_path / "gone").reason is Reason.CORRUPT
    garbage = committed(tmp_path / "garbage")
    garbage.write_bytes(b"\xa5" * garbage.stat().st_size)
    assert refused(tmp_path / "garbage").reason is Reason.CORRUPT
    LmdbStore(tmp_path / "fresh").close()  # a refusal leaves nothing behind that would hinder another store


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert refused(tmp_path / "file").reason is Reason.UNAVAILABLE


def test_an_unknown_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lmdb_store, "FORMAT", b"milon-store/999")
        committed(tmp_path)
    error = refused(tmp_path)
    assert error.reason is Reason.UNSUPPORTED
    assert "milon-store/999" in error.detail


def test_snapshots_are_closed_with_the_store(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    snapshot = store.snapshot()
    store.close()
    with pytest.raises(RuntimeError):
        snapshot.get(b"a")
    with pytest.raises(RuntimeError):
        list(snapshot.scan(b""))
    LmdbStore(tmp_path).close()


def test_commits_in_a_worker_while_others_read(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    store.commit(commit_number(0))
    errors: list[BaseException] = []
    is_done = threading.Event()

    def read() -> None:
        while not is_done.is_set():
            try:
                store.get(b"odd")
                snapshot = store.snapshot()
                number = snapshot.get(sha256(b"0"))
                assert number is not None
                assert {snapshot.get(sha256(b"%d" % key)) for key in range(KEYS)} == {number}
                tip = snapshot.tip()
                assert tip is not None
                assert b"%d" % tip[0] == number.strip()
                snapshot.close()
            except (AssertionError, RuntimeError, Rejected) as error:
                errors.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 60):
            store.commit(commit_number(number))
    finally:
        is_done.set()
        for reader in readers:
            reader.join()
    assert not errors
    assert check_whole(store) == 59
    store.close()


def test_too_little_free_room_stops_before_anything_is_written(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, free_bytes_min=1 << 60)
    with pytest.raises(Rejected) as caught:
        store.commit(commit_number(0))
    assert caught.value.reason is Reason.FULL
    assert caught.value.detail.count(";") >= 2  # cause, consequence, next step
    assert store.tip() is None
    store.close()
    store = LmdbStore(tmp_path)
    store.commit(commit_number(0))
    assert check_whole(store) == 0
    store.close()


def test_a_visitor_reads_beside_the_writer_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as caught:
        LmdbVisit(tmp_path)
    assert caught.value.reason is Reason.UNAVAILABLE
    store = LmdbStore(tmp_path)
    store.commit(commit_number(0))
    process = python(
        "-c",
        "import sys; from pathlib import Path; from milon.state.lmdb_store import LmdbVisit\n"
        "visit = LmdbVisit(Path(sys.argv[1])); print(visit.tip()[0], len(list(visit.scan(b''))), flush=True)\n"
        "sys.stdin.read(); print(visit.tip()[0], len(list(visit.scan_nodes()))); visit.close()",
        str(tmp_path),
    )
    assert process.stdout is not None and process.stdin is not None
    count = len(list(store.scan(b"")))
    assert process.stdout.readline().split() == ["0", str(count)]
    store.commit(commit_number(1))
    process.stdin.close()
    assert process.stdout.read().split()[0] == "0"  # what it opened does not move
    assert process.wait() == 0
    assert check_whole(store) == 1
    store.close()

"""The append-only file of what this validator signed, and beside it the highest view signed in.

    votes.log     16 bytes of format, then batches: mark (8) | length of body (4) | sha256 of length and body | body
                  a body is records, each behind its length (4); integers are big-endian
    votes.signed  two slots of 32 bytes, written in turn:
                  votes in that view (1) | epoch (7) | view (8) | first 16 bytes of their sha256
    votes.lock    held by the one process that may sign

A batch is synced before anything in it is sent and before the next one is written, so that a crash can tear only the
last one, and what it held was never heard of: it is dropped. A damaged batch with a whole one after it is no crash's
work: that is refused. `votes.signed` is left out of backups and snapshots, so that a log from yesterday cannot make a
validator sign twice.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.base.units import Epoch, View
from milon.consensus.messages import LoggedVote, LogRecord, decode_record, place_of_record
from milon.consensus.votes import Place

FORMAT = b"milon-votes/1\n\x00\x00"
PRUNE_BYTES_MIN = 4 << 20  # a smaller file is not worth rewriting: it is read in a few milliseconds

_MARK = b"\xd3MILONv\x1a"
_HEAD_BYTES = len(_MARK) + 4 + 32
_SLOT_BYTES = 32
BARRED = 255  # votes said to be in a view in which nothing more is to be signed; there are three kinds

_Signed = tuple[Epoch, View, int]  # the highest place signed in, and how many votes there
_NOTHING: _Signed = (Epoch(0), View(0), 0)


def _check(raw: bytes) -> bytes:
    return sha256(raw).digest()


def _frame(records: Sequence[LogRecord]) -> bytes:
    body = b"".join(len(raw).to_bytes(4, "big") + raw for raw in (encode(record) for record in records))
    length = len(body).to_bytes(4, "big")
    return _MARK + length + _check(length + body) + body


def _body_at(raw: bytes, start: int) -> bytes | None:
    """The body of the whole, undamaged batch that starts there, or None."""
    head = raw[start : start + _HEAD_BYTES]
    if len(head) < _HEAD_BYTES or not head.startswith(_MARK):
        return None
    length = head[len(_MARK) : len(_MARK) + 4]
    body = raw[start + _HEAD_BYTES : start + _HEAD_BYTES + int.from_bytes(length, "big")]
    is_whole = len(body) == int.from_bytes(length, "big") and head[len(_MARK) + 4 :] == _check(length + body)
    return body if is_whole else None


def _split(body: bytes) -> Iterator[LogRecord]:
    position = 0
    while position < len(body):
        end = position + 4 + int.from_bytes(body[position : position + 4], "big")
        yield decode_record(body[position + 4 : end])
        position = end


def read_log(raw: bytes, name: str) -> tuple[list[LogRecord], int]:
    """The records of a log file's bytes, and where the last whole batch ends; what follows is a torn tail.

    Raises `Rejected`: UNSUPPORTED for another format, CORRUPT where a damaged batch has a whole one after it.
    """
    if len(raw) < len(FORMAT) and FORMAT.startswith(raw):
        return [], 0  # a crash while the file was made
    if not raw.startswith(FORMAT):
        raise Rejected(Reason.UNSUPPORTED, f"{name} is not a vote log of this version; it was left as it is")
    records: list[LogRecord] = []
    position = len(FORMAT)
    while (body := _body_at(raw, position)) is not None:
        records.extend(_split(body))
        position += _HEAD_BYTES + len(body)
    later = raw.find(_MARK, position + 1)
    while later != -1:
        if _body_at(raw, later) is not None:
            raise Rejected(
                Reason.CORRUPT,
                f"{name} is damaged at byte {position} and goes on after it: votes may be lost, so nothing is signed; "
                "restore the disk, or move the file away and keep votes.signed: signing starts above it",
            )
        later = raw.find(_MARK, later + 1)
    return records, position


def read_signed(raw: bytes, name: str) -> tuple[Epoch, View]:
    """The highest place signed in, of the small file's bytes; `Rejected(CORRUPT)` where neither slot is whole."""
    return _read_signed(raw, name)[:2]


def _read_signed(raw: bytes, name: str) -> _Signed:
    found = [_NOTHING] if len(raw) < _SLOT_BYTES else []
    for start in range(0, len(raw), _SLOT_BYTES):
        slot = raw[start : start + _SLOT_BYTES]
        if len(slot) == _SLOT_BYTES and slot[16:] == _check(slot[:16])[:16]:
            epoch, view = Epoch(int.from_bytes(slot[1:8], "big")), View(int.from_bytes(slot[8:16], "big"))
            found.append((epoch, view, slot[0]))
    if not found:
        raise Rejected(Reason.CORRUPT, f"{name} is damaged: it is not known what was signed, so nothing is signed")
    return max(found)


def _add_votes(signed: _Signed, records: Sequence[LogRecord]) -> _Signed:
    """The highest place signed in, once the records' votes are signed too."""
    for record in records:
        if isinstance(record, LoggedVote):
            place = (record.vote.content.epoch, record.vote.content.view)
            if place > signed[:2]:
                signed = (*place, 1)
            elif place == signed[:2]:
                signed = (*place, min(BARRED, signed[2] + 1))
    return signed


def _refuse(path: Path, error: OSError) -> Rejected:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Rejected(Reason.FULL, f"no room on the disk for {path} ({error}); nothing of this was sent; free space")
    return Rejected(Reason.UNAVAILABLE, f"the disk under {path} does not answer ({error}); nothing of this was sent")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, raw: bytes, start: int) -> None:
    view = memoryview(raw)
    while view:
        written = os.pwrite(handle, view, start)
        view, start = view[written:], start + written


class VoteLog:
    """The two files, open and locked. Every call blocks on the disk: keep it off the event loop.

    After a failed `append` the log takes nothing more: what is on disk is then uncertain, and a restart finds out.
    """

    def __init__(self, folder: Path) -> None:
        """Open or make the log in `folder`; a torn tail is cut off.

        Raises `Rejected`: IN_USE where another process holds it, CORRUPT or UNSUPPORTED for its bytes, FULL or
        UNAVAILABLE for the disk.
        """
        self._folder = folder
        self._path = folder / "votes.log"
        self._signed_path = folder / "votes.signed"
        self._is_broken = False
        self._handles: list[int] = []
        try:
            self._lock = self._open(folder / "votes.lock")
            self._take_lock()
            self._log = self._open(self._path)
            self._signed = self._open(self._signed_path)
            self._recover()
        except OSError as error:
            self.close()
            raise _refuse(self._path, error) from error
        except Rejected:
            self.close()
            raise

    def _open(self, path: Path) -> int:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._handles.append(handle)
        return handle

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Rejected(Reason.IN_USE, f"another process signs with the votes in {self._folder}") from None

    def _recover(self) -> None:
        records, self._end = read_log(self._path.read_bytes(), str(self._path))
        self._records = tuple(records)
        self._slot = 0
        self._highest = _read_signed(self._signed_path.read_bytes(), str(self._signed_path))
        if os.fstat(self._log).st_size > self._end:
            os.ftruncate(self._log, self._end)
            os.fsync(self._log)
        if self._end == 0:
            _write_all(self._log, FORMAT, 0)
            self._end = len(FORMAT)
            os.fsync(self._log)
            _sync_folder(self._folder)
        for _ in range(2):  # both slots: one may be damaged, and the next write goes over either
            self._write_signed(self._highest)
        self._prune_at = max(PRUNE_BYTES_MIN, 2 * self._end)

    @property
    def records(self) -> tuple[LogRecord, ...]:
        """What the log held when it was opened, in order."""
        return self._records

    @property
    def signed(self) -> tuple[Epoch, View]:
        """The highest epoch and view signed in, in that order; zeros before the first vote."""
        return self._highest[:2]

    @property
    def signed_votes(self) -> int:
        """How many votes were signed there: a log that has fewer of them is not the newest one."""
        return self._highest[2]

    def append(self, records: Sequence[LogRecord]) -> None:
        """Make all of `records` durable, or raise `Rejected` (FULL, UNAVAILABLE) and take nothing more."""
        if not records:
            return
        if self._is_broken:
            raise Rejected(Reason.UNAVAILABLE, f"{self._path} failed before; start the node again")
        raw = _frame(records)
        highest = _add_votes(self._highest, records)
        try:
            _write_all(self._log, raw, self._end)
            os.fdatasync(self._log)
            if highest > self._highest:
                self._write_signed(highest)
        except OSError as error:
            self._is_broken = True
            raise _refuse(self._path, error) from error
        self._end += len(raw)
        self._highest = highest

    def _write_signed(self, highest: _Signed) -> None:
        epoch, view, votes = highest
        raw = votes.to_bytes(1, "big") + epoch.to_bytes(7, "big") + view.to_bytes(8, "big")
        _write_all(self._signed, raw + _check(raw)[:16], self._slot * _SLOT_BYTES)
        os.fdatasync(self._signed)
        self._slot = 1 - self._slot

    def raise_signed(self, place: tuple[Epoch, View]) -> None:
        """Sign nothing up to that epoch and view, durable; a lower pair than the present one changes nothing."""
        highest = (*place, BARRED)
        if highest <= self._highest:
            return
        try:
            for _ in range(2):
                self._write_signed(highest)
        except OSError as error:
            self._is_broken = True
            raise _refuse(self._signed_path, error) from error
        self._highest = highest

    def prune(self, place: Place) -> None:
        """Drop the records up to `place`, whose blocks are in the store, once the file is worth rewriting."""
        if self._end < self._prune_at or self._is_broken:
            return
        try:
            self._rewrite(place)
        except OSError as error:
            self._is_broken = True
            raise _refuse(self._path, error) from error

    def _rewrite(self, place: Place) -> None:
        records, _ = read_log(self._path.read_bytes(), str(self._path))
        kept = [record for record in records if place_of_record(record) > place]
        raw = FORMAT + (_frame(kept) if kept else b"")
        fresh = self._folder / "votes.log.new"
        handle = self._open(fresh)
        os.ftruncate(handle, 0)
        _write_all(handle, raw, 0)
        os.fsync(handle)
        os.replace(fresh, self._path)
        _sync_folder(self._folder)
        self._handles.remove(self._log)
        os.close(self._log)
        self._log, self._end = handle, len(raw)
        self._prune_at = max(PRUNE_BYTES_MIN, 2 * self._end)

    def close(self) -> None:
        """Release the files; closing twice is allowed."""
        while self._handles:
            os.close(self._handles.pop())

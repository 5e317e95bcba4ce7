"""What a worker keeps of a training while it lasts: a state file a segment, and the journal that names them.

A segment counts once its state is on the disk under its name and the journal's entry behind it, both synced; only then
the next one begins. Whoever opens the folder again goes on after the last entry whose state is there and whole. An
entry carries a digest over itself and all before it, which begins with the digest of what is being trained: an entry
that is torn, or of other work, ends the journal.

Not every state need stay: with `keep_every` = k those after k, 2k, 3k, ... segments do, and always the last one.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from milon.base.codec import decode, encode, wire
from milon.base.errors import Reason, Rejected
from milon.base.hashing import digest
from milon.base.ids import Digest
from milon.base.units import Count
from milon.gpu.checkpoint import state_digest
from milon.gpu.train import SegmentRun
from milon.gpu.work_library import write_blob
from milon.pol.claim import SegmentRecord, commit_trace, compute_trace
from milon.pol.work import BlobFile, TrainSegments

_LOG = logging.getLogger(__name__)

NAME = "journal"  # of the file; states have 64 hexadecimal digits
LENGTH_BYTES = 4  # big-endian, before an entry
DIGEST_BYTES = 32  # behind it
ENTRY_MAX_BYTES = 4_096  # one of some 250 bytes
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@wire("journal-entry/1")
@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A segment that is done."""

    record: SegmentRecord  # what the claim will say
    trace: Digest  # secret until opened
    compute_ms: Count  # since the entry before it, or since the training began or went on


def name_training(request: TrainSegments) -> Digest:
    """The same for requests whose segments have the same bits."""
    numbers = (request.round, request.first, request.count)
    named = (request.state, request.seed, *(number.to_bytes(8, "big") for number in numbers))
    return digest("training", encode(request.spec), *named)


class Scratch:
    """States in a folder, each under its id; what another run left there counts for nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.entries: list[JournalEntry] = []  # in order of segments, none missing

    def _path(self, state: Digest) -> Path:
        return self._folder / state.hex()

    def append(self, run: SegmentRun, segment: int, compute_ms: int) -> None:
        """Keep a finished segment. Raises `Rejected(FULL)`: then it is not kept, and all before it are."""
        with refusing_full_disk():
            self._keep(run.state, make_entry(run, segment, compute_ms))

    def _keep(self, state: bytes, entry: JournalEntry) -> None:
        write_blob(self._folder, state, entry.record.state)
        self.entries.append(entry)

    def read_last(self) -> bytes:
        """The state to go on from; only where there are entries."""
        return self._path(self.entries[-1].record.state).read_bytes()

    def files(self) -> tuple[BlobFile, ...]:
        """The states that are here, in order of segments."""
        states = dict.fromkeys(entry.record.state for entry in self.entries)
        return tuple(BlobFile(state, str(self._path(state))) for state in states if self._path(state).exists())


class Journal(Scratch):
    """A training's own folder, whose finished segments outlive the process; one process writes it."""

    def __init__(self, folder: Path, origin: Digest, keep_every: int) -> None:
        """Read what is there, dropping with a word in the log what does not belong to the training `origin`.

        Raises `Rejected(FULL)` where the disk is.
        """
        super().__init__(folder)
        self._keep_every = keep_every
        self._head = digest("training-journal", origin)  # over the entries so far
        with refusing_full_disk():
            folder.mkdir(parents=True, exist_ok=True)
            self._rewrite(self._find_whole(self._read()))

    def _path(self, state: Digest) -> Path:
        return self._folder / state.hex()

    def _frame(self, entry: JournalEntry) -> tuple[bytes, Digest]:
        raw = encode(entry)
        head = digest("training-journal", self._head, raw)
        return len(raw).to_bytes(LENGTH_BYTES, "big") + raw + head, head

    def _read(self) -> list[JournalEntry]:
        """The entries up to the first that is torn or foreign."""
        path = self._folder / NAME
        raw = path.read_bytes() if path.exists() else b""
        found: list[JournalEntry] = []
        place, head = 0, self._head
        while place < len(raw):
            start = place + LENGTH_BYTES
            end = start + int.from_bytes(raw[place:start], "big")
            body = raw[start:end]
            head = digest("training-journal", head, body)
            try:
                is_ours = raw[end : end + DIGEST_BYTES] == head
                entry = decode(JournalEntry, body, ENTRY_MAX_BYTES) if is_ours else None
            except Rejected:
                entry = None
            if entry is None:
                _LOG.warning("%s: dropped all from byte %d on, which is torn or of other work", path, place)
                break
            found.append(entry)
            place = end + DIGEST_BYTES
        return found

    def _find_whole(self, entries: list[JournalEntry]) -> list[JournalEntry]:
        """The entries up to the last one whose state is whole; every file that is no state of theirs is removed."""
        named = {self._path(entry.record.state) for entry in entries}
        whole: set[Path] = set()
        for path in sorted(self._folder.iterdir()):
            if path.name == NAME:
                continue
            if path in named and state_digest(path.read_bytes()).hex() == path.name:
                whole.add(path)
                continue
            _LOG.warning("%s: dropped, it is torn or belongs to no segment that was finished", path)
            path.unlink()
        while entries and self._path(entries[-1].record.state) not in whole:
            _LOG.warning("segment %d is trained again: its state is not whole", entries[-1].record.segment)
            entries.pop()
        for path in whole - {self._path(entry.record.state) for entry in entries}:
            path.unlink()
        return entries

    def _rewrite(self, entries: list[JournalEntry]) -> None:
        """Make the file hold these entries and no other bytes."""
        raw = b""
        for entry in entries:
            frame, self._head = self._frame(entry)
            raw += frame
        path = self._folder / NAME
        if not path.exists() or path.read_bytes() != raw:
            write_durably(path, raw)
        self.entries = entries

    def _keep(self, state: bytes, entry: JournalEntry) -> None:
        frame, head = self._frame(entry)
        write_durably(self._path(entry.record.state), state)
        with (self._folder / NAME).open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            try:
                file.write(frame)
                file.flush()
            except OSError:
                os.ftruncate(file.fileno(), end)
                raise
            os.fsync(file.fileno())
        self._head = head
        self.entries.append(entry)
        self._forget(len(self.entries) - 2)

    def _forget(self, place: int) -> None:
        """Remove the state of the segment at `place` unless it stays."""
        if place < 0 or (place + 1) % self._keep_every == 0:
            return
        state = self.entries[place].record.state
        kept = {entry.record.state for entry in self.entries[self._keep_every - 1 :: self._keep_every]}
        if state not in kept | {self.entries[-1].record.state}:
            self._path(state).unlink(missing_ok=True)


def make_entry(run: SegmentRun, segment: int, compute_ms: int) -> JournalEntry:
    """What is kept of a finished segment besides its state."""
    trace = compute_trace(run.fingerprints)
    record = SegmentRecord(Count(segment), state_digest(run.state), commit_trace(trace), Count(run.loss_bits))
    return JournalEntry(record, trace, Count(compute_ms))


def open_folder(request: TrainSegments) -> Scratch:
    """Where the states of a training go, with what an earlier run finished; an adversary's runs begin anew."""
    if request.keep_every and not request.tamper:
        return Journal(Path(request.folder), name_training(request), int(request.keep_every))
    return Scratch(Path(request.folder))


@contextmanager
def refusing_full_disk() -> Iterator[None]:
    """A full disk is an answer, not a crash."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise Rejected(Reason.FULL, f"the disk is full: {error}; finished segments are kept") from None


def write_durably(path: Path, raw: bytes) -> None:
    """The file has its name once its content is on the disk, and the name is on the disk when this returns."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

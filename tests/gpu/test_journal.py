"""A training that is cut off goes on after its last finished segment, with the bits of one that was not."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.base.units import Count
from milon.gpu.journal import NAME
from milon.gpu.work_library import Library
from milon.gpu.work_rounds import train
from milon.pol.claim import compute_records_root
from milon.pol.work import Progress, SegmentsTrained, TrainSegments
from tests.gpu.small_job import SEED, list_files, prepare_small
from tests.gpu.test_worker import DEADLINE_S, WorkerProcess

SEGMENTS = 5
LIBRARY = Library()


class Killed(BaseException):
    """The process ends here."""


def make_request(folder: Path, keep_every: int = 1) -> TrainSegments:
    prepared = prepare_small()
    zero = Count(0)
    return TrainSegments(
        prepared.spec, list_files(prepared), prepared.spec.initial_state, SEED, zero, zero, Count(SEGMENTS),
        str(folder), "", Count(keep_every),
    )  # fmt: skip


def train_until(request: TrainSegments, segment: int) -> list[Progress]:
    """Train and die when the segment of that number is done; what was told."""
    told: list[Progress] = []

    def answer(progress: Progress) -> None:
        told.append(progress)
        if progress.segment == segment:
            raise Killed

    with pytest.raises(Killed):
        train(request, LIBRARY, answer)
    return told


def go_on(request: TrainSegments) -> tuple[SegmentsTrained, list[Progress]]:
    told: list[Progress] = []
    return train(request, LIBRARY, told.append), told


@cache
def train_whole() -> SegmentsTrained:
    """What comes of it where nothing happens."""
    return train(
        replace(make_request(Path(mkdtemp(prefix="milon-whole-"))), keep_every=Count(0)), LIBRARY, lambda _: None
    )


def assert_same(trained: SegmentsTrained) -> None:
    whole = train_whole()
    assert compute_records_root(trained.records) == compute_records_root(whole.records)
    assert (trained.records, trained.traces) == (whole.records, whole.traces)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def states_after(*segments: int) -> list[Digest]:
    return [train_whole().records[segment].state for segment in segments]


def test_a_killed_worker_process_is_taken_over_where_it_stood(tmp_path: Path) -> None:
    request, victim = make_request(tmp_path), WorkerProcess()
    victim.send(request)
    seen = [victim.receive(), victim.receive()]
    victim.process.kill()
    victim.process.wait(DEADLINE_S)
    assert all(isinstance(answer, Progress) and not answer.resumed for answer in seen)
    trained, told = go_on(request)
    assert told[0].resumed >= 2 and [entry.segment for entry in told] == [*range(told[0].resumed - 1, SEGMENTS)]
    assert_same(trained)


def test_it_goes_on_as_often_as_it_is_killed(tmp_path: Path) -> None:
    request = make_request(tmp_path)
    for segment in range(SEGMENTS):
        told = train_until(request, segment)
        assert len(told) == (1 if segment == 0 else 2), "one segment is trained, those before are found"
    trained, told = go_on(request)
    assert [(entry.segment, entry.resumed) for entry in told] == [(SEGMENTS - 1, SEGMENTS)]
    assert_same(trained)
    assert [file.blob for file in trained.files] == states_after(*range(SEGMENTS))


def cut_journal(folder: Path) -> int:
    path = folder / NAME
    path.write_bytes(path.read_bytes()[:-5])
    return 2


def double_journal(folder: Path) -> int:
    path = folder / NAME
    path.write_bytes(path.read_bytes() * 2)
    return 3


def tear_last_state(folder: Path) -> int:
    path = folder / states_after(2)[0].hex()
    path.write_bytes(path.read_bytes()[:-1])
    return 2


def tear_all_states(folder: Path) -> int:
    for path in folder.glob("?" * 64):
        path.write_bytes(b"torn")
    return 0


def lose_journal(folder: Path) -> int:
    (folder / NAME).unlink()
    return 0


def add_strangers(folder: Path) -> int:
    (folder / f".{'ab' * 32}.part").write_bytes(b"torn")
    (folder / ("cd" * 32)).write_bytes(b"foreign")
    return 3


@pytest.mark.parametrize(
    "harm", [cut_journal, double_journal, tear_last_state, tear_all_states, lose_journal, add_strangers]
)
def test_what_is_torn_or_foreign_is_dropped(tmp_path: Path, harm: Callable[[Path], int]) -> None:
    request = make_request(tmp_path)
    train_until(request, 2)
    left = harm(tmp_path)
    trained, told = go_on(request)
    assert told[0].resumed == left
    assert_same(trained)
    assert names_in(tmp_path) == {NAME, *(file.blob.hex() for file in trained.files)}


def test_another_training_finds_nothing(tmp_path: Path) -> None:
    request = make_request(tmp_path)
    train_until(request, 2)
    _, told = go_on(replace(request, seed=Digest(b"\x08" * 32)))
    assert [entry.resumed for entry in told] == [0] * SEGMENTS


def test_states_that_need_not_stay_go_once_the_next_one_is_there(tmp_path: Path) -> None:
    request = make_request(tmp_path, keep_every=2)
    train_until(request, 2)
    assert names_in(tmp_path) == {NAME, *(state.hex() for state in states_after(1, 2))}
    trained, told = go_on(request)
    assert told[0].resumed == 3
    assert_same(trained)
    assert [file.blob for file in trained.files] == states_after(1, 3, 4)


@contextmanager
def disk_of(size_bytes: int) -> Iterator[None]:
    """No file may become larger, which the system refuses as it does a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    request = make_request(tmp_path)
    train_until(request, 1)
    size = (tmp_path / states_after(0)[0].hex()).stat().st_size
    with disk_of(size - 1), pytest.raises(Rejected) as refused:
        go_on(request)
    assert refused.value.reason is Reason.FULL
    trained, told = go_on(request)
    assert told[0].resumed == 2
    assert_same(trained)

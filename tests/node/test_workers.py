"""The worker's process: kept where a cancelled request ends soon, killed where it does not, replaced where it died."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.base.units import Count
from milon.node import workers
from milon.node.workers import LATE_S, Worker
from milon.pol.work import CheckJob, JobChecked, Progress, ReplaySegments, Request, Result
from tests.contracts.helpers import make_spec

# Answers as the real one does, without torch: after so many seconds as the request's round says, and "ends" for 99.
# A check waits for a second and then answers; one of a job that allows no memory works for ever.
_SCRIPT = """
import sys, time
from milon.base.codec import decode, encode
from milon.base.units import Count
from milon.pol.work import CheckJob, JobChecked, Request, SegmentsReplayed
while head := sys.stdin.buffer.read(4):
    request = decode(Request, sys.stdin.buffer.read(int.from_bytes(head, "big")))
    if isinstance(request, CheckJob):
        while request.memory_bytes_max == 0:
            pass
        time.sleep(1)
        raw = encode(JobChecked(Count(1), Count(1), Count(1)))
    elif request.round == 99:
        sys.exit(3)
    else:
        time.sleep(request.round / 10)
        raw = encode(SegmentsReplayed((), Count(int(request.round))))
    sys.stdout.buffer.write(len(raw).to_bytes(4, "big") + raw)
    sys.stdout.buffer.flush()
"""


class QuickWorker(Worker):
    """A worker whose process does nothing but wait."""

    def __init__(self, folder: Path) -> None:
        super().__init__(1, "cpu", folder / "worker.log")
        self._command = [sys.executable, "-c", _SCRIPT]

    @property
    def pid(self) -> int | None:
        """Of its process."""
        return None if self._process is None else self._process.pid

    async def wait(self, tenths: int, priority: int = 1) -> Result:
        """A request that takes so many tenths of a second."""
        return await self.run(make_request(tenths), priority, ignore)


def make_request(tenths: int) -> Request:
    """See `_SCRIPT`."""
    return ReplaySegments(make_spec(), (), Digest(bytes(32)), Count(tenths), ())


def ignore(progress: Progress) -> None:
    """Nobody watches."""


async def cancel_after(worker: QuickWorker, tenths: int, seconds: float) -> float:
    """Ask, lose interest, and how long it took until the worker was free of it."""
    with trio.move_on_after(seconds) as scope:
        await worker.wait(tenths)
    assert scope.cancelled_caught
    return trio.current_time() - scope.deadline


async def test_a_cancelled_request_that_ends_soon_leaves_the_process(tmp_path: Path) -> None:
    worker = QuickWorker(tmp_path)
    await worker.wait(0)
    pid = worker.pid
    await cancel_after(worker, 5, 0.1)
    with trio.fail_after(30):
        answer = await worker.wait(1)
    assert worker.pid == pid and getattr(answer, "compute_ms", None) == 1  # its own answer, not the late one
    await worker.stop()


async def test_a_cancelled_request_that_takes_long_costs_the_process(tmp_path: Path) -> None:
    worker = QuickWorker(tmp_path)
    await worker.wait(0)
    pid = worker.pid
    assert LATE_S <= await cancel_after(worker, 600, 0.1) < LATE_S + 10
    assert worker.pid is None
    with trio.fail_after(30):
        await worker.wait(1)
    assert worker.pid not in (None, pid)
    await worker.stop()


async def test_a_process_that_dies_is_replaced(tmp_path: Path) -> None:
    worker = QuickWorker(tmp_path)
    with pytest.raises(Rejected) as caught:
        await worker.wait(99)
    assert caught.value.reason is Reason.UNAVAILABLE
    assert getattr(await worker.wait(2), "compute_ms", None) == 2
    await worker.stop()


async def test_the_most_urgent_request_goes_first(tmp_path: Path) -> None:
    worker, order = QuickWorker(tmp_path), []

    async def ask(tenths: int, priority: int) -> None:
        await worker.wait(tenths, priority)
        order.append(tenths)

    await worker.wait(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, 3, 0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, 2, 9)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, 1, 1)
    assert order == [3, 1, 2]
    await worker.stop()


async def test_a_check_is_held_to_its_processor_time_not_to_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = QuickWorker(tmp_path)
    monkeypatch.setattr(workers, "CHECK_MAX_S", 0.6)  # of a core: loading the script takes less, waiting nothing
    assert isinstance(await worker.run(CheckJob(make_spec(), (), Count(1), Count(1)), 1, ignore), JobChecked)
    with pytest.raises(Rejected) as refused:
        await worker.run(CheckJob(make_spec(), (), Count(0), Count(1)), 1, ignore)
    assert refused.value.reason is Reason.OVER_BUDGET
    await worker.stop()

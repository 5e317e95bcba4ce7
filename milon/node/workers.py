"""The worker process as the node sees it: one request at a time, the most urgent first.

A request that nobody waits for any more may end within a short while; only a longer one costs the process, since a new
one has to load torch again. In every round the slowest node is overtaken in its aggregation by a quorum of the others.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import trio

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.pol.work import Answer, CheckJob, Progress, Request, Result, WorkRefused

_LOG = logging.getLogger(__name__)

FRAME_MAX_BYTES = 4 << 20  # the codec's own bound for one value
CHECK_MAX_S = 60.0  # of a core, to load torch, read the data and run a step of each program
CHECK_CLOCK_MAX_S = 600.0  # the same by the clock, however little of a core there is: others' work waits behind it
CHECK_LOOK_S = 0.5  # between two looks at what a check has used: costs nothing, and nothing is due sooner
STOP_S = 5.0  # a worker that does not end by itself is killed after this
LATE_S = 2.0  # for a cancelled request to end by itself: what loading torch again would take


class _PriorityLock:
    """A lock whose waiters enter by priority, equal ones in order of arrival."""

    def __init__(self) -> None:
        self._is_held = False
        self._arrivals = itertools.count()
        self._waiters: list[tuple[int, int, trio.Event]] = []

    @asynccontextmanager
    async def hold(self, priority: int) -> AsyncIterator[None]:
        if self._is_held:
            entry = (priority, next(self._arrivals), trio.Event())
            heapq.heappush(self._waiters, entry)
            try:
                await entry[2].wait()
            except trio.Cancelled:
                if entry in self._waiters:
                    self._waiters.remove(entry)
                    heapq.heapify(self._waiters)
                else:
                    self._release()  # handed over in the same moment
                raise
        self._is_held = True
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        if self._waiters:
            heapq.heappop(self._waiters)[2].set()
        else:
            self._is_held = False


class Worker:
    """A process that trains, replays and aggregates; started when there is work, kept until the node ends."""

    def __init__(self, threads: int, device: str, log_path: Path) -> None:
        """`threads`: of its arithmetic; `log_path`: where its standard error goes."""
        arguments = ["-m", "milon.gpu.worker", "--threads", str(threads), "--device", device]
        self._command = [sys.executable, *arguments]
        self._threads = threads
        self._log_path = log_path
        self._lock = _PriorityLock()
        self._process: trio.Process | None = None

    async def _start(self) -> trio.Process:
        _LOG.info("starting a worker process")
        with self._log_path.open("ab") as log:
            return await trio.lowlevel.open_process(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    async def run(self, request: Request, priority: int, on_progress: Callable[[Progress], None]) -> Result:
        """Do one request. Smaller priorities go first. Cancelled, it ends within `LATE_S`, or the process does.

        Raises `Rejected` with the worker's reason, UNAVAILABLE where the process died, OVER_BUDGET where the check of
        a job takes too long: nobody agreed to that job yet, and others' work waits behind it.
        """
        async with self._lock.hold(priority):
            if self._process is None or self._process.poll() is not None:
                self._process = await self._start()
            with trio.CancelScope() as limit:
                result = await self._exchange_or_end(self._process, request, on_progress, limit)
            if limit.cancelled_caught:
                raise Rejected(Reason.OVER_BUDGET, f"a step of each program takes more than {CHECK_MAX_S:.0f} s here")
        if isinstance(result, WorkRefused):
            known = {entry.value: entry for entry in Reason}
            raise Rejected(known.get(result.reason, Reason.MALFORMED), result.detail)
        return result

    async def _end_long_check(self, pid: int, limit: trio.CancelScope) -> None:
        """Cancel `limit` once the check has used its processor time: a busy machine is no fault of the job."""
        began, before = trio.current_time(), read_processor_seconds(pid)
        while trio.current_time() < began + CHECK_CLOCK_MAX_S:
            await trio.sleep(CHECK_LOOK_S)
            if read_processor_seconds(pid) - before > CHECK_MAX_S * self._threads:
                break
        limit.cancel()

    async def _exchange_or_end(
        self, process: trio.Process, request: Request, on_progress: Callable[[Progress], None], limit: trio.CancelScope
    ) -> Result:
        """The result; the process is whole and idle afterwards, or killed. `limit` is cancelled by too long a check."""
        result: Result | None = None
        async with trio.open_nursery() as nursery:
            with trio.CancelScope(shield=True) as working:
                nursery.start_soon(_hurry_when_cancelled, working)
                if isinstance(request, CheckJob):
                    nursery.start_soon(self._end_long_check, process.pid, limit)
                try:
                    result = await self._exchange(process, request, on_progress)
                except (trio.BrokenResourceError, trio.ClosedResourceError, Rejected) as error:
                    _LOG.warning("the worker process broke off: %s %s", type(error).__name__, error)
            if result is None:
                self._kill()
            nursery.cancel_scope.cancel()
        if result is None:
            raise Rejected(Reason.UNAVAILABLE, "the worker process ended; its log says why")
        return result

    async def _exchange(
        self, process: trio.Process, request: Request, on_progress: Callable[[Progress], None]
    ) -> Result:
        raw = encode(request)
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the worker was started without pipes")
        await process.stdin.send_all(len(raw).to_bytes(4, "big") + raw)
        while True:
            size = int.from_bytes(await _read_exactly(process.stdout, 4), "big")
            if size > FRAME_MAX_BYTES:
                raise trio.BrokenResourceError
            answer: Answer = decode(Answer, await _read_exactly(process.stdout, size))
            if not isinstance(answer, Progress):
                return answer
            on_progress(answer)

    async def stop(self) -> None:
        """End the process: it leaves when its input closes, and is killed if it does not."""
        process, self._process = self._process, None
        if process is None:
            return
        with trio.CancelScope(deadline=trio.current_time() + STOP_S, shield=True):
            if process.stdin is not None:
                await process.stdin.aclose()
            await process.wait()
        if process.returncode is None:
            process.kill()


def read_processor_seconds(pid: int) -> float:
    """What a process has used of the machine's cores so far; 0 once it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


async def _hurry_when_cancelled(working: trio.CancelScope) -> None:
    """Until cancelled; then the work has `LATE_S` left."""
    try:
        await trio.sleep_forever()
    finally:
        working.deadline = trio.current_time() + LATE_S


async def _read_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    chunks: list[bytes] = []
    while count:
        chunk = await stream.receive_some(min(count, 1 << 16))
        if not chunk:
            raise trio.BrokenResourceError
        chunks.append(bytes(chunk))
        count -= len(chunk)
    return b"".join(chunks)

"""The fence around libp2p's callbacks: an exception behind it costs one stream or one peer, never the process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

log = logging.getLogger("milon.p2p")


class Guard:
    """`with Guard(where, on_fault):` ends any `Exception` raised inside and calls `on_fault` with it.

    libp2p runs stream handlers and service tasks in one nursery for all peers: whatever escapes one of them, a decode
    error of a stranger's bytes included, ends the process, and what its layers may raise is not a closed list. So this
    is the one place of the room that catches everything. Cancellation passes; of a group that holds a cancellation
    beside faults, the cancellation alone, for a scope outside would take it out and let the faults go on.
    """

    def __init__(
        self,
        where: str,
        on_fault: Callable[[Exception], None] | None = None,
        *,
        passing: type[Exception] | None = None,
    ) -> None:
        self._where = where
        self._on_fault = on_fault
        self._passing = passing  # an exception the caller handles itself

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if isinstance(error, BaseExceptionGroup) and not isinstance(error, Exception):
            faults, rest = error.split(Exception)
            if faults is None or rest is None:
                return False
            self._take(faults)
            raise rest
        if not isinstance(error, Exception):
            return False
        if self._passing is not None and isinstance(error, self._passing):
            return False
        self._take(error)
        return True

    def _take(self, error: Exception) -> None:
        log.debug("fault in %s: %s: %s", self._where, type(error).__name__, error)
        if self._on_fault is not None:
            self._on_fault(error)

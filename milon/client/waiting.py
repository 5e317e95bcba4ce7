"""Asks again and again until an answer is there or time is up: the one way in which commands wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_S = 0.2  # a fraction of a block time; a node answers some hundred requests a second


def wait_for(probe: Callable[[], T | None], timeout_s: float | None = None, pause_s: float = PAUSE_S) -> T | None:
    """The first answer of `probe` that is not None; None once `timeout_s` seconds are over (never where None).

    `probe` is asked at least once. Ctrl-C ends the wait at once.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause = threading.Event()  # never set: nobody but the clock and Ctrl-C ends a pause
    while True:
        found = probe()
        if found is not None:
            return found
        if deadline is not None and time.monotonic() >= deadline:
            return None
        pause.wait(pause_s)


def wait_until(is_done: Callable[[], bool], timeout_s: float, pause_s: float = PAUSE_S) -> bool:
    """Whether the condition came true within `timeout_s` seconds."""
    return wait_for(lambda: True if is_done() else None, timeout_s, pause_s) is not None

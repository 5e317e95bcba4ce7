"""The one place that catches everything: a service that fails is reported and started again, or ends the node.

Work for others is contained: what strangers' jobs make it raise is logged, and is no reason to end anything else.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from milon.base.errors import Reason, Rejected

_LOG = logging.getLogger(__name__)

RESTART_S = 1.0  # pause before a failed service is started again
FAILURES_MAX = 20  # within a minute: then the fault is not a passing one, and the node ends

T = TypeVar("T")


async def contain(name: str, work: Callable[[], Awaitable[T]]) -> T:
    """What `work` gives. Raises `Rejected`: its own, out of a group too, and UNAVAILABLE for whatever else comes."""
    try:
        return await work()
    except Rejected:
        raise
    except Exception as error:
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, Rejected):
            raise cause from None
        _LOG.exception("%s failed", name)
        raise Rejected(Reason.UNAVAILABLE, f"{name} failed: {type(cause).__name__}") from error


async def supervise(name: str, service: Callable[[], Awaitable[None]]) -> None:
    """Run a service that is not part of the safety of the chain; log what it raises and start it again.

    After `FAILURES_MAX` failures within a minute the last exception is let through and ends the node.
    """
    failures: list[float] = []
    while True:
        try:
            await service()
            return
        except Exception:
            now = trio.current_time()
            failures = [moment for moment in failures if now - moment < 60.0] + [now]
            _LOG.exception("%s failed", name)
            if len(failures) >= FAILURES_MAX:
                raise
        await trio.sleep(RESTART_S)

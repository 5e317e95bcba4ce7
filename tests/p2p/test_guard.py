"""The fence: faults end at it, cancellation passes, and a fault beside a cancellation does not slip through."""

from __future__ import annotations

import pytest
import trio

from milon.p2p.seam.guard import Guard


def test_a_fault_ends_at_the_fence_and_is_told() -> None:
    told: list[Exception] = []
    with Guard("here", told.append):
        raise ValueError("bad bytes")
    assert [str(error) for error in told] == ["bad bytes"]


def test_what_the_caller_handles_itself_passes() -> None:
    with pytest.raises(KeyError), Guard("here", passing=KeyError):
        raise KeyError("mine")


async def test_cancellation_passes() -> None:
    told: list[Exception] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        with Guard("here", told.append):
            await trio.sleep_forever()
    assert scope.cancelled_caught and not told


async def test_a_fault_while_being_cancelled_does_not_outlive_the_scope() -> None:
    """A stream that is reset in the moment its link ends: the scope takes the cancellation, and nothing is left."""
    told: list[Exception] = []

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("reset")

    with trio.CancelScope() as scope, Guard("here", told.append):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            scope.cancel()
    assert len(told) == 1 and isinstance(told[0], ExceptionGroup)

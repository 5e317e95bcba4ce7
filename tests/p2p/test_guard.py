"""The fence: exceptions end here, cancellation does not."""

from __future__ import annotations

import pytest
import trio

from milon.p2p.seam.guard import Guard


def test_an_exception_ends_and_is_told() -> None:
    found: list[Exception] = []
    error, group = KeyError("x"), ExceptionGroup("several", [ValueError(), ExceptionGroup("inner", [TypeError()])])
    for raised in (error, group):
        with Guard("here", found.append):
            raise raised
    assert found == [error, group]
    with Guard("here"):
        pass
    assert len(found) == 2


def test_what_the_caller_handles_passes() -> None:
    with pytest.raises(KeyError), Guard("here", passing=KeyError):
        raise KeyError("x")


async def test_cancellation_passes_also_out_of_a_nursery() -> None:
    found: list[Exception] = []

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in the middle of it")

    with trio.move_on_after(0.01) as scope, Guard("here", found.append):
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not found
    with trio.move_on_after(0.01) as scope, Guard("here", found.append):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            await trio.sleep_forever()
    assert trio.current_effective_deadline() == float("inf")
    assert len(found) == 1  # trio lets the error out alone; the cancellation is never told


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_passes(ending: type[BaseException]) -> None:
    with pytest.raises(ending), Guard("here"):
        raise ending

"""What is contained: refusals pass, out of groups too, and faults become refusals."""

import logging
from functools import partial

import pytest
import trio

from milon.base.errors import Reason, Rejected
from milon.node.supervisor import contain


async def _give(value: int) -> int:
    return value


async def _raise(error: Exception) -> int:
    raise error


async def _raise_in_a_nursery(error: Exception) -> int:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_raise, error)
    return 1


async def test_work_gives_what_it_gives() -> None:
    assert await contain("work", partial(_give, 5)) == 5


@pytest.mark.parametrize("work", [_raise, _raise_in_a_nursery])
async def test_a_refusal_passes(work: object) -> None:
    with pytest.raises(Rejected) as refused:
        await contain("work", partial(work, Rejected(Reason.FULL, "no room")))  # type: ignore[arg-type]  # of either
    assert refused.value.reason is Reason.FULL


@pytest.mark.parametrize("work", [_raise, _raise_in_a_nursery])
async def test_a_fault_is_logged_and_becomes_a_refusal(work: object, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(Rejected) as refused:
        await contain("work", partial(work, OSError("disk")))  # type: ignore[arg-type]  # of either
    assert refused.value.reason is Reason.UNAVAILABLE
    assert "work failed" in caplog.text

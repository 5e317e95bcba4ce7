"""This machine's clock beside those of its peers: read over the network, judged, and watched while a node runs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from statistics import median_low

import trio

from milon.base.codec import decode, encode
from milon.base.errors import Rejected
from milon.base.units import Height
from milon.node.findings import FAIL, OK, WARN, Finding, well
from milon.node.questions import AskClock, ClockAnswer
from milon.node.runner import read_clock_ms
from milon.p2p.transport import Channel, PeerId, Transport

_LOG = logging.getLogger(__name__)

ASK_S = 5.0  # one question
PEERS_ASKED_MAX = 8  # for their clocks
PEERS_S = 1.0  # between two looks for peers after the start
WATCH_S = 600.0  # between two readings: a clock drifts by milliseconds meanwhile, or somebody sets it


@dataclass(frozen=True, slots=True)
class Reading:
    """A peer's clock, read over the network."""

    offset_ms: int  # its clock minus this machine's, give or take half the way there and back
    height: Height  # of its newest final block


async def read_clocks(transport: Transport) -> tuple[Reading, ...]:
    """The clocks of some connected peers; those that do not answer are left out."""
    found: list[Reading] = []

    async def ask(peer: PeerId) -> None:
        before = read_clock_ms()
        try:
            raw = await transport.request(peer, Channel.SYNC, encode(AskClock()), timeout_s=ASK_S)
            answer = decode(ClockAnswer, raw)
        except Rejected:
            return
        found.append(Reading(answer.time_ms - (before + read_clock_ms()) // 2, answer.height))

    async with trio.open_nursery() as nursery:
        for peer in transport.peers()[:PEERS_ASKED_MAX]:
            nursery.start_soon(ask, peer)
    return tuple(found)


def judge_clock(readings: tuple[Reading, ...], drift_ms_max: int) -> Finding:
    """This machine's clock beside the peers': half of them may lie without moving the middle one."""
    if not readings:
        return Finding("clock", WARN, "no peer told its time", "a wrong clock would go unnoticed", "try again later")
    offset = median_low(sorted(reading.offset_ms for reading in readings))
    cause = f"{abs(offset)} ms {'behind' if offset > 0 else 'ahead of'} the middle one of {len(readings)} peers"
    step = "set the clock by NTP (`timedatectl set-ntp true`)"
    if abs(offset) > drift_ms_max:
        return Finding("clock", FAIL, cause, "its blocks are refused, or it refuses those of others", step)
    if abs(offset) > drift_ms_max // 2:
        return Finding("clock", WARN, cause, f"beyond {drift_ms_max} ms blocks are refused", step)
    return well("clock", cause)


async def watch_clock(transport: Transport, drift_ms_max: int) -> None:
    """Say so in the log when this machine's clock is off: soon after the start, and now and then."""
    while True:
        while not transport.peers():
            await trio.sleep(PEERS_S)
        finding = judge_clock(await read_clocks(transport), drift_ms_max)
        if finding.level != OK:
            _LOG.warning("clock: %s; %s; %s", finding.cause, finding.consequence, finding.next_step)
        await trio.sleep(WATCH_S)

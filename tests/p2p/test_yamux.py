"""The muxer: streams are pipes with credit, and every bound is enforced."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamReset,
)

from milon.p2p.seam import yamux
from milon.p2p.seam.muxed_stream import WINDOW_BYTES, Stream
from milon.p2p.seam.yamux import DATA, HEADER, PING, RST, SYN, WINDOW_UPDATE, Yamux
from tests.p2p.networks import DEADLINE_S, wait_until


class Pipe:
    """One end of an unencrypted connection in memory."""

    def __init__(self, stream: trio.StapledStream, is_initiator: bool) -> None:
        self.stream = stream
        self.is_initiator = is_initiator
        self.written: list[bytes] = []

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        raw = b""
        while len(raw) < size and (chunk := await self.stream.receive_some(size - len(raw))):
            raw += chunk
        return raw

    async def write(self, data: bytes) -> None:
        """Send."""
        self.written.append(data)
        await self.stream.send_all(data)

    async def close(self) -> None:
        """Close both directions."""
        await self.stream.aclose()


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Yamux, Yamux]]:
    ours, theirs = trio.testing.memory_stream_pair()
    ends = Yamux(Pipe(ours, True), "peer"), Yamux(Pipe(theirs, False), "peer")
    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(end.start)
            await end.event_started.wait()
        with trio.fail_after(DEADLINE_S):
            yield ends
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def victim() -> AsyncIterator[tuple[Yamux, Pipe, list[Exception]]]:
    """A muxer whose other end is written by hand, and what it complained about."""
    ours, theirs = trio.testing.memory_stream_pair()
    faults: list[Exception] = []
    muxed = Yamux(Pipe(ours, False), "peer", faults.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxed.start)
        await muxed.event_started.wait()
        with trio.fail_after(DEADLINE_S):
            yield muxed, Pipe(theirs, True), faults
        nursery.cancel_scope.cancel()


async def read_all(stream: Stream) -> bytes:
    raw = b""
    while True:
        try:
            raw += await stream.read(50_000)
        except MuxedStreamEOF:
            return raw


async def test_streams_carry_bytes_both_ways_beyond_the_window() -> None:
    data = random.Random(1).randbytes(5 * WINDOW_BYTES + 3)
    async with pair() as (one, two), trio.open_nursery() as nursery:
        for _ in range(3):
            mine = await one.open_stream()
            theirs = await two.accept_stream()

            async def send(stream: Stream) -> None:
                await stream.write(data)
                await stream.close()

            nursery.start_soon(send, mine)
            nursery.start_soon(send, theirs)
            assert await read_all(theirs) == data
            assert await read_all(mine) == data
            with pytest.raises(MuxedStreamClosed):
                await mine.write(b"x")
        await wait_until(lambda: not one.streams and not two.streams)


async def test_a_writer_waits_for_credit_and_not_beyond_a_reset() -> None:
    async with pair() as (one, two):
        mine = await one.open_stream()
        with trio.move_on_after(0.1) as waiting:
            await mine.write(bytes(2 * WINDOW_BYTES))
        assert waiting.cancelled_caught
        theirs = await two.accept_stream()
        assert len(theirs._buffer) <= WINDOW_BYTES
        await theirs.reset()
        with pytest.raises(MuxedStreamReset):
            await mine.write(b"x" * (3 * WINDOW_BYTES))
        with pytest.raises(MuxedStreamReset):
            await mine.read(1)


async def test_small_frames_are_merged_and_urgent_ones_overtake_bulk() -> None:
    async with pair() as (one, two):
        bulk, urgent = await one.open_stream(), await one.open_stream()
        bulk.is_bulk = True
        await wait_until(lambda: len(two.streams) == 2)
        pipe = one.secured_conn
        before = len(pipe.written)
        await bulk.write(b"b" * 100)
        for _ in range(50):
            await urgent.write(b"u" * 10)
        theirs = {stream.stream_id: stream for stream in (await two.accept_stream(), await two.accept_stream())}
        await wait_until(lambda: len(theirs[urgent.stream_id]._buffer) == 500)
        assert len(pipe.written) - before < 50


@pytest.mark.parametrize(
    "frames",
    [
        HEADER.pack(1, DATA, 0, 1, 0),
        HEADER.pack(0, 9, 0, 1, 0),
        HEADER.pack(0, DATA, SYN, 1, WINDOW_BYTES + 1),
        HEADER.pack(0, WINDOW_UPDATE, SYN, 2, 0),
        HEADER.pack(0, WINDOW_UPDATE, SYN, 5, 0) + HEADER.pack(0, WINDOW_UPDATE, SYN, 3, 0),
        HEADER.pack(0, WINDOW_UPDATE, SYN, 1, 0xFFFF_FFFF) + HEADER.pack(0, WINDOW_UPDATE, 0, 1, 0xFFFF_FFFF),
        (HEADER.pack(0, DATA, SYN, 1, 60_000) + bytes(60_000))
        + (HEADER.pack(0, DATA, 0, 1, 60_000) + bytes(60_000)) * 4,
    ],
    ids=["version", "type", "large frame", "parity", "order", "credit overflow", "window"],
)
async def test_a_broken_rule_ends_the_connection(frames: bytes) -> None:
    async with victim() as (muxed, pipe, faults):
        await pipe.write(frames)
        await wait_until(lambda: muxed.is_closed)
        assert len(faults) == 1
        with pytest.raises(MuxedConnUnavailable):
            while True:
                await muxed.accept_stream()
        with pytest.raises(MuxedConnUnavailable):
            await muxed.open_stream()


async def test_streams_beyond_the_bound_are_reset_and_pings_answered() -> None:
    async with victim() as (muxed, pipe, faults):
        for index in range(yamux.INBOUND_STREAMS_MAX + 5):
            await pipe.write(HEADER.pack(0, WINDOW_UPDATE, SYN, 1 + 2 * index, 0))
        await pipe.write(HEADER.pack(0, PING, SYN, 0, 77))
        resets = 0
        while True:
            _, kind, flags, _, length = HEADER.unpack(await pipe.read(HEADER.size))
            resets += kind == WINDOW_UPDATE and flags == RST
            if kind == PING:
                break
        assert (length, resets, len(muxed.streams)) == (77, 5, yamux.INBOUND_STREAMS_MAX)
        assert not faults


async def test_a_peer_that_asks_and_never_reads_is_cut_off() -> None:
    async with victim() as (muxed, pipe, _):

        async def never(data: bytes) -> None:
            await trio.sleep_forever()

        muxed.secured_conn.write = never  # as a socket whose other end does not read
        for _ in range(yamux.QUEUED_MAX + 10):
            if muxed.is_closed:
                break
            await pipe.write(HEADER.pack(0, PING, SYN, 0, 1))
        await wait_until(lambda: muxed.is_closed)


async def test_random_frames_never_raise() -> None:
    chance = random.Random(3)
    for _ in range(60):
        async with victim() as (muxed, pipe, _):
            for _ in range(12):
                if muxed.is_closed:
                    break
                length = chance.choice([0, 1, 40, 0xFFFF_FFFF])
                header = HEADER.pack(
                    chance.choice([0, 0, 0, 0, 0, 1]),
                    chance.randrange(5),
                    chance.randrange(16),
                    chance.randrange(8),
                    length,
                )
                await pipe.write(header + chance.randbytes(chance.randint(0, 60)))
            await pipe.close()
            await wait_until(lambda muxed=muxed: muxed.is_closed)


async def test_granted_credit_is_usable_and_no_more_than_that() -> None:
    async with pair() as (one, two):
        mine = await one.open_stream()
        theirs = await two.accept_stream()
        theirs.grant(WINDOW_BYTES)
        with trio.move_on_after(0.2) as waiting:
            await mine.write(bytes(3 * WINDOW_BYTES))
        assert waiting.cancelled_caught
        await wait_until(lambda: len(theirs._buffer) == 2 * WINDOW_BYTES)

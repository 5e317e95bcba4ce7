"""Requests and answers over libp2p streams: one request and its answer per stream, deadlines everywhere."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.io.exceptions import IOException
from libp2p.network.stream.exceptions import StreamEOF

from milon.base.errors import Reason, Rejected, require
from milon.p2p.frames import (
    KIND_ANSWER,
    KIND_REFUSAL,
    FrameReader,
    decode_refusal,
    encode_frame,
    encode_refusal,
    verify_payload,
)
from milon.p2p.libp2p_link import REQUESTS_MAX, Link
from milon.p2p.peers import PeerBook
from milon.p2p.seam.guard import Guard
from milon.p2p.transport import Channel, PeerId, Responder

log = logging.getLogger("milon.p2p")

PROTOCOLS: Mapping[Channel, TProtocol] = {
    Channel.SYNC: TProtocol("/milon/sync/1"),
    Channel.BLOB: TProtocol("/milon/blob/1"),
    Channel.TRANSACTION: TProtocol("/milon/transaction/1"),
    Channel.PEERS: TProtocol("/milon/peers/1"),
}
BULK = frozenset({Channel.SYNC, Channel.BLOB})  # everything else goes first on a shared connection
BULK_GRANT_BYTES = 1 << 20  # with it a chunk of a blob needs no round trip of its own in the middle
ASK_MAX_S = 10.0  # within this the whole request must have arrived
ANSWER_MAX_S = 60.0  # to compute and send an answer: a chunk on a slow line takes a second

OpenStream = Callable[[PeerId, TProtocol], Awaitable[INetStream]]


def frames_of(stream: INetStream, channel: Channel | None = None) -> FrameReader:
    """The frames that arrive on `stream`; answers are bounded by `channel`."""

    async def read(size: int) -> bytes:
        try:
            return bytes(await stream.read(size))
        except StreamEOF:
            return b""

    return FrameReader(read, channel)


class Requests:
    """Both sides of requests, for all peers."""

    def __init__(self, open_stream: OpenStream, book: PeerBook, report: Callable[[PeerId, Reason], None]) -> None:
        self.responders: dict[Channel, Responder] = {}
        self._open_stream = open_stream
        self._book = book
        self._report = report

    async def request(self, link: Link | None, channel: Channel, payload: bytes, timeout_s: float) -> bytes:
        """See `Transport.request`; `link` is None or not greeted when the peer is not connected."""
        verify_payload(channel, payload)
        require(channel in PROTOCOLS, Reason.UNSUPPORTED, f"{channel.name} carries no requests")
        if link is None or not link.greeted.is_set():
            raise Rejected(Reason.UNAVAILABLE, "the peer is not connected")
        try:
            with trio.fail_after(timeout_s):
                async with link.asking[channel]:
                    kind, answer = await self._ask(link.peer, channel, payload)
        except trio.TooSlowError:
            raise Rejected(Reason.UNAVAILABLE, f"{link.peer} did not answer in {timeout_s} s") from None
        except (BaseLibp2pError, IOException) as error:
            raise Rejected(Reason.UNAVAILABLE, f"{link.peer}: {type(error).__name__}: {error!s:.200}") from None
        self._book.count_out(link.peer, len(payload))
        self._book.count_in(link.peer, len(answer))
        if kind == KIND_REFUSAL:
            raise decode_refusal(answer)
        return answer

    async def _ask(self, peer: PeerId, channel: Channel, payload: bytes) -> tuple[int, bytes]:
        stream = await self._open_stream(peer, PROTOCOLS[channel])
        try:
            if channel in BULK:
                stream.muxed_stream.is_bulk = True
                stream.muxed_stream.grant(BULK_GRANT_BYTES)
            await stream.write(encode_frame(channel, payload))
            frame = await frames_of(stream, channel).next()
            if frame is None:
                raise Rejected(Reason.UNAVAILABLE, f"{peer} closed the stream")
            require(frame[0] in (KIND_ANSWER, KIND_REFUSAL), Reason.MALFORMED, "neither an answer nor a refusal")
            return frame
        except Rejected as error:
            if error.reason is not Reason.UNAVAILABLE:
                self._report(peer, error.reason)
            raise
        finally:
            stream.muxed_stream.abort()
            with trio.CancelScope(shield=True):
                await stream.remove()

    async def answer(self, link: Link, channel: Channel, stream: INetStream) -> None:
        """Serve the one request on `stream`; raises what the peer did wrong."""
        frame: tuple[int, bytes] | None = None
        with trio.move_on_after(ASK_MAX_S):
            await link.settled.wait()
            frame = await frames_of(stream).next()
        if frame is None or not link.greeted.is_set():
            return
        require(frame[0] == channel, Reason.MALFORMED, f"a frame of kind {frame[0]} on {channel.name}")
        self._book.count_in(link.peer, len(frame[1]))
        with trio.move_on_after(ANSWER_MAX_S):
            answer = await self._respond(link, channel, frame[1])
            stream.muxed_stream.is_bulk = channel in BULK
            await stream.write(answer)
            await stream.muxed_stream.close()
            await _wait_for_end(stream)
            self._book.count_out(link.peer, len(answer))

    async def _respond(self, link: Link, channel: Channel, payload: bytes) -> bytes:
        responder = self.responders.get(channel)
        if responder is None:
            return encode_refusal(Rejected(Reason.UNAVAILABLE, f"{channel.name} is not served here"))
        if link.serving[channel] >= REQUESTS_MAX:
            return encode_refusal(Rejected(Reason.FULL, f"more than {REQUESTS_MAX} requests at once"))
        link.serving[channel] += 1
        answer = encode_refusal(Rejected(Reason.UNAVAILABLE, "the responder failed"))
        try:
            with Guard("responder", _log_bug, passing=Rejected):  # our own bug must not be blamed on the peer
                found = await responder(link.peer, payload)
                verify_payload(channel, found)
                answer = encode_frame(KIND_ANSWER, found)
        except Rejected as error:
            answer = encode_refusal(error)
        finally:
            link.serving[channel] -= 1
        return answer


async def _wait_for_end(stream: INetStream) -> None:
    """Until the asker closes its side: what is aborted before might not arrive."""
    with Guard("end of a request"):
        await stream.read(1)


def _log_bug(error: Exception) -> None:
    log.error("a responder failed", exc_info=error)

"""How messages stand on a stream: a length, a kind, a payload; and the small values that open and close a talk.

A frame is its payload's length (4 bytes, big-endian), its kind (1 byte) and the payload. The length makes a peer that
dies in the middle look like what it is: an incomplete frame, never a short message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from milon.base.codec import decode, encode, wire
from milon.base.errors import Reason, Rejected, require
from milon.p2p.transport import PAYLOAD_MAX_BYTES, Channel

HEADER_BYTES = 5
KIND_HELLO = 0x40  # opens a one-way stream; its payload is a `Hello`
KIND_ANSWER = 0x41  # the answer to a request
KIND_REFUSAL = 0x42  # instead of an answer; its payload is a `Refusal`
HELLO_MAX_BYTES = 4096  # a chain's name and a handful of addresses
REFUSAL_MAX_BYTES = 1024  # a reason and a sentence
DETAIL_MAX = 256  # characters of a refusal's sentence
READ_BYTES = 64 << 10  # one read from a stream: what one encrypted message holds


@wire("hello/1")
@dataclass(frozen=True, slots=True)
class Hello:
    """What each side says first: which chain it is on."""

    chain: bytes  # the name of the chain, with its genesis; both sides must hold the same


@wire("request-refusal/1")
@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request got no answer."""

    reason: Reason  # for programs
    detail: str  # for people, at most `DETAIL_MAX` characters


def encode_frame(kind: int, payload: bytes) -> bytes:
    """One frame; the caller has checked the payload's size."""
    return len(payload).to_bytes(4, "big") + bytes((kind,)) + payload


def encode_refusal(error: Rejected) -> bytes:
    """The frame that tells a peer why it was refused."""
    return encode_frame(KIND_REFUSAL, encode(Refusal(error.reason, error.detail[:DETAIL_MAX])))


def decode_refusal(payload: bytes) -> Rejected:
    """The error that a peer answered with, fit to be logged and shown; raises `Rejected` when it is none."""
    refusal = decode(Refusal, payload, REFUSAL_MAX_BYTES * 2)
    shown = "".join(sign if sign.isprintable() else "?" for sign in refusal.detail[:DETAIL_MAX])
    return Rejected(refusal.reason, shown)


def decode_hello(payload: bytes, chain: bytes) -> Hello:
    """The peer's hello; `Rejected(WRONG_CHAIN)` when it is on another chain."""
    hello = decode(Hello, payload, HELLO_MAX_BYTES)
    if hello.chain != chain:
        raise Rejected(Reason.WRONG_CHAIN, f"the peer is on chain {hello.chain.hex()[:16]}, not {chain.hex()[:16]}")
    return hello


def size_max_of(kind: int, channel: Channel | None = None) -> int:
    """The largest payload of a frame of `kind`; answers are bounded by their request's `channel`."""
    if kind == KIND_HELLO:
        return HELLO_MAX_BYTES
    if kind == KIND_REFUSAL:
        return REFUSAL_MAX_BYTES * 2
    if kind == KIND_ANSWER and channel is not None:
        return PAYLOAD_MAX_BYTES[channel]
    try:
        return PAYLOAD_MAX_BYTES[Channel(kind)]
    except ValueError:
        raise Rejected(Reason.MALFORMED, f"a frame of unknown kind {kind}") from None


def verify_payload(channel: Channel, payload: bytes) -> None:
    """Raise `Rejected(TOO_LARGE)` unless `payload` may travel on `channel`."""
    limit = PAYLOAD_MAX_BYTES[channel]
    require(len(payload) <= limit, Reason.TOO_LARGE, f"{len(payload)} bytes on {channel.name}; {limit} are allowed")


def verify_one_way(channel: Channel, payload: bytes) -> None:
    """Raise `Rejected` unless `payload` may travel one way to a peer: gossip has its own way."""
    require(channel is not Channel.GOSSIP, Reason.UNSUPPORTED, "gossip is published, not sent")
    verify_payload(channel, payload)


class FrameReader:
    """Frames from a stream of bytes: `read` gives some bytes, or `b""` at the end."""

    def __init__(self, read: Callable[[int], Awaitable[bytes]], channel: Channel | None = None) -> None:
        self._read = read
        self._channel = channel
        self._buffer = bytearray()

    async def _fill(self, size: int) -> bool:
        """Have `size` bytes; False at the end of the stream, when nothing of a frame is here."""
        while len(self._buffer) < size:
            chunk = await self._read(READ_BYTES)
            if not chunk:
                require(not self._buffer, Reason.MALFORMED, "the stream ends inside a frame")
                return False
            self._buffer += chunk
        return True

    async def next(self) -> tuple[int, bytes] | None:
        """Kind and payload of the next frame, or None when the stream ends between frames.

        `Rejected` for an unknown kind or an oversized length, before any of the payload is waited for, and for a
        stream that ends inside a frame.
        """
        if not await self._fill(HEADER_BYTES):
            return None
        size, kind = int.from_bytes(self._buffer[:4], "big"), self._buffer[4]
        limit = size_max_of(kind, self._channel)
        require(size <= limit, Reason.TOO_LARGE, f"a frame of {size} bytes; {limit} are allowed")
        end = HEADER_BYTES + size
        await self._fill(end)
        payload = bytes(self._buffer[HEADER_BYTES:end])
        del self._buffer[:end]
        return kind, payload

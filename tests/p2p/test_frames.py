"""Frames: whole or refused, in whatever pieces they arrive."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.p2p.frames import (
    HEADER_BYTES,
    KIND_ANSWER,
    KIND_HELLO,
    KIND_REFUSAL,
    FrameReader,
    Hello,
    decode_hello,
    decode_refusal,
    encode_frame,
    encode_refusal,
    verify_one_way,
)
from milon.p2p.transport import PAYLOAD_MAX_BYTES, Channel


def read_frames(pieces: list[bytes], channel: Channel | None = None) -> list[tuple[int, bytes]]:
    left = [piece for piece in pieces if piece]

    async def read(size: int) -> bytes:
        return left.pop(0) if left else b""

    async def read_all() -> list[tuple[int, bytes]]:
        reader, found = FrameReader(read, channel), []
        while (frame := await reader.next()) is not None:
            found.append(frame)
        return found

    return trio.run(read_all)


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 6]), st.binary(max_size=300))), st.integers(1, 50))
def test_frames_come_back_in_any_pieces(frames: list[tuple[int, bytes]], size: int) -> None:
    raw = b"".join(encode_frame(kind, payload) for kind, payload in frames)
    assert read_frames([raw[start : start + size] for start in range(0, len(raw), size)]) == frames


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused(raw: bytes) -> None:
    try:
        frames = read_frames([raw])
    except Rejected as error:
        assert error.reason in (Reason.MALFORMED, Reason.TOO_LARGE)
    else:
        assert b"".join(encode_frame(kind, payload) for kind, payload in frames) == raw


@pytest.mark.parametrize("kind", [*Channel, KIND_HELLO, KIND_REFUSAL])
def test_an_oversized_length_is_refused_before_its_payload_is_read(kind: int) -> None:
    with pytest.raises(Rejected) as refused:
        read_frames([(64 << 20).to_bytes(4, "big") + bytes((kind,))])
    assert refused.value.reason is Reason.TOO_LARGE


def test_answers_are_bounded_by_their_channel() -> None:
    frame = encode_frame(KIND_ANSWER, bytes(PAYLOAD_MAX_BYTES[Channel.PEERS] + 1))
    assert len(read_frames([frame], Channel.BLOB)[0][1]) == len(frame) - HEADER_BYTES
    with pytest.raises(Rejected):
        read_frames([frame], Channel.PEERS)
    with pytest.raises(Rejected):
        read_frames([frame])


def test_hello_and_refusal_come_back() -> None:
    assert decode_hello(encode(Hello(b"chain")), b"chain") == Hello(b"chain")
    with pytest.raises(Rejected) as refused:
        decode_hello(encode(Hello(b"chain")), b"other")
    assert refused.value.reason is Reason.WRONG_CHAIN
    [(kind, payload)] = read_frames([encode_refusal(Rejected(Reason.FULL, "x" * 10_000))])
    error = decode_refusal(payload)
    assert kind == KIND_REFUSAL
    assert (error.reason, len(error.detail)) == (Reason.FULL, 256)


def test_gossip_is_not_sent_one_way() -> None:
    with pytest.raises(Rejected) as refused:
        verify_one_way(Channel.GOSSIP, b"")
    assert refused.value.reason is Reason.UNSUPPORTED


def test_a_refusal_cannot_move_a_cursor_or_forge_a_line_of_a_log() -> None:
    frame = encode_refusal(Rejected(Reason.FULL, "no room\x1b[2J\nroot: all is well"))
    assert decode_refusal(frame[5:]).detail == "no room?[2J?root: all is well"

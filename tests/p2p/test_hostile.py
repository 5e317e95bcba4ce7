"""Hostile bytes and behaviour against the real transport: refused and counted, and the node goes on."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator

import pytest
import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.pubsub.pb import rpc_pb2
from libp2p.stream_muxer.exceptions import MuxedStreamError

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.p2p.frames import KIND_ANSWER, KIND_HELLO, Hello, encode_frame
from milon.p2p.libp2p_requests import PROTOCOLS
from milon.p2p.libp2p_transport import ONE_WAY, LibP2PTransport
from milon.p2p.seam import host as seam_host
from milon.p2p.seam import yamux
from milon.p2p.seam.gossip import MESHSUB_ID, RPC_MAX_BYTES
from milon.p2p.transport import PAYLOAD_MAX_BYTES, Channel, PeerId
from tests.p2p.hostile import Hostile, assert_alive, hostile_to
from tests.p2p.networks import CHAIN, DEADLINE_S, Network, network_of, wait_until

HELLO = encode_frame(KIND_HELLO, encode(Hello(CHAIN)))
TOPIC = f"/milon/{CHAIN.hex()[:16]}/news"


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    async with network_of("libp2p") as found:
        yield found


@pytest.fixture
async def victim(network: Network) -> LibP2PTransport:
    found = await network.add("victim")
    assert isinstance(found, LibP2PTransport)
    return found


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out, number = out + bytes((number & 0x7F | 0x80,)), number >> 7
    return out + bytes((number,))


def gossip(**fields: object) -> bytes:
    raw = rpc_pb2.RPC(publish=[rpc_pb2.Message(topicIDs=[TOPIC], **fields)]).SerializeToString()
    return varint(len(raw)) + raw


BAD_GOSSIP = {
    "no protobuf": varint(5) + b"\xff\xff\xff\xff\xff",
    "malformed key": gossip(data=b"x", from_id=b"\x12\x20" + bytes(32), seqno=b"1", key=b"junk", signature=b"junk"),
    "oversized length": varint(RPC_MAX_BYTES + 1),
    "endless varint": b"\xff" * 10,
    "oversized message": gossip(data=bytes(PAYLOAD_MAX_BYTES[Channel.GOSSIP] + 2048), from_id=b"x", seqno=b"1"),
    "too many subscriptions": b"".join(
        varint(len(raw)) + raw
        for raw in [
            rpc_pb2.RPC(
                subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=str(i)) for i in range(100)]
            ).SerializeToString()
        ]
    ),
}


@pytest.mark.parametrize("raw", BAD_GOSSIP.values(), ids=BAD_GOSSIP)
async def test_bad_gossip_costs_its_sender_the_connection(
    network: Network, victim: LibP2PTransport, raw: bytes
) -> None:
    async with hostile_to(victim) as hostile:
        await hostile.greet()
        stream = await hostile.open(MESHSUB_ID)
        await stream.write(raw)
        await wait_until(hostile.is_cut_off)
        assert hostile.rejects() == 1
    await assert_alive(network, victim)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"from_id": b"", "seqno": b"", "data": b""},
        {"from_id": b"\x00" * 40, "seqno": b"2", "signature": b"s", "key": b""},
        {"from_id": b"\x00\x24\x08\x01\x12\x20" + bytes(32), "seqno": b"3", "signature": bytes(64)},
    ],
)
async def test_gossip_with_bad_senders_is_not_delivered(
    network: Network, victim: LibP2PTransport, fields: dict[str, bytes]
) -> None:
    async with hostile_to(victim) as hostile:
        await hostile.greet()
        stream = await hostile.open(MESHSUB_ID)
        await stream.write(gossip(**fields))
        await assert_alive(network, victim)  # fails if anything but its own message were delivered first


BAD_ONE_WAY = {
    "no hello": encode_frame(Channel.CONSENSUS, b"vote"),
    "hello of another chain": encode_frame(KIND_HELLO, encode(Hello(b"another"))),
    "hello that is no CBOR": encode_frame(KIND_HELLO, b"\xff\x00"),
    "two hellos": HELLO + HELLO,
    "oversized hello": encode_frame(KIND_HELLO, bytes(10_000)),
    "oversized frame": HELLO + (PAYLOAD_MAX_BYTES[Channel.CONSENSUS] + 1).to_bytes(4, "big") + b"\x01",
    "unknown channel": HELLO + encode_frame(99, b"x"),
    "gossip pretended": HELLO + encode_frame(Channel.GOSSIP, b"x"),
    "answer unasked": HELLO + encode_frame(KIND_ANSWER, b"x"),
    "cut frame": HELLO + encode_frame(Channel.CONSENSUS, b"vote")[:-1],
    "cut header": HELLO + b"\x00\x00",
}


@pytest.mark.parametrize("raw", BAD_ONE_WAY.values(), ids=BAD_ONE_WAY)
async def test_bad_one_way_frames_cost_the_connection(network: Network, victim: LibP2PTransport, raw: bytes) -> None:
    async with hostile_to(victim) as hostile:
        stream = await hostile.open(ONE_WAY)
        await stream.write(raw)
        await stream.muxed_stream.close()
        await wait_until(hostile.is_cut_off)
        assert hostile.rejects() == 1
    await assert_alive(network, victim)


@pytest.mark.parametrize("channel", PROTOCOLS)
async def test_bad_requests_cost_the_connection(network: Network, victim: LibP2PTransport, channel: Channel) -> None:
    bad = [
        (PAYLOAD_MAX_BYTES[channel] + 1).to_bytes(4, "big") + bytes((channel,)),
        encode_frame(Channel.CONSENSUS, b"x"),
        encode_frame(KIND_HELLO, b"x"),
        encode_frame(200, b"x"),
        encode_frame(channel, b"request")[:-1],
    ]
    for index, raw in enumerate(bad):
        async with hostile_to(victim, f"hostile {index}") as hostile:
            await hostile.greet()
            stream = await hostile.open(PROTOCOLS[channel])
            await stream.write(raw)
            await stream.muxed_stream.close()
            await wait_until(hostile.is_cut_off)
            assert hostile.rejects() == 1
    await assert_alive(network, victim)


def mutated(chance: random.Random, raw: bytes) -> bytes:
    """`raw` with some bytes changed, cut out, doubled or added."""
    out = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(4):
            case 0 if at < len(out):
                out[at] = chance.randrange(256)
            case 1:
                del out[at : at + chance.randint(1, 8)]
            case 2:
                out[at:at] = out[: chance.randint(0, 16)]
            case _:
                out[at:at] = chance.randbytes(chance.randint(1, 32))
    return bytes(out)


SAMPLES = {
    ONE_WAY: HELLO + encode_frame(Channel.CONSENSUS, b"a vote") * 3,
    MESHSUB_ID: gossip(
        data=b"news", from_id=b"\x00\x24\x08\x01\x12\x20" + bytes(32), seqno=bytes(8), signature=bytes(64)
    ),
    **{protocol: encode_frame(channel, b"a request") for channel, protocol in PROTOCOLS.items()},
    "/ipfs/id/1.0.0": b"hello",
    "/ipfs/ping/1.0.0": bytes(32),
}


@pytest.mark.parametrize("protocol", SAMPLES)
async def test_random_and_mutated_bytes_on_every_protocol(
    network: Network, victim: LibP2PTransport, protocol: str
) -> None:
    chance = random.Random(protocol)
    for attempt in range(6):
        async with hostile_to(victim, f"hostile {attempt}") as hostile:
            await hostile.greet()
            for _ in range(3):
                if hostile.is_cut_off():
                    break
                raw = chance.randbytes(chance.randint(1, 200)) if chance.random() < 0.3 else SAMPLES[protocol]
                await _spit(hostile, protocol, mutated(chance, raw))
    while (message := _next_or_none(victim)) is not None:
        assert len(message) < 1000
    await assert_alive(network, victim)


def _next_or_none(victim: LibP2PTransport) -> bytes | None:
    try:
        return victim.received().receive_nowait().payload
    except trio.WouldBlock:
        return None


async def _spit(hostile: Hostile, protocol: str, raw: bytes) -> None:
    try:
        stream = await hostile.open(protocol)
        await stream.write(raw)
        await stream.muxed_stream.close()
    except BaseLibp2pError:
        assert hostile.is_cut_off() or protocol == MESHSUB_ID


async def test_bytes_that_are_no_handshake(network: Network, victim: LibP2PTransport) -> None:
    chance = random.Random(7)
    port = int(victim.addresses[0].split("/")[4])
    samples = [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x13/multistream/1.0.0\n\x07/noise\n", b"\xff" * 100]
    for attempt in range(40):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        try:
            await stream.send_all(mutated(chance, samples[attempt % len(samples)]))
            await stream.send_all(chance.randbytes(chance.randint(0, 300)))
        except trio.BrokenResourceError:
            pass  # the victim was quicker
        await stream.aclose()
    await assert_alive(network, victim)


@pytest.mark.parametrize("protocol", ["/plaintext/2.0.0", "/tls/1.0.0", "/secio/1.0.0"])
async def test_nothing_but_noise_is_spoken(victim: LibP2PTransport, protocol: str) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", int(victim.addresses[0].split("/")[4]))
    async with stream:
        lines = [b"/multistream/1.0.0\n", protocol.encode() + b"\n"]
        await stream.send_all(b"".join(varint(len(line)) + line for line in lines))
        heard = b""
        with trio.fail_after(DEADLINE_S):
            while b"na\n" not in heard:
                chunk = await stream.receive_some()
                assert chunk
                heard += chunk
    assert protocol.encode() not in heard


async def test_stalled_requests_on_one_channel_do_not_hold_up_another(network: Network) -> None:
    victim, asker = network.make("victim"), await network.add("asker")

    async def stall(peer: PeerId, payload: bytes) -> bytes:
        await trio.sleep_forever()
        return b""

    async def echo(peer: PeerId, payload: bytes) -> bytes:
        return payload

    victim.serve(Channel.BLOB, stall)
    victim.serve(Channel.SYNC, echo)
    await network.start(victim)
    await asker.connect(victim.addresses[0], timeout_s=DEADLINE_S)
    stalled = 0

    async def ask() -> None:
        nonlocal stalled
        with pytest.raises(Rejected):
            stalled += 1
            await asker.request(victim.peer_id, Channel.BLOB, b"x", timeout_s=DEADLINE_S)

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(ask)
        await wait_until(lambda: stalled == 40)
        assert await asker.request(victim.peer_id, Channel.SYNC, b"y", timeout_s=DEADLINE_S) == b"y"
        nursery.cancel_scope.cancel()


async def test_a_failing_handler_costs_an_answer_and_nobody_is_blamed(network: Network) -> None:
    victim, asker = network.make("victim"), await network.add("asker")

    async def fail(peer: PeerId, payload: bytes) -> bytes:
        raise KeyError(payload)

    victim.serve(Channel.SYNC, fail)
    await network.start(victim)
    await asker.connect(victim.addresses[0], timeout_s=DEADLINE_S)
    for _ in range(3):
        with pytest.raises(Rejected) as refused:
            await asker.request(victim.peer_id, Channel.SYNC, b"x", timeout_s=DEADLINE_S)
        assert refused.value.reason is Reason.UNAVAILABLE
    assert asker.peers() == (victim.peer_id,)
    assert victim.counters()[asker.peer_id].rejects == 0


async def test_a_cancelled_write_hurts_no_other_stream(network: Network, victim: LibP2PTransport) -> None:
    async with hostile_to(victim) as peer:
        one_way = await peer.greet()
        for _ in range(5):
            request = await peer.open(PROTOCOLS[Channel.SYNC])
            with trio.move_on_after(0.02):
                await request.write(encode_frame(Channel.SYNC, bytes(4 << 20)))  # waits for credit in the middle
            request.muxed_stream.abort()
            await one_way.write(encode_frame(Channel.CONSENSUS, b"whole"))
            with trio.fail_after(DEADLINE_S):
                assert (await victim.received().receive()).payload == b"whole"
        assert not peer.is_cut_off()
        assert peer.rejects() == 0


async def test_slots_are_given_back(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam_host, "CONNECTIONS_MAX", 6)
    victim = await network.add("victim")
    assert isinstance(victim, LibP2PTransport)
    port = int(victim.addresses[0].split("/")[4])
    for attempt in range(10):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.aclose()
        async with hostile_to(victim, f"visitor {attempt}") as visitor:
            await visitor.greet()
            assert visitor.peer_id in victim.peers()
    await wait_until(lambda: victim.peers() == ())
    await assert_alive(network, victim)


async def test_idle_sockets_lock_nobody_out(network: Network, victim: LibP2PTransport) -> None:
    address = ("127.0.0.1", int(victim.addresses[0].split("/")[4]))
    idle = [socket.create_connection(address) for _ in range(300)]
    try:
        with trio.fail_after(seam_host.UPGRADE_MAX_S):
            await assert_alive(network, victim)
    finally:
        for one in idle:
            one.close()


async def test_a_flood_beyond_the_window_ends_the_connection(network: Network, victim: LibP2PTransport) -> None:
    async with hostile_to(victim) as hostile:
        await hostile.greet()
        stream = await hostile.open(PROTOCOLS[Channel.SYNC])
        muxed_stream = stream.muxed_stream
        muxed_stream._credit_out = 1 << 31  # as if the victim had allowed it
        await muxed_stream.write(encode_frame(Channel.SYNC, bytes(100)))
        with trio.move_on_after(DEADLINE_S), pytest.raises(MuxedStreamError):
            while True:
                await muxed_stream.write(bytes(60_000))
        await wait_until(hostile.is_cut_off)
        assert hostile.rejects() == 1
    await assert_alive(network, victim)


async def test_thousands_of_streams_end_the_connection(network: Network, victim: LibP2PTransport) -> None:
    async with hostile_to(victim) as hostile:
        await hostile.greet()
        victims_end = victim._host.get_network().get_connections()[0].muxed_conn
        opened = most = 0
        with trio.fail_after(DEADLINE_S):
            while not hostile.is_cut_off() and opened < 5000:
                hostile.muxed.queue_control(yamux.WINDOW_UPDATE, yamux.SYN, 1001 + 2 * opened, 0)
                opened += 1
                most = max(most, len(victims_end.streams))
                if opened % 50 == 0:
                    await trio.sleep(0)
        await wait_until(hostile.is_cut_off)
        assert opened < 5000 or hostile.is_cut_off()
        assert 1 < most <= yamux.INBOUND_STREAMS_MAX + 4
    await assert_alive(network, victim)


async def test_an_answer_cut_short_is_not_an_answer(network: Network) -> None:
    asker = await network.add("asker")
    assert isinstance(asker, LibP2PTransport)
    async with hostile_to(asker) as hostile:
        await hostile.greet()

        async def cut(stream) -> None:
            await stream.read(1000)
            await stream.write(encode_frame(KIND_ANSWER, bytes(100_000))[:50_000])
            await stream.muxed_stream.close()
            await trio.sleep_forever()

        hostile.host.set_stream_handler(PROTOCOLS[Channel.BLOB], cut)
        with pytest.raises(Rejected) as refused:
            await asker.request(hostile.peer_id, Channel.BLOB, b"x", timeout_s=DEADLINE_S)
        assert refused.value.reason is Reason.MALFORMED
        assert hostile.rejects() == 1


async def test_a_peer_without_a_hello_is_disconnected(
    network: Network, victim: LibP2PTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milon.p2p.libp2p_transport.GREET_MAX_S", 0.3)
    async with hostile_to(victim) as hostile:
        await wait_until(hostile.is_cut_off)
        assert victim.peers() == ()
    await assert_alive(network, victim)

"""Every Transport passes the same tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from milon.base.errors import Reason, Rejected
from milon.p2p.transport import PAYLOAD_MAX_BYTES, Channel, PeerId, Received
from tests.p2p.networks import DEADLINE_S, Network, connect, network_of, wait_until


@pytest.fixture(params=["memory", "libp2p"])
async def network(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    async with network_of(request.param) as found:
        yield found


async def receive(channel: trio.MemoryReceiveChannel[Received]) -> Received:
    with trio.fail_after(DEADLINE_S):
        return await channel.receive()


async def test_connect_makes_both_sides_peers(network: Network) -> None:
    one, two = await network.pair()
    assert one.peers() == (two.peer_id,)
    assert two.peers() == (one.peer_id,)
    assert one.addresses[0].endswith(f"/p2p/{one.peer_id}")
    assert await one.connect(two.addresses[0], timeout_s=1) == two.peer_id


async def test_one_way_messages_keep_their_order(network: Network) -> None:
    one, two = await network.pair()
    for index in range(300):
        assert one.send(two.peer_id, Channel.CONSENSUS, index.to_bytes(2, "big"))
    for index in range(300):
        message = await receive(two.received())
        assert message == Received(one.peer_id, Channel.CONSENSUS, index.to_bytes(2, "big"))


async def test_the_largest_message_arrives_and_a_larger_one_is_refused(network: Network) -> None:
    one, two = await network.pair()
    limit = PAYLOAD_MAX_BYTES[Channel.CONSENSUS]
    assert one.send(two.peer_id, Channel.CONSENSUS, bytes(limit))
    assert len((await receive(two.received())).payload) == limit
    with pytest.raises(Rejected) as refused:
        one.send(two.peer_id, Channel.CONSENSUS, bytes(limit + 1))
    assert refused.value.reason is Reason.TOO_LARGE


async def test_sending_to_a_stranger_is_refused_and_to_a_full_queue_too(network: Network) -> None:
    one, two = await network.pair()
    assert not one.send(PeerId("nobody"), Channel.CONSENSUS, b"x")
    accepted = sum(one.send(two.peer_id, Channel.CONSENSUS, bytes(1 << 20)) for _ in range(100))
    assert 1 <= accepted < 100
    assert one.counters()[two.peer_id].drops == 100 - accepted


async def test_broadcast_reaches_every_peer(network: Network) -> None:
    nodes = [await network.add(f"node {index}") for index in range(4)]
    for other in nodes[1:]:
        await connect(nodes[0], other)
    nodes[0].broadcast(Channel.CONSENSUS, b"vote")
    for other in nodes[1:]:
        assert await receive(other.received()) == Received(nodes[0].peer_id, Channel.CONSENSUS, b"vote")


async def test_gossip_reaches_all_over_a_line_of_peers(network: Network) -> None:
    nodes = [await network.add(f"node {index}") for index in range(3)]
    await connect(nodes[0], nodes[1])
    await connect(nodes[1], nodes[2])
    expected = Received(nodes[0].peer_id, Channel.GOSSIP, b"hear ye", "news")
    heard: set[int] = set()

    async def listen(index: int) -> None:
        assert await receive(nodes[index].received()) == expected
        heard.add(index)

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, 1)
            nursery.start_soon(listen, 2)
            while heard != {1, 2}:  # gossip promises nothing: what is not heard is said again
                await nodes[0].publish("news", b"hear ye")
                await trio.sleep(0.2)


async def test_gossip_beyond_its_bounds_is_refused(network: Network) -> None:
    one = await network.add("one")
    with pytest.raises(Rejected) as refused:
        await one.publish("news", bytes((64 << 10) + 1))
    assert refused.value.reason is Reason.TOO_LARGE
    with pytest.raises(Rejected) as refused:
        await one.publish("rumours", b"x")
    assert refused.value.reason is Reason.UNKNOWN


async def test_requests_are_answered_both_ways(network: Network) -> None:
    one, two = network.make("one"), network.make("two")

    async def double(peer: PeerId, payload: bytes) -> bytes:
        return payload * 2

    one.serve(Channel.SYNC, double)
    two.serve(Channel.BLOB, double)
    await network.start(one)
    await network.start(two)
    await connect(one, two)
    assert await one.request(two.peer_id, Channel.BLOB, b"ab", timeout_s=DEADLINE_S) == b"abab"
    assert await two.request(one.peer_id, Channel.SYNC, b"", timeout_s=DEADLINE_S) == b""
    large = await one.request(two.peer_id, Channel.BLOB, bytes(2 << 20), timeout_s=DEADLINE_S)
    assert len(large) == 4 << 20
    counters = one.counters()[two.peer_id]
    assert counters.bytes_out >= 2 << 20
    assert counters.bytes_in >= 4 << 20


async def test_many_requests_at_once(network: Network) -> None:
    one, two = network.make("one"), network.make("two")

    async def echo(peer: PeerId, payload: bytes) -> bytes:
        return payload

    two.serve(Channel.SYNC, echo)
    await network.start(one)
    await network.start(two)
    await connect(one, two)
    answers: dict[int, bytes] = {}

    async def ask(index: int) -> None:
        payload = index.to_bytes(2, "big") * 1000
        answers[index] = await one.request(two.peer_id, Channel.SYNC, payload, timeout_s=DEADLINE_S)

    async with trio.open_nursery() as nursery:
        for index in range(60):
            nursery.start_soon(ask, index)
    assert answers == {index: index.to_bytes(2, "big") * 1000 for index in range(60)}


async def test_a_refusal_reaches_the_asker_with_its_reason(network: Network) -> None:
    one, two = network.make("one"), network.make("two")

    async def refuse(peer: PeerId, payload: bytes) -> bytes:
        raise Rejected(Reason.STALE, "pruned")

    two.serve(Channel.SYNC, refuse)
    await network.start(one)
    await network.start(two)
    await connect(one, two)
    with pytest.raises(Rejected) as refused:
        await one.request(two.peer_id, Channel.SYNC, b"x", timeout_s=DEADLINE_S)
    assert (refused.value.reason, refused.value.detail) == (Reason.STALE, "pruned")
    with pytest.raises(Rejected) as refused:
        await one.request(two.peer_id, Channel.TRANSACTION, b"x", timeout_s=DEADLINE_S)
    assert refused.value.reason is Reason.UNAVAILABLE
    assert one.peers() == (two.peer_id,)


async def test_a_request_ends_at_its_deadline(network: Network) -> None:
    one, two = network.make("one"), network.make("two")

    async def stall(peer: PeerId, payload: bytes) -> bytes:
        await trio.sleep_forever()
        return b""

    two.serve(Channel.SYNC, stall)
    await network.start(one)
    await network.start(two)
    await connect(one, two)
    with pytest.raises(Rejected) as refused:
        await one.request(two.peer_id, Channel.SYNC, b"x", timeout_s=0.3)
    assert refused.value.reason is Reason.UNAVAILABLE
    assert one.send(two.peer_id, Channel.CONSENSUS, b"still here")
    assert (await receive(two.received())).payload == b"still here"


async def test_a_peer_that_dies_while_it_answers_is_unavailable_at_once(network: Network) -> None:
    one, two = network.make("one"), network.make("two")

    async def die(peer: PeerId, payload: bytes) -> bytes:
        network.stop(two)
        await trio.sleep_forever()
        return b""

    two.serve(Channel.SYNC, die)
    await network.start(one)
    await network.start(two)
    await connect(one, two)
    with trio.fail_after(DEADLINE_S), pytest.raises(Rejected) as refused:
        await one.request(two.peer_id, Channel.SYNC, b"x", timeout_s=DEADLINE_S * 2)
    assert refused.value.reason is Reason.UNAVAILABLE
    await wait_until(lambda: one.peers() == ())


async def test_another_chain_is_refused(network: Network) -> None:
    one, stranger = await network.add("one"), await network.add("stranger", chain=b"another-chain")
    with pytest.raises(Rejected) as refused:
        await one.connect(stranger.addresses[0], timeout_s=DEADLINE_S)
    assert refused.value.reason is Reason.WRONG_CHAIN
    await wait_until(lambda: stranger.peers() == one.peers() == ())
    with pytest.raises(Rejected) as refused:
        await one.connect(stranger.addresses[0], timeout_s=DEADLINE_S)
    assert refused.value.reason is Reason.NOT_ALLOWED


async def test_misbehaviour_disconnects_and_bans(network: Network) -> None:
    one, two = await network.pair()
    one.report(two.peer_id, Reason.STALE)
    assert one.peers() == (two.peer_id,)
    for _ in range(4):
        one.report(two.peer_id, Reason.BAD_SIGNATURE)
    assert one.peers() == ()
    await wait_until(lambda: two.peers() == ())
    with pytest.raises(Rejected) as refused:
        await one.connect(two.addresses[0], timeout_s=1)
    assert refused.value.reason is Reason.NOT_ALLOWED
    with pytest.raises(Rejected) as refused:
        await two.connect(one.addresses[0], timeout_s=1)
    assert refused.value.reason is Reason.UNAVAILABLE


async def test_disconnect_is_seen_by_both_and_undone_by_connect(network: Network) -> None:
    one, two = await network.pair()
    one.disconnect(two.peer_id)
    await wait_until(lambda: one.peers() == two.peers() == ())
    await connect(two, one)
    assert two.send(one.peer_id, Channel.CONSENSUS, b"again")
    assert (await receive(one.received())).payload == b"again"


async def test_nobody_there_and_oneself_are_refused(network: Network) -> None:
    one, two = await network.add("one"), await network.add("two")
    await network.stopped(two)
    with pytest.raises(Rejected) as refused:
        await one.connect(two.addresses[0], timeout_s=1)
    assert refused.value.reason is Reason.UNAVAILABLE
    with pytest.raises(Rejected) as refused:
        await one.connect(one.addresses[0], timeout_s=1)
    assert refused.value.reason is Reason.IN_USE
    with pytest.raises(Rejected) as refused:
        await one.connect("/ip4/127.0.0.1/tcp/1/p2p/hello", timeout_s=1)
    assert refused.value.reason is Reason.MALFORMED
    somebody_else = one.addresses[0].rsplit("/", 1)[0] + "/" + two.peer_id
    with pytest.raises(Rejected) as refused:
        await one.connect(somebody_else, timeout_s=1)
    assert refused.value.reason is Reason.UNAVAILABLE

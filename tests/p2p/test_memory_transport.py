"""What only the memory network can do: delay, loss and partitions from a seed."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from milon.base.errors import Rejected
from milon.p2p.memory_transport import LinkSettings, MemoryNetwork
from milon.p2p.transport import Channel, PeerId
from tests.p2p.networks import Network, connect


async def heard_over(links: LinkSettings, seed: int, count: int = 200) -> list[tuple[float, bytes]]:
    """What arrives, and when, of `count` messages sent at once."""
    heard: list[tuple[float, bytes]] = []
    async with trio.open_nursery() as nursery:
        memory = MemoryNetwork(seed)
        network = Network("memory", nursery, memory)
        one, two = await network.pair()
        memory.links = links
        start = trio.current_time()
        for index in range(count):
            one.send(two.peer_id, Channel.CONSENSUS, index.to_bytes(2, "big"))
        with trio.move_on_after(10):
            while True:
                message = await two.received().receive()
                heard.append((trio.current_time() - start, message.payload))
        nursery.cancel_scope.cancel()
    return heard


async def test_delay_keeps_order_and_loss_is_as_set(autojump_clock: MockClock) -> None:
    heard = await heard_over(LinkSettings(0.1, 0.5, loss=0.3), seed=5)
    assert 100 < len(heard) < 180
    assert all(0.1 <= at_s <= 0.6 for at_s, _ in heard)
    assert [payload for _, payload in heard] == sorted(payload for _, payload in heard)


async def test_one_seed_one_course(autojump_clock: MockClock) -> None:
    links = LinkSettings(0.1, 0.5, loss=0.3)
    first, again, other = [[p for _, p in await heard_over(links, seed)] for seed in (5, 5, 6)]
    assert first == again != other


async def test_a_partition_cuts_and_heals(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network("memory", nursery)
        one, two = network.make("one"), network.make("two")

        async def echo(peer: PeerId, payload: bytes) -> bytes:
            return payload

        two.serve(Channel.SYNC, echo)
        await network.start(one)
        await network.start(two)
        await connect(one, two)
        network.memory.partition(("one",), ("two",))
        one.send(two.peer_id, Channel.CONSENSUS, b"lost")
        await one.publish("news", b"lost")
        refused = False
        try:
            await one.request(two.peer_id, Channel.SYNC, b"x", timeout_s=3)
        except Rejected:
            refused = True
        assert refused
        network.memory.heal()
        one.send(two.peer_id, Channel.CONSENSUS, b"found")
        assert (await two.received().receive()).payload == b"found"
        assert await one.request(two.peer_id, Channel.SYNC, b"x", timeout_s=3) == b"x"
        nursery.cancel_scope.cancel()

"""The inbox: direct messages wait, gossip gives way, and nobody waits for ever."""

from __future__ import annotations

import pytest
import trio

from milon.p2p import inbox as module
from milon.p2p.inbox import GOSSIP_MAX, OVERHEAD_BYTES, Inbox
from milon.p2p.transport import Channel, PeerId, Received


def direct(peer: str, payload: bytes) -> Received:
    return Received(PeerId(peer), Channel.CONSENSUS, payload)


def gossip(payload: bytes) -> Received:
    return Received(PeerId("peer"), Channel.GOSSIP, payload, "news")


async def test_direct_messages_go_first_and_in_order(nursery: trio.Nursery) -> None:
    drops: list[PeerId] = []
    inbox = Inbox(drops.append)
    inbox.put_gossip(gossip(b"news"))
    for index in range(3):
        assert await inbox.put(direct("peer", bytes((index,))))
    nursery.start_soon(inbox.run)
    received = [(await inbox.receiver.receive()).payload for _ in range(4)]
    assert received == [b"\0", b"\1", b"\2", b"news"]
    assert not drops


async def test_gossip_pushes_the_oldest_out(nursery: trio.Nursery) -> None:
    drops: list[PeerId] = []
    inbox = Inbox(drops.append)
    for index in range(GOSSIP_MAX + 2):
        inbox.put_gossip(gossip(index.to_bytes(2, "big")))
    assert drops == ["peer", "peer"]
    nursery.start_soon(inbox.run)
    assert (await inbox.receiver.receive()).payload == b"\0\2"


async def test_a_full_share_waits_and_hurts_no_other_peer(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PEER_MAX_BYTES", 2 * (10 + OVERHEAD_BYTES))
    inbox = Inbox(lambda peer: None)
    assert await inbox.put(direct("loud", bytes(10)))
    assert await inbox.put(direct("loud", bytes(10)))
    with trio.move_on_after(0.05) as waiting:
        await inbox.put(direct("loud", bytes(10)))
    assert waiting.cancelled_caught
    assert await inbox.put(direct("quiet", bytes(10)))
    nursery.start_soon(inbox.run)
    async with trio.open_nursery() as waiters:
        waiters.start_soon(inbox.put, direct("loud", b"last"))
        assert [(await inbox.receiver.receive()).peer for _ in range(4)] == ["loud", "quiet", "loud", "loud"]


async def test_a_flood_holds_up_neither_other_peers_nor_gossip(nursery: trio.Nursery) -> None:
    inbox = Inbox(lambda peer: None)
    for _ in range(100):
        assert await inbox.put(direct("loud", b"junk"))
    assert await inbox.put(direct("quiet", b"vote"))
    inbox.put_gossip(gossip(b"news"))
    nursery.start_soon(inbox.run)
    first = [(await inbox.receiver.receive()).payload for _ in range(module.DIRECT_RUN_MAX + 1)]
    assert first.index(b"vote") == 1
    assert first[-1] == b"news"


async def test_a_consumer_that_stands_still_loses_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PEER_MAX_BYTES", 10 + OVERHEAD_BYTES)
    monkeypatch.setattr(module, "WAIT_MAX_S", 0.05)
    drops: list[PeerId] = []
    inbox = Inbox(drops.append)
    assert await inbox.put(direct("peer", bytes(10)))
    assert not await inbox.put(direct("peer", bytes(10)))
    assert drops == ["peer"]

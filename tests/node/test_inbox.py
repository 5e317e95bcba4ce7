"""The node's inbox: what is fed, what is rationed, and that the large hold up nobody."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId
from milon.base.signing import secret_key_from
from milon.base.units import Amount, Height, Nonce, TimeMs
from milon.chain.params import Parameters
from milon.chain.transaction import Transaction, TransactionBody, Transfer, sign_transaction
from milon.consensus.events import Event, MessageReceived, TransactionsReceived
from milon.consensus.messages import RangeRequest, StatusRequest, encode_message
from milon.node.inbox import DECODED_INLINE_MAX_BYTES, REQUESTS_MAX, SEEN_S, Inbox
from milon.node.questions import TransactionsAnswer
from milon.p2p.transport import Channel, PeerId, Received
from tests.p2p.networks import AnyTransport, network_of, wait_until

KEY = secret_key_from("a sender")
LOUD, QUIET = PeerId("loud"), PeerId("quiet")


def make_transaction(nonce: int) -> Transaction:
    action = Transfer(AccountId(bytes(32)), Amount(1))
    return sign_transaction(KEY, TransactionBody("chain", KEY.account, Nonce(nonce), Amount(1), action))


def make_inbox(transport: AnyTransport, events: list[Event]) -> Inbox:
    return Inbox(transport, Parameters(), lambda: TimeMs(1), events.append, {})


def names(events: list[Event]) -> list[str]:
    return [type(event.message).__name__ for event in events if isinstance(event, MessageReceived)]


async def test_requests_are_rationed_by_peer_and_by_cost() -> None:
    async with network_of("memory") as network:
        events: list[Event] = []
        inbox = make_inbox(network.make("one"), events)
        for _ in range(50):
            await inbox.accept(Received(LOUD, Channel.SYNC, encode_message(RangeRequest(Height(1)))))
        assert len(events) <= REQUESTS_MAX / 8 + 1
        for _ in range(3):
            await inbox.accept(Received(QUIET, Channel.SYNC, encode_message(StatusRequest())))
        assert names(events)[-3:] == ["StatusRequest"] * 3


async def test_a_transaction_comes_again_after_a_while(mock_clock: MockClock) -> None:
    async with network_of("memory") as network:
        events: list[Event] = []
        inbox = make_inbox(network.make("one"), events)
        raw = encode(make_transaction(0))
        assert await inbox.accept_transaction(raw) is not None
        assert await inbox.accept_transaction(raw) is None
        mock_clock.jump(SEEN_S + 1)
        assert await inbox.accept_transaction(raw) == make_transaction(0)
        assert [type(event) for event in events] == [TransactionsReceived] * 2


async def test_a_forged_transaction_is_refused_every_time() -> None:
    async with network_of("memory") as network:
        events: list[Event] = []
        inbox = make_inbox(network.make("one"), events)
        raw = bytearray(encode(make_transaction(0)))
        raw[-1] ^= 1
        for _ in range(2):
            with pytest.raises(Rejected) as refused:
                await inbox.accept_transaction(bytes(raw))
            assert refused.value.reason is Reason.BAD_SIGNATURE
        assert not events


async def test_large_junk_holds_up_nobody_and_is_blamed(nursery: trio.Nursery) -> None:
    junk = encode(TransactionsAnswer(tuple(make_transaction(nonce) for nonce in range(400))))  # no consensus message
    assert len(junk) > DECODED_INLINE_MAX_BYTES
    async with network_of("memory") as network:
        one, two = await network.pair()
        events: list[Event] = []
        inbox = make_inbox(one, events)
        for _ in range(3):
            assert two.send(one.peer_id, Channel.CONSENSUS, junk)
        assert two.send(one.peer_id, Channel.CONSENSUS, encode_message(StatusRequest()))
        nursery.start_soon(inbox.run)
        await wait_until(lambda: names(events) == ["StatusRequest"])
        await wait_until(lambda: one.counters()[two.peer_id].rejects == 3)
        nursery.cancel_scope.cancel()

"""From bytes on the wire to events: size, then decoding, then signature; what fails blames its sender.

Peers are many and strange: none may hold up the others. Large messages are decoded beside the loop, one of a peer at a
time; what makes this node read its store is rationed; and the same transaction is looked at once in a while only.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping

import trio

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected
from milon.base.hashing import sha256
from milon.base.ids import Digest
from milon.base.units import TimeMs
from milon.chain.params import Parameters
from milon.chain.transaction import Transaction, verify_transaction
from milon.consensus.events import Event, MessageReceived, TransactionsReceived
from milon.consensus.messages import (
    BlockRequest,
    CertificateRequest,
    JustificationRequest,
    Message,
    RangeRequest,
    StatusRequest,
    decode_message,
)
from milon.p2p.allowance import Allowance
from milon.p2p.transport import Channel, PeerId, Received, Transport

_LOG = logging.getLogger(__name__)

TRANSACTION_TOPIC = "transactions"
STATUS_TOPIC = "status"
SEEN_MAX = 16_384  # payload hashes remembered: gossip and the pull path bring the same transaction several times
SEEN_S = 5.0  # for so long: what the mempool refused, its sender's coins being on their way, may come again
LARGE_WAITING_MAX = 4  # large messages of one peer decoded or waiting for it; an honest one sends two a view
DECODERS = 2  # threads that decode them: the cores of a small machine
REQUESTS_PER_S, REQUESTS_MAX = 16.0, 64.0  # of one peer, in the costs below: a third of a core at the most
DECODED_INLINE_MAX_BYTES = 8_192  # votes and certificates; larger ones are decoded off the event loop


_MESSAGES = (Channel.CONSENSUS, Channel.SYNC)

# A range is up to 64 blocks read from the store, encoded and sent; a block up to two megabytes.
_COSTS: Mapping[type[Message], float] = {
    RangeRequest: 8.0,
    BlockRequest: 2.0,
    CertificateRequest: 2.0,
    JustificationRequest: 2.0,
    StatusRequest: 1.0,
}


class Inbox:
    """Turns what the transport receives into events, in order of arrival."""

    def __init__(
        self,
        transport: Transport,
        parameters: Parameters,
        now_ms: Callable[[], TimeMs],
        feed: Callable[[Event], None],
        hearers: Mapping[str, Callable[[Received], None]],
    ) -> None:
        """`feed` takes each event and never blocks; `hearers` take the gossip of other topics."""
        self._transport = transport
        self._size_max = int(parameters.transaction_bytes_max)
        self._now_ms = now_ms
        self._feed = feed
        self._hearers = hearers
        self._seen: OrderedDict[Digest, float] = OrderedDict()  # when a payload was looked at
        self._requests = Allowance(REQUESTS_PER_S, REQUESTS_MAX, trio.current_time)
        self._decoders = trio.CapacityLimiter(DECODERS)
        self._large: dict[PeerId, tuple[trio.Lock, int]] = {}  # large messages under way, by peer

    async def run(self) -> None:
        """Read until the transport ends."""
        self._large = {}
        async with trio.open_nursery() as nursery:
            async for received in self._transport.received():
                if received.channel in _MESSAGES and len(received.payload) > DECODED_INLINE_MAX_BYTES:
                    self._start_large(received, nursery)
                else:
                    await self._accept_blaming(received)

    def _start_large(self, received: Received, nursery: trio.Nursery) -> None:
        lock, count = self._large.get(received.peer, (trio.Lock(), 0))
        if count < LARGE_WAITING_MAX:
            self._large[received.peer] = (lock, count + 1)
            nursery.start_soon(self._accept_large, received, lock)

    async def _accept_large(self, received: Received, lock: trio.Lock) -> None:
        async with lock:
            await self._accept_blaming(received)
        count = self._large[received.peer][1] - 1
        if count:
            self._large[received.peer] = (lock, count)
        else:
            del self._large[received.peer]

    async def _accept_blaming(self, received: Received) -> None:
        try:
            await self.accept(received)
        except Rejected as error:
            _LOG.info("from %s on %s: %s", received.peer, received.channel.name, error)
            self._transport.report(received.peer, error.reason)

    async def accept(self, received: Received) -> None:
        """One message; `Rejected` where it is not one."""
        if received.channel is Channel.TRANSACTION or received.topic == TRANSACTION_TOPIC:
            await self.accept_transaction(received.payload)
        elif received.channel in _MESSAGES or received.topic == STATUS_TOPIC:
            await self._accept_message(received.peer, received.payload)
        elif received.topic in self._hearers:
            self._hearers[received.topic](received)
        else:
            raise Rejected(Reason.UNKNOWN, f"nothing is expected on {received.channel.name} {received.topic!r:.40}")

    async def _accept_message(self, peer: PeerId, payload: bytes) -> None:
        if len(payload) <= DECODED_INLINE_MAX_BYTES:
            message = decode_message(payload)
        else:
            message = await trio.to_thread.run_sync(decode_message, payload, limiter=self._decoders)
        cost = _COSTS.get(type(message), 0.0)
        if cost and not self._requests.take(peer, cost):
            return  # the engine that asks in earnest asks somebody else after a while
        self._feed(MessageReceived(self._now_ms(), peer, message))

    async def accept_transaction(self, payload: bytes) -> Transaction | None:
        """A transaction from anywhere, checked; None where the same bytes were here a moment ago."""
        if len(payload) > self._size_max:
            raise Rejected(Reason.TOO_LARGE, f"a transaction of {len(payload)} bytes; {self._size_max} are allowed")
        name, now = sha256(payload), trio.current_time()
        if now < self._seen.get(name, -SEEN_S) + SEEN_S:
            return None
        transaction = await trio.to_thread.run_sync(_decode_transaction, payload)
        self._seen[name] = now
        self._seen.move_to_end(name)
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        self._feed(TransactionsReceived(self._now_ms(), (transaction,)))
        return transaction


def _decode_transaction(payload: bytes) -> Transaction:
    transaction = decode(Transaction, payload)
    verify_transaction(transaction)
    return transaction

"""From bytes on the wire to events: size, then decoding, then signature; what fails blames its sender."""

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
from milon.consensus.messages import decode_message
from milon.p2p.transport import Channel, PeerId, Received, Transport

_LOG = logging.getLogger(__name__)

TRANSACTION_TOPIC = "transactions"
STATUS_TOPIC = "status"
SEEN_MAX = 16_384  # payload hashes remembered: gossip and the pull path bring the same transaction several times
DECODED_INLINE_MAX_BYTES = 8_192  # votes and certificates; larger ones are decoded off the event loop


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
        self._seen: OrderedDict[Digest, None] = OrderedDict()

    async def run(self) -> None:
        """Read until the transport ends."""
        async for received in self._transport.received():
            try:
                await self.accept(received)
            except Rejected as error:
                _LOG.info("from %s on %s: %s", received.peer, received.channel.name, error)
                self._transport.report(received.peer, error.reason)

    async def accept(self, received: Received) -> None:
        """One message; `Rejected` where it is not one."""
        if received.channel is Channel.TRANSACTION or received.topic == TRANSACTION_TOPIC:
            await self.accept_transaction(received.payload)
        elif received.channel in (Channel.CONSENSUS, Channel.SYNC) or received.topic == STATUS_TOPIC:
            await self._accept_message(received.peer, received.payload)
        elif received.topic in self._hearers:
            self._hearers[received.topic](received)
        else:
            raise Rejected(Reason.UNKNOWN, f"nothing is expected on {received.channel.name} {received.topic!r:.40}")

    async def _accept_message(self, peer: PeerId, payload: bytes) -> None:
        if len(payload) <= DECODED_INLINE_MAX_BYTES:
            message = decode_message(payload)
        else:
            message = await trio.to_thread.run_sync(decode_message, payload)
        self._feed(MessageReceived(self._now_ms(), peer, message))

    async def accept_transaction(self, payload: bytes) -> Transaction | None:
        """A transaction from anywhere, checked; None where the same bytes were here before."""
        if len(payload) > self._size_max:
            raise Rejected(Reason.TOO_LARGE, f"a transaction of {len(payload)} bytes; {self._size_max} are allowed")
        name = sha256(payload)
        if name in self._seen:
            return None
        transaction = await trio.to_thread.run_sync(_decode_transaction, payload)
        self._seen[name] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        self._feed(TransactionsReceived(self._now_ms(), (transaction,)))
        return transaction


def _decode_transaction(payload: bytes) -> Transaction:
    transaction = decode(Transaction, payload)
    verify_transaction(transaction)
    return transaction

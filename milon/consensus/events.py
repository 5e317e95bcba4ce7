"""What can happen to the engine. Every event carries the time; the engine has no clock."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.units import Height, TimeMs
from milon.chain.transaction import Transaction
from milon.consensus.messages import Message

Peer = str  # whatever the network calls a peer; the engine only compares it and hands it back


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A peer's message, decoded."""

    now_ms: TimeMs  # this node's clock
    peer: Peer  # who sent it
    message: Message  # what


@dataclass(frozen=True, slots=True)
class TransactionsReceived:
    """Transactions from users or gossip, their signatures already checked."""

    now_ms: TimeMs  # this node's clock
    transactions: tuple[Transaction, ...]  # in order of arrival


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The time asked for by the last `SetTimer` has come. Early or needless ones do no harm."""

    now_ms: TimeMs  # this node's clock


@dataclass(frozen=True, slots=True)
class Committed:
    """A `CommitBlocks` up to this height is durable and readable in the store."""

    now_ms: TimeMs  # this node's clock
    height: Height  # the store's tip


Event = MessageReceived | TransactionsReceived | TimerFired | Committed

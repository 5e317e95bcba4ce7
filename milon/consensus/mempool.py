"""Transactions waiting for a block: a bounded value, ordered by arrival and by each sender's nonces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId
from milon.base.units import Nonce
from milon.chain.params import Parameters
from milon.chain.transaction import Transaction

COUNT_MAX = 4096  # two full blocks of the default parameters
BYTES_MAX = 16 << 20  # eight full blocks of the default parameters
SENDER_MAX = 256  # one sender cannot crowd out sixteen others
NONCE_AHEAD_MAX = 256  # a transaction further ahead of the ledger than a sender may have waiting never comes up

Place = tuple[AccountId, Nonce]


@dataclass(frozen=True, slots=True)
class Entry:
    """A transaction and what it weighs."""

    transaction: Transaction  # signed
    size_bytes: int  # encoded
    arrival: int  # later ones have higher numbers


@dataclass(frozen=True, slots=True)
class Mempool:
    """What waits. `version` changes with every change, so that nobody weighs the same pool twice."""

    entries: Mapping[Place, Entry] = field(default_factory=dict)  # by sender and nonce
    per_sender: Mapping[AccountId, int] = field(default_factory=dict)  # entries of each
    size_bytes: int = 0  # of all entries
    version: int = 0  # of the pool


def add_transaction(mempool: Mempool, transaction: Transaction, next_nonce: Nonce, parameters: Parameters) -> Mempool:
    """The pool with the transaction; one with the same sender and nonce is replaced by it.

    `next_nonce` is what the ledger expects of the sender. Raises `Rejected`: TOO_LARGE, INSUFFICIENT_FUNDS (the fee
    is below the least), STALE, OUT_OF_RANGE (nonce too far ahead), DUPLICATE, FULL.
    """
    body = transaction.body
    size = len(encode(transaction))
    require(size <= parameters.transaction_bytes_max, Reason.TOO_LARGE, f"a transaction of {size} bytes")
    require(body.fee >= parameters.fee_min, Reason.INSUFFICIENT_FUNDS, f"the least fee is {parameters.fee_min}")
    require(body.nonce >= next_nonce, Reason.STALE, f"nonce {body.nonce} where {next_nonce} is next")
    require(body.nonce < next_nonce + NONCE_AHEAD_MAX, Reason.OUT_OF_RANGE, f"nonce {body.nonce} is far ahead")
    place = (body.sender, body.nonce)
    old = mempool.entries.get(place)
    if old is not None and old.transaction == transaction:
        raise Rejected(Reason.DUPLICATE, "already waiting")
    count = mempool.per_sender.get(body.sender, 0) + (old is None)
    size_bytes = mempool.size_bytes + size - (0 if old is None else old.size_bytes)
    require(count <= SENDER_MAX, Reason.FULL, f"{SENDER_MAX} transactions of this sender are waiting")
    require(old is not None or len(mempool.entries) < COUNT_MAX, Reason.FULL, f"{COUNT_MAX} transactions are waiting")
    require(size_bytes <= BYTES_MAX, Reason.FULL, f"{BYTES_MAX} bytes of transactions are waiting")
    return Mempool(
        entries={**mempool.entries, place: Entry(transaction, size, mempool.version)},
        per_sender={**mempool.per_sender, body.sender: count},
        size_bytes=size_bytes,
        version=mempool.version + 1,
    )


def drop_stale(mempool: Mempool, next_nonces: Mapping[AccountId, Nonce]) -> Mempool:
    """The pool without the transactions whose nonce lies below what the ledger now expects of their sender."""
    if not any(sender in mempool.per_sender for sender in next_nonces):
        return mempool
    kept = {place: entry for place, entry in mempool.entries.items() if place[1] >= next_nonces.get(place[0], 0)}
    if len(kept) == len(mempool.entries):
        return mempool
    per_sender: dict[AccountId, int] = {}
    for sender, _ in kept:
        per_sender[sender] = per_sender.get(sender, 0) + 1
    return Mempool(kept, per_sender, sum(entry.size_bytes for entry in kept.values()), mempool.version + 1)


def list_candidates(mempool: Mempool) -> tuple[Transaction, ...]:
    """All waiting transactions: senders take turns in order of first arrival, each with its nonces ascending."""
    by_sender: dict[AccountId, list[Entry]] = {}
    for (sender, _), entry in sorted(mempool.entries.items(), key=lambda item: item[0][1]):
        by_sender.setdefault(sender, []).append(entry)
    lanes = sorted(by_sender.values(), key=lambda lane: min(entry.arrival for entry in lane))
    turns: list[Transaction] = []
    for turn in range(max((len(lane) for lane in lanes), default=0)):
        turns.extend(lane[turn].transaction for lane in lanes if turn < len(lane))
    return tuple(turns)

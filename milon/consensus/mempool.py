"""Transactions waiting for a block: a bounded value, ordered by arrival and by each sender's nonces.

A place in it must cost something, or whoever has keys but no coins fills it and nobody else's transaction gets in. So a
sender must be able to pay the fees of all that it has waiting. Coins behind transactions that never come up (a nonce
before them is missing) are not spent; in a full pool those give way first, then those of whoever has the most waiting.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId
from milon.base.units import Amount, Nonce
from milon.chain.params import Parameters
from milon.chain.transaction import Transaction

COUNT_MAX = 4096  # two full blocks of the default parameters
BYTES_MAX = 16 << 20  # eight full blocks of the default parameters
SENDER_MAX = 256  # one sender cannot crowd out sixteen others
NONCE_AHEAD_MAX = 256  # a transaction further ahead of the ledger than a sender may have waiting never comes up

Place = tuple[AccountId, Nonce]


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger says of a sender."""

    next_nonce: Nonce  # of its next transaction; those below are stale
    balance: Amount  # what it can pay fees from


@dataclass(frozen=True, slots=True)
class Entry:
    """A transaction and what it weighs."""

    transaction: Transaction  # signed
    size_bytes: int  # encoded
    arrival: int  # later ones have higher numbers
    is_ready: bool  # no nonce was missing before it when it came


@dataclass(frozen=True, slots=True)
class Mempool:
    """What waits. `version` changes with every change, so that nobody weighs the same pool twice."""

    entries: Mapping[Place, Entry] = field(default_factory=dict)  # by sender and nonce
    per_sender: Mapping[AccountId, int] = field(default_factory=dict)  # entries of each
    size_bytes: int = 0  # of all entries
    version: int = 0  # of the pool


def add_transaction(
    mempool: Mempool, transaction: Transaction, standing: Standing, chain_id: str, parameters: Parameters
) -> Mempool:
    """The pool with the transaction; one with the same sender and nonce is replaced by it.

    `standing` is the sender's in the ledger. Raises `Rejected`: WRONG_CHAIN, TOO_LARGE, INSUFFICIENT_FUNDS (the fee is
    below the least, or the sender cannot pay for all that waits), STALE, OUT_OF_RANGE (nonce too far ahead), DUPLICATE,
    FULL.
    """
    body, next_nonce = transaction.body, standing.next_nonce
    require(body.chain_id == chain_id, Reason.WRONG_CHAIN, f"for chain {body.chain_id!r:.80}")
    size = len(encode(transaction))
    require(size <= parameters.transaction_bytes_max, Reason.TOO_LARGE, f"a transaction of {size} bytes")
    require(body.fee >= parameters.fee_min, Reason.INSUFFICIENT_FUNDS, f"the least fee is {parameters.fee_min}")
    require(body.nonce >= next_nonce, Reason.STALE, f"nonce {body.nonce} where {next_nonce} is next")
    require(body.nonce < next_nonce + NONCE_AHEAD_MAX, Reason.OUT_OF_RANGE, f"nonce {body.nonce} is far ahead")
    place = (body.sender, body.nonce)
    old = mempool.entries.get(place)
    if old is not None and old.transaction == transaction:
        raise Rejected(Reason.DUPLICATE, "already waiting")
    own = _entries_of(mempool, body.sender, next_nonce)
    fees = body.fee + sum(entry.transaction.body.fee for entry in own.values() if entry is not old)
    require(fees <= standing.balance, Reason.INSUFFICIENT_FUNDS, f"fees of {fees} and a balance of {standing.balance}")
    count = mempool.per_sender.get(body.sender, 0) + (old is None)
    require(count <= SENDER_MAX, Reason.FULL, f"{SENDER_MAX} transactions of this sender are waiting")
    is_ready = all(nonce in own for nonce in range(next_nonce, body.nonce))
    pool = _make_room(_without(mempool, (place,)), size, count, is_ready)
    return Mempool(
        entries={**pool.entries, place: Entry(transaction, size, mempool.version, is_ready)},
        per_sender={**pool.per_sender, body.sender: count},
        size_bytes=pool.size_bytes + size,
        version=mempool.version + 1,
    )


def _entries_of(mempool: Mempool, sender: AccountId, next_nonce: Nonce) -> dict[int, Entry]:
    """What the sender has waiting, by nonce, in order."""
    if sender not in mempool.per_sender:
        return {}
    nonces = range(next_nonce, next_nonce + NONCE_AHEAD_MAX)
    return {nonce: mempool.entries[sender, Nonce(nonce)] for nonce in nonces if (sender, nonce) in mempool.entries}


def _without(mempool: Mempool, places: Collection[Place]) -> Mempool:
    """The pool without some places, of which some may be empty."""
    found = [place for place in places if place in mempool.entries]
    if not found:
        return mempool
    entries, per_sender, size_bytes = dict(mempool.entries), dict(mempool.per_sender), mempool.size_bytes
    for place in found:
        size_bytes -= entries.pop(place).size_bytes
        per_sender[place[0]] -= 1
        if not per_sender[place[0]]:
            del per_sender[place[0]]
    return Mempool(entries, per_sender, size_bytes, mempool.version + 1)


def _make_room(mempool: Mempool, size: int, count: int, is_ready: bool) -> Mempool:
    """The pool with room for one more of `size` bytes, the sender's `count`-th; `Rejected(FULL)` where all that waits
    has as good a claim."""
    while len(mempool.entries) >= COUNT_MAX or mempool.size_bytes + size > BYTES_MAX:
        weight, victim = max((_weigh(mempool, place), place) for place in mempool.entries)
        is_better = (not is_ready, count) < weight[:2]
        require(
            is_better, Reason.FULL, f"{len(mempool.entries)} transactions of {mempool.size_bytes} bytes are waiting"
        )
        mempool = _without(mempool, (victim,))
    return mempool


def _weigh(mempool: Mempool, place: Place) -> tuple[bool, int, int]:
    """The greatest gives way: not ready, of whom the most waits, and of those the last, so that no gap arises."""
    return not mempool.entries[place].is_ready, mempool.per_sender[place[0]], place[1]


def drop_stale(mempool: Mempool, standings: Mapping[AccountId, Standing]) -> Mempool:
    """The pool without what can no longer come up: nonces below the sender's next, and fees it can no longer pay."""
    gone: list[Place] = []
    for sender, standing in standings.items():
        if sender not in mempool.per_sender:
            continue
        kept = _entries_of(mempool, sender, standing.next_nonce)
        left = int(standing.balance)
        for nonce, entry in list(kept.items()):
            left -= entry.transaction.body.fee
            if left < 0:
                del kept[nonce]
        if len(kept) < mempool.per_sender[sender]:
            gone.extend(place for place in mempool.entries if place[0] == sender and place[1] not in kept)
    return _without(mempool, gone)


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

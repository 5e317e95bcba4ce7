"""A block's effect on the ledger: every transaction in order, then what time alone brings about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from milon.base.ids import AccountId, Digest
from milon.base.units import Height, TimeMs
from milon.chain.block import Receipt
from milon.chain.genesis import Genesis
from milon.chain.learning import ClosedRound
from milon.chain.params import Parameters
from milon.chain.transaction import Transaction
from milon.state.ledger import Ledger


@dataclass(frozen=True, slots=True)
class BlockContext:
    """What a block's transactions may know of the block they are in."""

    chain_id: str  # of the chain
    height: Height  # of the block
    time_ms: TimeMs  # of the block
    beacon: Digest  # of the block
    proposer: AccountId  # of the block
    parameters: Parameters  # in force


@dataclass(frozen=True, slots=True)
class Applied:
    """The ledger after a block, and what it reports."""

    ledger: Ledger  # an overlay on the parent's
    receipts: tuple[Receipt, ...]  # one a transaction
    closed: tuple[ClosedRound, ...]  # the rounds it closes

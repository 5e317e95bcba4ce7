"""Blocks, and the receipts of what their transactions did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from milon.base.codec import encode, wire
from milon.base.hashing import digest
from milon.base.ids import Digest
from milon.base.merkle import compute_root
from milon.base.units import Epoch, View
from milon.chain.evidence import Evidence
from milon.chain.header import PROTOCOL_VERSION, Header, compute_header_hash
from milon.chain.transaction import Transaction

__all__ = [
    "PROTOCOL_VERSION",
    "Block",
    "Header",
    "Receipt",
    "compute_beacon",
    "compute_header_hash",
    "compute_receipts_root",
    "compute_transactions_root",
    "compute_vrf_input",
]


@wire("block/2")
@dataclass(frozen=True, slots=True)
class Block:
    """A header with the transactions and the evidence under it."""

    header: Header  # see there
    transactions: tuple[Transaction, ...]  # in the order they are applied
    evidence: tuple[Evidence, ...] = ()  # in order of id; applied before the transactions


@wire("receipt/1")
@dataclass(frozen=True, slots=True)
class Receipt:
    """What one transaction did."""

    transaction: Digest  # its hash
    problem: str  # why it was refused, `reason: detail`; empty where it took effect


def compute_transactions_root(transactions: Sequence[Transaction]) -> Digest:
    """What the header commits to."""
    return compute_root([encode(transaction) for transaction in transactions])


def compute_receipts_root(receipts: Sequence[Receipt]) -> Digest:
    """What the header commits to."""
    return compute_root([encode(receipt) for receipt in receipts])


def compute_vrf_input(epoch: Epoch, view: View, parent_beacon: Digest) -> bytes:
    """The VRF's alpha of a header."""
    return digest("beacon-input", epoch.to_bytes(8, "big"), view.to_bytes(8, "big"), parent_beacon)


def compute_beacon(parent_beacon: Digest, vrf_output: bytes) -> Digest:
    """The block's beacon."""
    return digest("beacon", parent_beacon, vrf_output)

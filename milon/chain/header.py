"""A block's header: commits to everything the block is and does, and names it by its hash."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.codec import encode, wire
from milon.base.hashing import digest
from milon.base.ids import AccountId, Digest, VrfProof
from milon.base.units import Count, Epoch, Height, TimeMs, View

PROTOCOL_VERSION = 1


@wire("header/1")
@dataclass(frozen=True, slots=True)
class Header:
    """Commits to everything a block is and does."""

    chain_id: str  # of this chain only
    version: Count  # of the protocol
    height: Height  # one more than the parent's
    epoch: Epoch  # which validator set
    view: View  # in which it was proposed
    parent_hash: Digest  # header hash of the parent; genesis hash at height 1
    parent_view: View  # 0 where the parent is genesis
    proposer: AccountId  # leader of the view
    time_ms: TimeMs  # later than the parent's
    transactions_root: Digest  # Merkle root over the transactions
    receipts_root: Digest  # Merkle root over the receipts
    state_root: Digest  # of the ledger after this block
    evidence_root: Digest  # Merkle root over the evidence
    learning_root: Digest  # Merkle root over the rounds this block closes
    validators_hash: Digest  # of this epoch's validator set
    next_validators_hash: Digest  # of the next epoch's
    parameters_hash: Digest  # of the parameters in force
    justification_hash: Digest  # Merkle root over the parent's notarization and the nullifications since
    vrf: VrfProof  # the proposer's over epoch, view and the parent's beacon
    beacon: Digest  # from the parent's beacon and the VRF's output


def compute_header_hash(header: Header) -> Digest:
    """The block's name."""
    return digest("header", encode(header))

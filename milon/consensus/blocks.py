"""Building a block and checking one: header against parent, execution, and the roots both must agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from milon.base.codec import encode
from milon.base.errors import Reason, require
from milon.base.ids import AccountId, Digest, VrfProof
from milon.base.merkle import compute_root
from milon.base.units import Count, Height, TimeMs, View
from milon.chain.block import (
    PROTOCOL_VERSION,
    Block,
    Header,
    compute_beacon,
    compute_header_hash,
    compute_receipts_root,
    compute_vrf_input,
)
from milon.chain.evidence import compute_evidence_root
from milon.chain.learning import compute_learning_root
from milon.chain.transaction import Transaction
from milon.consensus.application import EPOCH, Config
from milon.consensus.leader import leader_of
from milon.consensus.state import Ancestor, Executed, State
from milon.contracts.apply import Applied, BlockContext
from milon.state.commitment import ReadNode, compute_update, layered
from milon.state.differences import explain_difference
from milon.state.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Plan:
    """Where and when a leader builds."""

    parent: Ancestor  # on what
    view: View  # in which view
    time_ms: TimeMs  # the block's
    justification_hash: Digest  # of the certificates that allow it
    vrf: VrfProof  # the leader's
    beacon: Digest  # from it


def _overlays(state: State, block: Digest) -> list[Executed]:
    """The executed blocks from the store's tip up to `block`, in that order."""
    found: list[Executed] = []
    entry = state.executed.get(block)
    while entry is not None:
        found.append(entry)
        entry = state.executed.get(entry.block.header.parent_hash)
    return found[::-1]


def ledger_after(config: Config, state: State, block: Digest) -> Ledger:
    """The ledger after an executed block or the tip, with no changes of its own on top."""
    ledger = Ledger(config.store)
    for entry in _overlays(state, block):
        ledger = Ledger(ledger, entry.changes)
    return Ledger(ledger)


def _node_reader_after(config: Config, state: State, block: Digest) -> ReadNode:
    read: ReadNode = config.store.node
    for entry in _overlays(state, block):
        read = layered(read, entry.nodes)
    return read


def _verify_header(config: Config, header: Header, parent: Ancestor) -> None:
    """Raise `Rejected` unless everything that needs no execution is as it must be."""
    require(header.chain_id == config.chain_id, Reason.WRONG_CHAIN, f"a block of chain {header.chain_id!r:.80}")
    require(header.version == PROTOCOL_VERSION, Reason.UNSUPPORTED, f"protocol version {header.version}")
    require(header.epoch == EPOCH, Reason.OUT_OF_RANGE, f"epoch {header.epoch}")
    is_child = header.parent_hash == parent.hash and header.parent_view == parent.view
    require(is_child and header.height == parent.height + 1, Reason.DIFFERS, "parent, its view or the height is wrong")
    require(header.view > parent.view, Reason.OUT_OF_RANGE, "a view not after the parent's")
    require(header.time_ms > parent.time_ms, Reason.OUT_OF_RANGE, "a time not after the parent's")
    leader = leader_of(config.leaders, header.epoch, header.view)
    require(header.proposer == leader, Reason.NOT_ALLOWED, f"{header.proposer.hex()[:8]} does not lead the view")
    sets = (header.validators_hash, header.next_validators_hash, header.parameters_hash)
    expected = (config.validators_hash, config.validators_hash, config.parameters_hash)
    require(sets == expected, Reason.DIFFERS, "validators or parameters differ")
    alpha = compute_vrf_input(header.epoch, header.view, parent.beacon)
    output = config.cryptography.verify_proof(header.proposer, alpha, header.vrf)
    require(header.beacon == compute_beacon(parent.beacon, output), Reason.BAD_PROOF, "the beacon is another")


def verify_body(config: Config, block: Block) -> None:
    """Raise `Rejected` unless the transactions are the ones the header names, and within a block's limits.

    A header hash names a block only together with this: bytes beside it could be anybody's.
    """
    encoded = [encode(transaction) for transaction in block.transactions]
    parameters = config.parameters
    require(len(encoded) <= parameters.block_transactions_max, Reason.TOO_LARGE, f"{len(encoded)} transactions")
    size = sum(len(raw) for raw in encoded)
    require(size <= parameters.block_bytes_max, Reason.TOO_LARGE, f"{size} bytes of transactions")
    require(compute_root(encoded) == block.header.transactions_root, Reason.DIFFERS, "other transactions than named")
    evidence_root = compute_evidence_root(block.evidence)
    require(evidence_root == block.header.evidence_root, Reason.DIFFERS, "other evidence than named")


def make_context(config: Config, plan: Plan, proposer: AccountId) -> BlockContext:
    """What the transactions of a planned block may know."""
    height = Height(plan.parent.height + 1)
    return BlockContext(config.chain_id, height, plan.time_ms, plan.beacon, proposer, config.parameters)


def plan_block(
    config: Config, proposer: AccountId, parent: Ancestor, view: View, time_ms: TimeMs, justification_hash: Digest
) -> Plan:
    """The plan with its beacon; needs a validator's key."""
    if config.key is None:
        raise RuntimeError("an observer cannot plan a block")
    alpha = compute_vrf_input(EPOCH, view, parent.beacon)
    proof = config.cryptography.prove(config.key, alpha)
    output = config.cryptography.verify_proof(proposer, alpha, proof)
    return Plan(parent, view, time_ms, justification_hash, proof, compute_beacon(parent.beacon, output))


def build_block(
    config: Config, state: State, plan: Plan, proposer: AccountId, transactions: Sequence[Transaction]
) -> Executed:
    """The planned block with its effect; `Rejected` where a transaction may not be in it."""
    parent = plan.parent
    ledger = ledger_after(config, state, parent.hash)
    applied = config.application.apply_block(ledger, make_context(config, plan, proposer), transactions)
    root, nodes = _compute_state(config, state, parent, applied.ledger.changes)
    header = Header(
        chain_id=config.chain_id,
        version=Count(PROTOCOL_VERSION),
        height=Height(parent.height + 1),
        epoch=EPOCH,
        view=plan.view,
        parent_hash=parent.hash,
        parent_view=parent.view,
        proposer=proposer,
        time_ms=plan.time_ms,
        transactions_root=compute_root([encode(transaction) for transaction in transactions]),
        receipts_root=compute_receipts_root(applied.receipts),
        state_root=root,
        evidence_root=compute_evidence_root(()),
        learning_root=compute_learning_root(applied.closed),
        validators_hash=config.validators_hash,
        next_validators_hash=config.validators_hash,
        parameters_hash=config.parameters_hash,
        justification_hash=plan.justification_hash,
        vrf=plan.vrf,
        beacon=plan.beacon,
    )
    return _as_executed(Block(header, tuple(transactions)), applied, nodes)


def execute_block(config: Config, state: State, parent: Ancestor, block: Block) -> Executed:
    """The effect of `block` on top of `parent` (the tip or an executed block); `Rejected` where it is invalid for ever.

    Whether the certificates it stands on justify it, and its time beside a clock, are not looked at here.
    """
    header = block.header
    require(not block.evidence, Reason.UNSUPPORTED, "evidence in a block")
    _verify_header(config, header, parent)
    verify_body(config, block)
    ledger = ledger_after(config, state, parent.hash)
    context = BlockContext(
        config.chain_id, header.height, header.time_ms, header.beacon, header.proposer, config.parameters
    )
    applied = config.application.apply_block(ledger, context, block.transactions)
    receipts_root, learning_root = compute_receipts_root(applied.receipts), compute_learning_root(applied.closed)
    require(header.receipts_root == receipts_root, Reason.DIFFERS, "the receipts' root is another")
    require(header.learning_root == learning_root, Reason.DIFFERS, "the learning section's root is another")
    root, nodes = _compute_state(config, state, parent, applied.ledger.changes)
    if header.state_root != root:
        read = _node_reader_after(config, state, parent.hash)
        raise explain_difference(read, parent.state_root, applied.ledger.changes, header.state_root, root)
    return _as_executed(block, applied, nodes)


def _compute_state(
    config: Config, state: State, parent: Ancestor, changes: Mapping[bytes, bytes | None]
) -> tuple[Digest, Mapping[bytes, bytes | None]]:
    return compute_update(_node_reader_after(config, state, parent.hash), parent.state_root, changes)


def compute_ancestor(block: Block) -> Ancestor:
    """What the block's children must know."""
    header = block.header
    return Ancestor(
        header.height, compute_header_hash(header), header.view, header.time_ms, header.beacon, header.state_root
    )


def _as_executed(block: Block, applied: Applied, nodes: Mapping[bytes, bytes | None]) -> Executed:
    return Executed(block, compute_ancestor(block), applied.receipts, applied.closed, applied.ledger.changes, nodes)


def with_executed(state: State, entry: Executed) -> State:
    """The state that knows the block's effect."""
    name = entry.ancestor.hash
    bodies = {other: block for other, block in state.bodies.items() if other != name}
    return replace(state, bodies=bodies, executed={**state.executed, name: entry})

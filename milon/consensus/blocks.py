"""Building a block and checking one: header against parent, execution, and the roots both must agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from milon.base.codec import encode
from milon.base.errors import Reason, require
from milon.base.ids import AccountId, Digest, VrfProof
from milon.base.merkle import compute_root
from milon.base.units import Count, Epoch, TimeMs, View
from milon.chain.block import (
    PROTOCOL_VERSION,
    Block,
    Header,
    Receipt,
    compute_beacon,
    compute_header_hash,
    compute_receipts_root,
    compute_transactions_root,
    compute_vrf_input,
)
from milon.chain.certificate import compute_validators_hash
from milon.chain.evidence import (
    EVIDENCE_BYTES_MAX,
    EVIDENCE_MAX,
    Evidence,
    compute_evidence_id,
    compute_evidence_root,
    epoch_of,
    verify_evidence,
)
from milon.chain.learning import ClosedRound, compute_learning_root
from milon.chain.transaction import Transaction
from milon.consensus.application import Config
from milon.consensus.members import compute_child_height, leader_in, validators_in
from milon.consensus.state import Ancestor, Executed, Members, State
from milon.contracts.apply import BlockContext
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


def _verify_header(config: Config, members: Members, header: Header, parent: Ancestor) -> None:
    """Raise `Rejected` unless everything that needs no execution is as it must be."""
    require(header.chain_id == config.chain_id, Reason.WRONG_CHAIN, f"a block of chain {header.chain_id!r:.80}")
    require(header.version == PROTOCOL_VERSION, Reason.UNSUPPORTED, f"protocol version {header.version}")
    require(header.epoch == members.epoch, Reason.OUT_OF_RANGE, f"epoch {header.epoch}")
    is_child = header.parent_hash == parent.hash and header.parent_view == parent.view
    is_next = header.height == compute_child_height(members, parent)
    require(is_child and is_next, Reason.DIFFERS, "parent, its view or the height is wrong")
    require(header.view > parent.view, Reason.OUT_OF_RANGE, "a view not after the parent's")
    require(header.time_ms > parent.time_ms, Reason.OUT_OF_RANGE, "a time not after the parent's")
    leader = leader_in(members, header.view)
    require(header.proposer == leader, Reason.NOT_ALLOWED, f"{header.proposer.hex()[:8]} does not lead the view")
    sets = (header.validators_hash, header.parameters_hash)
    require(sets == (members.hash, config.parameters_hash), Reason.DIFFERS, "validators or parameters differ")
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
    require(len(block.evidence) <= EVIDENCE_MAX, Reason.TOO_LARGE, f"{len(block.evidence)} pieces of evidence")
    accused = [encode(piece) for piece in block.evidence]
    size = sum(len(raw) for raw in accused)
    require(size <= EVIDENCE_BYTES_MAX, Reason.TOO_LARGE, f"{size} bytes of evidence")
    require(compute_root(accused) == block.header.evidence_root, Reason.DIFFERS, "other evidence than named")


def _verify_evidence(config: Config, state: State, parent: Ancestor, evidence: Sequence[Evidence]) -> None:
    """Raise `Rejected` unless every piece proves an offence of this epoch or one before, in order of id, none twice."""
    previous, ledger = b"", ledger_after(config, state, parent.hash)
    for piece in evidence:
        name = compute_evidence_id(piece)
        require(name > previous, Reason.NOT_CANONICAL, "evidence is out of order or double")
        previous = name
        if state.evidence.get(name) != piece:
            verify_piece(config, state, ledger, piece)


def verify_piece(config: Config, state: State, ledger: Ledger, evidence: Evidence) -> AccountId:
    """The offender; `Rejected` where the evidence proves nothing against a validator of its epoch."""
    validators = validators_in(config, state, ledger, epoch_of(evidence))
    cryptography = config.cryptography
    return verify_evidence(
        evidence, config.chain_id, validators, cryptography.verify_vote, cryptography.verify_certificate
    )


def make_context(
    config: Config, members: Members, plan: Plan, proposer: AccountId, evidence: Sequence[Evidence] = ()
) -> BlockContext:
    """What the transactions of a planned block may know."""
    height = compute_child_height(members, plan.parent)
    missed = tuple(leader_in(members, View(view)) for view in range(plan.parent.view + 1, plan.view))
    return BlockContext(
        chain_id=config.chain_id,
        height=height,
        time_ms=plan.time_ms,
        beacon=plan.beacon,
        proposer=proposer,
        parameters=config.parameters,
        epoch=members.epoch,
        missed=missed,
        evidence=tuple(evidence),
        is_last_of_epoch=height == members.last_height,
    )


def plan_block(
    config: Config,
    proposer: AccountId,
    parent: Ancestor,
    view: View,
    time_ms: TimeMs,
    justification_hash: Digest,
    epoch: Epoch = Epoch(0),
) -> Plan:
    """The plan with its beacon; needs a validator's key."""
    if config.key is None:
        raise RuntimeError("an observer cannot plan a block")
    alpha = compute_vrf_input(epoch, view, parent.beacon)
    proof = config.cryptography.prove(config.key, alpha)
    output = config.cryptography.verify_proof(proposer, alpha, proof)
    return Plan(parent, view, time_ms, justification_hash, proof, compute_beacon(parent.beacon, output))


@dataclass(frozen=True, slots=True)
class _Effect:
    """What a block does to the state, as its header and its children have it."""

    receipts: tuple[Receipt, ...]  # one a transaction
    closed: tuple[ClosedRound, ...]  # the rounds it closes
    next_validators_hash: Digest  # of the set of the block after it
    state_root: Digest  # after it
    changes: Mapping[bytes, bytes | None]  # to the parent's ledger
    nodes: Mapping[bytes, bytes | None]  # to the parent's state tree


_Content = tuple[Sequence[Transaction], Sequence[Evidence]]


def _apply(config: Config, state: State, plan: Plan, proposer: AccountId, content: _Content) -> _Effect:
    """Execute transactions and evidence in the planned place; above the epoch's last block, nothing happens."""
    transactions, evidence = content
    members, parent = state.members, plan.parent
    if parent.height >= members.last_height:
        is_empty = not transactions and not evidence
        require(is_empty, Reason.NOT_ALLOWED, "a block above its epoch's last one that is not empty")
        return _Effect((), (), parent.next_validators_hash, parent.state_root, {}, {})
    context = make_context(config, members, plan, proposer, evidence)
    applied = config.application.apply_block(ledger_after(config, state, parent.hash), context, transactions)
    after = members.hash
    if context.is_last_of_epoch and applied.validators is not None:
        after = compute_validators_hash(applied.validators)
    changes = applied.ledger.changes
    root, nodes = compute_update(_node_reader_after(config, state, parent.hash), parent.state_root, changes)
    return _Effect(applied.receipts, applied.closed, after, root, changes, nodes)


def build_block(
    config: Config,
    state: State,
    plan: Plan,
    proposer: AccountId,
    transactions: Sequence[Transaction],
    evidence: Sequence[Evidence] = (),
) -> Executed:
    """The planned block with its effect; `Rejected` where a transaction or piece of evidence may not be in it."""
    parent, members = plan.parent, state.members
    effect = _apply(config, state, plan, proposer, (transactions, evidence))
    header = Header(
        chain_id=config.chain_id,
        version=Count(PROTOCOL_VERSION),
        height=compute_child_height(members, parent),
        epoch=members.epoch,
        view=plan.view,
        parent_hash=parent.hash,
        parent_view=parent.view,
        proposer=proposer,
        time_ms=plan.time_ms,
        transactions_root=compute_transactions_root(transactions),
        receipts_root=compute_receipts_root(effect.receipts),
        state_root=effect.state_root,
        evidence_root=compute_evidence_root(evidence),
        learning_root=compute_learning_root(effect.closed),
        validators_hash=members.hash,
        next_validators_hash=effect.next_validators_hash,
        parameters_hash=config.parameters_hash,
        justification_hash=plan.justification_hash,
        vrf=plan.vrf,
        beacon=plan.beacon,
    )
    return _as_executed(Block(header, tuple(transactions), tuple(evidence)), effect)


def execute_block(config: Config, state: State, parent: Ancestor, block: Block) -> Executed:
    """The effect of `block` on top of `parent` (the tip or an executed block); `Rejected` where it is invalid for ever.

    Whether the certificates it stands on justify it, and its time beside a clock, are not looked at here.
    """
    header = block.header
    _verify_header(config, state.members, header, parent)
    verify_body(config, block)
    _verify_evidence(config, state, parent, block.evidence)
    plan = Plan(parent, header.view, header.time_ms, header.justification_hash, header.vrf, header.beacon)
    effect = _apply(config, state, plan, header.proposer, (block.transactions, block.evidence))
    receipts_root, learning_root = compute_receipts_root(effect.receipts), compute_learning_root(effect.closed)
    require(header.receipts_root == receipts_root, Reason.DIFFERS, "the receipts' root is another")
    require(header.learning_root == learning_root, Reason.DIFFERS, "the learning section's root is another")
    is_same_set = header.next_validators_hash == effect.next_validators_hash
    require(is_same_set, Reason.DIFFERS, "the next validators are others")
    if header.state_root != effect.state_root:
        read = _node_reader_after(config, state, parent.hash)
        raise explain_difference(read, parent.state_root, effect.changes, header.state_root, effect.state_root)
    return _as_executed(block, effect)


def compute_ancestor(block: Block) -> Ancestor:
    """What the block's children must know."""
    header = block.header
    return Ancestor(
        header.height,
        compute_header_hash(header),
        header.view,
        header.time_ms,
        header.beacon,
        header.state_root,
        header.next_validators_hash,
    )


def _as_executed(block: Block, effect: _Effect) -> Executed:
    return Executed(block, compute_ancestor(block), effect.receipts, effect.closed, effect.changes, effect.nodes)


def with_executed(state: State, entry: Executed) -> State:
    """The state that knows the block's effect."""
    name = entry.ancestor.hash
    bodies = {other: block for other, block in state.bodies.items() if other != name}
    return replace(state, bodies=bodies, executed={**state.executed, name: entry})

"""What crooked leaders share: another block in the same place, with an effect that fits it, and a vote for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from milon.base.errors import Rejected
from milon.base.ids import Digest
from milon.chain.block import Block
from milon.chain.certificate import Vote, VoteContent, VoteKind
from milon.chain.evidence import Evidence
from milon.consensus.blocks import Plan, build_block
from milon.consensus.state import Ancestor
from tests.simulation.network import Node


def rebuild(node: Node, block: Block, evidence: Sequence[Evidence] = (), **changes: Any) -> Block | None:
    """The block with another plan (`time_ms`, `beacon`, `justification_hash`, ...) and evidence.

    None where its parent is gone, or where even its maker's own ledger will not have that.
    """
    assert node.state is not None
    header = block.header
    entry = node.state.executed.get(header.parent_hash)
    parent: Ancestor = node.state.tip if entry is None else entry.ancestor
    if parent.hash != header.parent_hash:
        return None
    plan = Plan(parent, header.view, header.time_ms, header.justification_hash, header.vrf, header.beacon)
    plan = replace(plan, **changes)
    content = (block.transactions, tuple(evidence) or block.evidence)
    try:
        return build_block(node.config, node.state, plan, header.proposer, *content).block
    except Rejected:
        return None


def sign(node: Node, like: Vote, kind: VoteKind, block: Digest | None) -> Vote:
    """A vote of the node's key in the view of another one."""
    assert node.key is not None
    content = VoteContent(kind, like.content.epoch, like.content.view, block)
    return node.config.cryptography.sign_vote(node.key, node.config.chain_id, content)

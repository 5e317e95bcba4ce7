"""A validator that tells different peers different things: two blocks in a view, and every vote with its opposite."""

from collections.abc import Sequence
from dataclasses import replace

from milon.base.ids import Digest
from milon.base.units import TimeMs
from milon.chain.block import Block, compute_header_hash
from milon.chain.certificate import Vote, VoteContent, VoteKind
from milon.consensus.blocks import Plan, build_block
from milon.consensus.effects import Effect, Send
from milon.consensus.messages import Proposal
from milon.consensus.state import Ancestor
from tests.simulation.cheap import account_of
from tests.simulation.network import Behaviour, Node


class Equivocator(Behaviour):
    """Half of the network hears one story, half the other."""

    is_honest = False

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        """Each broadcast of a proposal or a vote becomes one message a peer, of two kinds."""
        acted: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Send) and effect.peer is None and isinstance(effect.message, Proposal | Vote):
                other = self._contradict(node, effect.message)
                for peer in node.network.nodes:
                    if peer is not node:
                        message = effect.message if peer.index % 2 == node.index % 2 else other
                        acted.append(Send(str(peer.index), message))
            else:
                acted.append(effect)
        return acted

    def _contradict(self, node: Node, message: Proposal | Vote) -> Proposal | Vote:
        if isinstance(message, Proposal):
            block = self._rebuild(node, message.block)
            name = compute_header_hash(block.header)
            return Proposal(block, self._sign(node, message.vote, VoteKind.NOTARIZE, name), message.justification)
        kinds = {
            VoteKind.NOTARIZE: VoteKind.NULLIFY,
            VoteKind.NULLIFY: VoteKind.FINALIZE,
            VoteKind.FINALIZE: VoteKind.NULLIFY,
        }
        kind = kinds[message.content.kind]
        block_hash = None if kind is VoteKind.NULLIFY else self._some_block(node, message)
        return self._sign(node, message, kind, block_hash)

    def _some_block(self, node: Node, vote: Vote) -> Digest:
        assert node.state is not None
        proposal = node.state.proposals.get(vote.content.view)
        return Digest(bytes(32)) if proposal is None else compute_header_hash(proposal.block.header)

    def _rebuild(self, node: Node, block: Block) -> Block:
        """The same place in the chain a millisecond later: as valid as the first."""
        assert node.state is not None
        header = block.header
        entry = node.state.executed.get(header.parent_hash)
        parent: Ancestor = node.state.tip if entry is None else entry.ancestor
        if parent.hash != header.parent_hash:
            return replace(block, header=replace(header, time_ms=TimeMs(header.time_ms + 1)))
        time_ms = TimeMs(header.time_ms + 1)
        plan = Plan(parent, header.view, time_ms, header.justification_hash, header.vrf, header.beacon)
        return build_block(node.config, node.state, plan, header.proposer, block.transactions).block

    def _sign(self, node: Node, vote: Vote, kind: VoteKind, block: Digest | None) -> Vote:
        assert node.key is not None and vote.signer == account_of(node.key)
        content = VoteContent(kind, vote.content.epoch, vote.content.view, block)
        return node.config.cryptography.sign_vote(node.key, node.config.chain_id, content)

"""A validator that tells different peers different things: two blocks in a view, and every vote with its opposite."""

from collections.abc import Sequence

from milon.base.ids import Digest
from milon.base.units import TimeMs
from milon.chain.block import compute_header_hash
from milon.chain.certificate import Vote, VoteKind
from milon.consensus.effects import Effect, Send
from milon.consensus.messages import Proposal
from tests.simulation.adversaries.rebuilding import rebuild, sign
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
            later = TimeMs(message.block.header.time_ms + 1)
            block = rebuild(node, message.block, time_ms=later) or message.block
            name = compute_header_hash(block.header)
            return Proposal(block, sign(node, message.vote, VoteKind.NOTARIZE, name), message.justification)
        kinds = {
            VoteKind.NOTARIZE: VoteKind.NULLIFY,
            VoteKind.NULLIFY: VoteKind.FINALIZE,
            VoteKind.FINALIZE: VoteKind.NULLIFY,
        }
        kind = kinds[message.content.kind]
        block_hash = None if kind is VoteKind.NULLIFY else self._some_block(node, message)
        return sign(node, message, kind, block_hash)

    def _some_block(self, node: Node, vote: Vote) -> Digest:
        assert node.state is not None
        proposal = node.state.proposals.get(vote.content.view)
        return Digest(bytes(32)) if proposal is None else compute_header_hash(proposal.block.header)

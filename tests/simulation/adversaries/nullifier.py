"""A validator that wants every view skipped: it signs NULLIFY and nothing else."""

from collections.abc import Sequence

from milon.chain.certificate import Vote, VoteContent, VoteKind
from milon.consensus.effects import Effect, Send
from milon.consensus.messages import Proposal
from tests.simulation.network import Behaviour, Node


class Nullifier(Behaviour):
    """Turns each of its votes into a NULLIFY of that view."""

    is_honest = False

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        """The same effects with NULLIFY in place of every vote and proposal."""
        return [self._turn(node, effect) for effect in effects]

    def _turn(self, node: Node, effect: Effect) -> Effect:
        if not isinstance(effect, Send) or not isinstance(effect.message, Vote | Proposal):
            return effect
        vote = effect.message.vote if isinstance(effect.message, Proposal) else effect.message
        assert node.key is not None
        content = VoteContent(VoteKind.NULLIFY, vote.content.epoch, vote.content.view, None)
        return Send(effect.peer, node.config.cryptography.sign_vote(node.key, node.config.chain_id, content))

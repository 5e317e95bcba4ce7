"""A leader that never proposes, and otherwise keeps to the rules."""

from collections.abc import Sequence

from milon.consensus.effects import Effect, Send
from milon.consensus.messages import Proposal
from tests.simulation.network import Behaviour, Node


class SilentLeader(Behaviour):
    """Swallows its own proposals."""

    is_honest = False

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        """Everything but proposals."""
        return [effect for effect in effects if not (isinstance(effect, Send) and isinstance(effect.message, Proposal))]

"""A validator that keeps to the rules but once, and one node alone hears of it: the least likely to lead."""

import random
from collections.abc import Sequence

from milon.base.ids import Digest
from milon.chain.certificate import VoteContent, VoteKind
from milon.consensus.effects import Effect, Send, SetTimer
from tests.simulation.network import Behaviour, Node

CHANCE = 20  # one in so many steps


class Whisperer(Behaviour):
    """NULLIFY and FINALIZE in its current view, to the last node alone: to be punished for, if that one tells."""

    is_honest = False

    def __init__(self, seed: int) -> None:
        """Its own source of chance."""
        self._random = random.Random(seed)
        self._has_spoken = False

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        """What the engine wants, and once the offence."""
        is_time = any(isinstance(effect, SetTimer) for effect in effects) and not self._random.randrange(CHANCE)
        if self._has_spoken or not is_time or node.state is None or node.key is None:
            return list(effects)
        self._has_spoken = True
        epoch, view = node.state.members.epoch, node.state.view
        listener = [peer for peer in node.network.nodes if peer is not node][-1]
        block = Digest(self._random.randbytes(32))
        contents = (
            VoteContent(VoteKind.NULLIFY, epoch, view, None),
            VoteContent(VoteKind.FINALIZE, epoch, view, block),
        )
        sign = node.config.cryptography.sign_vote
        votes = [sign(node.key, node.config.chain_id, content) for content in contents]
        return [*effects, *(Send(str(listener.index), vote) for vote in votes)]

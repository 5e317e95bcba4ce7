"""A validator that keeps what it should say to itself: votes go to one peer, or late, and certificates to nobody."""

import random
from collections.abc import Sequence

from milon.chain.certificate import Certificate, Vote
from milon.consensus.effects import Effect, Send
from milon.consensus.messages import CertificateBatch
from tests.simulation.network import Behaviour, Node

LATE_MS_MAX = 900  # after most have given the view up


class VoteWithholder(Behaviour):
    """Tips the balance when it hurts most: some see a certificate form, and the others do not hear of it from here."""

    is_honest = False

    def __init__(self, seed: int) -> None:
        """Its own source of chance."""
        self._random = random.Random(seed)

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        """Each vote to nobody, to one peer, or to everybody too late; no certificates."""
        acted: list[Effect] = []
        for effect in effects:
            if not isinstance(effect, Send) or not isinstance(effect.message, Vote | Certificate | CertificateBatch):
                acted.append(effect)
            elif isinstance(effect.message, Vote):
                acted.extend(self._withhold(node, effect.message))
        return acted

    def _withhold(self, node: Node, vote: Vote) -> list[Effect]:
        others = [peer.index for peer in node.network.nodes if peer is not node]
        how = self._random.randrange(3)
        if how == 0:
            return []
        if how == 1:
            return [Send(str(self._random.choice(others)), vote)]
        network = node.network
        for target in others:
            at_ms = network.now_ms + self._random.randrange(LATE_MS_MAX)
            network.schedule(at_ms, network.deliver, node.index, target, vote)
        return []

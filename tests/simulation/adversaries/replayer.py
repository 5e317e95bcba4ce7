"""A peer that keeps everything it ever heard and says it again, to anybody, at any time."""

import random
from collections.abc import Sequence

from milon.chain.certificate import Certificate, Vote
from milon.consensus.effects import Effect, Send, SetTimer
from milon.consensus.messages import CertificateBatch, Message, Proposal
from tests.simulation.network import Behaviour, Node

KEPT_MAX = 200  # of the oldest messages: the older, the more out of place


class Replayer(Behaviour):
    """Adds an old message or two to everything it does."""

    is_honest = False

    def __init__(self, seed: int) -> None:
        """Its own source of chance."""
        self._random = random.Random(seed)
        self._kept: list[Message] = []

    def hear(self, node: Node, sender: int, message: Message) -> None:
        """Keep what may be said again."""
        if isinstance(message, Certificate | Vote | Proposal | CertificateBatch) and len(self._kept) < KEPT_MAX:
            self._kept.append(message)

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        """What the engine wants, and old messages to random peers."""
        acted = list(effects)
        if self._kept and any(isinstance(effect, SetTimer) for effect in effects):
            others = [peer for peer in node.network.nodes if peer is not node]
            for message in self._random.choices(self._kept, k=2):
                acted += [Send(str(self._random.choice(others).index), message)]
        return acted

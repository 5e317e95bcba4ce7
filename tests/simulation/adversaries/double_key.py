"""An operator who moves a validator by copying its folder, and leaves the old machine running for a while."""

import copy
from collections.abc import Sequence

from milon.consensus.effects import CommitBlocks, Effect
from tests.simulation.network import Behaviour, Node

COPY_HEIGHTS = 3  # final blocks that the old machine sees before the copy is made
TOGETHER_MS = 1_200  # until the operator notices


class DoubleKeyOperator(Behaviour):
    """Both machines follow the rules, each for itself; the second starts from the first one's disk.

    `second` is the node that starts late with a copy; the first is switched off some time after.
    """

    is_honest = False

    def __init__(self, second: int | None) -> None:
        """`second`: the index of the new machine; None for the new machine's own behaviour."""
        self._second = second
        self._heights = 0

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        """What the engine wants; once there is something to copy, the new machine starts."""
        self._heights += sum(isinstance(effect, CommitBlocks) for effect in effects)
        if self._second is not None and self._heights >= COPY_HEIGHTS:
            self._move(node, node.network.nodes[self._second])
            self._second = None
        return list(effects)

    def _move(self, node: Node, fresh: Node) -> None:
        """Copy the folder as a careless operator does: all of it, but for the file that says what was signed."""
        network = node.network
        fresh.disk.store = copy.deepcopy(node.store)
        fresh.disk.log = list(node.log)
        network.schedule(network.now_ms + 1, network.bring_up, fresh)
        network.schedule(network.now_ms + TOGETHER_MS, node.switch_off)

"""How much each peer may ask for: so much a second, and a store of it for those who asked little."""

from __future__ import annotations

from collections.abc import Callable

from milon.p2p.transport import PeerId

REMEMBERED_MAX = 1024  # peers remembered at once; who was forgotten has its whole store again


class Allowance:
    """A store per peer that fills steadily up to its size and is emptied by what the peer asks for."""

    def __init__(self, per_second: float, store_max: float, clock: Callable[[], float]) -> None:
        """`clock` gives seconds; units are whatever `take` is called with."""
        self._per_second = per_second
        self._store_max = store_max
        self._clock = clock
        self._stores: dict[PeerId, tuple[float, float]] = {}  # what is left, and when; longest unseen first

    def take(self, peer: PeerId, cost: float) -> bool:
        """Take `cost` out of the peer's store; False, and nothing taken, where less is left."""
        now = self._clock()
        left, then = self._stores.pop(peer, (self._store_max, now))
        left = min(self._store_max, left + (now - then) * self._per_second)
        is_enough = cost <= left
        self._stores[peer] = (left - cost if is_enough else left, now)
        if len(self._stores) > REMEMBERED_MAX:
            del self._stores[next(iter(self._stores))]
        return is_enough

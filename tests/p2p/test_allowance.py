"""Allowances: a store that empties, fills again, and is each peer's own."""

from milon.p2p import allowance as module
from milon.p2p.allowance import Allowance
from milon.p2p.transport import PeerId

LOUD, QUIET = PeerId("loud"), PeerId("quiet")


def test_a_store_empties_and_fills_again() -> None:
    now = [0.0]
    allowance = Allowance(2.0, 10.0, lambda: now[0])
    assert [allowance.take(LOUD, 4.0) for _ in range(3)] == [True, True, False]
    assert allowance.take(QUIET, 10.0)
    now[0] = 1.0
    assert allowance.take(LOUD, 4.0)
    assert not allowance.take(LOUD, 1.0)
    now[0] = 1_000.0
    assert not allowance.take(LOUD, 10.5)
    assert allowance.take(LOUD, 10.0)


def test_the_longest_unseen_is_forgotten() -> None:
    allowance = Allowance(1.0, 1.0, lambda: 0.0)
    for index in range(module.REMEMBERED_MAX + 1):
        assert allowance.take(PeerId(str(index)), 1.0)
    assert allowance.take(PeerId("0"), 1.0)
    assert not allowance.take(PeerId(str(module.REMEMBERED_MAX)), 1.0)

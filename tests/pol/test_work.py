"""What a trainer's accepted claims come to."""

from __future__ import annotations

from milon.base.hashing import digest
from milon.base.ids import AccountId, Digest
from milon.base.units import Count
from milon.pol.work import FinalState, collect_finals

FIRST, SECOND = (AccountId(bytes([number]) * 32) for number in (1, 2))


def state(label: str) -> Digest:
    return digest("test", label.encode())


def test_a_trainer_has_one_update_with_the_steps_of_all_its_claims_and_the_last_state() -> None:
    parts = [
        (SECOND, 4, state("second's own")),
        (FIRST, 6, state("first's own")),
        (SECOND, 2, state("second's next")),
        (SECOND, 1, state("second's last")),
    ]
    assert collect_finals(parts) == (
        FinalState(FIRST, Count(6), state("first's own")),
        FinalState(SECOND, Count(7), state("second's last")),
    )
    assert collect_finals([]) == ()

"""Partial sums as the game shows them, made and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from milon.base.errors import Rejected
from milon.gpu.dispute_groups import Agreed, Group, add_part, measure_part
from milon.gpu.dispute_points import Read
from milon.pol.dispute import Partial, make_partial

Terms = tuple[int, int]  # the first one, and how many


@dataclass(frozen=True, slots=True)
class Claimed:
    """An element of a group as a trainer has shown it."""

    group: Group  # how it is made
    element: int  # its place in the value
    number: int  # what it is said to be
    whole: Partial  # what the whole group is said to come to

    @property
    def agreed(self) -> Agreed:
        """The scale of the totals."""
        return Agreed(self.whole.left_max, self.whole.right_max)


def make_part(group: Group, element: int, terms: Terms, read: Read, whole: Agreed, number: int) -> Partial:
    """What some terms of a group come to, on the scale of the whole."""
    own = measure_part(group, element, *terms, read)
    total = 0 if group.is_special(whole) else add_part(group, element, *terms, read, whole, number)
    return make_partial(own.left, own.right, total, group.is_special(own))


def has_same_measures(claimed: Claimed, terms: Terms, part: Partial, read: Read) -> bool:
    """Whether a part shows the greatest magnitudes that its terms have."""

    def compare() -> bool:
        own = measure_part(claimed.group, claimed.element, *terms, read)
        return (own.left, own.right, claimed.group.is_special(own)) == (
            part.left_max,
            part.right_max,
            bool(part.special),
        )

    return _holds(compare)


def has_same_total(claimed: Claimed, terms: Terms, part: Partial, read: Read) -> bool:
    """Whether a part, whose magnitudes are right and not above the whole's, shows the total that its terms have."""

    def compare() -> bool:
        group = claimed.group
        if group.is_special(claimed.agreed):
            return part.total == 0
        own = add_part(group, claimed.element, *terms, read, claimed.agreed, claimed.number)
        return own == part.total

    return _holds(compare)


def _holds(compare: Callable[[], bool]) -> bool:
    try:
        return compare()
    except Rejected:  # an index out of range, or an input that is not shown: then nothing shown here is right
        return False

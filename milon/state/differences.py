"""Says where two states part, by family of ledger keys: it names the module of the contracts that writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.state.commitment import ReadNode, compute_update

TRIED_MAX = 8  # families left out one by one to find the one that differs: a stranger's false root costs no more


def family_of(key: bytes) -> str:
    """The part of a ledger key before its first slash, such as `account` or `closed-round`."""
    return key.split(b"/", 1)[0].decode("ascii", "replace")


@dataclass(frozen=True, slots=True)
class FamilyDifference:
    """Keys of one family that two ledgers do not agree on."""

    family: str  # its name
    missing: int  # keys that only the first ledger has
    extra: int  # keys that only the second has
    changed: int  # keys with another value
    example: bytes  # the first such key


def compare_ledgers(
    first: Mapping[bytes, bytes], second: Iterable[tuple[bytes, bytes]]
) -> tuple[FamilyDifference, ...]:
    """Where two flat tables differ, in order of the families' names; empty where they are the same."""
    found: dict[str, list[int]] = {}
    examples: dict[str, bytes] = {}
    seen = 0

    def note(key: bytes, place: int) -> None:
        family = family_of(key)
        found.setdefault(family, [0, 0, 0])[place] += 1
        examples[family] = min(key, examples.get(family, key))

    known: dict[bytes, None] = {}
    for key, value in second:
        known[key] = None
        other = first.get(key)
        if other is None:
            note(key, 1)
        else:
            seen += 1
            if other != value:
                note(key, 2)
    if seen < len(first):
        for key in first:
            if key not in known:
                note(key, 0)
    return tuple(
        FamilyDifference(family, found[family][0], found[family][1], found[family][2], examples[family])
        for family in sorted(found)
    )


class StateDiffers(Rejected):
    """A block whose state root is not the one its transactions lead to here."""

    def __init__(self, expected: Digest, found: Digest, families: tuple[tuple[str, int], ...], suspect: str) -> None:
        """`families`: what the block changes here, with how many keys each; `suspect`: the one at fault, or empty."""
        words = ", ".join(f"{name} {count}" for name, count in families) or "nothing"
        cause = f"without its change to {suspect} the roots agree" if suspect else "no single change explains it"
        super().__init__(
            Reason.DIFFERS,
            f"the state root is {found.hex()} here and {expected.hex()} in the header; the block changes: {words}; "
            f"{cause}; `milon replay --verify` tells whether this node's store or its software is wrong",
        )
        self.expected = expected
        self.found = found
        self.families = families
        self.suspect = suspect

    def __reduce__(self) -> tuple[type[StateDiffers], tuple[Digest, Digest, tuple[tuple[str, int], ...], str]]:  # type: ignore[override]  # another constructor than the base's
        """Rebuild from all arguments."""
        return (StateDiffers, (self.expected, self.found, self.families, self.suspect))


def explain_difference(
    read: ReadNode, parent_root: Digest, changes: Mapping[bytes, bytes | None], expected: Digest, found: Digest
) -> StateDiffers:
    """What can be said of a root that is not the `expected` one after `changes` to the state with `parent_root`.

    A header commits to one root and not to the families, so the one at fault is named only where leaving its changes
    out gives the header's root: then the network did not make them.
    """
    by_family: dict[str, dict[bytes, bytes | None]] = {}
    for key in sorted(changes):
        by_family.setdefault(family_of(key), {})[key] = changes[key]
    suspect = ""
    for family in sorted(by_family)[:TRIED_MAX]:
        others = {key: value for key, value in changes.items() if family_of(key) != family}
        if compute_update(read, parent_root, others)[0] == expected:
            suspect = family
            break
    families = tuple((family, len(by_family[family])) for family in sorted(by_family))
    return StateDiffers(expected, found, families, suspect)

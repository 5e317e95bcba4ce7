"""What a trainer sends to be judged: elements of values, each shown to lie under a root that both sides agree on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from milon.base.codec import decode, wire
from milon.base.errors import Reason, require
from milon.base.ids import Digest
from milon.gpu.dispute_numbers import Numbers, read_raw
from milon.gpu.dispute_points import Read
from milon.pol.dispute import ANSWER_BYTES_MAX, PIECE_INPUTS_MAX
from milon.pol.dispute_tree import PIECE_ELEMENTS, Opening, verify_opening
from milon.pol.shapes import WIDTH_BYTES, TensorType

ROOT_BYTES = 32  # under a leaf of a step's or a state's tree


@wire("dispute-shown/1")
@dataclass(frozen=True, slots=True)
class Shown:
    """Some elements of one value."""

    root: Opening  # of the value's root, in the tree of the step or the state
    pieces: tuple[Opening, ...]  # of the value's own tree: 64 elements each


@wire("dispute-piece/1")
@dataclass(frozen=True, slots=True)
class Piece:
    """All that is needed beside the program and the job's data."""

    values: tuple[Shown, ...]  # of the step, by number of the value
    state: tuple[Shown, ...]  # of the state before it: none or one
    trace: bytes  # the trace before the step, where the next one is disputed; else empty


def read_piece(raw: bytes) -> Piece:
    """The piece that `raw` encodes."""
    return decode(Piece, raw, ANSWER_BYTES_MAX)


def verify_shown(root: Digest, shown: Shown, place: int, count: int) -> Digest:
    """The shown value's own root, once it is shown to lie under leaf `place` of the `count` leaves under `root`."""
    where = shown.root
    require(
        (where.index, where.count) == (place, count), Reason.BAD_PROOF, f"leaf {where.index} where {place} is asked"
    )
    require(len(where.raw) == ROOT_BYTES, Reason.BAD_PROOF, "no root lies there")
    verify_opening(root, where)
    return Digest(where.raw)


def read_elements(own_root: Digest, shown: Shown, found: TensorType) -> dict[int, Numbers]:
    """The numbers under each shown piece of a value, by its place; `Rejected` for one that is not the value's."""
    pieces: dict[int, Numbers] = {}
    count = count_pieces(found)
    for opening in shown.pieces:
        fits = opening.count == count and len(opening.raw) == count_piece_bytes(found, int(opening.index))
        require(fits, Reason.BAD_PROOF, f"piece {opening.index} of {opening.count}")
        verify_opening(own_root, opening)
        pieces[int(opening.index)] = read_raw(opening.raw, found.dtype)
    return pieces


def count_pieces(found: TensorType) -> int:
    """How many leaves a value of this type has."""
    return -(-found.elements // PIECE_ELEMENTS)


def count_piece_bytes(found: TensorType, place: int) -> int:
    """How many bytes lie under leaf `place` of a value of this type."""
    elements = min(PIECE_ELEMENTS, found.elements - place * PIECE_ELEMENTS)
    return max(0, elements) * WIDTH_BYTES[found.dtype]


def read_shown(numbers: Sequence[int], held: Mapping[int, Mapping[int, Numbers]]) -> Read:
    """A reader of operands with these numbers from shown pieces, by value and place; at most 1,024 elements.

    It raises `Rejected(BAD_PROOF)` for an element that is not shown.
    """
    used = 0

    def read(operand: int, elements: Numbers) -> Numbers:
        nonlocal used
        used += len(elements)
        require(used <= 2 * PIECE_INPUTS_MAX, Reason.TOO_LARGE, "more inputs than referees compute with")
        pieces = held.get(numbers[operand], {})
        places = elements // PIECE_ELEMENTS
        found = np.zeros(len(elements), np.int64)
        for place in np.unique(places).tolist():
            require(place in pieces, Reason.BAD_PROOF, f"operand {operand} lacks piece {place}")
            mine = places == place
            found[mine] = pieces[place][elements[mine] % PIECE_ELEMENTS]
        return found

    return read


def watch(read: Read, seen: dict[tuple[int, int], None]) -> Read:
    """The same reader; it notes every operand and piece that is read, in order."""

    def watched(operand: int, elements: Numbers) -> Numbers:
        for place in np.unique(elements // PIECE_ELEMENTS).tolist():
            seen.setdefault((operand, place))
        return read(operand, elements)

    return watched


def show(root: Opening, open_piece: Callable[[int], Opening], places: Sequence[int]) -> Shown:
    """A value's root and some of its pieces."""
    return Shown(root, tuple(open_piece(place) for place in sorted(places)))

"""The last question of a dispute, answered by every validator: from the game alone, or from one piece of the step.

`Verdict.FALSE` is a verdict against the trainer, `Verdict.TRUE` against the challenger. Whatever the trainer had to
show and did not show soundly counts against it; whatever the challenger had to choose and chose badly, against the
challenger.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.gpu.dispute_groups import Agreed, Group, add_part, measure_part
from milon.gpu.dispute_numbers import INFINITY, MAGNITUDE, Numbers, pick, read_raw
from milon.gpu.dispute_parts import Claimed, has_same_measures, has_same_total
from milon.gpu.dispute_piece import (
    ROOT_BYTES,
    Piece,
    Shown,
    count_piece_bytes,
    read_elements,
    read_piece,
    read_shown,
    verify_shown,
)
from milon.gpu.dispute_points import Read, read_one
from milon.gpu.dispute_shapes import fits
from milon.gpu.dispute_steps import CPU, StepRunner
from milon.gpu.dispute_timeline import compute_recorded_root, compute_start_root
from milon.gpu.interpreter import load_constant
from milon.gpu.philox import draw_elements
from milon.gpu.train import RoundWork, read_state
from milon.pol.claim import SegmentRecord, commit_trace, extend_trace
from milon.pol.dispute import Answer, Game, Level, compute_range
from milon.pol.dispute_tree import PIECE_ELEMENTS, compute_depth
from milon.pol.program import InputRole
from milon.pol.shapes import DType, TensorType
from milon.pol.verdict import Verdict

NO_ROOT = Digest(bytes(32))
TRACE_BYTES = 32


class Referee:
    """One validator's judgement of a dispute over one segment."""

    def __init__(self, work: RoundWork, segment: int) -> None:
        self._runner = StepRunner(work, segment)
        self._outline = self._runner.outline

    def judge(self, game: Game, record: SegmentRecord, read_blob: Callable[[bool], bytes]) -> Verdict:
        """The verdict on a game that has come to the referees.

        `read_blob` gives the bytes of the state before the segment (False) or the recorded one after it (True); it is
        asked at BINDING alone.
        """
        return Verdict.TRUE if self._holds(game, record, read_blob) else Verdict.FALSE

    def _holds(self, game: Game, record: SegmentRecord, read_blob: Callable[[bool], bytes]) -> bool:
        if game.level is Level.BINDING:
            raw = read_blob(bool(game.value))  # what cannot be had is no verdict
        try:
            match game.level:
                case Level.BINDING:
                    return self._is_bound(game, record, raw)
                case Level.SHAPE:
                    return game.shown_at is not None and fits(self._outline, game.shown_at, _shown(game))
                case Level.ASSEMBLY:
                    return self._is_assembled(game)
                case Level.RESULT:
                    return self._is_result(game)
                case Level.PIECE:
                    return self._is_piece(game)
                case _:
                    return True  # a state's root covers trace and loss too, so no other question leads here
        except Rejected:  # of what the trainer shows
            return False

    def _is_bound(self, game: Game, record: SegmentRecord, raw: bytes) -> bool:
        state = read_state(raw, self._runner.work.layout)
        return (
            game.after == compute_recorded_root(state, record)
            if game.value
            else game.before == compute_start_root(state)
        )

    def _is_assembled(self, game: Game) -> bool:
        outline, shown = self._outline, _shown(game)
        leaf, tensors, piece = int(game.value), len(outline.names), read_piece(shown.piece)
        fits_path = len(game.path) == compute_depth(outline.leaves) and leaf < outline.leaves
        require(fits_path and len(shown.raw) == ROOT_BYTES, Reason.BAD_PROOF, "the state has no such leaf")
        if leaf != tensors:
            number = outline.loss if leaf > tensors else outline.new_state[outline.names[leaf]]
            return self._value_root(game, _only(piece.values), number) == shown.raw
        number = outline.fingerprint
        own = self._value_root(game, _only(piece.values), number)
        held = read_elements(own, _only(piece.values), outline.types[number])
        require(0 in held and len(piece.trace) == TRACE_BYTES, Reason.BAD_PROOF, "no fingerprint is shown")
        trace = Digest(piece.trace)
        before = verify_shown(game.before or NO_ROOT, _only(piece.state), tensors, outline.leaves)
        return commit_trace(trace) == before and commit_trace(extend_trace(trace, int(held[0][0]))) == shown.raw

    def _value_root(self, game: Game, shown: Shown, number: int) -> Digest:
        return verify_shown(game.values or NO_ROOT, shown, number, len(self._outline.types))

    # ---- one element ----

    def _is_result(self, game: Game) -> bool:
        group = self._outline.make_group(int(game.value)) if game.value < len(self._outline.types) else None
        if group is None or game.whole is None:
            return False
        number = self._read_claimed(game)
        if number is None or self._ends_the_run(int(game.value), number):
            return number is None
        return group.is_right(Agreed(game.whole.left_max, game.whole.right_max), game.whole.total, number)

    def _read_claimed(self, game: Game) -> int | None:
        """What the disputed element is said to be; None where the challenger named one that is not there."""
        require(game.value < len(self._outline.types), Reason.BAD_PROOF, "the step has no such value")
        found, place = self._outline.types[int(game.value)], int(game.element) // PIECE_ELEMENTS
        require(len(game.raw) == count_piece_bytes(found, place) > 0, Reason.BAD_PROOF, "a piece of another length")
        numbers = read_raw(game.raw, found.dtype)
        at = int(game.element) % PIECE_ELEMENTS
        return int(numbers[at]) if at < len(numbers) else None

    def _ends_the_run(self, value: int, number: int) -> bool:
        """Whether a number makes a state that is not finite, from which no honest run goes on."""
        is_float = self._outline.types[value].dtype is DType.FLOAT32
        return is_float and value in self._outline.new_state.values() and number & MAGNITUDE >= INFINITY

    def _is_piece(self, game: Game) -> bool:
        number = self._read_claimed(game)
        value, element, outline = int(game.value), int(game.element), self._outline
        if number is None or self._ends_the_run(value, number):
            return number is None
        piece = read_piece(_shown(game).piece)
        if value < outline.first_node:
            return number == self._read_input(game, piece, value, element)
        read = self._open(game, piece, value)
        point = outline.make_point(value)
        if point is not None:
            return number == point(element, read)
        group = outline.make_group(value)
        if group is None:
            raise RuntimeError(f"value {value} is neither a point nor a group")
        return _is_part(game, group, number, read)

    def _open(self, game: Game, piece: Piece, value: int) -> Read:
        """A reader of the operands of a value from what is shown of them."""
        held: dict[int, dict[int, Numbers]] = {}
        for shown in piece.values:
            number = int(shown.root.index)
            require(number < value, Reason.BAD_PROOF, f"value {number} is not agreed on")
            own = self._value_root(game, shown, number)
            held[number] = read_elements(own, shown, self._outline.types[number])
        return read_shown(self._outline.operands_of(value), held)

    def _read_input(self, game: Game, piece: Piece, value: int, element: int) -> int:
        """An element of an input or a constant, from the program, the data, the draws or the state before."""
        outline, at = self._outline, np.array([element], np.int64)
        if value >= outline.first_constant:
            constant = outline.program.constants[value - outline.first_constant]
            return int(pick(load_constant(constant, CPU), at)[0])
        entry, step = outline.program.inputs[value], int(game.step)
        place = outline.place_of(value, entry.role)
        if entry.role is InputRole.BATCH:
            return int(pick(self._runner.batch(step)[place], at)[0])
        if entry.role is InputRole.DRAW:
            return int(pick(draw_elements(self._runner.key(step), place, torch.tensor([element])), at * 0)[0])
        shown, leaf = _only(piece.state), outline.names.index(entry.name)
        own = verify_shown(game.before or NO_ROOT, shown, leaf, outline.leaves)
        held = read_elements(own, shown, TensorType(entry.dtype, entry.shape))
        return read_one(read_shown([value], {value: held}), 0, element)


def _shown(game: Game) -> Answer:
    if game.shown is None:
        raise RuntimeError("a game comes to the referees with an answer")
    return game.shown


def _only(shown: tuple[Shown, ...]) -> Shown:
    require(len(shown) == 1, Reason.BAD_PROOF, f"{len(shown)} values shown where one is asked")
    return shown[0]


def _is_part(game: Game, group: Group, number: int, read: Read) -> bool:
    """Whether the shown terms make the element or, of a part of it, what that part was said to come to."""
    element = int(game.element)
    if game.part is None or game.whole is None:
        own = measure_part(group, element, 0, group.terms, read)
        total = 0 if group.is_special(own) else add_part(group, element, 0, group.terms, read, own, number)
        return group.is_right(own, total, number)
    terms = compute_range(group.terms, game.path)
    claimed = Claimed(group, element, number, game.whole)
    return has_same_measures(claimed, terms, game.part, read) and has_same_total(claimed, terms, game.part, read)

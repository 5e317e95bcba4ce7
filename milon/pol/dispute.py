"""A dispute over one segment as a pure game: trainer and challenger halve it by sixteen until one piece is left.

    STEPS --one step--> VALUES --one value--> ELEMENTS --one element--> TERMS --few enough inputs--> PIECE
      | the blob's root    | all agree, not the next state                |  parts agree, not the element
      v                    v                                              v
    BINDING             ASSEMBLY                                        RESULT

The trainer answers at a `Spot` with what its own run gives there; the challenger chooses the first of it that differs
from its own run. What both agreed on before that spot stays agreed. The referees decide at BINDING, ASSEMBLY, RESULT
and PIECE, and where the challenger says that an answer has not the SHAPE which the program prescribes. The game itself
knows no program: it checks that what is opened hashes to what was shown before, that parts combine to their whole, and
that paths stay within their depths. So an honest side always has a move.

State root R: tree over the value roots of the state's tensors, in order of name, and what a record says beside them
(trace, loss). Values root T of a step: tree over the roots of all values of the program (inputs, constants, nodes), in
order of number, and of the step's fingerprint. A value's root: tree over its row-major little-endian elements, 64 under
a leaf. A leaf of the first two trees holds 32 bytes: a value's root or a digest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from milon.base.codec import encode, wire
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.base.units import Count
from milon.pol.dispute_tree import (
    ARITY,
    PIECE_ELEMENTS,
    compute_leaf_digest,
    compute_node_digest,
    compute_place,
)

PIECE_INPUTS_MAX = 1_024  # what a referee computes with at the end
MOVE_BYTES_MAX = 10_000  # of a transaction with a move
ANSWER_BYTES_MAX = MOVE_BYTES_MAX - 500  # of the answer in it; signature, names and fee take less than the rest
TOTAL_BYTES = 16  # of a partial sum: 2^34 terms of 2^42 each, with their sign
TOTAL_END = 1 << 120  # sixteen of them fit again
VALUES_DEPTH_MAX = 5  # 65,536 values or tensors of the state, and what is shown beside them
ELEMENTS_DEPTH_MAX = 7  # 2^34 elements in leaves of 64
TERMS_DEPTH_MAX = 9  # 2^34 terms down to one
STEPS_DEPTH_MAX = 4  # 10,000 steps, the most of a segment, down to one
# One answer a depth, one for each leaf and one for the piece, each followed by one choice.
MOVES_MAX = 2 * (STEPS_DEPTH_MAX + (VALUES_DEPTH_MAX + 1) + (ELEMENTS_DEPTH_MAX + 1) + (TERMS_DEPTH_MAX + 1))


class Level(StrEnum):
    """What is being halved, or what the referees are asked."""

    STEPS = "steps"  # the segment's steps, by state roots
    VALUES = "values"  # the values of one step
    ELEMENTS = "elements"  # of one value
    TERMS = "terms"  # that one element of a reduction sums up
    PIECE = "piece"  # referees: do these inputs give the element, or this part of its sum?
    RESULT = "result"  # referees: does the whole sum give the element?
    BINDING = "binding"  # referees: is the shown root that of the blob in the record?
    ASSEMBLY = "assembly"  # the next state's root over the values that both agree on; referees: does the leaf fit?
    SHAPE = "shape"  # referees: has the last answer the form that program and spot prescribe?


class Turn(StrEnum):
    """Whose move it is."""

    TRAINER = "trainer"
    CHALLENGER = "challenger"
    REFEREES = "referees"


class Pick(StrEnum):
    """What the challenger says of an answer."""

    CHILD = "child"  # this is the first that differs
    NOTHING = "nothing"  # nothing in it differs, and yet what follows from it does
    SHAPE = "shape"  # it has not the form that program and spot prescribe


@wire("dispute-partial/1")
@dataclass(frozen=True, slots=True)
class Partial:
    """A sum over some of a group's terms, in the integers of numerics N3 and N4, scaled by the whole group's maxima."""

    left_max: int  # greatest magnitude of the terms, or of the left factors: bits of binary32; -1 where unused
    right_max: int  # of the right factors; -1 where unused
    raw_total: bytes  # the exact sum: 16 bytes, big-endian, two's complement; zero where the group is special
    special: Count  # 0: all terms finite; 1: NaN or infinity among them

    @property
    def total(self) -> int:
        """The exact sum."""
        return int.from_bytes(self.raw_total, "big", signed=True)


@wire("dispute-spot/1")
@dataclass(frozen=True, slots=True)
class Spot:
    """Where in a segment an answer is asked for."""

    level: Level  # of which kind
    step: Count  # of the segment: the one in dispute, or the first of those
    steps: Count  # how many are in dispute: 1 from VALUES on
    path: tuple[int, ...]  # children chosen so far on this level, from the root
    value: Count  # ELEMENTS, TERMS: the value's number
    element: Count  # TERMS: its place in the value, row-major


@wire("dispute-answer/1")
@dataclass(frozen=True, slots=True)
class Answer:
    """What the trainer shows at a spot; what a spot does not ask for is empty."""

    children: tuple[Digest, ...] = ()  # STEPS: state roots; VALUES, ELEMENTS, ASSEMBLY: of the node
    raw: bytes = b""  # VALUES, ELEMENTS, ASSEMBLY: under a leaf
    partials: tuple[Partial, ...] = ()  # TERMS: of the parts; at first the whole before them
    piece: bytes = b""  # TERMS: the inputs, with openings; ASSEMBLY, with a leaf: the opening of the value


@wire("dispute-choice/1")
@dataclass(frozen=True, slots=True)
class Choice:
    """What the challenger makes of an answer."""

    pick: Pick  # see there
    child: Count = Count(0)  # CHILD: which, counted from 0


@wire("dispute-game/1")
@dataclass(frozen=True, slots=True)
class Game:
    """A dispute under way; all that referees need is in it."""

    level: Level  # see there
    turn: Turn  # whose move it is
    moves: Count  # so far
    step: Count  # the first step in dispute
    steps: Count  # how many are
    path: tuple[int, ...]  # chosen on this level
    value: Count  # in dispute; BINDING: 0 for the segment's start, 1 for its end; ASSEMBLY: the tensor, by name's order
    element: Count  # in dispute
    before: Digest | None  # state root before `step`: agreed once a later one is chosen
    after: Digest | None  # state root after the last step in dispute, shown by the trainer
    values: Digest | None  # T of the step, shown by the trainer; agreed before `value`, wholly at ASSEMBLY
    node: Digest | None  # to be opened next; none: the trainer may name it
    raw: bytes  # ELEMENTS: the leaf with the element, from there on
    whole: Partial | None  # of the element's group
    part: Partial | None  # in dispute
    shown: Answer | None  # the last answer
    shown_at: Spot | None  # where it was given


def compute_parts(count: int) -> tuple[tuple[int, int], ...]:
    """Up to 16 (first, count) ranges that make up `count`, as equal as can be, the longer ones first."""
    parts = min(ARITY, count)
    ranges: list[tuple[int, int]] = []
    first = 0
    for place in range(parts):
        length = count // parts + (place < count % parts)
        ranges.append((first, length))
        first += length
    return tuple(ranges)


def compute_range(count: int, path: Sequence[int]) -> tuple[int, int]:
    """The (first, count) that `path` leaves of `count` when each choice takes one of the parts."""
    first = 0
    for child in path:
        parts = compute_parts(count)
        require(child < len(parts), Reason.OUT_OF_RANGE, f"part {child} of {len(parts)}")
        first, count = first + parts[child][0], parts[child][1]
    return first, count


def make_partial(left_max: int, right_max: int, total: int, is_special: bool) -> Partial:
    """A partial sum; `total` fits 127 bits."""
    return Partial(left_max, right_max, total.to_bytes(TOTAL_BYTES, "big", signed=True), Count(int(is_special)))


def combine_partials(parts: Sequence[Partial]) -> Partial:
    """What parts come to together: greatest magnitudes, sum of totals (0 where one is special)."""
    is_special = any(part.special for part in parts)
    total = 0 if is_special else sum(part.total for part in parts)
    left = max(part.left_max for part in parts)
    return make_partial(left, max(part.right_max for part in parts), total, is_special)


def open_game(steps: int) -> Game:
    """A dispute over a segment of so many steps: the trainer is asked for its state roots."""
    return Game(
        level=Level.STEPS,
        turn=Turn.TRAINER,
        moves=Count(0),
        step=Count(0),
        steps=Count(steps),
        path=(),
        value=Count(0),
        element=Count(0),
        before=None,
        after=None,
        values=None,
        node=None,
        raw=b"",
        whole=None,
        part=None,
        shown=None,
        shown_at=None,
    )


def spot_of(game: Game) -> Spot:
    """Where the next answer is due, or the last one was given."""
    return Spot(game.level, game.step, game.steps, game.path, game.value, game.element)


def is_opening(game: Game) -> bool:
    """Whether the answer that is due opens what was shown before, so that only one answer fits, whoever gives it."""
    return game.turn is Turn.TRAINER and game.node is not None and game.level is not Level.ASSEMBLY


def advance(game: Game, move: Answer | Choice) -> Game:
    """The game after a move of the side whose turn it is; `Rejected` where the move is none, and nothing changed."""
    if isinstance(move, Answer):
        require(game.turn is Turn.TRAINER, Reason.NOT_NOW, f"it is the turn of the {game.turn.value}")
        size = len(encode(move))
        require(size <= ANSWER_BYTES_MAX, Reason.TOO_LARGE, f"an answer of {size} bytes")
        after = _ANSWERS[game.level](game, move)
        return replace(after, moves=Count(game.moves + 1), shown=move, shown_at=spot_of(game))
    if game.turn is not Turn.CHALLENGER or game.shown is None:
        raise Rejected(Reason.NOT_NOW, f"it is the turn of the {game.turn.value}")
    return replace(_choose(game, game.shown, move), moves=Count(game.moves + 1))


def _require_only(answer: Answer, *fields: str) -> None:
    for name in ("children", "raw", "partials", "piece"):
        is_there = bool(getattr(answer, name))
        require(is_there == (name in fields), Reason.MALFORMED, f"an answer here shows {' and '.join(fields)}")


def _answer_steps(game: Game, answer: Answer) -> Game:
    _require_only(answer, "children")
    parts = len(compute_parts(int(game.steps)))
    wanted = parts if game.path else parts + 1  # at first with the root before the segment
    require(len(answer.children) == wanted, Reason.MALFORMED, f"{wanted} state roots are asked for")
    if game.path:
        require(answer.children[-1] == game.after, Reason.DIFFERS, "the last state root was another before")
        return replace(game, turn=Turn.CHALLENGER)
    return replace(game, turn=Turn.CHALLENGER, before=answer.children[0], after=answer.children[-1])


def _open_node(game: Game, answer: Answer, depth_max: int) -> Digest:
    """The digest of what the answer opens, which is that shown before; the path stays within the tree's depth."""
    if answer.raw:
        shown = compute_leaf_digest(answer.raw)
    else:
        _require_only(answer, "children")
        require(len(answer.children) <= ARITY, Reason.MALFORMED, f"{len(answer.children)} children")
        require(len(game.path) < depth_max, Reason.OUT_OF_RANGE, f"a tree is {depth_max} deep at most")
        shown = compute_node_digest(answer.children)
    require(game.node in (None, shown), Reason.BAD_PROOF, "the answer opens another node")
    return shown


def _answer_values(game: Game, answer: Answer) -> Game:
    shown = _open_node(game, answer, VALUES_DEPTH_MAX)
    if answer.raw:
        _require_only(answer, "raw")
        require(len(answer.raw) == len(shown), Reason.MALFORMED, "a leaf here holds a root")
    return replace(game, turn=Turn.CHALLENGER, values=game.values or shown)


def _answer_elements(game: Game, answer: Answer) -> Game:
    _open_node(game, answer, ELEMENTS_DEPTH_MAX)
    if answer.raw:
        _require_only(answer, "raw")
    return replace(game, turn=Turn.CHALLENGER, raw=answer.raw)


def _answer_assembly(game: Game, answer: Answer) -> Game:
    _open_node(game, answer, VALUES_DEPTH_MAX)
    if not answer.raw:
        return replace(game, turn=Turn.CHALLENGER)
    _require_only(answer, "raw", "piece")
    return replace(game, turn=Turn.REFEREES, value=Count(compute_place(game.path)))


def _answer_terms(game: Game, answer: Answer) -> Game:
    if answer.piece:
        _require_only(answer, "piece")
        return replace(game, level=Level.PIECE, turn=Turn.REFEREES)
    _require_only(answer, "partials")
    for partial in answer.partials:
        _verify_partial(partial)
    require(len(game.path) < TERMS_DEPTH_MAX, Reason.OUT_OF_RANGE, f"{TERMS_DEPTH_MAX} choices lead to a single term")
    whole, parts = game.part, answer.partials
    if whole is None:
        whole, parts = parts[0], parts[1:]
    require(2 <= len(parts) <= ARITY, Reason.MALFORMED, f"{len(parts)} parts")
    require(combine_partials(parts) == whole, Reason.DIFFERS, "the parts do not combine to the whole")
    return replace(game, turn=Turn.CHALLENGER, whole=game.whole or whole)


def _verify_partial(partial: Partial) -> None:
    is_sound = min(partial.left_max, partial.right_max) >= -1 and partial.special <= 1
    is_sound = is_sound and len(partial.raw_total) == TOTAL_BYTES and abs(partial.total) < TOTAL_END
    require(is_sound, Reason.MALFORMED, "no partial sum")
    require(not (partial.special and partial.total), Reason.NOT_CANONICAL, "a special sum has no total")


_ANSWERS: dict[Level, Callable[[Game, Answer], Game]] = {
    Level.STEPS: _answer_steps,
    Level.VALUES: _answer_values,
    Level.ELEMENTS: _answer_elements,
    Level.ASSEMBLY: _answer_assembly,
    Level.TERMS: _answer_terms,
}


def _choose(game: Game, shown: Answer, choice: Choice) -> Game:
    require(choice.pick is Pick.CHILD or not choice.child, Reason.NOT_CANONICAL, "only a child has a number")
    if choice.pick is Pick.SHAPE:
        return replace(game, level=Level.SHAPE, turn=Turn.REFEREES)
    if choice.pick is Pick.CHILD:
        return _CHILDREN[game.level](game, shown, int(choice.child))
    is_first = not game.path and not shown.raw
    require(is_first, Reason.NOT_ALLOWED, "only the first answer of a level can be agreed on as a whole")
    if game.level is Level.STEPS:
        return replace(game, level=Level.BINDING, turn=Turn.REFEREES, value=Count(1))
    if game.level is Level.VALUES:
        return replace(game, level=Level.ASSEMBLY, turn=Turn.TRAINER, node=game.after)
    require(game.level is Level.TERMS, Reason.NOT_ALLOWED, f"nothing follows from {game.level.value} that all agree on")
    return replace(game, level=Level.RESULT, turn=Turn.REFEREES)


def _require_child(child: int, count: int) -> None:
    require(child < count, Reason.OUT_OF_RANGE, f"child {child} of {count}")


def _choose_step(game: Game, shown: Answer, child: int) -> Game:
    _require_child(child, len(shown.children))
    if not game.path and child == 0:
        return replace(game, level=Level.BINDING, turn=Turn.REFEREES, value=Count(0))
    roots = shown.children if not game.path else (game.before, *shown.children)
    part = child if game.path else child - 1
    first, steps = compute_parts(int(game.steps))[part]
    chosen = replace(
        game,
        turn=Turn.TRAINER,
        step=Count(game.step + first),
        steps=Count(steps),
        path=(*game.path, part),
        before=roots[part],
        after=roots[part + 1],
    )
    return replace(chosen, level=Level.VALUES, path=()) if steps == 1 else chosen


def _choose_value(game: Game, shown: Answer, child: int) -> Game:
    if shown.raw:
        _require_child(child, 1)
        value = Count(compute_place(game.path))
        return replace(game, level=Level.ELEMENTS, turn=Turn.TRAINER, path=(), value=value, node=Digest(shown.raw))
    return _descend(game, shown, child)


def _choose_element(game: Game, shown: Answer, child: int) -> Game:
    if shown.raw:
        _require_child(child, PIECE_ELEMENTS)
        element = Count(compute_place(game.path) * PIECE_ELEMENTS + child)
        return replace(game, level=Level.TERMS, turn=Turn.TRAINER, path=(), element=element, node=None)
    return _descend(game, shown, child)


def _descend(game: Game, shown: Answer, child: int) -> Game:
    _require_child(child, len(shown.children))
    return replace(game, turn=Turn.TRAINER, path=(*game.path, child), node=shown.children[child])


def _choose_part(game: Game, shown: Answer, child: int) -> Game:
    parts = shown.partials if game.path else shown.partials[1:]
    _require_child(child, len(parts))
    return replace(game, turn=Turn.TRAINER, path=(*game.path, child), part=parts[child])


_CHILDREN: dict[Level, Callable[[Game, Answer, int], Game]] = {
    Level.STEPS: _choose_step,
    Level.VALUES: _choose_value,
    Level.ELEMENTS: _choose_element,
    Level.ASSEMBLY: _descend,
    Level.TERMS: _choose_part,
}

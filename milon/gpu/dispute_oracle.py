"""Both sides of a dispute: what an honest run gives at a spot, and the first of an answer that differs from it.

Trainer and challenger run the same code over the same data, and neither has stored anything but the segment's start.
An oracle keeps one state of the segment, the roots of one step's values, and one value with its operands; whatever else
a move needs is run once more.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.base.units import Count
from milon.gpu.dispute_groups import Group, measure_part
from milon.gpu.dispute_numbers import read_raw
from milon.gpu.dispute_parts import Claimed, has_same_measures, has_same_total, make_part
from milon.gpu.dispute_piece import ROOT_BYTES, Piece, Shown, count_piece_bytes, count_pieces, show, watch
from milon.gpu.dispute_points import Read
from milon.gpu.dispute_shapes import fits, fits_terms, fits_tree, path_to, show_node
from milon.gpu.dispute_steps import StepRunner, WatchedPlan
from milon.gpu.dispute_timeline import Timeline
from milon.gpu.dispute_trees import Tree
from milon.gpu.dispute_views import StepView, ValueView, read_element, view_step, view_value
from milon.gpu.train import RoundWork
from milon.pol.dispute import (
    ANSWER_BYTES_MAX,
    PIECE_INPUTS_MAX,
    Answer,
    Choice,
    Game,
    Level,
    Pick,
    Spot,
    compute_parts,
    compute_range,
    spot_of,
)
from milon.pol.dispute_tree import PIECE_ELEMENTS, compute_place, find_children
from milon.pol.shapes import WIDTH_BYTES

SHAPE = Choice(Pick.SHAPE)
NOTHING = Choice(Pick.NOTHING)

T = TypeVar("T")


def _child(place: int) -> Choice:
    return Choice(Pick.CHILD, Count(place))


def _require_run(found: T | None) -> T:
    if found is None:
        raise Rejected(Reason.NOT_FINITE, "an honest run does not come here")
    return found


class Oracle:
    """An honest player of either side over one segment."""

    def __init__(self, work: RoundWork, start: bytes, segment: int, plan: WatchedPlan | None = None) -> None:
        """`start`: the bytes of the state before the segment; `segment`: its number in the round.

        `plan` shows the values of a step; one is made from the program unless it is given.
        """
        self._runner = StepRunner(work, segment, plan)
        self._outline = self._runner.outline
        self._timeline = Timeline(self._runner, start)
        self._step: StepView | None = None
        self._value: ValueView | None = None

    def rest(self) -> None:
        """Let go of the values that are held; they are computed again when they are needed."""
        self._value = None

    def answer(self, spot: Spot) -> Answer:
        """What an honest run shows at `spot`; `Rejected` where it does not come there."""
        match spot.level:
            case Level.STEPS:
                return Answer(children=self._show_steps(spot))
            case Level.VALUES:
                return show_node(self._view(int(spot.step)).values, spot.path)
            case Level.ELEMENTS:
                tree = self._look(int(spot.step), int(spot.value)).tree_of(int(spot.value))
                return show_node(_require_run(tree), spot.path)
            case Level.TERMS:
                return self._show_terms(spot)
            case Level.ASSEMBLY:
                return self._show_assembly(spot)
            case _:
                raise Rejected(Reason.NOT_NOW, f"no answer is due at {spot.level.value}")

    def choose(self, game: Game) -> Choice:
        """What to make of the game's last answer: the first of it that differs, or what else is wrong with it."""
        if game.shown is None:
            raise Rejected(Reason.NOT_NOW, "there is no answer to choose from")
        match game.level:
            case Level.STEPS:
                return self._choose_step(game, game.shown)
            case Level.VALUES:
                view = self._view(int(game.step))
                fault = None if view.fault is None else view.fault.value
                return self._choose_child(game, game.shown, view.values, len(self._outline.types), fault)
            case Level.ELEMENTS:
                return self._choose_element(game, game.shown)
            case Level.TERMS:
                return self._choose_part(game, game.shown)
            case Level.ASSEMBLY:
                after = _require_run(self._view(int(game.step)).after)
                return self._choose_child(game, game.shown, after, self._outline.leaves, None)
            case _:
                raise Rejected(Reason.NOT_NOW, f"there is nothing to choose at {game.level.value}")

    # ---- steps and values ----

    def _view(self, step: int) -> StepView:
        if self._step is None or self._step.step != step:
            self._value = None
            self._step = view_step(self._runner, self._timeline.reach(step))
        return self._step

    def _look(self, step: int, number: int) -> ValueView:
        held = self._value
        if held is None or (held.step, held.number) != (step, number):
            self._value = None  # before memory is taken for another one
            held = view_value(self._runner, self._timeline.reach(step), number)
            if held is None:
                raise Rejected(Reason.NOT_FINITE, f"no honest run comes to value {number} of step {step}")
            self._value = held
        return held

    def _find_roots(self, spot: Spot) -> list[Digest | None]:
        first, steps = int(spot.step), int(spot.steps)
        ends = [first + begin + length for begin, length in compute_parts(steps)]
        return self._timeline.find_roots(first, ends if spot.path else [first, *ends])

    def _show_steps(self, spot: Spot) -> tuple[Digest, ...]:
        roots = [root for root in self._find_roots(spot) if root is not None]
        wanted = len(compute_parts(int(spot.steps))) + (not spot.path)
        require(len(roots) == wanted, Reason.NOT_FINITE, "an honest run of the segment ends early")
        return tuple(roots)

    def _choose_step(self, game: Game, shown: Answer) -> Choice:
        own = self._find_roots(spot_of(game))
        for place, (mine, root) in enumerate(zip(own, shown.children, strict=True)):
            if mine is None or mine != root:
                return _child(place)
        return NOTHING if not game.path else _child(len(own) - 1)

    def _choose_child(self, game: Game, shown: Answer, tree: Tree, count: int, fault: int | None) -> Choice:
        """A child on the way to the first leaf that differs or is at fault, of a tree over `count` leaves."""
        if not fits_tree(shown, game.path, count, ROOT_BYTES):
            return SHAPE
        if shown.raw:
            return _child(0)
        turn = None
        if fault is not None:
            way = path_to(fault, count)
            turn = way[len(game.path)] if way[: len(game.path)] == tuple(game.path) else None
        for place, (mine, root) in enumerate(zip(find_children(tree.levels, game.path), shown.children, strict=True)):
            if mine != root or place == turn:
                return _child(place)
        return NOTHING if not game.path else _child(0)

    def _choose_element(self, game: Game, shown: Answer) -> Choice:
        number, view, place = int(game.value), self._view(int(game.step)), compute_place(game.path)
        if number >= len(self._outline.types) or not fits(self._outline, spot_of(game), shown):
            return SHAPE
        found = self._outline.types[number]
        if view.fault is not None and view.fault.value == number:
            element = view.fault.element
            way = path_to(element // PIECE_ELEMENTS, count_pieces(found))
            return _child(element % PIECE_ELEMENTS if shown.raw else way[len(game.path)])
        tree = _require_run(self._look(int(game.step), number).tree_of(number))
        if not shown.raw:
            mine = find_children(tree.levels, game.path)
            return _child(next((at for at, root in enumerate(shown.children) if root != mine[at]), 0))
        raw, width = tree.read(place), WIDTH_BYTES[found.dtype]
        places = range(0, len(raw), width)
        return _child(next((at // width for at in places if raw[at : at + width] != shown.raw[at : at + width]), 0))

    # ---- terms ----

    def _show_terms(self, spot: Spot) -> Answer:
        value = self._look(int(spot.step), int(spot.value))
        element, group = int(spot.element), self._outline.make_group(value.number)
        if element >= self._outline.types[value.number].elements:
            return Answer(piece=encode(Piece((), (), b"")))  # the challenger has named an element that is not there
        if group is None:
            return Answer(piece=self._make_piece(value, element, None, (0, 0)))
        first, count = compute_range(group.terms, spot.path)
        if count * group.sides <= PIECE_INPUTS_MAX:
            raw = self._make_piece(value, element, group, (first, count))
            if raw and len(encode(Answer(piece=raw))) <= ANSWER_BYTES_MAX:
                return Answer(piece=raw)
        read = self._reader(value)
        claimed = read_element(_require_run(value.result), element)
        whole = measure_part(group, element, 0, group.terms, read)
        ranges = [(first + begin, length) for begin, length in compute_parts(count)]
        if not spot.path:
            ranges = [(0, group.terms), *ranges]
        return Answer(partials=tuple(make_part(group, element, part, read, whole, claimed) for part in ranges))

    def _choose_part(self, game: Game, shown: Answer) -> Choice:
        group = self._outline.make_group(int(game.value))
        if group is None or game.whole is None or not fits_terms(shown, game.path, group.terms):
            return SHAPE
        parts = shown.partials if game.path else shown.partials[1:]
        first, count = compute_range(group.terms, game.path)
        ranges = [(first + begin, length) for begin, length in compute_parts(count)]
        dtype = self._outline.types[int(game.value)].dtype
        claimed = int(read_raw(game.raw, dtype)[game.element % PIECE_ELEMENTS])
        read = self._reader(self._look(int(game.step), int(game.value)))
        compared = Claimed(group, int(game.element), claimed, game.whole)
        for is_same in (has_same_measures, has_same_total):  # totals mean something where the scale is right
            for place, (part, terms) in enumerate(zip(parts, ranges, strict=True)):
                if not is_same(compared, terms, part, read):
                    return _child(place)
        return NOTHING if not game.path else _child(0)

    def _reader(self, value: ValueView) -> Read:
        return lambda operand, elements: value.read_from(self._outline, operand, elements)

    def _make_piece(self, value: ValueView, element: int, group: Group | None, terms: tuple[int, int]) -> bytes:
        """The inputs of an element, or of some of its terms, with openings; empty where they are too many."""
        view, outline = self._view(value.step), self._outline
        seen: dict[tuple[int, int], None] = {}
        read = watch(self._reader(value), seen)
        point = outline.make_point(value.number)
        if value.number in outline.old_state.values():
            return self._show_state_input(view, value, element)
        with suppress(Rejected):  # an index out of range: what was read until then is all there is to show
            if group is not None:
                measure_part(group, element, *terms, read)
            elif point is not None:
                point(element, read)
        places: dict[int, set[int]] = {}
        for operand, place in seen:
            places.setdefault(outline.operands_of(value.number)[operand], set()).add(place)
        size = sum(count_piece_bytes(outline.types[number], place) for number in places for place in places[number])
        if size > ANSWER_BYTES_MAX:
            return b""
        shown = []
        for number in sorted(places):
            tree = _require_run(value.tree_of(number))
            shown.append(show(view.values.open(number), tree.open, sorted(places[number])))
        return encode(Piece(tuple(shown), (), b""))

    def _show_state_input(self, view: StepView, value: ValueView, element: int) -> bytes:
        name = self._outline.program.inputs[value.number].name
        tree = _require_run(value.tree_of(value.number))
        shown = show(view.before.open(self._outline.names.index(name)), tree.open, [element // PIECE_ELEMENTS])
        return encode(Piece((), (shown,), b""))

    def _show_assembly(self, spot: Spot) -> Answer:
        view, outline = self._view(int(spot.step)), self._outline
        answer = show_node(_require_run(view.after), spot.path)
        if not answer.raw:
            return answer
        leaf, tensors = compute_place(spot.path), len(outline.names)
        if leaf != tensors:
            number = outline.loss if leaf > tensors else outline.new_state[outline.names[leaf]]
            return Answer(raw=answer.raw, piece=encode(Piece((Shown(view.values.open(number), ()),), (), b"")))
        last = self._look(view.step, outline.fingerprint)
        shown = show(view.values.open(last.number), _require_run(last.tree_of(last.number)).open, [0])
        old = Shown(view.before.open(tensors), ())
        return Answer(raw=answer.raw, piece=encode(Piece((shown,), (old,), view.moment.trace)))

"""A small computation with everything a dispute goes through, and both sides and the referees over it.

A step has eighteen values of 101 whole numbers: two state tensors, then nodes, each number of a node the sum of 20
numbers of the value before it. The next state is the last two values. A liar's run differs from the first tampered
number on.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from milon.base.codec import decode, encode
from milon.base.errors import Rejected
from milon.base.ids import Digest
from milon.base.units import Count
from milon.pol.dispute import (
    Answer,
    Choice,
    Game,
    Level,
    Partial,
    Pick,
    Spot,
    combine_partials,
    compute_parts,
    compute_range,
    make_partial,
)
from milon.pol.dispute_tree import (
    PIECE_ELEMENTS,
    Opening,
    compute_leaf_digest,
    compute_levels,
    compute_opening,
    compute_place,
    find_children,
    verify_opening,
)

VALUES, ELEMENTS, TERMS, TERMS_ENOUGH = 18, 101, 20, 3
Number = tuple[int, int, int]  # step, value, element
Levels = tuple[tuple[Digest, ...], ...]


def raw_of(numbers: list[int]) -> bytes:
    return b"".join(number.to_bytes(8, "little") for number in numbers)


def value_levels(numbers: list[int]) -> Levels:
    pieces = [raw_of(numbers[place : place + PIECE_ELEMENTS]) for place in range(0, len(numbers), PIECE_ELEMENTS)]
    return compute_levels([compute_leaf_digest(piece) for piece in pieces])


def roots_levels(roots: list[Digest]) -> Levels:
    return compute_levels([compute_leaf_digest(root) for root in roots])


@dataclass
class Run:
    """One side's run of a segment; numbers of values and of states are tampered with as they are computed."""

    steps: int
    tamper: dict[Number, int] = field(default_factory=dict)  # by step, value, element
    bend: dict[Number, int] = field(default_factory=dict)  # by step, tensor of the state before it, element
    values: list[list[list[int]]] = field(default_factory=list)
    states: list[list[list[int]]] = field(default_factory=list)
    known: dict[tuple[str, int], Levels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        state = [[place * (tensor + 3) + 1 for place in range(ELEMENTS)] for tensor in range(2)]
        self.states.append(self.bent(0, state))
        for step in range(self.steps):
            values: list[list[int]] = []
            for value in range(VALUES):
                numbers = self.states[-1][value] if value < 2 else self.sums_of(values[-1])
                values.append([n + self.tamper.get((step, value, place), 0) for place, n in enumerate(numbers)])
            self.values.append(values)
            self.states.append(self.bent(step + 1, values[-2:]))

    def bent(self, step: int, state: list[list[int]]) -> list[list[int]]:
        return [
            [number + self.bend.get((step, tensor, place), 0) for place, number in enumerate(numbers)]
            for tensor, numbers in enumerate(state)
        ]

    @staticmethod
    def term(before: list[int], element: int, place: int) -> int:
        return before[(element * 7 + place) % ELEMENTS] % 100_003

    def sums_of(self, before: list[int]) -> list[int]:
        return [sum(self.term(before, element, place) for place in range(TERMS)) for element in range(ELEMENTS)]

    def state_levels(self, step: int) -> Levels:
        return self.levels("state", step, self.states)

    def state_root(self, step: int) -> Digest:
        return self.state_levels(step)[-1][0]

    def step_levels(self, step: int) -> Levels:
        return self.levels("values", step, self.values)

    def levels(self, kind: str, step: int, of: list[list[list[int]]]) -> Levels:
        if (kind, step) not in self.known:
            self.known[kind, step] = roots_levels([value_levels(numbers)[-1][0] for numbers in of[step]])
        return self.known[kind, step]

    def partial(self, spot: Spot, first: int, count: int) -> Partial:
        before = self.values[spot.step][spot.value - 1]
        terms = [self.term(before, int(spot.element), place) for place in range(first, first + count)]
        return make_partial(max(terms), -1, sum(terms), False)

    def answer(self, spot: Spot) -> Answer:
        """What this run shows at a spot."""
        if spot.level is Level.STEPS:
            ends = [spot.step + first + count for first, count in compute_parts(int(spot.steps))]
            if not spot.path:
                ends = [0, *ends]
            return Answer(children=tuple(self.state_root(int(end)) for end in ends))
        if spot.level is Level.VALUES:
            levels = self.step_levels(int(spot.step))
            children = find_children(levels, spot.path)
            root = value_levels(self.values[spot.step][min(compute_place(spot.path), VALUES - 1)])[-1][0]
            return Answer(children=children) if children else Answer(raw=root)
        if spot.level is Level.ELEMENTS:
            numbers = self.values[spot.step][spot.value]
            children = find_children(value_levels(numbers), spot.path)
            first = compute_place(spot.path) * PIECE_ELEMENTS
            return (
                Answer(children=children) if children else Answer(raw=raw_of(numbers[first : first + PIECE_ELEMENTS]))
            )
        if spot.level is Level.ASSEMBLY:
            return self._answer_assembly(spot)
        first, count = compute_range(TERMS, spot.path)
        if spot.value < 2 or count <= TERMS_ENOUGH:
            return Answer(piece=b"inputs")
        parts = tuple(self.partial(spot, first + start, length) for start, length in compute_parts(count))
        return Answer(partials=parts if spot.path else (combine_partials(parts), *parts))

    def _answer_assembly(self, spot: Spot) -> Answer:
        children = find_children(self.state_levels(int(spot.step) + 1), spot.path)
        if children:
            return Answer(children=children)
        value = VALUES - 2 + compute_place(spot.path)
        numbers = self.states[spot.step + 1][compute_place(spot.path)]
        root = value_levels(self.values[spot.step][value])[-1][0]
        opening = compute_opening(self.step_levels(int(spot.step)), value, root)
        return Answer(raw=value_levels(numbers)[-1][0], piece=encode(opening))

    def choose(self, spot: Spot, shown: Answer) -> Choice:
        """What this run makes of another's answer."""
        own = self.answer(spot)
        if form_of(own) != form_of(shown):
            return Choice(Pick.SHAPE)
        if spot.level is Level.TERMS:
            return self._choose_part(spot, own, shown)
        if own.raw:
            width = 8 if spot.level is Level.ELEMENTS else len(own.raw)
            starts = range(0, len(own.raw), width)
            differing = [
                place for place, at in enumerate(starts) if own.raw[at : at + width] != shown.raw[at : at + width]
            ]
        else:
            pairs = zip(own.children, shown.children, strict=True)
            differing = [place for place, (mine, other) in enumerate(pairs) if mine != other]
        if differing:
            return Choice(Pick.CHILD, Count(differing[0]))
        return Choice(Pick.NOTHING)

    def _choose_part(self, spot: Spot, own: Answer, shown: Answer) -> Choice:
        if not spot.path and own.partials[0] == shown.partials[0]:
            return Choice(Pick.NOTHING)
        skipped = 0 if spot.path else 1
        pairs = list(zip(own.partials[skipped:], shown.partials[skipped:], strict=True))
        maxima = [place for place, (mine, other) in enumerate(pairs) if mine.left_max != other.left_max]
        totals = [place for place, (mine, other) in enumerate(pairs) if mine != other]
        return Choice(Pick.CHILD, Count((maxima or totals)[0]))


def form_of(answer: Answer) -> tuple[int, int, int, bool]:
    return len(answer.children), len(answer.raw), len(answer.partials), bool(answer.piece)


def judge(honest: Run, recorded: Digest, game: Game) -> bool:
    """Whether the trainer is right, as referees see it who hold the data; `recorded`: root of the record's blob."""
    shown, spot = game.shown, game.shown_at
    if shown is None or spot is None:
        raise RuntimeError("a game at its end shows an answer")
    if game.level is Level.SHAPE:
        return form_of(honest.answer(spot)) == form_of(shown)
    if game.level is Level.BINDING:
        return game.after == recorded if game.value else game.before == honest.state_root(0)
    if game.level is Level.ASSEMBLY:
        try:
            opening = decode(Opening, shown.piece)
            verify_opening(game.values or Digest(b""), opening)
        except Rejected:
            return False
        wanted = (VALUES - 2 + int(game.value), VALUES)
        return (int(opening.index), int(opening.count)) == wanted and opening.raw == shown.raw
    at = int(game.element) % PIECE_ELEMENTS * 8
    number = int.from_bytes(game.raw[at : at + 8], "little")
    if game.level is Level.RESULT:
        return game.whole is not None and game.whole.total == number
    if game.value < 2:
        return number == honest.values[game.step][game.value][game.element]
    first, count = compute_range(TERMS, game.path)
    if count > TERMS_ENOUGH:
        return False
    return game.part == honest.partial(spot, first, count)


def bend_answer(answer: Answer, chance: random.Random) -> Answer:
    """The answer with something in it changed, so that it may still pass."""
    if answer.partials:
        parts = list(answer.partials)
        place = chance.randrange(len(parts))
        shifted = parts[place].total + chance.choice((-1, 1, 1000))
        parts[place] = make_partial(parts[place].left_max + chance.choice((0, 1)), -1, shifted, is_special=False)
        if chance.random() < 0.7 and len(parts) > 2:
            parts[0] = combine_partials(parts[1:])
        return replace(answer, partials=tuple(parts))
    if answer.children:
        children = list(answer.children)
        place = chance.randrange(len(children))
        children[place] = Digest(chance.randbytes(32))
        return replace(answer, children=tuple(children[: chance.choice((len(children), place + 1))]))
    if answer.raw and chance.random() < 0.5:
        return replace(answer, raw=chance.randbytes(len(answer.raw)))
    return chance.choice(
        (answer, Answer(raw=chance.randbytes(32)), Answer(piece=b"else"), Answer(children=(Digest(bytes(32)),)))
    )


def random_choice(chance: random.Random) -> Choice:
    pick = chance.choice((Pick.CHILD, Pick.CHILD, Pick.CHILD, Pick.NOTHING, Pick.SHAPE))
    return Choice(pick, Count(chance.randrange(17) if pick is Pick.CHILD else 0))

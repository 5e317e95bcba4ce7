"""Whoever lies loses: games between honest runs and liars over real models, judged by the referee."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from bench.proof_dispute import play
from milon.base.codec import decode, encode
from milon.base.errors import Rejected
from milon.base.ids import Digest
from milon.base.units import Count
from milon.gpu import dispute_timeline
from milon.gpu.attacks_steps import Tamper, TamperedPlan, flip
from milon.gpu.checkpoint import from_bytes, to_bytes
from milon.gpu.dispute_oracle import Oracle
from milon.gpu.dispute_piece import Piece, count_pieces, read_piece
from milon.gpu.dispute_referee import Referee
from milon.gpu.dispute_shapes import path_to
from milon.gpu.dispute_timeline import Moment, compute_state_tree
from milon.gpu.dispute_trees import build_root_tree
from milon.pol.batches import compute_batch
from milon.pol.claim import commit_trace
from milon.pol.dispute import (
    ANSWER_BYTES_MAX,
    PIECE_INPUTS_MAX,
    Answer,
    Choice,
    Game,
    Level,
    Partial,
    Pick,
    Spot,
    Turn,
    make_partial,
    open_game,
    spot_of,
)
from milon.pol.dispute_tree import PIECE_ELEMENTS
from milon.pol.shapes import DType
from milon.pol.verdict import Verdict
from tests.gpu.dispute_players import (
    SEGMENT,
    Job,
    Random,
    honest_record,
    honest_state,
    job,
    judge,
    lying,
)

STEPS = 3
SAMPLES = {"perceptron": ("matmul", "sum", "where"), "small": ("convolution", "rsqrt"), "gpt": ("scatter_sum", "amax")}


@cache
def honest(name: str) -> Oracle:
    """An honest player of either side; it keeps nothing that a game could spoil."""
    held = job(name, STEPS)
    return Oracle(held.work, held.start, SEGMENT)


def flipped(tensor: Tensor) -> Tensor:
    """The same but for the last bit of the first element."""
    return flip(0)(lambda value: value, (tensor,))


def numbers_of(name: str, operation: str) -> list[int]:
    """The numbers of the values that an operation gives."""
    program = job(name, STEPS).work.plan.program
    base = len(program.inputs) + len(program.constants)
    return [base + place for place, node in enumerate(program.nodes) if node.operation == operation]


def lie_about(name: str, number: int, step: int, chance: random.Random) -> tuple[Game, int]:
    """A game in which one element of a value is wrong, and how many moves it took."""
    found = honest(name)._outline.types[number]
    change = flip(chance.randrange(found.elements), 20 if found.dtype is DType.FLOAT32 else 0)
    played = play(lying(job(name, STEPS), Tamper(step, number, change)), honest(name), STEPS)
    assert played.bytes_max <= ANSWER_BYTES_MAX
    return played.game, played.moves


@pytest.mark.parametrize("name", SAMPLES)
def test_a_tampered_value_is_found(name: str) -> None:
    held, chance, found = job(name, STEPS), random.Random(1), 0
    for operation in SAMPLES[name]:
        number = chance.choice(numbers_of(name, operation))
        step = chance.randrange(STEPS)
        game, moves = lie_about(name, number, step, chance)
        if game.level is Level.BINDING:  # it made no difference to the state
            assert judge(held, game) is Verdict.TRUE
            continue
        assert (game.level, int(game.step), int(game.value)) == (Level.PIECE, step, number), operation
        assert judge(held, game) is Verdict.FALSE and moves < 30
        found += 1
    assert found


def _other_rows(held: Oracle) -> Oracle:
    work = job("perceptron", STEPS).work
    images, classes = work.data.columns
    return Oracle(replace(work, data=replace(work.data, columns=(images, (classes + 1) % 5))), _start(), SEGMENT)


def _start() -> bytes:
    return job("perceptron", STEPS).start


def _other_start(held: Oracle) -> Oracle:
    state = from_bytes(_start())
    state[sorted(state)[-1]] = flipped(state[sorted(state)[-1]])
    return Oracle(job("perceptron", STEPS).work, to_bytes(state), SEGMENT)


class OtherConstant(Oracle):
    """A trainer with another learning rate: a constant of the program."""

    def __init__(self) -> None:
        held = job("perceptron", STEPS)
        program = held.work.plan.program
        place = next(n for n, c in enumerate(program.constants) if c.dtype is DType.FLOAT32 and c.shape == ())
        constants = list(held.work.plan.constants)
        constants[place] = constants[place] * 1.5
        plan = TamperedPlan(held.work.plan, (), 0)
        plan.constants = constants
        super().__init__(replace(held.work, plan=plan), held.start, SEGMENT, plan)


@pytest.mark.parametrize(
    ("make", "level", "role"),
    [
        (_other_rows, Level.PIECE, "batch"),
        (_other_start, Level.BINDING, ""),
        (lambda _: OtherConstant(), Level.PIECE, ""),
    ],
)
def test_other_inputs_are_found(make: Callable[[Oracle], Oracle], level: Level, role: str) -> None:
    held = job("perceptron", STEPS)
    game = play(make(honest("perceptron")), honest("perceptron"), STEPS).game
    assert game.level is level
    inputs = held.work.plan.program.inputs
    if level is Level.PIECE:
        assert int(game.value) < len(inputs) + len(held.work.plan.program.constants)
        assert not role or inputs[int(game.value)].role.value == role
    assert judge(held, game) is Verdict.FALSE


def test_other_draws_are_found() -> None:
    held = job("small", STEPS)
    liar = Oracle(replace(held.work, round=7), held.start, SEGMENT)  # the rows are the same, the draws are not
    game = play(liar, honest("small"), STEPS).game
    assert held.work.plan.program.inputs[int(game.value)].role.value == "draw"
    assert judge(held, game) is Verdict.FALSE


# ---- records that are not what the run gave ----


@pytest.mark.parametrize("field", ["loss_bits", "trace", "state"])
def test_a_record_that_the_run_does_not_give_is_not_bound(field: str) -> None:
    held = job("perceptron", STEPS)
    record, end = honest_record(held), honest_state(held)
    played = play(honest("perceptron"), honest("perceptron"), STEPS)
    game = played.game
    assert (game.level, played.moves) == (Level.BINDING, 2)
    assert judge(held, game, record, end) is Verdict.TRUE
    if field == "state":
        end = to_bytes({name: flipped(tensor) for name, tensor in from_bytes(end).items()})
    elif field == "trace":
        record = replace(record, trace=Digest(bytes(32)))
    else:
        record = replace(record, loss_bits=Count(record.loss_bits + (1 << 32)))
    assert judge(held, game, record, end) is Verdict.FALSE
    assert judge(held, game, record, b"no state") is Verdict.FALSE


# ---- lies further down ----


class Liar(Oracle):
    """A trainer that changes its honest answers on one level."""

    def __init__(self, base: Oracle, level: Level, change: Callable[[Spot, Answer], Answer]) -> None:
        super().__init__(base._runner.work, b"", SEGMENT)
        self.__dict__.update(base.__dict__, _value=None)
        self._level, self._change = level, change

    def answer(self, spot: Spot) -> Answer:
        """See `Oracle`."""
        found = super().answer(spot)
        return self._change(spot, found) if spot.level is self._level else found


def _wrong_sum() -> Oracle:
    """A trainer whose step has one wrong element of a product, with as many terms as there are."""

    def terms(number: int) -> int:
        group = honest("perceptron")._outline.make_group(number)
        return 0 if group is None else group.terms

    number = max(numbers_of("perceptron", "matmul"), key=terms)
    return lying(job("perceptron", STEPS), Tamper(1, number, flip(0, 20)))


def test_a_wrong_element_whose_parts_are_right_is_its_own_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milon.gpu.dispute_oracle.PIECE_INPUTS_MAX", 8)
    game = play(_wrong_sum(), honest("perceptron"), STEPS).game
    assert game.level is Level.RESULT
    assert judge(job("perceptron", STEPS), game) is Verdict.FALSE
    elements = honest("perceptron")._outline.types[int(game.value)]
    way = path_to(int(game.element) // PIECE_ELEMENTS, count_pieces(elements))
    truth = honest("perceptron").answer(replace(spot_of(game), level=Level.ELEMENTS, path=way)).raw
    assert judge(job("perceptron", STEPS), replace(game, raw=truth)) is Verdict.TRUE


def _shift_first(spot: Spot, answer: Answer) -> Answer:
    """Totals that are too large by one in the first part of all, and in all that holds it."""
    if answer.piece or any(spot.path):
        return answer

    def shift(part: Partial) -> Partial:
        return make_partial(part.left_max, part.right_max, part.total + 1, bool(part.special))

    parts = list(answer.partials)
    for place in (0,) if spot.path else (0, 1):
        parts[place] = shift(parts[place])
    return replace(answer, partials=tuple(parts))


def _raise_greatest(spot: Spot, answer: Answer) -> Answer:
    if answer.piece or any(spot.path):
        return answer
    parts = list(answer.partials)
    for place in (0,) if spot.path else (0, 1):
        parts[place] = replace(parts[place], left_max=1 << 30)
    return replace(answer, partials=tuple(parts))


@pytest.mark.parametrize("change", [_shift_first, _raise_greatest])
def test_a_wrong_partial_sum_is_followed_to_its_terms(
    change: Callable[[Spot, Answer], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milon.gpu.dispute_oracle.PIECE_INPUTS_MAX", 8)
    liar = Liar(_wrong_sum(), Level.TERMS, change)
    game = play(liar, honest("perceptron"), STEPS).game
    assert game.level is Level.PIECE and game.part is not None and not any(game.path)
    assert judge(job("perceptron", STEPS), game) is Verdict.FALSE


def _spoil(kind: str) -> Callable[[Spot, Answer], Answer]:
    def change(spot: Spot, answer: Answer) -> Answer:
        piece = read_piece(answer.piece)
        if kind == "nothing":
            return replace(answer, piece=b"\x00")
        if kind == "none shown":
            return replace(answer, piece=encode(Piece((), (), b"")))
        first = piece.values[0]
        if kind == "other numbers":
            raw = bytes([first.pieces[0].raw[0] ^ 1]) + first.pieces[0].raw[1:]
            first = replace(first, pieces=(replace(first.pieces[0], raw=raw), *first.pieces[1:]))
        else:
            first = replace(first, root=replace(first.root, index=Count(first.root.index + 1)))
        return replace(answer, piece=encode(replace(piece, values=(first, *piece.values[1:]))))

    return change


@pytest.mark.parametrize("kind", ["nothing", "none shown", "other numbers", "another value"])
def test_what_is_not_shown_soundly_counts_against_the_trainer(kind: str) -> None:
    number = numbers_of("perceptron", "exp")[0]
    element = honest("perceptron")._outline.types[number].elements - 1
    liar = Liar(lying(job("perceptron", STEPS), Tamper(1, number, flip(element, 20))), Level.TERMS, _spoil(kind))
    game = play(liar, honest("perceptron"), STEPS).game
    assert game.level is Level.PIECE
    assert judge(job("perceptron", STEPS), game) is Verdict.FALSE


# ---- states that the values do not give ----


class OtherLeaf(Oracle):
    """A trainer whose state after step 1 is not what its values make: tensor, trace or loss."""

    def __init__(self, leaf: int) -> None:
        held = job("perceptron", STEPS)
        super().__init__(held.work, held.start, SEGMENT)
        self._leaf = leaf
        advance = self._timeline._advance

        def lie(moment: Moment) -> Moment | None:
            after = advance(moment)
            if after is None or moment.step != 1:
                return after
            names = sorted(after.state)
            if leaf == len(names):
                return replace(after, trace=Digest(b"\x01" * 32))
            if leaf > len(names):
                return replace(after, loss=Digest(b"\x01" * 32))
            changed = {**after.state, names[leaf]: flipped(after.state[names[leaf]])}
            return replace(after, state=changed)

        self._timeline._advance = lie  # type: ignore[method-assign]  # a liar

    def answer(self, spot: Spot) -> Answer:
        """Opens its own root; everything else is honest."""
        if spot.level is Level.ASSEMBLY:
            view = self._view(1)
            after = self._timeline.reach(2)
            tree = compute_state_tree(after.state, commit_trace(after.trace), after.loss)
            self._step = replace(view, after=tree)
        return super().answer(spot)


def test_a_state_that_its_values_do_not_make_is_found() -> None:
    held = job("perceptron", STEPS)
    tensors = len(held.work.layout)
    for leaf in (3, tensors, tensors + 1):
        game = play(OtherLeaf(leaf), honest("perceptron"), STEPS).game
        assert (game.level, int(game.value)) == (Level.ASSEMBLY, leaf)
        assert judge(held, game) is Verdict.FALSE
        truth = honest("perceptron").answer(replace(spot_of(game), level=Level.ASSEMBLY))
        assert judge(held, replace(game, shown=truth)) is Verdict.TRUE


def test_a_state_that_is_not_finite_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    held = job("perceptron", STEPS)
    name = sorted(held.work.layout)[0]
    number = honest("perceptron")._outline.new_state[name]
    liar = lying(held, Tamper(1, number, lambda honest, operands: honest(*operands).clone().fill_(torch.inf)))
    finite = dispute_timeline.is_finite
    game = play_against_divergence(liar, honest("perceptron"), monkeypatch, finite)
    assert (int(game.step), int(game.value)) == (1, number)
    assert judge(held, game) is Verdict.FALSE


def play_against_divergence(
    liar: Oracle, challenger: Oracle, monkeypatch: pytest.MonkeyPatch, finite: Callable[..., bool]
) -> Game:
    """A game whose trainer goes on from any state."""
    answer = liar.answer

    def shameless(spot: Spot) -> Answer:
        monkeypatch.setattr(dispute_timeline, "is_finite", lambda state: True)
        try:
            return answer(spot)
        finally:
            monkeypatch.setattr(dispute_timeline, "is_finite", finite)

    monkeypatch.setattr(liar, "answer", shameless)
    return play(liar, challenger, STEPS).game


def clamped(name: str, number: int) -> Tamper:
    """In step 1 a gather or scatter takes indices out of range for the nearest ones in it."""
    outline = honest(name)._outline
    node = outline.program.nodes[number - outline.first_node]
    is_gather = node.operation == "gather"
    shape = outline.types[node.operands[0]].shape if is_gather else outline.types[number].shape
    last = shape[node.attributes[0][0]] - 1
    return Tamper(1, number, lambda kernel, operands: kernel(operands[0], operands[1].clamp(0, last)))


def test_an_index_out_of_range_is_found() -> None:
    """A row names a token that there is none of: nobody can train on it, and whoever says so is a liar."""
    held = job("gpt", STEPS)
    rows = replace(held.work.data, columns=tuple(column.clone() for column in held.work.data.columns))
    work = replace(held.work, data=rows)
    batch = compute_batch(work.seed, SEGMENT * STEPS + 1, work.batch_size, rows.rows)
    rows.columns[0][batch[3], 2] = 1000
    numbers = [*numbers_of("gpt", "gather"), *numbers_of("gpt", "scatter_sum")]
    liar = lying(Job(work, held.start), *(clamped("gpt", number) for number in numbers))
    challenger = Oracle(work, held.start, SEGMENT)
    game = play(liar, challenger, STEPS).game
    assert (game.level, int(game.step)) == (Level.PIECE, 1) and game.value in numbers
    assert Referee(work, SEGMENT).judge(game, honest_record(held), lambda _: b"") is Verdict.FALSE
    with pytest.raises(Rejected):
        challenger.answer(spot_of(open_game(STEPS)))


# ---- challengers that lie ----


@pytest.mark.parametrize(("name", "inputs"), [("perceptron", 8), ("small", 8), ("gpt", PIECE_INPUTS_MAX)])
def test_an_honest_trainer_never_loses(name: str, inputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pieces of few inputs, games go on over sums that a test's small models would show at once."""
    monkeypatch.setattr("milon.gpu.dispute_oracle.PIECE_INPUTS_MAX", inputs)
    held = job(name, STEPS)
    record, end = honest_record(held), honest_state(held)
    levels = set()
    for seed in range(8):
        game = play(honest(name), Random(seed), STEPS).game
        assert judge(held, game, record, end) is Verdict.TRUE, (seed, game.level)
        levels.add(game.level)
    assert Level.PIECE in levels


def test_a_challenger_that_asks_for_another_form_loses() -> None:
    held = job("perceptron", STEPS)
    game = play(honest("perceptron"), honest("perceptron"), STEPS).game
    assert game.shown is not None
    shaped = replace(game, level=Level.SHAPE, turn=Turn.REFEREES)
    assert judge(held, shaped) is Verdict.TRUE
    spot = Spot(Level.VALUES, Count(0), Count(1), (), Count(0), Count(0))
    answer = honest("perceptron").answer(spot)
    for shown, verdict in ((answer, Verdict.TRUE), (Answer(children=answer.children[:-1]), Verdict.FALSE)):
        assert judge(held, replace(shaped, shown_at=spot, shown=shown)) is verdict


def test_a_tree_of_another_shape_is_named() -> None:
    """A trainer with one value too many: the challenger says so, and the referees see it."""
    held = job("perceptron", STEPS)
    liar = Oracle(replace(held.work, seed=Digest(b"\x09" * 32)), held.start, SEGMENT)
    view = liar._view(1)
    roots = [view.values.read(place) for place in range(len(view.values.levels[0]))]
    game = play(liar, Shaped(), STEPS).game
    tree = build_root_tree(roots * 20)
    shown = Answer(children=tuple(tree.levels[-2]))
    wrong = replace(game, level=Level.VALUES, turn=Turn.CHALLENGER, path=(), step=Count(1), steps=Count(1), shown=shown)
    assert honest("perceptron").choose(wrong) == Choice(Pick.SHAPE)
    assert judge(held, replace(wrong, level=Level.SHAPE, shown_at=spot_of(wrong))) is Verdict.FALSE
    assert decode(Game, encode(wrong)) == wrong


def test_a_referee_bears_whatever_a_game_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A liar's game, changed at random in what a side has freely chosen, is judged one way or the other."""
    monkeypatch.setattr("milon.gpu.dispute_oracle.PIECE_INPUTS_MAX", 4)
    held, chance = job("perceptron", STEPS), random.Random(3)
    liar = Liar(_wrong_sum(), Level.TERMS, _shift_first)
    game = play(liar, honest("perceptron"), STEPS).game
    assert game.whole is not None and game.part is not None and game.shown is not None
    verdicts = set()
    for _ in range(100):
        raw = bytearray(game.shown.piece)
        for _ in range(chance.choice((0, 0, 1, 3))):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        odd = chance.choice((-(1 << 63), -1, 0, 1, 0x7F800000, 0x7FC00000, (1 << 63) - 1))
        wholes = (game.whole, None, replace(game.whole, left_max=odd), replace(game.whole, right_max=odd))
        changed = replace(
            game,
            level=chance.choice((Level.PIECE, Level.RESULT, Level.ASSEMBLY, Level.SHAPE)),
            value=Count(chance.choice((game.value, chance.randrange(300), 1 << 40))),
            element=Count(chance.choice((game.element, chance.randrange(99), 1 << 40))),
            path=chance.choice((game.path, (), (0,), (15, 15), (7,) * 9)),
            raw=chance.choice((game.raw, b"", game.raw[:3], bytes(512))),
            whole=chance.choice(wholes),
            part=chance.choice((game.part, None, replace(game.part, left_max=odd))),
            values=chance.choice((game.values, None)),
            shown=replace(game.shown, piece=bytes(raw), raw=chance.choice((b"", bytes(32)))),
        )
        verdicts.add(judge(held, changed))
    assert Verdict.FALSE in verdicts


class Shaped(Random):
    """A challenger that ends the game with its first word."""

    def __init__(self) -> None:
        super().__init__(0)

    def choose(self, game: Game) -> Choice:
        """See `Random`."""
        return Choice(Pick.SHAPE)

"""Whoever lies loses: games between honest runs and liars over real models, judged by the referee."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bench.proof_dispute import play
from milon.base.codec import encode
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
from milon.pol.batches import compute_batch
from milon.pol.claim import commit_trace
from milon.pol.dispute import (
    ANSWER_BYTES_MAX,
    Answer,
    Game,
    Level,
    Spot,
    open_game,
    spot_of,
)
from milon.pol.dispute_tree import PIECE_ELEMENTS
from milon.pol.shapes import DType
from milon.pol.verdict import Verdict
from tests.gpu.dispute_players import (
    SEGMENT,
    STEPS,
    Job,
    Liar,
    honest,
    honest_record,
    honest_state,
    job,
    judge,
    lying,
    numbers_of,
    shift_first,
    wrong_sum,
)

SAMPLES = {"perceptron": ("matmul", "sum", "where"), "small": ("convolution", "rsqrt"), "gpt": ("scatter_sum", "amax")}


def flipped(tensor: Tensor) -> Tensor:
    """The same but for the last bit of the first element."""
    return flip(0)(lambda value: value, (tensor,))


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


def test_a_wrong_element_whose_parts_are_right_is_its_own_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milon.gpu.dispute_oracle.PIECE_INPUTS_MAX", 8)
    game = play(wrong_sum(), honest("perceptron"), STEPS).game
    assert game.level is Level.RESULT
    assert judge(job("perceptron", STEPS), game) is Verdict.FALSE
    elements = honest("perceptron")._outline.types[int(game.value)]
    way = path_to(int(game.element) // PIECE_ELEMENTS, count_pieces(elements))
    truth = honest("perceptron").answer(replace(spot_of(game), level=Level.ELEMENTS, path=way)).raw
    assert judge(job("perceptron", STEPS), replace(game, raw=truth)) is Verdict.TRUE


def _raise_greatest(spot: Spot, answer: Answer) -> Answer:
    if answer.piece or any(spot.path):
        return answer
    parts = list(answer.partials)
    for place in (0,) if spot.path else (0, 1):
        parts[place] = replace(parts[place], left_max=1 << 30)
    return replace(answer, partials=tuple(parts))


@pytest.mark.parametrize("change", [shift_first, _raise_greatest])
def test_a_wrong_partial_sum_is_followed_to_its_terms(
    change: Callable[[Spot, Answer], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milon.gpu.dispute_oracle.PIECE_INPUTS_MAX", 8)
    liar = Liar(wrong_sum(), Level.TERMS, change)
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

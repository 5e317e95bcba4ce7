"""Challengers that lie against an honest trainer lose, and a referee bears whatever a game holds."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from bench.proof_dispute import play
from milon.base.codec import decode, encode
from milon.base.ids import Digest
from milon.base.units import Count
from milon.gpu.dispute_oracle import Oracle
from milon.gpu.dispute_trees import build_root_tree
from milon.pol.dispute import PIECE_INPUTS_MAX, Answer, Choice, Game, Level, Pick, Spot, Turn, spot_of
from milon.pol.verdict import Verdict
from tests.gpu.dispute_players import (
    SEGMENT,
    STEPS,
    Liar,
    Random,
    Shaped,
    honest,
    honest_record,
    honest_state,
    job,
    judge,
    shift_first,
    wrong_sum,
)


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
    liar = Liar(wrong_sum(), Level.TERMS, shift_first)
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

"""The game of a dispute: whoever is honest wins it, whatever the other does, and it ends."""

from __future__ import annotations

import random

import pytest

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.base.units import Count
from milon.pol.dispute import (
    MOVES_MAX,
    Answer,
    Choice,
    Game,
    Level,
    Partial,
    Pick,
    Turn,
    advance,
    combine_partials,
    compute_parts,
    compute_range,
    make_partial,
    open_game,
    spot_of,
)
from milon.pol.dispute_tree import compute_node_digest
from tests.pol.dispute_toy import ELEMENTS, VALUES, Run, bend_answer, judge, random_choice

STEPS = 18
HONEST = Run(STEPS)


def play(trainer: Run, challenger: Run, referee: Run = HONEST) -> tuple[bool, Game]:
    """Both sides by their own runs, then the referees: whether the trainer wins, and the game at its end."""
    game = open_game(trainer.steps)
    shown = Answer()
    while game.turn is not Turn.REFEREES:
        if game.turn is Turn.TRAINER:
            shown = trainer.answer(spot_of(game))
            game = advance(game, shown)
        else:
            choice = challenger.choose(spot_of(game), shown)
            game = advance(game, choice)
        assert decode(Game, encode(game)) == game
    assert game.moves <= MOVES_MAX
    return judge(referee, trainer.state_root(trainer.steps), game), game


LIES = {
    "an element of a sum": (Run(STEPS, tamper={(7, 9, 100): 1}), Level.PIECE),
    "the last element of the last value": (Run(STEPS, tamper={(STEPS - 1, VALUES - 1, ELEMENTS - 1): 5}), Level.PIECE),
    "an input that is not the state": (Run(STEPS, tamper={(11, 1, 64): 2}), Level.PIECE),
    "a state that is not what was computed": (Run(STEPS, bend={(15, 1, 3): 1}), Level.ASSEMBLY),
    "another start": (Run(STEPS, bend={(0, 0, 0): 1}), Level.BINDING),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_found_where_it_is(name: str) -> None:
    liar, level = LIES[name]
    is_true, game = play(liar, HONEST)
    assert not is_true
    # A sum that does not give its element ends at the sum; the terms themselves were true.
    assert game.level in (level, Level.RESULT)
    for step, value, element in liar.tamper:
        assert (game.step, game.value, game.element) == (step, value, element)


@pytest.mark.parametrize("name", LIES)
def test_a_lying_challenger_loses(name: str) -> None:
    liar, _ = LIES[name]
    is_true, _ = play(HONEST, liar)
    assert is_true


def test_a_record_of_another_state_than_the_last_is_found() -> None:
    game = advance(open_game(STEPS), HONEST.answer(spot_of(open_game(STEPS))))
    game = advance(game, Choice(Pick.NOTHING))
    assert (game.level, game.value) == (Level.BINDING, 1)
    assert not judge(HONEST, Run(STEPS, bend={(STEPS, 0, 0): 1}).state_root(STEPS), game)
    assert judge(HONEST, HONEST.state_root(STEPS), game)


@pytest.mark.parametrize("seed", range(12))
def test_an_honest_trainer_wins_whatever_is_chosen(seed: int) -> None:
    chance = random.Random(seed)
    game = open_game(STEPS)
    while game.turn is not Turn.REFEREES:
        if game.turn is Turn.TRAINER:
            game = advance(game, HONEST.answer(spot_of(game)))  # never refused
            continue
        try:
            game = advance(game, random_choice(chance) if chance.random() < 0.6 else Choice(Pick.CHILD, Count(0)))
        except Rejected:
            continue
    assert game.moves <= MOVES_MAX
    assert judge(HONEST, HONEST.state_root(STEPS), game)


@pytest.mark.parametrize("seed", range(12))
def test_an_honest_challenger_wins_whatever_is_answered(seed: int) -> None:
    chance = random.Random(1_000 + seed)
    liar = Run(STEPS, tamper={(chance.randrange(STEPS), chance.randrange(2, VALUES), chance.randrange(ELEMENTS)): 1})
    game, shown, refused = open_game(STEPS), Answer(), 0
    while game.turn is not Turn.REFEREES and refused < 50:  # fifty refusals stand for a clock that runs out
        if game.turn is Turn.CHALLENGER:
            game = advance(game, HONEST.choose(spot_of(game), shown))  # never refused
            continue
        answer = liar.answer(spot_of(game))
        if chance.random() < 0.3 or refused:
            answer = bend_answer(answer, chance)
        try:
            game = advance(game, answer)
            shown = answer
        except Rejected:
            refused += 1
    assert game.moves <= MOVES_MAX
    if game.turn is Turn.REFEREES:
        assert not judge(HONEST, liar.state_root(STEPS), game)


@pytest.mark.parametrize("count", (1, 2, 15, 16, 17, 31, 64, 1000, 10_000))
def test_parts_make_up_the_whole(count: int) -> None:
    parts = compute_parts(count)
    assert [place for first, length in parts for place in range(first, first + length)] == list(range(count))
    lengths = [length for _, length in parts]
    assert max(lengths) - min(lengths) <= 1
    assert len(parts) == min(16, count)
    assert compute_range(count, (len(parts) - 1,)) == parts[-1]


def test_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(Rejected):
        compute_range(5, (5,))


def test_partials_combine_as_sums_do() -> None:
    left, right = make_partial(5, 7, 1 << 76, is_special=False), make_partial(9, 2, -1, is_special=False)
    assert combine_partials((left, right)) == make_partial(9, 7, (1 << 76) - 1, is_special=False)
    special = make_partial(-1, -1, 0, is_special=True)
    assert combine_partials((left, special)) == make_partial(5, 7, 0, is_special=True)


def game_at_terms() -> Game:
    game, liar = open_game(STEPS), Run(STEPS, tamper={(7, 9, 100): 1})
    shown = Answer()
    while game.level is not Level.TERMS:
        if game.turn is Turn.TRAINER:
            shown = liar.answer(spot_of(game))
            game = advance(game, shown)
        else:
            game = advance(game, HONEST.choose(spot_of(game), shown))
    return game


ONE = make_partial(1, -1, 1, is_special=False)
UNSOUND = (
    Partial(-2, -1, bytes(16), Count(0)),
    Partial(1, -1, bytes(15), Count(0)),
    Partial(1, -1, b"\x7f" + bytes(15), Count(0)),
    Partial(1, -1, bytes(16), Count(2)),
    Partial(1, -1, bytes(15) + b"\x01", Count(1)),
)


@pytest.mark.parametrize("place", range(len(UNSOUND)))
def test_an_unsound_partial_is_refused(place: int) -> None:
    with pytest.raises(Rejected):
        advance(game_at_terms(), Answer(partials=(UNSOUND[place], UNSOUND[place], UNSOUND[place])))


def test_parts_that_miss_their_whole_are_refused() -> None:
    with pytest.raises(Rejected) as refused:
        advance(game_at_terms(), Answer(partials=(ONE, ONE, ONE)))
    assert refused.value.reason is Reason.DIFFERS
    with pytest.raises(Rejected):
        advance(game_at_terms(), Answer(partials=(ONE, ONE)))


def test_moves_out_of_turn_and_out_of_size_are_refused() -> None:
    game = open_game(STEPS)
    with pytest.raises(Rejected) as refused:
        advance(game, Choice(Pick.CHILD))
    assert refused.value.reason is Reason.NOT_NOW
    with pytest.raises(Rejected) as refused:
        advance(game, Answer(piece=bytes(10_000)))
    assert refused.value.reason is Reason.TOO_LARGE
    with pytest.raises(Rejected):
        advance(game, Answer(children=(Digest(bytes(32)),)))
    answered = advance(game, HONEST.answer(spot_of(game)))
    with pytest.raises(Rejected):
        advance(answered, HONEST.answer(spot_of(game)))
    with pytest.raises(Rejected):
        advance(answered, Choice(Pick.CHILD, Count(17)))
    with pytest.raises(Rejected):
        advance(answered, Choice(Pick.NOTHING, Count(1)))


def test_the_last_state_root_stays_what_it_was() -> None:
    game = advance(open_game(STEPS), HONEST.answer(spot_of(open_game(STEPS))))
    game = advance(game, Choice(Pick.CHILD, Count(1)))
    forged = [Digest(bytes(32))] * len(compute_parts(int(game.steps)))
    with pytest.raises(Rejected) as refused:
        advance(game, Answer(children=tuple(forged)))
    assert refused.value.reason is Reason.DIFFERS


def test_trees_without_end_are_refused() -> None:
    """A trainer that opens nodes for ever is stopped at the depth that the largest program could have."""
    nodes = [Digest(bytes(32))]
    for _ in range(7):
        nodes.append(compute_node_digest([nodes[-1]]))
    game = advance(open_game(1), Answer(children=(nodes[0], nodes[1])))
    game = advance(game, Choice(Pick.CHILD, Count(1)))
    depth = 0
    with pytest.raises(Rejected) as refused:
        for below in reversed(nodes[:-1]):
            game = advance(game, Answer(children=(below,)))
            game = advance(game, Choice(Pick.CHILD, Count(0)))
            depth += 1
    assert refused.value.reason is Reason.OUT_OF_RANGE
    assert depth == 5

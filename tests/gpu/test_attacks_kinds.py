"""Every kind by name: how many finals, which strength, what a node of a test network may be."""

from __future__ import annotations

import pytest
import torch

from milon.base.errors import Reason, Rejected
from milon.gpu.attacks_kinds import ATTACKS, KINDS, Scene, apply_attack, guess_finals, make_finals, parse_attack

State = dict[str, torch.Tensor]


def make_scene(judge: bool = True) -> Scene:
    base = {"model.a": torch.zeros(4), "model.n": torch.tensor(0)}
    finals: list[State] = [{"model.a": torch.tensor([1.0, 2.0, 3.0, k]), "model.n": torch.tensor(1)} for k in range(6)]
    if judge:
        return Scene(base, finals[:2], finals[2:], 7, lambda state: int(state["model.a"][3].item() * 1000))
    return Scene(base, finals[:2], finals[2:], 7)


@pytest.mark.parametrize("name", ATTACKS)
def test_each_kind_gives_every_attacker_a_final_and_changes_nothing(name: str) -> None:
    scene = make_scene()
    before = [state["model.a"].clone() for state in (scene.round_state, *scene.own, *scene.honest)]
    made = make_finals(name, scene)
    again = make_finals(name, scene)
    assert len(made) == 2
    for one, other in zip(made, again, strict=True):
        assert sorted(one) == ["model.a", "model.n"] and one["model.a"].dtype is torch.float32
        assert one["model.a"].view(torch.int32).equal(other["model.a"].view(torch.int32))
    after = [state["model.a"] for state in (scene.round_state, *scene.own, *scene.honest)]
    assert all(one.equal(other) for one, other in zip(before, after, strict=True))
    if name not in ("label-flip", "copy", "mimic", "duplicate"):
        assert not any(made[0]["model.a"].equal(state["model.a"]) for state in (*scene.own, *scene.honest))


def test_strength_is_read_from_the_name() -> None:
    assert parse_attack("sign-flip") == (ATTACKS["sign-flip"], 10.0)
    assert parse_attack("sign-flip:1.5")[1] == 1.5
    scene = make_scene()
    assert make_finals("sign-flip:2", scene)[1]["model.a"].tolist() == [-2.0, -4.0, -6.0, -2.0]
    assert make_finals("zero", scene)[0]["model.a"].tolist() == [0.0] * 4
    assert make_finals("copy", scene)[1]["model.a"].equal(scene.honest[1]["model.a"])
    for text, reason in (
        ("polite", Reason.UNKNOWN),
        ("alie:much", Reason.MALFORMED),
        ("ipm:inf", Reason.OUT_OF_RANGE),
        ("ipm:nan", Reason.OUT_OF_RANGE),
    ):
        with pytest.raises(Rejected) as refusal:
            parse_attack(text)
        assert refusal.value.reason is reason


def test_what_needs_the_rule_says_so() -> None:
    for name in ("alie-optimised", "ipm-optimised"):
        with pytest.raises(Rejected) as refusal:
            make_finals(name, make_scene(judge=False))
        assert refusal.value.reason is Reason.UNSUPPORTED
        with pytest.raises(Rejected) as refusal:
            apply_attack(name, *make_scene().own, 1)
        assert refusal.value.reason is Reason.UNSUPPORTED
    with pytest.raises(Rejected) as refusal:
        apply_attack("polite", *make_scene().own, 1)
    assert refusal.value.reason is Reason.UNKNOWN
    assert tuple(ATTACKS) == KINDS


def test_an_attacker_guesses_the_others_from_its_own_segments() -> None:
    states: list[State] = [
        {"model.a": torch.tensor([float(value)]), "model.n": torch.tensor(value)} for value in (1, 2, 4)
    ]
    guesses = guess_finals(states, 5)
    assert [guess["model.a"].item() for guess in guesses] == [6.0, 11.0]
    claimed = apply_attack("ipm", states[0], states[2], 1, guesses)
    assert claimed["model.a"].item() == pytest.approx(1.0 - 0.1 * 7.5)
    assert apply_attack("min-max", states[0], states[2], 1)["model.a"].item() == pytest.approx(4.0)

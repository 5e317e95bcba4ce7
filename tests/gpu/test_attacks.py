"""Hostile updates against the screen and the rules, on simulated rounds and on a real model."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from sklearn.datasets import load_digits

from milon.base.errors import Reason, Rejected
from milon.gpu.aggregate import aggregate_round
from milon.gpu.attacks import bell_curve, gaussian, not_a_number, scale, sign_flip, stand_still
from milon.gpu.attacks_crowd import Crowd, inner_product, little_is_enough
from milon.gpu.attacks_kinds import KINDS, apply_attack
from milon.pol.aggregation import Rule

torch.set_num_threads(1)
State = dict[str, torch.Tensor]
Final = tuple[bytes, int, State]
LOUD = ("sign-flip", "scaled", "infinity", "noise")  # kinds that the screen tells from honest work
STEPS = (40, 160, 80, 120, 60, 100, 140)


def account(index: int) -> bytes:
    return bytes([index]) * 32


def simulate(seed: int, count: int, signal_size: float) -> tuple[State, list[Final]]:
    """Per step a common signal, and noise that averages out; at 100 steps its size is 1."""
    base = {"model.a": torch.zeros(1000)}
    signal = bell_curve(seed, 0, 1000) * signal_size
    finals = []
    for index in range(count):
        steps = STEPS[(index + seed) % len(STEPS)]
        update = signal + bell_curve(seed, 1 + index, 1000) * 10 / steps**0.5
        finals.append((account(index), steps, {"model.a": update * steps}))
    return base, finals


def refused(base: State, finals: list[Final], rule: Rule, faulty_count: int) -> list[int]:
    _, report = aggregate_round(base, finals, rule, faulty_count, {})
    return [refusal.trainer[0] for refusal in report.refused]


@pytest.mark.parametrize(("count", "faulty_count"), [(3, 1), (4, 1), (5, 1), (5, 2), (7, 2)])
@pytest.mark.parametrize("signal_size", [0.0, 1.0, 5.0])
def test_honest_updates_pass_the_screen(count: int, faulty_count: int, signal_size: float) -> None:
    for seed in range(5):
        base, finals = simulate(seed, count, signal_size)
        assert refused(base, finals, Rule.TRIMMED_MEAN, faulty_count) == []


@pytest.mark.parametrize(("count", "faulty_count"), [(3, 1), (4, 1), (5, 1), (7, 2)])
@pytest.mark.parametrize("factor", [-1.0, -3.0, 10.0])
def test_attackers_and_nobody_else_are_refused(count: int, faulty_count: int, factor: float) -> None:
    for seed in range(5):
        base, finals = simulate(seed, count, 2.0)
        for index in range(faulty_count):
            finals[index] = (account(index), finals[index][1], scale(base, finals[index][2], factor))
        assert refused(base, finals, Rule.TRIMMED_MEAN, faulty_count) == list(range(faulty_count))


def model_state(model: torch.nn.Module) -> State:
    return {f"model.{name}": tensor.clone() for name, tensor in model.state_dict().items()}


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    rows, labels = load_digits(return_X_y=True)
    return torch.tensor(rows, dtype=torch.float32) / 16, torch.tensor(labels)


def train(model: torch.nn.Module, steps: int, seed: int) -> State:
    inputs, targets = digits()
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(0, len(inputs), (32,), generator=generator)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs[chosen]), targets[chosen]).backward()
        optimizer.step()
    return model_state(model)


@pytest.mark.parametrize("kind", LOUD)
def test_a_real_model_learns_beside_each_adversary(kind: str) -> None:
    """Two rounds of five trainers with unequal steps on the digits, the first of them hostile."""
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    for round_number in range(2):
        base = model_state(model)
        finals = [(account(i), STEPS[i], train(model, STEPS[i], 10 * round_number + i)) for i in range(5)]
        finals[0] = (account(0), STEPS[0], apply_attack(kind, base, finals[0][2], round_number))
        new, report = aggregate_round(base, finals, Rule.TRIMMED_MEAN, 1, {})
        assert [refusal.trainer[0] for refusal in report.refused] == [0]
        model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in new.items()})
    inputs, targets = digits()
    assert (model(inputs).argmax(dim=1) == targets).float().mean() > 0.85


@pytest.mark.parametrize("rule", [Rule.TRIMMED_MEAN, Rule.MEDIAN, Rule.MULTI_KRUM])
def test_hidden_attackers_stay_within_the_honest_range(rule: Rule) -> None:
    """What no distance shows may pass the screen; the result then stays near the honest mean all the same."""
    base, finals = simulate(1, 7, 5.0)
    finals = [(who, 100, state) for who, _, state in finals]
    honest = [state for _, _, state in finals[2:]]
    mean = torch.stack([state["model.a"] for state in honest]).mean(dim=0)
    crowd = Crowd(base, honest)
    for bad in (little_is_enough(crowd, 1.0), inner_product(crowd, 0.1), dict(honest[0])):
        hostile = [(account(index), 100, bad) for index in range(2)]
        new, _ = aggregate_round(base, hostile + finals[2:], rule, 2, {})
        assert (new["model.a"] - mean).norm() < 0.35 * mean.norm()


def test_attacks_do_what_they_say_and_change_nothing() -> None:
    base = {"model.a": torch.tensor([1.0, 2.0]), "model.n": torch.tensor(3)}
    final = {"model.a": torch.tensor([2.0, 4.0]), "model.n": torch.tensor(4)}
    assert scale(base, final, 10.0)["model.a"].tolist() == [11.0, 22.0]
    assert sign_flip(base, final, 3.0)["model.a"].tolist() == [-2.0, -4.0]
    assert not_a_number(final)["model.a"].isnan().tolist() == [True, False]
    assert not_a_number(final, float("inf"))["model.a"].tolist() == [float("inf"), 4.0]
    assert stand_still(base, final)["model.a"].tolist() == [1.0, 2.0]
    assert gaussian(base, final, 7, 1.0)["model.a"].equal(gaussian(base, final, 7, 1.0)["model.a"])
    assert not gaussian(base, final, 7, 1.0)["model.a"].equal(gaussian(base, final, 8, 1.0)["model.a"])
    assert final["model.a"].tolist() == [2.0, 4.0]
    for kind in KINDS:
        assert apply_attack(kind, base, final, 1, judge=lambda state: 0)["model.n"].item() == 4
    with pytest.raises(Rejected) as refusal:
        apply_attack("unheard-of", base, final, 1)
    assert refusal.value.reason is Reason.UNKNOWN


def test_the_bell_curve_is_one_and_frozen() -> None:
    numbers = bell_curve(1, 0, 100_000)
    assert abs(numbers.mean().item()) < 0.01
    assert abs(numbers.std().item() - 1.0) < 0.01
    assert abs((numbers[1:] * numbers[:-1]).mean().item()) < 0.01
    assert not numbers[:10].equal(bell_curve(1, 1, 10))

"""Attacks made from the honest updates: what each promises, in numbers, and that nothing else comes out anywhere."""

from __future__ import annotations

from hashlib import sha256
from itertools import combinations

import pytest
import torch

from milon.base.errors import Reason, Rejected
from milon.gpu.aggregate import aggregate_round
from milon.gpu.attacks import bell_curve
from milon.gpu.attacks_crowd import (
    DEVIATION_FACTORS,
    INNER_FACTORS,
    Crowd,
    choose_mimicked,
    compute_hidden_deviations,
    compute_squared_distance,
    inner_product,
    inner_product_optimised,
    little_is_enough,
    little_is_enough_optimised,
    min_max,
    min_sum,
)
from milon.pol.pipeline import Rule

State = dict[str, torch.Tensor]


def make_honest(seed: int, count: int = 6, size: int = 200, noise: float = 1.0) -> tuple[State, list[State]]:
    """A round's state of two tensors and a counter, and finals a common step and some noise away from it."""
    base = {"model.a": bell_curve(seed, 0, size), "model.b": bell_curve(seed, 1, 7), "model.n": torch.tensor(3)}
    step = {"model.a": bell_curve(seed, 2, size) / 4, "model.b": bell_curve(seed, 3, 7) / 4}
    finals = []
    for index in range(count):
        final: State = {"model.n": torch.tensor(4 + index)}
        for place, name in enumerate(("model.a", "model.b")):
            drawn = bell_curve(seed, 10 * (index + 1) + place, len(base[name]))
            final[name] = base[name] + step[name] + drawn * noise / 8
        finals.append(final)
    return base, finals


def flat(base: State, state: State) -> torch.Tensor:
    return torch.cat([(state[name].double() - base[name].double()) for name in ("model.a", "model.b")])


@pytest.mark.parametrize("seed", range(4))
def test_min_max_and_min_sum_go_as_far_as_their_bound(seed: int) -> None:
    base, finals = make_honest(seed, noise=0.2 + seed)
    rows = [flat(base, final) for final in finals]
    crowd = Crowd(base, finals)
    widest = max(float((one - other).norm()) for one, other in combinations(rows, 2))
    reached = max(float((flat(base, min_max(crowd)) - row).norm()) for row in rows)
    assert reached == pytest.approx(widest, rel=1e-4)
    most = max(sum(float((one - other).square().sum()) for other in rows) for one in rows)
    total = sum(float((flat(base, min_sum(crowd)) - row).square().sum()) for row in rows)
    assert total == pytest.approx(most, rel=1e-4)


def test_hidden_updates_are_where_their_papers_put_them() -> None:
    base, finals = make_honest(3)
    stacked = torch.stack([flat(base, final) for final in finals])
    crowd, mean = Crowd(base, finals), stacked.mean(dim=0)
    shifted = mean - 1.5 * stacked.std(dim=0, correction=0)
    assert torch.allclose(flat(base, little_is_enough(crowd, 1.5)), shifted, atol=1e-6)
    assert torch.allclose(flat(base, inner_product(crowd, 0.5)), -0.5 * mean, atol=1e-6)
    assert little_is_enough(crowd, 1.0)["model.n"].item() == 4  # counters are the first honest trainer's


def test_the_deviations_of_the_paper() -> None:
    assert compute_hidden_deviations(50, 24) == pytest.approx(1.4261, abs=1e-3)  # s = 2: the quantile of 24 / 26
    assert compute_hidden_deviations(13, 3) == pytest.approx(0.2533, abs=1e-3)  # s = 4: of 6 / 10
    assert compute_hidden_deviations(10, 1) == 0.0  # too few attackers to outbid anybody
    assert compute_hidden_deviations(10, 6) == 4.0  # a majority of them hides wherever it likes


def test_the_optimised_forms_do_most_harm_of_all_they_try() -> None:
    base, finals = make_honest(5)
    crowd = Crowd(base, finals)
    target = crowd.make_final(crowd.compute_mean())

    def judge(final: State) -> int:
        everybody = [(bytes([place]), 1, state) for place, state in enumerate([final, final, *finals])]
        return compute_squared_distance(aggregate_round(base, everybody, Rule.TRIMMED_MEAN, 2, {})[0], target)

    best = judge(little_is_enough_optimised(crowd, judge))
    assert best == max(judge(little_is_enough(crowd, z)) for z in DEVIATION_FACTORS)
    best = judge(inner_product_optimised(crowd, judge))
    assert best == max(judge(inner_product(crowd, f)) for f in INNER_FACTORS)


def test_the_mimicked_trainer_is_the_one_that_stands_out() -> None:
    base, finals = make_honest(7, noise=0.1)
    finals[4]["model.a"] = finals[4]["model.a"] + 1.0
    assert choose_mimicked(Crowd(base, finals)) == 4
    assert choose_mimicked(Crowd(base, finals[:1])) == 0


def test_no_thread_changes_a_bit_and_no_input_is_changed() -> None:
    base, finals = make_honest(2, size=50_000)
    before = [{name: tensor.clone() for name, tensor in final.items()} for final in finals]
    found = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            crowd = Crowd(base, finals)
            made = (min_max(crowd), min_sum(crowd), little_is_enough(crowd, 1.0), inner_product(crowd, 1.0))
            found.append([state["model.a"].view(torch.int32) for state in made])
    finally:
        torch.set_num_threads(threads)
    assert all(one.equal(other) for one, other in zip(*found, strict=True))
    for final, kept in zip(finals, before, strict=True):
        assert all(final[name].equal(kept[name]) for name in kept)


def test_the_bits_are_frozen() -> None:
    """A changed digest means that tables made before and after do not compare."""
    base, finals = make_honest(11)
    crowd = Crowd(base, finals)
    made = (min_max(crowd), min_sum(crowd), little_is_enough(crowd, 1.0), inner_product(crowd, 0.5))
    raw = b"".join(state[name].numpy().tobytes() for state in made for name in ("model.a", "model.b"))
    assert sha256(raw).hexdigest() == "7444fccc79720806d5b4c3c2c489c7910c7d6205a7e0a214aa42721c5bf0a3a2"


def test_equal_updates_leave_no_room_to_hide() -> None:
    base, finals = make_honest(1, count=1)
    crowd = Crowd(base, finals * 3)
    for made in (min_max(crowd), min_sum(crowd), little_is_enough(crowd, 3.0)):
        assert torch.allclose(made["model.a"], finals[0]["model.a"], atol=1e-6)
    with pytest.raises(Rejected) as refusal:
        Crowd(base, [])
    assert refusal.value.reason is Reason.TOO_FEW


def test_squared_distances_are_in_fixed_units() -> None:
    base = {"model.a": torch.tensor([1.0, 2.0])}
    other = {"model.a": torch.tensor([4.0, 6.0])}
    assert compute_squared_distance(base, base) == 0
    assert compute_squared_distance(base, other) == 25 << 80

"""Aggregation of a round: the same bits as a slow reference, the known answer, and the faults seen elsewhere."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId
from milon.gpu.aggregate import aggregate, aggregate_round
from milon.gpu.attacks import bell_curve, not_a_number, scale, sign_flip
from milon.gpu.checkpoint import state_digest, to_bytes
from milon.pol.aggregation import Report, compute_capped_weights, compute_faulty_weight
from milon.pol.pipeline import Rule, compute_count_needed, parse_pipeline
from tests.gpu.aggregate_reference import reference_round

torch.set_num_threads(1)
PLAIN_RULES = (Rule.MEAN, Rule.TRIMMED_MEAN, Rule.MEDIAN, Rule.MULTI_KRUM)  # what the slow reference knows
ROBUST = [rule for rule in Rule if rule is not Rule.MEAN]
PREPARED = (
    "arc,nnm,trimmed-mean", "nnm,median", "arc,krum", "nnm,multi-krum", "clip,bulyan", "nnm,geometric-median",
    "clip:500,nnm,centered-clipping:800", "arc,ctma", "clip,mean",
)  # fmt: skip
QUANTISED = ("nnm,geometric-median", "clip:500,nnm,centered-clipping:800")
PIPELINES = [*Rule, *PREPARED, "bucketing,median", "bucketing:2,arc,geometric-median"]
Final = tuple[bytes, int, dict[str, torch.Tensor]]


def account(index: int) -> bytes:
    return bytes([index]) * 32


def known_updates() -> torch.Tensor:
    rows = [[((i * 7919 + j * 104729 + 31 * i * j) % 1009 - 504) / 64 for j in range(64)] for i in range(11)]
    updates = torch.tensor(rows)
    updates[3] = updates[3] * 8 + 5
    updates[7] = updates[7] * -16
    return updates


def make_round(count: int, steps: list[int], size: int = 400) -> tuple[dict[str, torch.Tensor], list[Final]]:
    """A base state, and finals that share a direction and differ by noise, less of it the more steps they took."""
    base = {"model.a": bell_curve(1, 0, size), "model.b": bell_curve(1, 1, 20), "model.n": torch.tensor(5)}
    finals = []
    for index in range(count):
        state = {"model.n": base["model.n"] + steps[index]}
        for stream, name in enumerate(("model.a", "model.b")):
            shape = base[name].numel()
            signal, noise = bell_curve(2, stream, shape), bell_curve(100 + index, stream, shape)
            state[name] = base[name] + (signal + noise * 5 / steps[index] ** 0.5) * steps[index] * 1e-3
        finals.append((account(index), steps[index], state))
    return base, finals


def with_slots(states: list[dict[str, torch.Tensor]], value: float) -> list[dict[str, torch.Tensor]]:
    return [{**state, "optimizer.momentum.a": torch.full((3,), value)} for state in states]


@pytest.mark.parametrize(
    ("rule", "first"),
    [
        (Rule.MULTI_KRUM, [-0.559028, 0.380208, -0.432292, -1.244792]),
        (Rule.MEDIAN, [-0.25, 0.84375, -1.421875, -3.6875]),
        (Rule.TRIMMED_MEAN, [-0.379464, -0.446429, -2.013393, -3.310268]),
        (Rule.GEOMETRIC_MEDIAN, [-1.157970, -0.538365, -1.604341, -2.670317]),
        (Rule.KRUM, [-1.671875, -2.96875, -4.265625, -5.5625]),
        (Rule.CTMA, [-0.559028, 0.380208, -0.432292, -1.244792]),
    ],
)
def test_known_answer(rule: Rule, first: list[float]) -> None:
    """The hostile rows are eight and sixteen times as large as the others: the grid must hold them whole."""
    result, report = aggregate(known_updates(), [1] * 11, rule, 2, headroom_bits=6)
    assert (result[:4] - torch.tensor(first)).abs().max() < 4e-6
    lost = [int.from_bytes(refusal.trainer, "big") for refusal in report.refused]
    others = {Rule.MULTI_KRUM: [3, 7], Rule.CTMA: [3, 7], Rule.KRUM: [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]}
    assert lost == others.get(rule, [])
    parts = [standing.part_ppm for standing in report.standings]
    assert 999_980 <= sum(parts) <= 1_000_000
    if rule in (Rule.MULTI_KRUM, Rule.KRUM):
        assert max(standing.score_percent for standing in report.standings) == report.standings[7].score_percent


def test_frozen_round() -> None:
    base, finals = make_round(5, [40, 64, 96, 128, 160])
    found = {}
    for rule in PLAIN_RULES:
        new, report = aggregate_round(base, finals, rule, 1, {})
        found[rule.value] = (state_digest(to_bytes(new)).hex()[:16], report.steps)
    assert found == {
        "mean": ("0f9891a4ba8b116c", 117),
        "trimmed-mean": ("379daf51d2bc1221", 117),
        "median": ("f5362cbffc869feb", 117),
        "multi-krum": ("d96af06767d3d2c6", 127),
    }


TWO_ROUNDS = {
    "mean": "58638390df627900",
    "trimmed-mean": "de04539e57dfc5d4",
    "median": "eab1ec35a55ca4fd",
    "krum": "800f44e094a7c112",
    "multi-krum": "e244691de67ca9a0",
    "bulyan": "5c858339f5f54576",
    "geometric-median": "7b03cf907096809a",
    "centered-clipping": "47c84a25c3b36733",
    "ctma": "e244691de67ca9a0",
    "arc,nnm,trimmed-mean": "dcb8f2c9e2402458",
    "nnm,median": "87037d11c263f72a",
    "arc,krum": "53e5f0d1149b480e",
    "nnm,multi-krum": "cedc62246b123c87",
    "clip,bulyan": "d5500965274857b3",
    "nnm,geometric-median": "fec0e56a54a6a725",
    "clip:500,nnm,centered-clipping:800": "a097296ededa2c9f",
    "arc,ctma": "190124286728c924",
    "clip,mean": "f1c3901b9938c5b3",
    "bucketing,median": "fbb9cb4e6e9a38db",
    "bucketing:2,arc,geometric-median": "4d68479fc1cf5ccd",
    "median,nesterov": "206e31357bf2b98a",
    "trimmed-mean,adam": "d0a508cbef28a407",
}


@pytest.mark.parametrize("pipeline", list(TWO_ROUNDS))
def test_frozen_pipelines(pipeline: str) -> None:
    """Two rounds, so that what is remembered counts; the same on any processor."""
    state, finals = make_round(11, [40, 64, 96, 128, 160, 33, 71, 80, 100, 150, 20])
    for _ in range(2):
        state, _ = aggregate_round(state, finals, pipeline, 2, {}, seed=b"seed")
    assert state_digest(to_bytes(state)).hex()[:16] == TWO_ROUNDS[pipeline]


numbers = st.floats(-1e3, 1e3, width=32) | st.sampled_from([0.0, -0.0, 2.0**-149, -(2.0**-140), 2.0**-30, 3e4])


Plain = dict[str, list[float]]
Case = tuple[Rule, int, Plain, list[tuple[bytes, int, Plain]]]


@st.composite
def rounds(draw: st.DrawFn) -> Case:
    rule = draw(st.sampled_from(PLAIN_RULES))
    faulty_count = draw(st.integers(0, 2))
    least = compute_count_needed(rule, faulty_count)
    count = draw(st.integers(least, max(least, 6)))
    sizes = {"model.a": draw(st.integers(1, 5)), "model.b": draw(st.integers(0, 2))}

    def state() -> dict[str, list[float]]:
        return {name: draw(st.lists(numbers, min_size=size, max_size=size)) for name, size in sizes.items()}

    base = state()
    finals = [
        (account(index), draw(st.integers(1, 7)), base if draw(st.integers(0, 5)) == 0 else state())
        for index in range(count)
    ]
    return rule, faulty_count, base, finals


def tensors(state: dict[str, list[float]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(values, dtype=torch.float32) for name, values in state.items()}


@settings(max_examples=120, deadline=None)
@given(rounds(), st.integers(1, 6))
def test_same_bits_as_the_slow_reference(case: Case, columns: int) -> None:
    rule, faulty_count, base, finals = case
    expected, lost = reference_round(base, finals, rule, faulty_count)
    given_finals = [(who, steps, tensors(state)) for who, steps, state in reversed(finals)]
    new, report = aggregate_round(tensors(base), given_finals, rule, faulty_count, {}, columns=columns)
    assert to_bytes(new) == to_bytes(tensors(expected))
    assert [refusal.trainer for refusal in report.refused] == lost
    assert decode(Report, encode(report)) == report


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_integer_weights_equal_repeated_rows(data: st.DataObject) -> None:
    """Unequal weights, as capped, against as many equal rows of which as many may be faulty: the same bits.

    Where a rule that quantises its factors sees mixed rows, how many bits are left for them depends on how the rows are
    written: there the two agree to the precision of binary32.
    """
    pipeline = data.draw(st.sampled_from([*Rule, *PREPARED]))
    faulty_count = data.draw(st.integers(0, 1))
    count = compute_count_needed(pipeline, faulty_count) + data.draw(st.integers(0, 2))
    drawn = data.draw(st.lists(st.integers(1, 4), min_size=count, max_size=count))
    rows = [data.draw(st.lists(numbers, min_size=3, max_size=3)) for _ in range(count)]
    updates = torch.tensor(rows, dtype=torch.float32)
    weights = compute_capped_weights(parse_pipeline(pipeline).rule, drawn, faulty_count)
    faulty = compute_faulty_weight(weights, faulty_count)
    assume(sum(weights) >= compute_count_needed(pipeline, faulty))
    weighted, _ = aggregate(updates, weights, pipeline, faulty_count)
    copies = updates.repeat_interleave(torch.tensor(weights), dim=0)
    repeated, _ = aggregate(copies, [1] * len(copies), pipeline, faulty)
    if pipeline in QUANTISED:
        assert (weighted - repeated).abs().max() <= 1e-6 * updates.abs().max()
    else:
        assert weighted.equal(repeated)


@pytest.mark.parametrize("rule", PIPELINES)
def test_order_blocks_and_threads_do_not_matter(rule: str) -> None:
    base, finals = make_round(11, [40, 50, 60, 90, 120, 150, 160, 70, 80, 110, 130])
    finals[2] = (finals[2][0], finals[2][1], sign_flip(base, finals[2][2], 3.0))
    expected, report = aggregate_round(base, finals, rule, 2, {})
    for threads, columns, order in ((1, 7, [3, 1, 10, 0, 6, 9, 5, 4, 7, 8, 2]), (2, 100, list(range(10, -1, -1)))):
        torch.set_num_threads(threads)
        again, report_again = aggregate_round(base, [finals[i] for i in order], rule, 2, {}, columns=columns)
        torch.set_num_threads(1)
        assert to_bytes(again) == to_bytes(expected)
        assert report_again == report


@pytest.mark.parametrize("rule", PIPELINES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_coordinate_that_is_no_number_is_refused(rule: str, value: float) -> None:
    base, finals = make_round(8, [100] * 8)
    clean, _ = aggregate_round(base, finals[1:], rule, 0, {})
    finals[0] = (finals[0][0], finals[0][1], not_a_number(finals[0][2], value))
    new, report = aggregate_round(base, finals, rule, 1, {})
    assert to_bytes(new) == to_bytes(clean)
    assert report.faulty_count == 0
    reasons = {refusal.trainer: refusal.reason for refusal in report.refused}
    assert reasons.pop(AccountId(account(0))) == "the final state holds a NaN or an infinity"
    assert all(reason.startswith("not selected by") for reason in reasons.values())


def test_huge_rows_move_nothing() -> None:
    """A row near the end of binary32 sets neither the grid nor the median, and is refused by its distance."""
    base, finals = make_round(5, [100] * 5)
    clean, _ = aggregate_round(base, finals[1:], Rule.TRIMMED_MEAN, 0, {})
    huge = {**finals[0][2], "model.a": torch.full_like(base["model.a"], 3e38)}
    new, report = aggregate_round(base, [(account(0), 100, huge), *finals[1:]], Rule.TRIMMED_MEAN, 1, {})
    assert [refusal.trainer for refusal in report.refused] == [account(0)]
    assert (new["model.a"] - clean["model.a"]).abs().max() < 1e-5


def test_a_large_common_part_does_not_blur_the_differences() -> None:
    """Whole weights near 1,000 with updates of 1e-3: a Gram matrix of whole weights in binary32 picks at random."""
    base, finals = make_round(7, [100] * 7)
    shift = {"model.a": 1000.0, "model.b": 1000.0}
    base = {name: tensor + shift.get(name, 0) for name, tensor in base.items()}
    finals = [(w, s, {n: base[n] + (t - (base[n] - shift.get(n, 0))) for n, t in x.items()}) for w, s, x in finals]
    finals[4] = (finals[4][0], finals[4][1], sign_flip(base, finals[4][2], 1.0))
    _, report = aggregate(
        torch.stack([state["model.a"] - base["model.a"] for _, _, state in finals]), [1] * 7, Rule.MULTI_KRUM, 2
    )
    assert (4).to_bytes(4, "big") in [refusal.trainer for refusal in report.refused]
    _, report = aggregate_round(base, finals, Rule.MULTI_KRUM, 2, {})
    assert account(4) in [refusal.trainer for refusal in report.refused]


@pytest.mark.parametrize("rule", [*ROBUST, *PREPARED[:-1], "bucketing:3,median"])
def test_fewer_than_a_rule_bears_is_refused(rule: str) -> None:
    count = compute_count_needed(rule, 2) - 1
    base, finals = make_round(count, [100] * count)
    with pytest.raises(Rejected) as refusal:
        aggregate_round(base, finals, rule, 2, {})
    assert refusal.value.reason is Reason.TOO_FEW
    assert f"needs {count + 1} updates; {count} are left" in refusal.value.detail
    with pytest.raises(Rejected) as refusal:
        aggregate_round(base, [], rule, 0, {})
    assert refusal.value.reason is Reason.TOO_FEW


@pytest.mark.parametrize("rule", PIPELINES)
def test_inputs_are_never_changed(rule: str) -> None:
    base, finals = make_round(8, [100] * 8)
    finals[0] = (finals[0][0], 100, scale(base, finals[0][2], 100.0))
    before = [to_bytes(base), *(to_bytes(state) for _, _, state in finals)]
    aggregate_round(base, finals, rule, 1, {})
    assert [to_bytes(base), *(to_bytes(state) for _, _, state in finals)] == before


def test_no_rule_draws_a_random_number() -> None:
    base, finals = make_round(8, [100] * 8)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    for rule in PIPELINES:
        aggregate_round(base, finals, rule, 1, {})
    assert torch.random.get_rng_state().equal(state)


@pytest.mark.parametrize("rule", ROBUST)
def test_a_heavy_update_counts_at_most_a_third(rule: Rule) -> None:
    base, finals = make_round(6, [10_000, 10, 10, 10, 10, 10])
    assert {standing.steps for standing in aggregate_round(base, finals, rule, 0, {})[1].standings} == {10, 10_000}
    _, report = aggregate_round(base, finals, rule, 0, {})
    weights = [standing.weight for standing in report.accepted]
    assert rule is Rule.KRUM or 3 * max(weights) <= sum(weights)
    assert rule is not Rule.KRUM or weights == [1]


def test_counters_take_the_median_and_slots_start_again() -> None:
    base, finals = make_round(5, [40, 50, 60, 70, 160])
    initial = {"optimizer.momentum.a": torch.zeros(3)}
    base = with_slots([base], 7.0)[0]
    finals = [(who, steps, with_slots([state], 1e30)[0]) for who, steps, state in finals]
    finals[0][2]["model.n"] = torch.tensor(2**62)
    new, _ = aggregate_round(base, finals, Rule.TRIMMED_MEAN, 1, initial)
    assert new["optimizer.momentum.a"].equal(initial["optimizer.momentum.a"])
    assert new["model.n"].item() in {75, 165}
    assert new["model.n"].dtype == torch.int64
    assert list(new) == sorted(base)


def test_zero_updates_are_accepted_and_change_nothing() -> None:
    base, _ = make_round(8, [10] * 8)
    for rule in PIPELINES:
        new, report = aggregate_round(base, [(account(i), 10, base) for i in range(8)], rule, 1, {})
        assert to_bytes({name: new[name] for name in base}) == to_bytes(base)
        assert len(report.accepted) + len(report.refused) == 8


@pytest.mark.parametrize(
    "change",
    [
        {"model.a": torch.zeros(3)},
        {"model.a": torch.zeros(400, dtype=torch.float64)},
        {"model.extra": torch.zeros(1)},
        {"model.n": torch.tensor(5.0)},
    ],
)
def test_finals_of_another_form_are_refused(change: dict[str, torch.Tensor]) -> None:
    base, finals = make_round(4, [100] * 4)
    finals[1] = (finals[1][0], 100, {**finals[1][2], **change})
    _, report = aggregate_round(base, finals, Rule.TRIMMED_MEAN, 1, {})
    assert [refusal.trainer for refusal in report.refused] == [account(1)]
    assert report.faulty_count == 0


def test_what_no_honest_caller_gives() -> None:
    base, finals = make_round(3, [100] * 3)
    cases = [
        (base, [*finals, finals[0]], {}, Reason.DUPLICATE),
        (base, [*finals, (account(9), 0, base)], {}, Reason.OUT_OF_RANGE),
        (base, finals, {"optimizer.momentum.a": torch.zeros(1)}, Reason.DOES_NOT_FIT),
        ({**base, "else": torch.zeros(1)}, finals, {}, Reason.MALFORMED),
        (not_a_number(base), finals, {}, Reason.NOT_FINITE),
    ]
    for state, given_finals, slots, reason in cases:
        with pytest.raises(Rejected) as refusal:
            aggregate_round(state, given_finals, Rule.MEDIAN, 1, slots)
        assert refusal.value.reason is reason


def test_a_result_beyond_binary32_is_refused() -> None:
    base = {"model.a": torch.full((4,), 3e38)}
    near = {"model.a": torch.full((4,), 3.4e38)}
    new, _ = aggregate_round(base, [(account(0), 1, near), (account(1), 1, near)], Rule.MEAN, 0, {})
    assert new["model.a"].sub(3.4e38).abs().max() < 1e33
    with pytest.raises(Rejected) as refusal:
        aggregate_round(base, [(account(0), 10, near), (account(1), 30, near)], Rule.MEAN, 0, {})
    assert refusal.value.reason is Reason.NOT_FINITE


def test_five_updates_of_300_thousand_parameters_take_under_a_second() -> None:
    base, finals = make_round(5, [40, 64, 96, 128, 160], size=300_000)
    for rule in PLAIN_RULES:
        taken = []
        for _ in range(2):  # the better of two: other work on the machine is not what is measured
            start = time.process_time()
            aggregate_round(base, finals, rule, 1, {})
            taken.append(time.process_time() - start)
        assert min(taken) < 1.0


def test_moving_averages_are_combined_whole_and_stay_between_what_trainers_sent() -> None:
    """Trainers of few steps move BatchNorm's variance nearly as far as those of many: per step it would overshoot."""
    base = {"model.variance": torch.full((4,), 1.0), "model.weight": torch.zeros(4)}

    def final(steps: int) -> dict[str, torch.Tensor]:
        settled = 0.02 + 0.98 * 0.9**steps
        return {"model.variance": torch.full((4,), settled), "model.weight": torch.full((4,), 0.001 * steps)}

    finals = [(account(i), steps, final(steps)) for i, steps in enumerate((8, 16, 24, 32, 80))]
    new, _ = aggregate_round(base, finals, Rule.TRIMMED_MEAN, 1, {}, statistics=frozenset({"model.variance"}))
    sent = [float(state["model.variance"][0]) for _, _, state in finals]
    assert min(sent) <= float(new["model.variance"].min()) <= float(new["model.variance"].max()) <= max(sent)
    overshot, _ = aggregate_round(base, finals, Rule.TRIMMED_MEAN, 1, {})
    assert float(overshot["model.variance"].min()) < 0

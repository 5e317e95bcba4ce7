"""The compiled passes give the bits of plain torch, on any number of threads, and are dropped where they do not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from milon.gpu import aggregate_fast
from milon.gpu.aggregate import aggregate, aggregate_round
from milon.gpu.aggregate_rules import make_network
from milon.gpu.attacks import bell_curve
from milon.gpu.checkpoint import to_bytes

NEVER = 1 << 60
PIPELINES = (
    "trimmed-mean", "median", "multi-krum", "nnm,geometric-median", "mean", "arc,nnm,trimmed-mean", "nnm,median",
    "bucketing,trimmed-mean",
)  # fmt: skip
STEPS = (40, 64, 1, 128, 160, 7, 33, 2)


@pytest.fixture
def _as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("count", range(1, 9))
def test_networks_sort_zeros_and_ones(count: int) -> None:
    """What sorts every row of zeros and ones sorts everything (Knuth, volume 3, section 5.3.4)."""
    places = tuple(range(count))
    for wanted in (places, places[:1], places[-1:], tuple(sorted({(count - 1) // 2, count // 2}))):
        network = make_network(count, wanted)
        for row in product((0, 1), repeat=count):
            values = list(row)
            for low, high in network:
                values[low], values[high] = min(values[low], values[high]), max(values[low], values[high])
            assert all(values[place] == sorted(row)[place] for place in wanted)


def test_a_network_without_what_nobody_wants_is_shorter() -> None:
    assert len(make_network(32, tuple(range(32)))) == 191  # as Batcher counts
    assert len(make_network(32, (15, 16))) < 160
    assert len(make_network(1, (0,))) == 0


@pytest.mark.usefixtures("_as_before")
def test_loops_and_plain_torch_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"model.a": bell_curve(1, 0, 2_500), "model.b": bell_curve(1, 1, 30), "model.s": torch.ones(5)}
    finals = []
    for index, steps in enumerate(STEPS):
        state = {
            name: tensor + bell_curve(9 + index, place, tensor.numel()) * 1e-2 * steps
            for place, (name, tensor) in enumerate(base.items())
        }
        finals.append((bytes([index]) * 32, steps, state))
    finals[3][2]["model.a"][7], finals[5][2]["model.a"][0] = 1e30, torch.nan
    for pipeline in PIPELINES:
        found = []
        for elements, threads in ((NEVER, 1), (0, 1), (0, 2)):
            monkeypatch.setattr(aggregate_fast, "ELEMENTS_MIN", elements)
            torch.set_num_threads(threads)
            state, report = aggregate_round(base, finals, pipeline, 2, {}, statistics=frozenset({"model.s"}))
            found.append((to_bytes(state), report))
        assert found[0] == found[1] == found[2], pipeline


@pytest.mark.usefixtures("_as_before")
def test_updates_of_equal_weight_and_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(aggregate_fast, "_PART_COLUMNS", 1_024)
    updates = torch.stack([bell_curve(index, 0, 3_000) for index in range(9)])
    told: list[tuple[int, int]] = []
    for pipeline in ("trimmed-mean", "median", "geometric-median", "nnm,median"):
        told.clear()
        monkeypatch.setattr(aggregate_fast, "ELEMENTS_MIN", NEVER)
        plain, _ = aggregate(updates, [3] * 9, pipeline, 2, is_screened=True)
        monkeypatch.setattr(aggregate_fast, "ELEMENTS_MIN", 0)
        quick, _ = aggregate(
            updates, [3] * 9, pipeline, 2, is_screened=True, on_progress=lambda *done: told.append(done)
        )
        assert quick.equal(plain)
        assert told[-1] == (3_000, 3_000) and all(0 < done <= all_of_it for done, all_of_it in told)
        assert told.count((3_000, 3_000)) >= 3  # every pass comes to its end


def test_loops_that_lie_are_not_used() -> None:
    loops = aggregate_fast.load()
    assert loops is not None

    def quantise_otherwise(*arguments: object) -> None:
        loops.sums.multiply(*arguments)
        arguments[-1][0, 0, 0] += 1  # type: ignore[index]  # an array

    names = {name: getattr(loops.sums, name) for name in ("TILE", "find_largest", "multiply", "sum_weighted")}
    assert aggregate_fast.agrees(aggregate_fast.Loops(SimpleNamespace(**names), loops.orders))  # type: ignore[arg-type]
    names["multiply"] = quantise_otherwise
    assert not aggregate_fast.agrees(aggregate_fast.Loops(SimpleNamespace(**names), loops.orders))  # type: ignore[arg-type]


def test_what_the_loops_cannot_read_where_it_lies() -> None:
    assert aggregate_fast.is_usable(torch.zeros(4))
    assert aggregate_fast.is_usable(torch.zeros(1).expand(9))
    assert not aggregate_fast.is_usable(torch.ones(1).expand(9))
    assert not aggregate_fast.is_usable(torch.zeros(4, 4).t()[1:])
    assert not aggregate_fast.is_usable(torch.zeros(4, dtype=torch.float64))

"""The prescribed batches are a permutation that only the seed decides."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.ids import Digest, JobId
from milon.pol.batches import compute_batch, compute_round_seed

SEED = Digest(bytes(range(32)))


@given(rows=st.integers(1, 300), batch_size=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_every_sweep_visits_every_row_once(rows: int, batch_size: int) -> None:
    steps = -(-2 * rows // batch_size)
    places = [row for step in range(steps) for row in compute_batch(SEED, step, batch_size, rows)]
    assert sorted(places[:rows]) == list(range(rows))
    assert sorted(places[rows : 2 * rows]) == list(range(rows))


def test_sweeps_seeds_and_steps_differ() -> None:
    sweep = [compute_batch(SEED, step, 100, 100) for step in range(3)]
    assert len({*sweep}) == 3
    assert compute_batch(Digest(bytes(32)), 0, 100, 100) != sweep[0]


def test_a_batch_may_span_sweeps() -> None:
    assert sorted(compute_batch(SEED, 0, 9, 3)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_known_batch_stays() -> None:
    """A changed value is another protocol."""
    assert compute_batch(SEED, 5, 8, 1437) == (255, 544, 382, 888, 783, 314, 1299, 840)


def test_first_places_are_spread_evenly() -> None:
    """Over many seeds each row comes first about equally often: 800 draws of 8 rows, 100 expected."""
    firsts = Counter(compute_batch(Digest(number.to_bytes(32, "big")), 0, 1, 8)[0] for number in range(800))
    assert all(60 < firsts[row] < 140 for row in range(8))


@pytest.mark.parametrize("change", ["job", "round", "beacon"])
def test_round_seed_depends_on_everything(change: str) -> None:
    job, beacon = JobId(bytes(32)), Digest(bytes(32))
    base = compute_round_seed(job, 0, beacon)
    other = compute_round_seed(
        JobId(b"\x01" * 32) if change == "job" else job,
        1 if change == "round" else 0,
        Digest(b"\x01" * 32) if change == "beacon" else beacon,
    )
    assert other != base

"""How far a result is from the honest mean, in units of the honest spread: never beyond the published bounds.

A rule is (f, kappa)-robust (Allouah et al. 2023, definition 2) when for every n - f of its n inputs the squared
distance of its result to their mean is at most kappa times the mean of their squared distances to that mean. Here the
honest ones are drawn, and the hostile ones first drawn and then moved wherever that makes the ratio worse.
"""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from milon.gpu.aggregate import aggregate
from milon.gpu.attacks import bell_curve

torch.set_num_threads(1)
COUNT, FAULTY = 7, 2
_SHARE = FAULTY / (COUNT - 2 * FAULTY)
KRUM = 6 * (1 + _SHARE)
MEDIAN = 4 * (1 + _SHARE) ** 2
BOUNDS = {
    "trimmed-mean": 6 * _SHARE * (1 + _SHARE),
    "median": MEDIAN,
    "geometric-median": MEDIAN,
    "krum": KRUM,
    "ctma": 60 * FAULTY / COUNT * (1 + MEDIAN),  # Dahan and Levy 2024, lemma 4.1
    "nnm,krum": 8 * FAULTY / (COUNT - FAULTY) * (1 + KRUM),
    "nnm,median": 8 * FAULTY / (COUNT - FAULTY) * (1 + MEDIAN),
}
WALK = 16  # attempts to make one case worse


def measure(pipeline: str, rows: torch.Tensor) -> float:
    """The worst ratio over all choices of the honest ones."""
    result = aggregate(rows, [1] * COUNT, pipeline, FAULTY)[0].double()
    worst = 0.0
    for honest in combinations(range(COUNT), COUNT - FAULTY):
        kept = rows[list(honest)].double()
        mean = kept.mean(dim=0)
        spread = (kept - mean).square().sum(dim=1).mean()
        worst = max(worst, float((result - mean).square().sum() / spread))
    return worst


def search(pipeline: str, seed: int) -> float:
    """The worst ratio found from one start."""
    rows = bell_curve(seed, 0, COUNT * 3).reshape(COUNT, 3)
    worst = measure(pipeline, rows)
    for turn in range(WALK):
        moved = rows.clone()
        step = 4.0 if turn < WALK // 2 else 0.5
        moved[:FAULTY] += bell_curve(seed, 1 + turn, FAULTY * 3).reshape(FAULTY, 3) * step
        found = measure(pipeline, moved)
        if found > worst:
            worst, rows = found, moved
    return worst


@pytest.mark.parametrize("pipeline", list(BOUNDS))
def test_kappa_stays_within_the_published_bound(pipeline: str) -> None:
    worst = max(search(pipeline, seed) for seed in range(2))
    assert 0 < worst <= BOUNDS[pipeline] * 1.001


def test_the_mean_has_no_bound() -> None:
    """One update far enough moves the mean farther than any multiple of the spread of the others."""
    rows = bell_curve(1, 0, COUNT * 3).reshape(COUNT, 3)
    rows[0] += 1_000
    far = aggregate(rows, [1] * COUNT, "mean", 0, headroom_bits=12)[0].double()
    kept = rows[1:].double()
    spread = (kept - kept.mean(dim=0)).square().sum(dim=1).mean()
    assert (far - kept.mean(dim=0)).square().sum() / spread > 1_000
    assert measure("median", rows) < BOUNDS["median"]

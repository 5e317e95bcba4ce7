"""A plain tolerance verifier, as proof of learning was first proposed (Jia et al. 2021): the published attacks beat it.

The prover hands in its checkpoints, the batches between them and its learning rate. The verifier trains from each
checkpoint on what it was given, in stock arithmetic, and takes the next one as true if it lies within a distance. It
looks at the first weights (do they look drawn at random?), and, where there is much to check, at the largest updates
only. Nothing of this is in the product; it is here so that the attacks can be seen to work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.attacks.ground import make_perceptron
from tests.gpu.small_job import make_rows

Weights = dict[str, Tensor]
Batch = tuple[Tensor, Tensor]
BATCH = 8
STEPS = 2  # between two checkpoints, as the jobs here have them
RATE = 0.1
FINAL_STEPS = 120  # of the training whose result the adversary steals
SIGNIFICANCE = 1.63  # of Kolmogorov and Smirnov's statistic at one in a hundred, times the root of the sample's size


@dataclass(frozen=True, slots=True)
class Proof:
    """What the prover hands in."""

    checkpoints: tuple[Weights, ...]  # the first weights, and those after each interval
    batches: tuple[tuple[Batch, ...], ...]  # one sequence an interval
    rate: float  # learning rate, on the prover's word


@cache
def net() -> nn.Module:
    """The model whose weights are passed in by name."""
    return make_perceptron()


def draw_first(seed: int) -> Weights:
    """Fresh first weights, as torch draws them."""
    torch.manual_seed(seed)
    fresh = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3))
    return {name: tensor.detach() for name, tensor in fresh.named_parameters()}


def compute_gradient(weights: Weights, batch: Batch, create_graph: bool = False) -> Weights:
    """Of the mean loss over a batch."""
    held = {name: tensor.detach().requires_grad_() for name, tensor in weights.items()}
    loss = functional.cross_entropy(torch.func.functional_call(net(), held, batch[0]), batch[1])
    found = torch.autograd.grad(loss, list(held.values()), create_graph=create_graph)
    return dict(zip(held, found, strict=True))


def train(weights: Weights, batches: Sequence[Batch], rate: float) -> Weights:
    """Plain stochastic gradient descent in stock arithmetic."""
    for batch in batches:
        gradient = compute_gradient(weights, batch)
        weights = {name: tensor - gradient[name] * rate for name, tensor in weights.items()}
    return weights


def distance(one: Weights, other: Weights) -> float:
    """Euclidean, over all weights."""
    return float(torch.sqrt(sum(((one[name] - other[name]) ** 2).sum() for name in one)))  # type: ignore[arg-type]


def draw_batches(seed: int, count: int) -> tuple[Batch, ...]:
    """Batches of the public data, in an order of the prover's own."""
    images, targets = make_rows(60, 1)
    chance = torch.Generator().manual_seed(seed)
    rows = [torch.randint(0, 60, (BATCH,), generator=chance) for _ in range(count)]
    return tuple((images[picked], targets[picked]) for picked in rows)


def train_honestly(seed: int, steps: int = FINAL_STEPS) -> Proof:
    """An honest prover's proof."""
    checkpoints = [draw_first(seed)]
    batches = []
    for interval in range(steps // STEPS):
        batches.append(draw_batches(seed * 10_007 + interval, STEPS))
        checkpoints.append(train(checkpoints[-1], batches[-1], RATE))
    return Proof(tuple(checkpoints), tuple(batches), RATE)


@cache
def tolerance() -> float:
    """A twentieth of the distance between two models of different first weights.

    Jia et al. (section VI) set it between the noise of hardware, which is far smaller, and that distance.
    """
    return distance(train_honestly(1).checkpoints[-1], train_honestly(2).checkpoints[-1]) / 20


def fits_interval(proof: Proof, interval: int) -> bool:
    """Whether training on the prover's batches leads near the next checkpoint."""
    reached = train(proof.checkpoints[interval], proof.batches[interval], proof.rate)
    return distance(reached, proof.checkpoints[interval + 1]) <= tolerance()


def looks_random(weights: Weights) -> bool:
    """Whether every tensor passes for a uniform draw between its bounds, by Kolmogorov and Smirnov."""
    for name, tensor in weights.items():
        bound = (16 if name.startswith("1.") else 12) ** -0.5
        values = tensor.flatten().sort().values
        expected = ((values + bound) / (2 * bound)).clamp(0, 1)
        count = values.numel()
        above = (torch.arange(1, count + 1) / count - expected).amax()
        below = (expected - torch.arange(count) / count).amax()
        if float(torch.maximum(above, below)) * count**0.5 > SIGNIFICANCE:
            return False
    return True


def find_largest(proof: Proof, count: int) -> list[int]:
    """The intervals of the largest updates, which a verifier of few checks looks at first."""
    sizes = [distance(before, after) for before, after in zip(proof.checkpoints, proof.checkpoints[1:], strict=False)]
    return sorted(range(len(sizes)), key=lambda interval: -sizes[interval])[:count]


def accepts(proof: Proof, largest: int | None = None) -> bool:
    """Whether the first weights look drawn and all intervals, or the `largest` so many, fit."""
    picked = range(len(proof.batches)) if largest is None else find_largest(proof, largest)
    return looks_random(proof.checkpoints[0]) and all(fits_interval(proof, interval) for interval in picked)

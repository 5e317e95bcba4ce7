"""The published attacks on proof of learning: a chain of checkpoints to a stolen model, without its training.

Zhang et al. 2022, "Adversarial Examples for Proof-of-Learning": checkpoints between a first state and the stolen one by
interpolation, and data changed by a little noise until training on it seems to lead from one to the next. Fang et al.
2023, "Proof-of-Learning is Currently More Broken Than You Think": updates too small to tell from noise, and real ones
where a verifier of the largest updates looks.

Each is tried on a plain tolerance verifier, which takes batches and learning rate from the prover, and on a replay by
the product, which takes from the prover the checkpoints alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor

from milon.gpu.checkpoint import to_bytes
from milon.gpu.train import RoundWork, SegmentRun, fingerprint_of, loss_bits_of, run_segment
from milon.pol.program import StepKey
from tests.attacks import tolerance
from tests.attacks.ground import SEGMENTS, Ground, Tried, is_accepted, of_round, open_job, open_state
from tests.attacks.tolerance import RATE, STEPS, Batch, Proof, Weights, compute_gradient, distance, train

NOISE_ROUNDS = 2  # of the adversary's optimizer, ten iterations each
STOLEN = 16  # models that there are to steal
TINY_RATE = 1e-7  # a learning rate that moves nothing
LARGEST = 4  # updates that the verifier of the largest ones checks
Spoof = Callable[[int], tuple[Proof, int | None]]  # of a seed: the proof, and how many of the largest are checked


@cache
def _train_victim(number: int) -> Weights:
    return tolerance.train_honestly(1_000 + number).checkpoints[-1]


def steal(seed: int) -> Weights:
    """A model that somebody else has trained."""
    return _train_victim(seed % STOLEN)


def sort_like(fresh: Weights, wanted: Weights) -> Weights:
    """The fresh values, each tensor's in the order of the wanted one's: a random draw that lies near it."""
    found = {}
    for name, tensor in fresh.items():
        place = torch.empty(tensor.numel(), dtype=torch.int64)
        place[wanted[name].flatten().argsort()] = torch.arange(tensor.numel())
        found[name] = tensor.flatten().sort().values[place].reshape(tensor.shape)
    return found


def interpolate(first: Weights, last: Weights, parts: int) -> tuple[Weights, ...]:
    """`parts` equal steps along the straight line."""
    return tuple(
        {name: first[name] + (last[name] - first[name]) * (part / parts) for name in first} for part in range(parts + 1)
    )


def _intervals(first: Weights, last: Weights, stride: float) -> int:
    return max(1, int(distance(first, last) / (tolerance.tolerance() * stride)) + 1)


def find_noise(weights: Weights, batch: Batch, wanted: Weights, weight: float) -> Batch:
    """The batch with noise in its inputs whose gradient is as near to `wanted` as the noise's own weight allows."""
    noise = torch.zeros_like(batch[0]).requires_grad_()
    search = torch.optim.LBFGS([noise], max_iter=10)

    def evaluate() -> Tensor:
        search.zero_grad()
        gradient = compute_gradient(weights, (batch[0] + noise, batch[1]), create_graph=True)
        parts = [((gradient[name] - wanted[name]) ** 2).sum() for name in gradient]
        cost = torch.stack(parts).sum() + weight * noise.square().sum()
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    is_moving = any(bool(tensor.any()) for tensor in wanted.values())
    for _ in range(NOISE_ROUNDS if is_moving else 1):  # standing still takes less of a search
        search.step(evaluate)  # type: ignore[no-untyped-call]
    return (batch[0] + noise.detach(), batch[1])


def _nothing(weights: Weights) -> Weights:
    return {name: torch.zeros_like(tensor) for name, tensor in weights.items()}


def _find_joint_noise(weights: Weights, seed: int, wanted: Weights, weight: float) -> tuple[Batch, ...]:
    """One search over the rows of all an interval's steps; the batches of the steps."""
    picked = tolerance.draw_batches(seed, STEPS)
    joined = (torch.cat([rows for rows, _ in picked]), torch.cat([targets for _, targets in picked]))
    rows, targets = find_noise(weights, joined, wanted, weight)
    return tuple(zip(rows.chunk(STEPS), targets.chunk(STEPS), strict=True))


def spoof_by_gradient(seed: int) -> tuple[Proof, None]:
    """Zhang I: noise until the gradients lead from each checkpoint towards the next, further than the tolerance."""
    last = steal(seed)
    first = sort_like(tolerance.draw_first(seed), last)
    checkpoints = interpolate(first, last, _intervals(first, last, 1.2))
    batches = []
    for interval, (before, after) in enumerate(itertools.pairwise(checkpoints)):
        wanted = {name: (before[name] - after[name]) / (RATE * STEPS) for name in before}
        batches.append(_find_joint_noise(before, seed * 7_919 + interval, wanted, 1e-4))
    return Proof(checkpoints, tuple(batches), RATE), None


def spoof_by_stillness(seed: int) -> tuple[Proof, None]:
    """Zhang II: checkpoints closer than the tolerance, and for every step noise until nothing moves."""
    last = steal(seed)
    first = sort_like(tolerance.draw_first(seed), last)
    checkpoints = interpolate(first, last, _intervals(first, last, 0.6))
    batches = []
    for interval, before in enumerate(checkpoints[:-1]):
        picked = tolerance.draw_batches(seed * 6_101 + interval, STEPS)
        batches.append(tuple(find_noise(before, batch, _nothing(before), 1e-3) for batch in picked))
    return Proof(checkpoints, tuple(batches), RATE), None


def spoof_by_one_batch(seed: int) -> tuple[Proof, None]:
    """Zhang III: the same with a single search an interval, over the rows of all its steps at once."""
    last = steal(seed)
    first = sort_like(tolerance.draw_first(seed), last)
    checkpoints = interpolate(first, last, _intervals(first, last, 0.6))
    batches = []
    for interval, before in enumerate(checkpoints[:-1]):
        batches.append(_find_joint_noise(before, seed * 5_003 + interval, _nothing(before), 1e-2))
    return Proof(checkpoints, tuple(batches), RATE), None


def spoof_by_tiny_updates(seed: int) -> tuple[Proof, None]:
    """Fang's infinitesimal updates: checkpoints closer than the tolerance under a learning rate of nearly nothing."""
    last = steal(seed)
    first = sort_like(tolerance.draw_first(seed), last)
    checkpoints = interpolate(first, last, _intervals(first, last, 0.9))
    batches = [tolerance.draw_batches(seed * 4_001 + interval, STEPS) for interval in range(len(checkpoints) - 1)]
    return Proof(checkpoints, tuple(batches), TINY_RATE), None


def spoof_the_largest(seed: int) -> tuple[Proof, int]:
    """Fang's blindfold: as many real steps as the verifier checks, larger than all the made-up ones around them."""
    last = steal(seed)
    checkpoints = [tolerance.draw_first(seed)]
    batches = []
    for interval in range(LARGEST):
        batches.append(tolerance.draw_batches(seed * 3_001 + interval, STEPS))
        checkpoints.append(train(checkpoints[-1], batches[-1], RATE))
    steps = [distance(a, b) for a, b in itertools.pairwise(checkpoints)]
    parts = int(distance(checkpoints[-1], last) / (0.9 * min(steps))) + 1
    made_up = interpolate(checkpoints[-1], last, parts)[1:]
    batches += [tolerance.draw_batches(seed * 3_001 + 500 + part, STEPS) for part in range(parts)]
    return Proof((*checkpoints, *made_up), tuple(batches), RATE), LARGEST


def spoof_the_first(seed: int) -> tuple[Proof, None]:
    """Sorted initial weights, and honest training from there: the first state is the adversary's choice."""
    first = sort_like(tolerance.draw_first(seed), steal(seed))
    checkpoints = [first]
    batches = []
    for interval in range(SEGMENTS):
        batches.append(tolerance.draw_batches(seed * 2_003 + interval, STEPS))
        checkpoints.append(train(checkpoints[-1], batches[-1], RATE))
    return Proof(tuple(checkpoints), tuple(batches), RATE), None


def _to_state(like: dict[str, Tensor], weights: Weights) -> bytes:
    state = dict(like)
    for name, tensor in weights.items():
        state[f"model.{name}"] = tensor.contiguous()
    return to_bytes(state)


def run_on(work: RoundWork, start: bytes, segment: int, batches: tuple[Batch, ...]) -> tuple[tuple[int, ...], int]:
    """Fingerprints and last loss of running the job's own program on the adversary's batches."""
    state = open_state(start)
    prints, loss_bits = [], 0
    for k, batch in enumerate(batches):
        step = segment * work.steps_per_segment + k
        result = work.plan.run(state, batch, StepKey(work.seed, work.round, 0, step))
        prints.append(fingerprint_of(result))
        loss_bits = loss_bits_of(result)
        state = dict(result.new_state)
    return tuple(prints), loss_bits


def claim_intervals(proof: Proof, seed: int) -> Iterator[bool]:
    """Per interval of the proof, put forward as a segment: whether the product's replay takes it as true.

    The trace is that of the program on the adversary's own batches: the best it can show.
    """
    work, start = open_job()
    like = open_state(start)
    held = of_round(work, seed)
    for interval, batches in enumerate(proof.batches):
        before = _to_state(like, proof.checkpoints[interval])
        after = _to_state(like, proof.checkpoints[interval + 1])
        segment = interval % SEGMENTS
        prints, loss_bits = run_on(held, before, segment, batches)
        run = SegmentRun(after, prints, loss_bits, None)
        yield is_accepted(Ground(held, before, segment, run), run)


def _judge(spoof: Spoof) -> Callable[[int], Iterator[Tried]]:
    def attempts(seed: int) -> Iterator[Tried]:
        while True:
            proof, largest = spoof(seed)
            fools = tolerance.accepts(proof, largest)
            for is_taken in claim_intervals(proof, seed):
                yield Tried(is_taken, fools)
            seed += 1

    return attempts


def attempt_other_first(seed: int) -> Iterator[Tried]:
    """Flawless training from sorted first weights, put forward where the job names its own first state."""
    work, start = open_job()
    while True:
        proof, _ = spoof_the_first(seed)
        held = of_round(work, seed)
        run = run_segment(held, _to_state(open_state(start), proof.checkpoints[0]), 0)
        yield Tried(is_accepted(Ground(held, start, 0, run), run), tolerance.accepts(proof))
        seed += 1


ATTACKS: dict[str, Callable[[int], Iterator[Tried]]] = {
    "adversarial data for interpolated checkpoints (Zhang I)": _judge(spoof_by_gradient),
    "adversarial data for interpolated checkpoints (Zhang II)": _judge(spoof_by_stillness),
    "adversarial data for interpolated checkpoints (Zhang III)": _judge(spoof_by_one_batch),
    "infinitesimal updates (Fang)": _judge(spoof_by_tiny_updates),
    "blindfold top-Q (Fang)": _judge(spoof_the_largest),
    "sorted initial weights (Zhang)": attempt_other_first,
}

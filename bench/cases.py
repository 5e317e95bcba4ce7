"""The jobs that capture, equality and golden vectors are tried on: model, loss, optimizer, batches, and a recipe."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench import models
from milon.gpu.capture import Captured, capture
from milon.gpu.interpreter import Plan
from milon.gpu.recipe import Recipe
from milon.pol.program import StepKey

ROWS = 8  # of a batch
Batch = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One job."""

    model: Callable[[], nn.Module]  # made under a fixed seed
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[..., torch.optim.Optimizer]
    batch: Callable[[torch.Generator], Batch]  # inputs and target
    recipe: Recipe = field(default_factory=Recipe)  # schedule, clipping, micro-batches


def _numbers(*shape: int, classes: int = 5) -> Callable[[torch.Generator], Batch]:
    def make(chance: torch.Generator) -> Batch:
        # Not randn: torch's normal numbers have other bits on other instruction sets.
        inputs = torch.rand(ROWS, *shape, generator=chance) * 3.0 - 1.5
        return inputs, torch.randint(0, classes, (ROWS,), generator=chance)

    return make


def _tokens(length: int, tokens: int, classes: int | None) -> Callable[[torch.Generator], Batch]:
    def make(chance: torch.Generator) -> Batch:
        inputs = torch.randint(0, tokens, (ROWS, length), generator=chance)
        if classes is None:
            return inputs, inputs.roll(-1, 1)
        inputs[:, 0] = 1  # not padding: a row of nothing but padding has no attention
        return inputs, torch.randint(0, classes, (ROWS,), generator=chance)

    return make


def _pictures(*shape: int) -> Callable[[torch.Generator], Batch]:
    def make(chance: torch.Generator) -> Batch:
        images = torch.rand(ROWS, *shape, generator=chance)
        return images + (torch.rand(images.shape, generator=chance) - 0.5) * 0.25, images

    return make


def _warm_up(step: Tensor) -> Tensor:
    return ((step + 1.0) / 4.0).clamp(max=1.0)


CASES: dict[str, Case] = {
    "perceptron": Case(
        models.Perceptron,
        functional.cross_entropy,
        lambda held: torch.optim.SGD(held, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
        _numbers(12),
        Recipe(clip_norm=1.0, accumulate=2),
    ),
    "convolution-net": Case(
        models.ConvolutionNet, functional.cross_entropy, lambda held: torch.optim.Adam(held, lr=3e-3), _numbers(1, 8, 8)
    ),
    "resnet18": Case(
        models.ResNet18,
        lambda logits, target: functional.cross_entropy(logits, target, label_smoothing=0.1),
        lambda held: torch.optim.SGD(held, lr=0.05, momentum=0.9, weight_decay=5e-4),
        _numbers(3, 8, 8),
    ),
    "lstm": Case(
        lambda: models.Recurrent(nn.LSTM),
        functional.cross_entropy,
        lambda held: torch.optim.Adam(held, lr=1e-2),
        _tokens(6, 11, 4),
        Recipe(clip_norm=0.5),
    ),
    "gru": Case(
        lambda: models.Recurrent(nn.GRU),
        functional.cross_entropy,
        lambda held: torch.optim.Adam(held, lr=1e-2),
        _tokens(6, 11, 4),
        Recipe(clip_value=0.05),
    ),
    "transformer-encoder": Case(
        models.TransformerEncoder,
        functional.cross_entropy,
        lambda held: torch.optim.AdamW(held, lr=3e-3),
        _tokens(6, 11, 4),
        Recipe(schedule=_warm_up),
    ),
    "gpt": Case(
        models.Gpt,
        models.next_token_loss,
        lambda held: torch.optim.AdamW(held, lr=3e-3, weight_decay=0.1),
        _tokens(6, 13, None),
        Recipe(schedule=_warm_up, clip_norm=1.0),
    ),
    "vision-transformer": Case(
        models.VisionTransformer,
        functional.cross_entropy,
        lambda held: models.Lion(held, lr=1e-3, weight_decay=0.01),
        _numbers(3, 8, 8),
        Recipe(schedule=_warm_up),
    ),
    "unet": Case(
        models.UNet, functional.mse_loss, lambda held: torch.optim.AdamW(held, lr=3e-3), _pictures(1, 8, 8)
    ),
    "unet-nearest": Case(
        lambda: models.UNet(mode="nearest"),
        functional.mse_loss,
        lambda held: torch.optim.RMSprop(held, lr=1e-3),
        _pictures(1, 8, 8),
    ),
    "autoencoder": Case(
        models.NoisyAutoencoder, models.variational_loss, lambda held: torch.optim.Adam(held, lr=3e-3), _pictures(12)
    ),
    "low-rank": Case(
        lambda: models.add_low_rank(models.Gpt(dropout=0.0)),
        models.next_token_loss,
        lambda held: torch.optim.AdamW(held, lr=1e-2),
        _tokens(6, 13, None),
    ),
    "muon": Case(
        models.Perceptron,
        functional.cross_entropy,
        lambda held: models.MuonForMatrices(held, lr=1e-2),
        _numbers(12),
        Recipe(schedule=_warm_up),
    ),
}


def make_model(case: Case) -> nn.Module:
    """The case's model, the same weights every time."""
    torch.manual_seed(7)
    return case.model()


def make_batch(case: Case, step: int) -> Batch:
    """The batch of one step."""
    return case.batch(torch.Generator().manual_seed(100 + step))


def capture_case(case: Case) -> Captured:
    """The case's programs and first state, evaluated on half a batch."""
    return capture(
        make_model(case), case.loss, case.optimizer, make_batch(case, 0), (ROWS // 2,), recipe=case.recipe
    )


def train(
    case: Case, plan: Plan, state: Mapping[str, Tensor], steps: int, look: Callable[[Any], None] = lambda result: None
) -> dict[str, Tensor]:
    """The state after so many steps; `look` sees every step's result."""
    for step in range(steps):
        result = plan.run(state, make_batch(case, step), StepKey(bytes(32), 0, 0, step))
        state = result.new_state
        look(result)
    return dict(state)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and bytes of all tensors, in the order of the names."""
    running = hashlib.sha256()
    for name in sorted(tensors):
        running.update(name.encode() + tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return running.hexdigest()

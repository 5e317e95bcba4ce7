"""Capture: ordinary models and optimizers learn as stock torch does; what has no rewrite is refused in plain words."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from milon.base.errors import Reason, Rejected
from milon.gpu.capture import Captured, capture
from milon.gpu.interpreter import load
from milon.gpu.randomness import compute_normal
from milon.gpu.recipe import Recipe
from milon.pol.program import InputRole, StepKey
from tests.gpu.programs import batch_at, digits, digits_cnn, train

KEY = StepKey(bytes(32), 0, 0, 0)


class Residual(nn.Module):
    """Grouped and strided convolutions, a layer norm, and a branch that adds."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, bias=False)
        self.side = nn.Conv2d(4, 8, 1, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        held = functional.silu(self.norm(self.main(images))) + self.side(images)
        logits: Tensor = self.head(self.last(functional.adaptive_avg_pool2d(held, 1).flatten(1)))
        return logits


def example(seed: int, shape: tuple[int, ...], classes: int | tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(shape, generator=generator)
    if isinstance(classes, int):
        return inputs, torch.randint(0, classes, shape[:1], generator=generator)
    return inputs, torch.randn(classes, generator=generator)


CASES = {
    "perceptron, tanh, mse, nesterov": (
        lambda: nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)),
        functional.mse_loss,
        lambda held: torch.optim.SGD(held, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
        example(1, (8, 6), (8, 3)),
    ),
    "perceptron, batch norm, gelu, sigmoid, adamw": (
        lambda: nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 5)
        ),
        functional.cross_entropy,
        lambda held: torch.optim.AdamW(held, lr=0.01),
        example(2, (8, 6), 5),
    ),
    "log softmax, nll, plain sgd": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.LogSoftmax(1)),
        functional.nll_loss,
        lambda held: torch.optim.SGD(held, lr=0.1),
        example(3, (8, 6), 5),
    ),
    "residual, amsgrad": (
        Residual,
        functional.cross_entropy,
        lambda held: torch.optim.AdamW(held, lr=0.01, amsgrad=True),
        example(4, (8, 4, 6, 6), 5),
    ),
    "average and overlapping pools, rmsprop": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.GELU("tanh"), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.MaxPool2d(3, 1, 1),
            nn.Flatten(), nn.Linear(36, 5),
        ),
        functional.cross_entropy,
        lambda held: torch.optim.RMSprop(held),
        example(5, (8, 1, 8, 8), 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_training_follows_stock_torch(name: str) -> None:
    make, loss, optimizer, batch = CASES[name]
    torch.manual_seed(7)
    model = make()
    stock = copy.deepcopy(model)
    job = capture(model, loss, optimizer, batch, (3,))
    plan, state = load(job.train), job.state
    steps = optimizer(stock.parameters())
    for _ in range(6):
        result = plan.run(state, batch, KEY)
        state = result.new_state
        expected = loss(stock(batch[0]), batch[1])
        steps.zero_grad()
        expected.backward()
        steps.step()
        assert result.loss is not None
        torch.testing.assert_close(result.loss, expected.detach(), rtol=2e-5, atol=2e-5)
    small = load(job.evaluate[0]).run(state, [tensor[:3] for tensor in batch], None)
    stock.eval()
    torch.testing.assert_close(small.loss, loss(stock(batch[0][:3]), batch[1][:3]).detach(), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def digits_job() -> Captured:
    return capture(
        digits_cnn(),
        functional.cross_entropy,
        lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        (torch.zeros(32, 1, 8, 8), torch.zeros(32, dtype=torch.int64)),
        (397,),
    )


def test_a_hundred_steps_on_digits_reach_what_stock_torch_reaches(digits_job: Captured) -> None:
    images, classes = digits()
    state, results = train(load(digits_job.train), digits_job.state, 100)
    stock = digits_cnn()
    optimizer = torch.optim.Adam(stock.parameters(), lr=3e-3)
    stock_losses = []
    for step in range(100):
        inputs, targets = batch_at(images, classes, step)
        found = functional.cross_entropy(stock(inputs), targets)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        stock_losses.append(float(found.detach()))
    stock.eval()
    stock_right = int((stock(images[1400:]).argmax(1) == classes[1400:]).sum())
    result = load(digits_job.evaluate[0]).run(state, (images[1400:], classes[1400:]), None)
    assert result.correct is not None and result.correct > 0.85 * 397
    assert abs(result.correct - stock_right) < 0.05 * 397
    losses = [float(result.loss) for result in results if result.loss is not None]
    assert abs(sum(losses) - sum(stock_losses)) < 0.1 * sum(stock_losses)


def test_the_state_is_all_that_the_next_step_reads(digits_job: Captured) -> None:
    read = {entry.name for entry in digits_job.train.inputs if entry.role is InputRole.STATE}
    assert read == set(digits_job.state)
    parameters = [name for name, _ in digits_cnn().named_parameters()]
    slots = {f"optimizer.{slot}.{name}" for slot in ("exp_avg", "exp_avg_sq") for name in parameters}
    model = {f"model.{name}" for name in digits_cnn().state_dict()}
    assert read == model | slots | {"optimizer.step"}
    assert float(digits_job.state["optimizer.step"]) == 0.0
    assert {entry.role for entry in digits_job.evaluate[0].inputs} == {InputRole.STATE, InputRole.BATCH}


def test_capture_leaves_the_model_as_it_was() -> None:
    model = digits_cnn().eval()
    model[3].train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = (torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64))
    capture(model, functional.cross_entropy, torch.optim.SGD, batch, (4,))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training and model[3].training and not model[1].training
    assert all(parameter.grad is None for parameter in model.parameters())


class Sorting(nn.Linear):
    """Uses an operation that programs do not have."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.sort(super().forward(inputs), dim=1).values


class Branching(nn.Linear):
    """Decides by a tensor's value."""

    def forward(self, inputs: Tensor) -> Tensor:
        found = super().forward(inputs)
        return found + 1 if found.sum() > 0 else found


def test_what_has_no_rewrite_is_refused_with_its_line_and_a_way_out() -> None:
    batch = example(1, (8, 6), 5)
    cases = [
        (Sorting(6, 5), functional.cross_entropy, torch.optim.SGD, "operation sort.default; nearest supported:"),
        (Sorting(6, 5), functional.cross_entropy, torch.optim.SGD, "torch.sort(super().forward(inputs), dim=1)"),
        (Branching(6, 5), functional.cross_entropy, torch.optim.SGD, "if found.sum() > 0"),
        (nn.Linear(6, 5), functional.cross_entropy, torch.optim.NAdam, "slot 'mu_product'"),
        (nn.Linear(6, 5).double(), functional.cross_entropy, torch.optim.SGD, "nearest supported: float32"),
        (nn.Linear(6, 5), lambda output, target: output, torch.optim.SGD, "nearest supported: its mean"),
    ]
    for model, loss, optimizer, text in cases:
        with pytest.raises(Rejected) as caught:
            capture(model, loss, optimizer, batch, (8,))
        assert caught.value.reason is Reason.UNSUPPORTED
        assert text in caught.value.detail


class Noisy(nn.Linear):
    """Draws whether it trains or not."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + torch.randn_like(inputs[:, :1])


class Shuffling(nn.Linear):
    """Draws a permutation."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs[torch.randperm(8)])


class Writing(nn.Linear):
    """Writes into a part of a tensor that has a gradient."""

    def forward(self, inputs: Tensor) -> Tensor:
        wide = torch.zeros(8, 6)
        wide[:, 1:6] = super().forward(inputs)
        return wide


class Counting(torch.optim.SGD):
    """Counts its steps in a plain number, which a trace would freeze."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]  # no closure, as training here needs none
        for group in self.param_groups:
            for parameter in group["params"]:
                count = self.state[parameter].get("count", 0) + 1
                self.state[parameter]["count"] = count
                with torch.no_grad():
                    parameter.sub_(parameter.grad, alpha=1 / count)


def infinite() -> nn.Module:
    model = nn.Linear(6, 5)
    with torch.no_grad():
        model.bias[2] = torch.inf
    return model


def test_what_would_go_wrong_later_is_refused_at_capture() -> None:
    batch = example(1, (8, 6), 5)
    plain = Recipe()
    cases = [
        (Noisy(6, 5), torch.optim.SGD, plain, "drawing while self.training only"),
        (Noisy(6, 5), torch.optim.SGD, plain, "torch.randn_like(inputs[:, :1])"),
        (Shuffling(6, 5), torch.optim.SGD, plain, "leaving the order of rows to the job"),
        (Writing(6, 5), torch.optim.SGD, plain, "torch.cat or torch.where, instead of writing into a part"),
        (infinite(), torch.optim.SGD, plain, "bias holds an infinity or NaN before the first step"),
        (nn.Linear(6, 5), Counting, plain, "Counting with slot 'count'"),
        (nn.Linear(6, 5).requires_grad_(False), torch.optim.SGD, plain, "all frozen"),
        (nn.Linear(6, 5), torch.optim.SGD, Recipe(accumulate=3), "8 rows do not divide into 3"),
    ]
    for model, optimizer, recipe, text in cases:
        with pytest.raises(Rejected) as caught:
            capture(model, functional.cross_entropy, optimizer, batch, (8,), recipe=recipe)
        assert text in caught.value.detail


def test_micro_batches_without_batch_statistics_give_the_same_gradient() -> None:
    batch = example(1, (8, 6), 5)
    states = []
    for parts in (1, 4):
        torch.manual_seed(2)
        recipe = Recipe(accumulate=parts)
        job = capture(nn.Linear(6, 5), functional.cross_entropy, torch.optim.SGD, batch, (8,), recipe=recipe)
        states.append(load(job.train).run(job.state, batch, KEY))
    for name, gradient in states[0].gradients.items():
        torch.testing.assert_close(states[1].gradients[name], gradient, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(states[0].loss, states[1].loss)


class Indexing(nn.Module):
    """Reads by tensors of indices, pads, resizes, and rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 6))

    def forward(self, inputs: Tensor) -> Tensor:
        held = inputs * self.scale
        rows, columns = torch.arange(8), torch.tensor([0, 1, 2, 3, 4, 5, 0, 1])
        picked = held[:, torch.tensor([0, -1, 3, 3])] + held[rows, columns].unsqueeze(1)
        table = held.reshape(8, 2, 3)
        chosen = table[:, torch.tensor([[1, 0], [0, 0]]), torch.tensor([2, -3])]
        wide = functional.pad(held[:, :3].floor() + held[:, :3], (1, 2))
        line = functional.interpolate(held.unsqueeze(1), size=4, mode="linear", align_corners=True).squeeze(1)
        return torch.cat((picked, chosen.flatten(1), wide, line, held.index_select(1, torch.tensor([2, 2]))), 1)


def test_indices_and_writes_follow_stock_torch() -> None:
    model, (inputs, _) = Indexing(), example(9, (8, 6), 5)
    target = torch.zeros(8, 20)
    job = capture(model, functional.mse_loss, torch.optim.SGD, (inputs, target), (8,))
    result = load(job.train).run(job.state, (inputs, target), KEY)
    loss = functional.mse_loss(model(inputs), target)
    loss.backward()
    torch.testing.assert_close(result.loss, loss.detach())
    torch.testing.assert_close(result.gradients["model.scale"], model.scale.grad, rtol=1e-5, atol=1e-6)


def test_upsampling_and_transposed_convolutions_follow_stock_torch() -> None:
    images = example(3, (2, 3, 5, 4), 5)[0]
    cases = [
        lambda held: functional.interpolate(held, size=(7, 9), mode="nearest"),
        lambda held: functional.interpolate(held, scale_factor=1.7, mode="nearest"),
        lambda held: functional.interpolate(held, size=(3, 9), mode="bilinear"),
        lambda held: functional.interpolate(held, scale_factor=(2.0, 1.5), mode="bilinear", align_corners=True),
        nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
        nn.ConvTranspose2d(3, 6, (2, 3), stride=(3, 1), groups=3, dilation=(2, 1)),
    ]
    for case in cases:
        model = nn.Sequential(nn.Conv2d(3, 3, 1), case if isinstance(case, nn.Module) else Applied(case))
        target = torch.zeros_like(model(images))
        job = capture(model, functional.mse_loss, torch.optim.SGD, (images, target), ())
        result = load(job.train).run(job.state, (images, target), KEY)
        loss = functional.mse_loss(model(images), target)
        loss.backward()
        torch.testing.assert_close(result.loss, loss.detach())
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(result.gradients[f"model.{name}"], parameter.grad, rtol=1e-4, atol=1e-6)


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, held: Tensor) -> Tensor:
        return self.function(held)


def test_normal_noise_follows_the_inverse_of_its_distribution() -> None:
    """At the middle of each uniform step, to the 7 digits the routine has; symmetric to the bit."""
    inverse = statistics.NormalDist().inv_cdf
    places = [0, 1, 2, 100, 1 << 12, 1 << 20, 1 << 22, (1 << 23) - 1, 1258290, 1258292]
    numbers = [*places, *((1 << 24) - 1 - place for place in places)]
    found = compute_normal(torch.tensor(numbers, dtype=torch.float32) * 2.0**-24)
    expected = torch.tensor([inverse((number + 0.5) * 2.0**-24) for number in numbers])
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-9)
    assert torch.equal(found[: len(places)], -found[len(places) :])

"""Captures a model, a loss and an optimizer as the three programs of a job; runs on the machine of whoever submits it.

The whole training step, forward, backward and optimizer, becomes one straight line of operations on the state: torch's
own optimizer runs under the trace, with its slots as inputs. Nothing of the user's code remains but arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from milon.base.errors import Reason, Rejected
from milon.gpu.aten_basic import BASIC
from milon.gpu.aten_indexed import INDEXED
from milon.gpu.aten_resize import RESIZE
from milon.gpu.aten_windows import WINDOW
from milon.gpu.builder import Builder, dtype_of
from milon.gpu.optimizing import OptimizerMaker, find_first_slots, make_optimizer, take_step
from milon.gpu.randomness import drawing
from milon.gpu.recipe import Recipe
from milon.gpu.tracing import find_line, plain_kernels, trace
from milon.gpu.translation import Walk
from milon.pol.program import Budget, InputRole, OutputRole, Program, ProgramKind, verify_program
from milon.pol.shapes import DTYPES, DType, TensorType

Loss = Callable[[Tensor, Tensor], Tensor]
MODEL = "model."  # before the name of a parameter or buffer, as its state_dict has it
REWRITES = {**BASIC, **WINDOW, **INDEXED, **RESIZE}
MAGNITUDE_BITS = 21  # rule N4 with binary64 products: about the accuracy of binary32 ones


@dataclass(frozen=True, slots=True)
class Captured:
    """The programs of a job and the state they start from."""

    train: Program  # one step on a batch of the example's size
    evaluate: tuple[Program, ...]  # one per evaluation batch size, in the order asked for
    predict: Program  # on a batch of the example's size
    state: dict[str, Tensor]  # all that the next step reads: parameters, buffers, optimizer slots


def capture(
    model: nn.Module,
    loss: Loss,
    optimizer: OptimizerMaker,
    example: tuple[Tensor, ...],
    evaluation_batch_sizes: tuple[int, ...],
    magnitude_bits: int = MAGNITUDE_BITS,
    recipe: Recipe | None = None,
) -> Captured:
    """The programs of training `model` on batches like `example` = (inputs ..., target), batch first in each.

    `loss(output, target)` gives the mean over the batch as a binary32 scalar. `optimizer(parameters)` makes a torch
    optimizer. The model is left as it was. Raises `Rejected(UNSUPPORTED)` for an operation without a rewrite, naming
    it, the line of the user's code that leads to it where that is known, and the nearest form that is supported.
    """
    state = _first_state(model)
    batch = tuple(tensor.detach() for tensor in example)
    with _mode(model, training=True):
        step = _Step(model, loss, optimizer, recipe or Recipe(), state)
        train = _capture_training(step, batch, magnitude_bits)
    with _mode(model, training=False):
        evaluate = tuple(
            _capture_evaluation(model, loss, state, _resized(batch, size), magnitude_bits)
            for size in evaluation_batch_sizes
        )
        predict = _capture_prediction(model, state, batch[:-1], magnitude_bits)
    for program in (train, *evaluate, predict):
        verify_program(program, Budget())
    return Captured(train, evaluate, predict, {**state, **step.slots.first})


def _first_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; a tensor that several names share goes by the first of them."""
    seen: set[int] = set()
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        _require_dtype(name, tensor)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise Rejected(Reason.OUT_OF_RANGE, f"{name} holds an infinity or NaN before the first step")
        state[MODEL + name] = tensor.detach().clone()
    return state


def _find_aliases(model: nn.Module) -> dict[str, str]:
    """Every further name of a tensor that several names share, and the first of them."""
    first: dict[int, str] = {}
    named = model.state_dict(keep_vars=True).items()
    return {name: found for name, tensor in named if (found := first.setdefault(id(tensor), name)) != name}


def _require_dtype(name: str, tensor: Tensor) -> None:
    try:
        dtype_of(tensor.dtype)
    except Rejected as refusal:
        raise Rejected(refusal.reason, f"{name}: {refusal.detail}") from None


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    """The whole model in training or evaluation mode, each module as before afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


def _resized(batch: tuple[Tensor, ...], size: int) -> tuple[Tensor, ...]:
    return tuple(tensor.new_zeros((size, *tensor.shape[1:])) for tensor in batch)


class _Step:
    """One training step as a function of flat tensors: state in the order of `names`, batch, draws."""

    def __init__(
        self, model: nn.Module, loss: Loss, optimizer: OptimizerMaker, recipe: Recipe, state: dict[str, Tensor]
    ) -> None:
        self.model, self.loss, self.optimizer, self.recipe = model, loss, optimizer, recipe
        self.state, self.slots = state, find_first_slots(model, optimizer, recipe)
        for name, tensor in self.slots.first.items():
            _require_dtype(name, tensor)
        self.trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.names = [*state, *self.slots.first]
        self.outputs = [(OutputRole.LOSS, "")] + [(OutputRole.GRADIENT, MODEL + name) for name in self.trained]
        self.outputs += [(OutputRole.NEW_STATE, name) for name in self.names]

    def compute_loss(
        self, trained: dict[str, Tensor], others: dict[str, Tensor], batch: tuple[Tensor, ...], draws: Iterator[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the tensors that are not trained as the forward pass leaves them."""
        held = {name: tensor.clone() for name, tensor in others.items()}
        with drawing(lambda shape: next(draws)):
            output = torch.func.functional_call(self.model, {**trained, **held}, batch[:-1])
            return self.loss(output, batch[-1]), held

    def find_draws(self, batch: tuple[Tensor, ...]) -> list[tuple[int, ...]]:
        """The shapes of the step's random draws, in order."""
        shapes: list[tuple[int, ...]] = []

        def draw(shape: tuple[int, ...]) -> Tensor:
            shapes.append(shape)
            return torch.zeros(shape)

        held = {name.removeprefix(MODEL): tensor.clone() for name, tensor in self.state.items()}
        with torch.no_grad(), plain_kernels(), drawing(draw):
            for part in self.recipe.split(batch):
                found = self.loss(torch.func.functional_call(self.model, held, part[:-1]), part[-1])
                _require_scalar(found)
        return shapes

    def run(self, batch_size: int, *flat: Tensor) -> list[Tensor]:
        """Loss, gradients and new state, in the order of `outputs`; `batch_size` tensors of `flat` are the batch."""
        given = dict(zip(self.names, flat, strict=False))
        batch = flat[len(self.names) : len(self.names) + batch_size]
        draws = iter(flat[len(self.names) + batch_size :])
        model = {name.removeprefix(MODEL): given[name] for name in self.state}
        trained = {name: model.pop(name) for name in self.trained}
        loss, gradients, held = self._differentiate(trained, model, batch, draws)
        leaves = {name: tensor.clone() for name, tensor in trained.items()}
        made = make_optimizer(self.optimizer, list(leaves.values()))
        before = {name: given[name] for name in self.slots.first}
        slots = take_step(made, leaves, self.recipe, gradients, before, self.slots.has_count)
        new = {MODEL + name: tensor for name, tensor in (*leaves.items(), *held.items())} | slots
        return [loss, *(gradients[name] for name in self.trained), *(new[name] for name in self.names)]

    def _differentiate(
        self, trained: dict[str, Tensor], held: dict[str, Tensor], batch: tuple[Tensor, ...], draws: Iterator[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Loss, gradients, and the tensors that are not trained, after all micro-batches in their order."""
        differentiate = torch.func.grad_and_value(self.compute_loss, has_aux=True)
        parts = self.recipe.split(batch)
        gradients, (loss, held) = differentiate(trained, held, parts[0], draws)
        for part in parts[1:]:
            more, (term, held) = differentiate(trained, held, part, draws)
            loss = loss + term
            gradients = {name: gradient + more[name] for name, gradient in gradients.items()}
        if len(parts) > 1:
            loss = loss / len(parts)
            gradients = {name: gradient / len(parts) for name, gradient in gradients.items()}
        return loss, gradients, held


def _require_scalar(found: Tensor) -> None:
    if tuple(found.shape) != () or found.dtype is not torch.float32:
        detail = f"a loss of {found.dtype}{list(found.shape)}; nearest supported: its mean, a float32 scalar"
        raise Rejected(Reason.UNSUPPORTED, detail)


def _capture_training(step: _Step, batch: tuple[Tensor, ...], magnitude_bits: int) -> Program:
    builder = Builder()
    tensors = [*step.state.values(), *step.slots.first.values()]
    numbers = _declare(builder, InputRole.STATE, step.names, tensors)
    numbers += _declare(builder, InputRole.BATCH, _batch_names(batch), list(batch))
    draws = [torch.zeros(shape) for shape in step.find_draws(batch)]
    numbers += _declare(builder, InputRole.DRAW, [f"draw.{place}" for place in range(len(draws))], draws)
    values = _translate(builder, lambda *flat: step.run(len(batch), *flat), [*tensors, *batch, *draws], numbers)
    outputs = [(role, name, value) for (role, name), value in zip(step.outputs, values, strict=True)]
    return builder.finish(ProgramKind.TRAIN, magnitude_bits, outputs)


def _declare(builder: Builder, role: InputRole, names: list[str], tensors: list[Tensor]) -> list[int]:
    return [
        builder.input(name, role, TensorType(dtype_of(tensor.dtype), tuple(tensor.shape)))
        for name, tensor in zip(names, tensors, strict=True)
    ]


def _batch_names(batch: tuple[Tensor, ...]) -> list[str]:
    return [f"batch.{place}" for place in range(len(batch))]


def _translate(
    builder: Builder, function: Callable[..., list[Tensor]], inputs: list[Tensor], numbers: list[int]
) -> list[int]:
    graph = trace(function, inputs)
    try:
        return Walk(builder, REWRITES).run(graph, numbers)
    except Rejected as refusal:
        operation = refusal.detail.removeprefix("operation ").split(";")[0].split(":")[0]
        line = find_line(function, inputs, operation)
        raise Rejected(refusal.reason, refusal.detail + (f" ({line})" if line else "")) from None


def _capture_evaluation(
    model: nn.Module, loss: Loss, state: dict[str, Tensor], batch: tuple[Tensor, ...], magnitude_bits: int
) -> Program:
    def evaluate(*flat: Tensor) -> list[Tensor]:
        held = {name.removeprefix(MODEL): tensor.clone() for name, tensor in zip(state, flat, strict=False)}
        inputs, target = flat[len(state) : -1], flat[-1]
        output = torch.func.functional_call(model, held, inputs)
        found = loss(output, target)
        _require_scalar(found)
        return [found, output]

    builder = Builder()
    numbers = _declare(builder, InputRole.STATE, list(state), list(state.values()))
    numbers += _declare(builder, InputRole.BATCH, _batch_names(batch), list(batch))
    found, output = _translate(builder, evaluate, [*state.values(), *batch], numbers)
    outputs = [(OutputRole.LOSS, "", found)]
    wanted = TensorType(DType.INT64, (batch[-1].shape[0],))
    if builder.type_of(numbers[-1]) == wanted and len(builder.shape_of(output)) == 2:
        chosen = builder.node("argmax", output, attributes=((1,), (0,)))
        hits = builder.node("cast", builder.node("eq", chosen, numbers[-1]), attributes=((DTYPES.index(DType.INT64),),))
        outputs.append((OutputRole.CORRECT, "", builder.node("sum", hits, attributes=((0,), (0,)))))
    return builder.finish(ProgramKind.EVALUATE, magnitude_bits, outputs)


def _capture_prediction(
    model: nn.Module, state: dict[str, Tensor], inputs: tuple[Tensor, ...], magnitude_bits: int
) -> Program:
    def predict(*flat: Tensor) -> list[Tensor]:
        held = {name.removeprefix(MODEL): tensor.clone() for name, tensor in zip(state, flat, strict=False)}
        return [torch.func.functional_call(model, held, flat[len(state) :])]

    builder = Builder()
    numbers = _declare(builder, InputRole.STATE, list(state), list(state.values()))
    numbers += _declare(builder, InputRole.BATCH, _batch_names(inputs), list(inputs))
    (prediction,) = _translate(builder, predict, [*state.values(), *inputs], numbers)
    outputs = [(OutputRole.PREDICTION, "", prediction)]
    places = dict(zip(state, numbers, strict=False))
    for alias, name in _find_aliases(model).items():
        outputs.append((OutputRole.ALIAS, MODEL + alias, places[MODEL + name]))
    return builder.finish(ProgramKind.PREDICT, magnitude_bits, outputs)

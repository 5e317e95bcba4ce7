"""Captures a model, a loss and an optimizer as the three programs of a job; runs on the machine of whoever submits it.

The whole training step, forward, backward and optimizer, becomes one straight line of operations on the state: torch's
own optimizer runs under the trace, with its slots as inputs. Nothing of the user's code remains but arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from milon.base.errors import Reason, Rejected
from milon.gpu.aten_basic import BASIC
from milon.gpu.aten_windows import WINDOW
from milon.gpu.builder import Builder, dtype_of
from milon.gpu.tracing import DropoutMode, as_if_compiling, find_line, trace
from milon.gpu.translation import Walk
from milon.pol.program import Budget, InputRole, OutputRole, Program, ProgramKind, verify_program
from milon.pol.shapes import DTYPES, DType, TensorType

Loss = Callable[[Tensor, Tensor], Tensor]
OptimizerMaker = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
MODEL = "model."  # before the name of a parameter or buffer, as its state_dict has it
OPTIMIZER = "optimizer."  # before the name of a slot, then that of its parameter
STEP = "optimizer.step"  # the step count, which all parameters share
REWRITES = {**BASIC, **WINDOW}
MAGNITUDE_BITS = 21  # rule N4 with binary64 products: about the accuracy of binary32 ones

# Slots that torch's optimizers fill with zeros before their first step; any other needs its own first value.
_ZERO_SLOTS = (
    "step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "grad_avg",
    "acc_delta", "sum",
)  # fmt: skip


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
) -> Captured:
    """The programs of training `model` on batches like `example` = (inputs ..., target), batch first in each.

    `loss(output, target)` gives the mean over the batch as a binary32 scalar. `optimizer(parameters)` makes a torch
    optimizer. The model is left as it was. Raises `Rejected(UNSUPPORTED)` for an operation without a rewrite, naming
    it, the line of the user's code that leads to it where that is known, and the nearest form that is supported.
    """
    state = {MODEL + name: tensor.detach().clone() for name, tensor in model.state_dict(keep_vars=True).items()}
    for name, tensor in state.items():
        _require_dtype(name, tensor)
    slots = _first_slots(model, optimizer)
    batch = tuple(tensor.detach() for tensor in example)
    with _mode(model, training=True):
        train = _capture_training(_Step(model, loss, optimizer, state, slots), batch, magnitude_bits)
    with _mode(model, training=False):
        evaluate = tuple(
            _capture_evaluation(model, loss, state, _resized(batch, size), magnitude_bits)
            for size in evaluation_batch_sizes
        )
        predict = _capture_prediction(model, state, batch[:-1], magnitude_bits)
    for program in (train, *evaluate, predict):
        verify_program(program, Budget())
    return Captured(train, evaluate, predict, {**state, **slots})


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


def _make_optimizer(optimizer: OptimizerMaker, leaves: list[Tensor]) -> torch.optim.Optimizer:
    """The user's optimizer over `leaves`, in the plain form whose steps are single operations."""
    made = optimizer(leaves)  # type: ignore[arg-type]  # plain tensors: a trace has no parameters
    for group in made.param_groups:
        group.update({name: False for name in ("foreach", "fused") if name in group})
        if "capturable" in group:
            group["capturable"] = True
    return made


def _first_slots(model: nn.Module, optimizer: OptimizerMaker) -> dict[str, Tensor]:
    """The optimizer's slots before its first step, found by letting it take one on a copy."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    leaves = [model.get_parameter(name).detach().clone() for name in names]
    made = _make_optimizer(optimizer, leaves)
    early = {(leaf, slot): tensor.clone() for leaf in leaves for slot, tensor in _tensors(made, leaf)}
    for leaf in leaves:
        leaf.grad = torch.zeros_like(leaf)
    with as_if_compiling(), torch.no_grad():
        made.step()
    slots: dict[str, Tensor] = {}
    for name, leaf in zip(names, leaves, strict=True):
        for slot, tensor in _tensors(made, leaf):
            if (leaf, slot) not in early and slot not in _ZERO_SLOTS:
                detail = f"optimizer {type(made).__name__} with slot {slot!r}; nearest supported: torch.optim.AdamW"
                raise Rejected(Reason.UNSUPPORTED, detail)
            first = early.get((leaf, slot), torch.zeros_like(tensor))
            slots[_slot_name(slot, name)] = first
            _require_dtype(_slot_name(slot, name), first)
    return slots


def _tensors(made: torch.optim.Optimizer, leaf: Tensor) -> list[tuple[str, Tensor]]:
    held = made.state.get(leaf, {})
    return [(slot, entry) for slot, entry in held.items() if isinstance(entry, Tensor)]


def _slot_name(slot: str, parameter: str) -> str:
    return STEP if slot == "step" else f"{OPTIMIZER}{slot}.{parameter}"


class _Step:
    """One training step as a function of flat tensors: state in the order of `names`, batch, draws."""

    def __init__(
        self, model: nn.Module, loss: Loss, optimizer: OptimizerMaker, state: dict[str, Tensor],
        slots: dict[str, Tensor],
    ) -> None:  # fmt: skip
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.state, self.slots = state, slots
        self.trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.names = [*state, *slots]
        self.outputs = [(OutputRole.LOSS, "")] + [(OutputRole.GRADIENT, MODEL + name) for name in self.trained]
        self.outputs += [(OutputRole.NEW_STATE, name) for name in self.names]

    def compute_loss(
        self, trained: dict[str, Tensor], others: dict[str, Tensor], batch: tuple[Tensor, ...], draws: Iterator[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the tensors that are not trained as the forward pass leaves them."""
        held = {name: tensor.clone() for name, tensor in others.items()}
        with DropoutMode(lambda shape: next(draws)):
            output = torch.func.functional_call(self.model, {**trained, **held}, batch[:-1])
            return self.loss(output, batch[-1]), held

    def find_draws(self, batch: tuple[Tensor, ...]) -> list[tuple[int, ...]]:
        """The shapes of the step's random draws, in order."""
        shapes: list[tuple[int, ...]] = []

        def draw(shape: tuple[int, ...]) -> Tensor:
            shapes.append(shape)
            return torch.zeros(shape)

        held = {name.removeprefix(MODEL): tensor.clone() for name, tensor in self.state.items()}
        with torch.no_grad(), DropoutMode(draw):
            found = self.loss(torch.func.functional_call(self.model, held, batch[:-1]), batch[-1])
        _require_scalar(found)
        return shapes

    def run(self, batch_size: int, *flat: Tensor) -> list[Tensor]:
        """Loss, gradients and new state, in the order of `outputs`; `batch_size` tensors of `flat` are the batch."""
        given = dict(zip(self.names, flat, strict=False))
        batch = flat[len(self.names) : len(self.names) + batch_size]
        draws = iter(flat[len(self.names) + batch_size :])
        model = {name.removeprefix(MODEL): given[name] for name in self.state}
        trained = {name: model.pop(name) for name in self.trained}
        gradient = torch.func.grad_and_value(self.compute_loss, has_aux=True)
        gradients, (loss, held) = gradient(trained, model, batch, draws)
        leaves, slots = self._optimize(trained, gradients, given)
        new = {MODEL + name: tensor for name, tensor in (*leaves.items(), *held.items())} | slots
        return [loss, *(gradients[name] for name in self.trained), *(new[name] for name in self.names)]

    def _optimize(
        self, trained: dict[str, Tensor], gradients: dict[str, Tensor], given: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters and slots after one step of the optimizer."""
        leaves = {name: tensor.clone() for name, tensor in trained.items()}
        made = _make_optimizer(self.optimizer, list(leaves.values()))
        for name, leaf in leaves.items():
            leaf.grad = gradients[name]
            for slot in sorted({known.removeprefix(OPTIMIZER).split(".")[0] for known in self.slots}):
                if _slot_name(slot, name) in given:
                    made.state[leaf][slot] = given[_slot_name(slot, name)].clone()
        with as_if_compiling():
            made.step()
        after = {_slot_name(slot, name): entry for name, leaf in leaves.items() for slot, entry in _tensors(made, leaf)}
        return leaves, {name: after[name] for name in self.slots}


def _require_scalar(found: Tensor) -> None:
    if tuple(found.shape) != () or found.dtype is not torch.float32:
        detail = f"a loss of {found.dtype}{list(found.shape)}; nearest supported: its mean, a float32 scalar"
        raise Rejected(Reason.UNSUPPORTED, detail)


def _capture_training(step: _Step, batch: tuple[Tensor, ...], magnitude_bits: int) -> Program:
    builder = Builder()
    tensors = [*step.state.values(), *step.slots.values()]
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
    return builder.finish(ProgramKind.PREDICT, magnitude_bits, [(OutputRole.PREDICTION, "", prediction)])

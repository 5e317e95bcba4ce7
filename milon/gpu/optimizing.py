"""Torch's own optimizers, prepared for a trace: their slots before the first step, and one step as plain tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import _muon

from milon.base.errors import Reason, Rejected
from milon.gpu.recipe import Recipe, ScalarMode

OptimizerMaker = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZER = "optimizer."  # before the name of a slot, then that of its parameter
STEP = "optimizer.step"  # the step count, which all parameters share

# Slots that torch's optimizers fill with zeros before their first step; any other needs its own first value.
_ZERO_SLOTS = (
    "step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "grad_avg",
    "acc_delta", "sum",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slots:
    """What an optimizer keeps between steps."""

    first: dict[str, Tensor]  # by name in the state, before the first step
    has_count: bool  # whether the optimizer counts its steps itself; otherwise a schedule's count is kept for it


def _orthogonalize(
    grad: Tensor, ns_coefficients: tuple[float, float, float], ns_steps: int, eps: float
) -> Tensor:
    """The Newton-Schulz iteration of Muon in binary32, where torch goes by way of bfloat16 (Jordan et al. 2024)."""
    a, b, c = ns_coefficients
    found = grad.T if grad.size(0) > grad.size(1) else grad
    found = found / (found * found).sum().sqrt().clamp(min=eps)
    for _ in range(ns_steps):
        gram = found @ found.T
        found = found * a + (gram * b + (gram @ gram) * c) @ found
    return found.T if grad.size(0) > grad.size(1) else found


@contextmanager
def as_if_compiling() -> Iterator[None]:
    """Let torch's optimizers keep their step count in a tensor on any device, as they do for its own compiler.

    Muon computes in binary32 meanwhile: programs have no bfloat16.
    """
    before = torch.compiler.is_compiling, _muon._zeropower_via_newtonschulz
    torch.compiler.is_compiling = lambda: True
    _muon._zeropower_via_newtonschulz = _orthogonalize
    try:
        yield
    finally:
        torch.compiler.is_compiling, _muon._zeropower_via_newtonschulz = before


def make_optimizer(optimizer: OptimizerMaker, leaves: list[Tensor]) -> torch.optim.Optimizer:
    """The user's optimizer over `leaves`, in the plain form whose steps are single operations."""
    made = optimizer(leaves)  # type: ignore[arg-type]  # plain tensors: a trace has no parameters
    for group in made.param_groups:
        group.update({name: False for name in ("foreach", "fused") if name in group})
        if "capturable" in group:
            group["capturable"] = True
    return made


def find_first_slots(model: nn.Module, optimizer: OptimizerMaker, recipe: Recipe) -> Slots:
    """The optimizer's slots before its first step, found by letting it take one on a copy; `Rejected` if it cannot."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not names:
        raise Rejected(Reason.UNSUPPORTED, "a model whose parameters are all frozen; leave requires_grad on some")
    leaves = [model.get_parameter(name).detach().clone() for name in names]
    made = make_optimizer(optimizer, leaves)
    early = {(leaf, slot): tensor.clone() for leaf in leaves for slot, tensor in _tensors(made, leaf)}
    for leaf in leaves:
        leaf.grad = torch.zeros_like(leaf)
    with as_if_compiling(), torch.no_grad():
        made.step()
    slots: dict[str, Tensor] = {}
    for name, leaf in zip(names, leaves, strict=True):
        for slot, tensor in _tensors(made, leaf):
            if (leaf, slot) not in early and slot not in _ZERO_SLOTS:
                raise Rejected(Reason.UNSUPPORTED, _describe_slot(made, slot))
            slots[slot_name(slot, name)] = early.get((leaf, slot), torch.zeros_like(tensor))
        numbers = [slot for slot, entry in made.state.get(leaf, {}).items() if isinstance(entry, (int, float))]
        if numbers:
            raise Rejected(Reason.UNSUPPORTED, _describe_slot(made, numbers[0]) + ", or the number as a tensor")
    has_count = STEP in slots
    if recipe.schedule is not None and not has_count:
        slots[STEP] = torch.tensor(0.0)
    return Slots(slots, has_count)


def _describe_slot(made: torch.optim.Optimizer, slot: str) -> str:
    return f"optimizer {type(made).__name__} with slot {slot!r}; nearest supported: torch.optim.AdamW"


def _tensors(made: torch.optim.Optimizer, leaf: Tensor) -> list[tuple[str, Tensor]]:
    held = made.state.get(leaf, {})
    return [(slot, entry) for slot, entry in held.items() if isinstance(entry, Tensor)]


def slot_name(slot: str, parameter: str) -> str:
    """The name of an optimizer's slot in the state."""
    return STEP if slot == "step" else f"{OPTIMIZER}{slot}.{parameter}"


def take_step(
    made: torch.optim.Optimizer,
    leaves: Mapping[str, Tensor],
    recipe: Recipe,
    gradients: Mapping[str, Tensor],
    held: Mapping[str, Tensor],
    has_count: bool,
) -> dict[str, Tensor]:
    """The slots after one step, which changes `leaves`; `held` are the slots before it, and stay as they are."""
    if recipe.schedule is not None:
        factor = recipe.compute_factor(held[STEP].clone())
        for group in made.param_groups:
            group["lr"] = factor * group["lr"]
    seen = recipe.clip(gradients)
    kinds = sorted({name.removeprefix(OPTIMIZER).split(".")[0] for name in held if has_count or name != STEP})
    for name, leaf in leaves.items():
        leaf.grad = seen[name]
        for slot in kinds:
            if slot_name(slot, name) in held:
                made.state[leaf][slot] = held[slot_name(slot, name)].clone()
    with as_if_compiling(), ScalarMode():
        made.step()
    after = {slot_name(slot, name): entry for name, leaf in leaves.items() for slot, entry in _tensors(made, leaf)}
    if STEP in held and not has_count:
        after[STEP] = held[STEP] + 1.0
    return {name: after[name] for name in held}

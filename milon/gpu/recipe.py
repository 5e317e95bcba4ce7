"""How gradients become a step besides the optimizer: a schedule of learning rates, clipping, and micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from milon.base.errors import Reason, Rejected

NORM_FLOOR = 1e-6  # added to a norm before the division, as torch.nn.utils.clip_grad_norm_ does


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the user asks of a step beside model, loss and optimizer."""

    # Factor on every learning rate, from the number of steps before this one (a binary32 scalar); traced, so the
    # program computes it by rules N1 and N2.
    schedule: Callable[[Tensor], Any] | None = None
    clip_norm: float | None = None  # the gradients of all parameters together are scaled down to this norm
    clip_value: float | None = None  # each element of a gradient is brought within this of zero
    accumulate: int = 1  # micro-batches of a step: gradients added in index order, then divided by their number

    def clip(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The gradients that the optimizer sees: elements are clipped first, then the norm."""
        clipped = dict(gradients)
        if self.clip_value is not None:
            bound = self.clip_value
            clipped = {name: gradient.clamp(-bound, bound) for name, gradient in clipped.items()}
        if self.clip_norm is not None:
            squares = torch.stack([(gradient * gradient).sum() for gradient in clipped.values()])
            factor = (self.clip_norm / (squares.sum().sqrt() + NORM_FLOOR)).clamp(max=1.0)
            clipped = {name: gradient * factor for name, gradient in clipped.items()}
        return clipped

    def compute_factor(self, step: Tensor) -> Any:
        """The schedule's factor, a scalar tensor or a plain number; `Rejected` for anything else."""
        if self.schedule is None:
            return 1.0
        factor = self.schedule(step)
        if isinstance(factor, Tensor) and (factor.dim() or not factor.is_floating_point()):
            detail = f"a schedule that gives {factor.dtype}{list(factor.shape)}; nearest supported: a float32 scalar"
            raise Rejected(Reason.UNSUPPORTED, detail)
        if not isinstance(factor, (Tensor, int, float)):
            detail = f"a schedule that gives a {type(factor).__name__}; nearest supported: a factor computed from step"
            raise Rejected(Reason.UNSUPPORTED, detail)
        return factor

    def split(self, batch: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """The micro-batches, in the order of their rows; `Rejected` where the rows do not divide."""
        if self.accumulate == 1:
            return [tuple(batch)]
        rows = batch[0].shape[0]
        if rows % self.accumulate:
            raise Rejected(Reason.DOES_NOT_FIT, f"{rows} rows do not divide into {self.accumulate} micro-batches")
        size = rows // self.accumulate
        return [tuple(tensor[start : start + size] for tensor in batch) for start in range(0, rows, size)]


class ScalarMode(TorchFunctionMode):
    """While active, `alpha=` and `value=` may be tensors: a learning rate that the program computes."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        """Multiply by the scalar as a step of its own where it is a tensor."""
        named = dict(named or {})
        name = getattr(function, "__name__", "")
        if name in ("add", "add_", "sub", "sub_") and isinstance(named.get("alpha"), Tensor):
            return getattr(arguments[0], name)(arguments[1] * named["alpha"])
        if name in ("addcmul", "addcmul_", "addcdiv", "addcdiv_") and isinstance(named.get("value"), Tensor):
            base, left, right = arguments
            term = left * right if "mul" in name else left / right
            return getattr(base, "add_" if name.endswith("_") else "add")(term * named["value"])
        return function(*arguments, **named)

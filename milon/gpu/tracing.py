"""Traces a function of tensors into a graph of core ATen operations, and turns dropout's randomness into inputs."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.overrides import TorchFunctionMode

from milon.base.errors import Reason, Rejected

aten = torch.ops.aten

# Beyond the core ones: what else becomes elementwise steps, sums and products.
_MORE = (
    aten.native_batch_norm, aten.native_batch_norm_backward, aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_functional, aten._native_batch_norm_legit_no_training,
    aten.native_layer_norm, aten.native_layer_norm_backward, aten._log_softmax, aten._log_softmax_backward_data,
    aten._softmax, aten._softmax_backward_data, aten.nll_loss_forward, aten.nll_loss_backward, aten.mse_loss,
    aten.mse_loss_backward, aten.gelu, aten.gelu_backward, aten.tanh_backward, aten.sigmoid_backward, aten.silu,
    aten.silu_backward, aten.threshold_backward, aten.leaky_relu, aten.leaky_relu_backward, aten.elu,
    aten.elu_backward, aten.softplus, aten.softplus_backward, aten.smooth_l1_loss, aten.smooth_l1_loss_backward,
    aten.huber_loss, aten.huber_loss_backward, aten.slice_backward, aten.select_backward, aten.addmm,
)  # fmt: skip


def _lerp(start: Tensor, end: Tensor, weight: float) -> Tensor:
    """Each of the two forms is exact at its own end."""
    return start + weight * (end - start) if abs(weight) < 0.5 else end - (end - start) * (1 - weight)


def _addcmul(start: Tensor, left: Tensor, right: Tensor, *, value: float = 1) -> Tensor:
    return start + (left * right) * value


def _addcdiv(start: Tensor, left: Tensor, right: Tensor, *, value: float = 1) -> Tensor:
    return start + (left / right) * value


def _decompositions() -> dict[Any, Callable[..., Any]]:
    table: dict[Any, Callable[..., Any]] = dict(core_aten_decompositions())
    table.update(get_decompositions(_MORE))
    table.pop(aten.embedding_dense_backward.default, None)  # a scatter with one right answer, not index_put
    table.update({aten.lerp.Scalar: _lerp, aten.addcmul.default: _addcmul, aten.addcdiv.default: _addcdiv})
    return table


class DropoutMode(TorchFunctionMode):
    """While active, dropout multiplies by `draw < keep` and divides by `keep`; each draw is asked of `draw`."""

    def __init__(self, draw: Callable[[tuple[int, ...]], Tensor]) -> None:
        super().__init__()
        self._draw = draw

    def __torch_function__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        """Replace the dropouts, pass everything else through."""
        kept_axes = _DROPOUTS.get(function)
        if kept_axes is None:
            return function(*arguments, **(named or {}))
        return self._drop(kept_axes, *arguments, **(named or {}))

    def _drop(self, kept_axes: int, value: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        if not training or p == 0.0:
            return value
        if p == 1.0:
            return value * 0.0
        shape = tuple(value.shape)
        if kept_axes:
            shape = shape[:kept_axes] + (1,) * (len(shape) - kept_axes)
        keep = 1.0 - p
        return value * (self._draw(shape) < keep).to(value.dtype) * (1.0 / keep)


_DROPOUTS: dict[Any, int] = {  # how many leading axes a mask keeps; 0 for all
    torch.nn.functional.dropout: 0,
    torch.dropout: 0,
    torch.nn.functional.dropout1d: 2,
    torch.nn.functional.dropout2d: 2,
    torch.nn.functional.dropout3d: 2,
}


@contextmanager
def as_if_compiling() -> Iterator[None]:
    """Let torch's optimizers keep their step count in a tensor on any device, as they do for its own compiler."""
    before = torch.compiler.is_compiling
    torch.compiler.is_compiling = lambda: True
    try:
        yield
    finally:
        torch.compiler.is_compiling = before


def _trace_once(function: Callable[..., list[Tensor]], inputs: list[Tensor], remember_lines: bool) -> fx.GraphModule:
    return make_fx(
        function,
        decomposition_table=_decompositions(),
        tracing_mode="fake",
        _allow_non_fake_inputs=True,
        record_stack_traces=remember_lines,
    )(*inputs)


def trace(function: Callable[..., list[Tensor]], inputs: list[Tensor]) -> fx.GraphModule:
    """The graph of `function`, which takes and gives a flat list of tensors, with nothing changed in place.

    Two passes: the decompositions leave a few `copy_`, which the second pass turns into values.
    """
    try:
        first = _trace_once(function, inputs, False)
        second = make_fx(
            functionalize(lambda *flat: first(*flat), remove="mutations_and_views"),
            tracing_mode="fake",
            _allow_non_fake_inputs=True,
        )(*inputs)
        second.graph.eliminate_dead_code()
        return second
    except (DataDependentOutputException, GuardOnDataDependentSymNode) as error:
        line = _line_of_error(error)
        detail = "a branch, a size or a plain number taken from a tensor's value; nearest supported: torch.where"
        raise Rejected(Reason.UNSUPPORTED, detail + (f" ({line})" if line else "")) from error


def find_line(function: Callable[..., list[Tensor]], inputs: list[Tensor], operation: str) -> str:
    """The user's source line that leads to ATen `operation` ("sort.default"), or an empty text where none is known."""
    for node in _trace_once(function, inputs, True).graph.nodes:
        target = node.target
        if isinstance(target, torch._ops.OpOverload) and str(target) == f"aten.{operation}":
            lines = [line.strip() for line in str(node.meta.get("stack_trace") or "").splitlines()]
            places = [place for place in range(0, len(lines) - 1, 2) if _is_users(lines[place])]
            if places:
                return f"{lines[places[-1]]}: {lines[places[-1] + 1]}"
    return ""


def _line_of_error(error: Exception) -> str:
    """The innermost line of the user's code that an error passed through."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f'File "{frame.filename}", line {frame.lineno}, in {frame.name}: {frame.line}' for frame in frames]
    users = [line for line in lines if _is_users(line)]
    return users[-1] if users else ""


def _is_users(frame: str) -> bool:
    return frame.startswith("File ") and "/torch/" not in frame and "/milon/gpu/" not in frame

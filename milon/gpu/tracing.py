"""Traces a function of tensors into a graph of core ATen operations."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.attention import SDPBackend, sdpa_kernel

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
    aten.native_group_norm_backward,
    aten.huber_loss, aten.huber_loss_backward, aten.slice_backward, aten.select_backward, aten.addmm,
)  # fmt: skip


def _lerp(start: Tensor, end: Tensor, weight: float) -> Tensor:
    """Each of the two forms is exact at its own end."""
    return start + weight * (end - start) if abs(weight) < 0.5 else end - (end - start) * (1 - weight)


def _addcmul(start: Tensor, left: Tensor, right: Tensor, *, value: float = 1) -> Tensor:
    return start + (left * right) * value


def _addcdiv(start: Tensor, left: Tensor, right: Tensor, *, value: float = 1) -> Tensor:
    return start + (left / right) * value


def _group_norm(
    images: Tensor, weight: Tensor | None, bias: Tensor | None, batch: int, channels: int, area: int, groups: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Torch's own decomposition reads memory by strides."""
    parts = images.reshape(batch, groups, channels // groups * area)
    variance, mean = torch.var_mean(parts, 2, correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + epsilon)
    result = ((parts - mean) * inverse).reshape(images.shape)
    wide = (channels,) + (1,) * (images.dim() - 2)
    result = result if weight is None else result * weight.reshape(wide)
    result = result if bias is None else result + bias.reshape(wide)
    return result, mean.reshape(batch, groups), inverse.reshape(batch, groups)


def _decompositions() -> dict[Any, Callable[..., Any]]:
    table: dict[Any, Callable[..., Any]] = dict(core_aten_decompositions())
    table.update(get_decompositions(_MORE))
    table.pop(aten.embedding_dense_backward.default, None)  # a scatter with one right answer, not index_put
    table.update({aten.lerp.Scalar: _lerp, aten.addcmul.default: _addcmul, aten.addcdiv.default: _addcdiv})
    table[aten.native_group_norm.default] = _group_norm
    return table


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Let torch's own layers run as the single steps of their definitions: no fused attention, encoders or cells."""
    before = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)
    try:
        with sdpa_kernel([SDPBackend.MATH]):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before[0])
        torch._C._set_mkldnn_enabled(before[1])


def _trace_once(function: Callable[..., list[Tensor]], inputs: list[Tensor], remember_lines: bool) -> fx.GraphModule:
    with plain_kernels():
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

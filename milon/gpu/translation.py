"""Turns a traced graph of ATen operations into a program: the walk, and the table the rewrites register in.

A rewrite is a small function for one ATen operation: it takes the walk and the operation's arguments and builds the
values that stand for its result. Supporting another operation is one more rewrite (`aten_basic`, `aten_windows`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from milon.base.errors import Reason, Rejected
from milon.gpu.builder import Builder, dtype_of
from milon.pol.shapes import DType


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the program being built, as opposed to a plain number among an operation's arguments."""

    number: int  # as the builder counts


Rewrite = Callable[..., Any]
Rewrites = dict[str, Rewrite]

_DRAWS = "drawing while self.training only; an evaluation draws nothing"
NEAREST = {
    "bernoulli": _DRAWS,
    "rand": _DRAWS,
    "rand_like": _DRAWS,
    "randn": _DRAWS,
    "randn_like": _DRAWS,
    "normal": _DRAWS,
    "native_dropout": _DRAWS,
    "randint": "torch.rand, compared with bounds",
    "randint_like": "torch.rand_like, compared with bounds",
    "randperm": "leaving the order of rows to the job",
    "multinomial": "torch.argmax",
    "adaptive_max_pool2d": "torch.nn.MaxPool2d with a kernel that divides the image",
    "_adaptive_avg_pool2d": "torch.nn.AdaptiveAvgPool2d(1), or AvgPool2d with a kernel that divides the image",
    "upsample_bicubic2d": "mode='bilinear'",
    "upsample_trilinear3d": "mode='bilinear' on two axes",
    "sort": "torch.amax",
    "topk": "torch.argmax",
    "median": "torch.mean",
    "cumsum": "a product with a triangular matrix of ones",
    "cumprod": "the exponential of a product with a triangular matrix of ones",
    "nonzero": "torch.where with three arguments",
    "fmod": "torch.floor of a quotient",
    "remainder": "torch.floor of a quotient",
    "atan2": "comparisons and torch.where",
    "atan": "torch.tanh",
    "log2": "torch.log, divided by the logarithm of 2",
    "log10": "torch.log, divided by the logarithm of 10",
    "exp2": "torch.exp of the product with the logarithm of 2",
    "_fft_r2c": "a product with a matrix of sines and cosines",
    "linalg_inv_ex": "Newton's iteration with matrix products",
    "_linalg_svd": "Newton-Schulz iterations with matrix products",
    "max_pool3d_with_indices": "torch.nn.MaxPool2d",
    "as_strided": "slices, reshape and permute",
    "new_empty_strided": "torch.cat or torch.where, instead of writing into a part of a tensor",
    "_local_scalar_dense": "keeping the number as a tensor: no .item(), no branch on a tensor's value",
}


def register(table: Rewrites, *names: str) -> Callable[[Rewrite], Rewrite]:
    """Decorator: enter a rewrite into `table` for these ATen operations ("add.Tensor", or "add" for every overload)."""

    def enter(rewrite: Rewrite) -> Rewrite:
        for name in names:
            table[name] = rewrite
        return rewrite

    return enter


class Walk:
    """One pass over a traced graph. Rewrites use `builder` and the helpers below."""

    def __init__(self, builder: Builder, rewrites: Rewrites) -> None:
        self.builder = builder
        self.result: Tensor | None = None  # what the trace found the current node to give: its shape and type
        self.name = ""  # of the current operation, without its overload
        self._rewrites = rewrites

    def run(self, graph: fx.GraphModule, inputs: list[int]) -> list[int]:
        """The values of the graph's outputs, in order, given the values of its placeholders."""
        found: dict[fx.Node, Any] = {}
        waiting = iter(inputs)
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                found[node] = Value(next(waiting))
            elif node.op == "get_attr":
                found[node] = Value(self.builder.constant(getattr(graph, node.target)))
            elif node.op == "output":
                return [self.number(entry) for entry in fx.map_arg(node.args[0], lambda source: found[source])]
            else:
                found[node] = self._call(node, found)
        raise RuntimeError("a graph without an output")

    def _call(self, node: fx.Node, found: dict[fx.Node, Any]) -> Any:
        arguments: Any = fx.map_arg(node.args, lambda source: found[source])
        named: Any = fx.map_arg(node.kwargs, lambda source: found[source])
        if node.target is operator.getitem:
            return arguments[0][arguments[1]]
        if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace == "profiler":
            return None
        full, short = _names(node.target)
        rewrite = self._rewrites.get(full) or self._rewrites.get(short)
        if rewrite is None or node.target.namespace != "aten":
            raise unsupported(full)
        value = node.meta.get("val")
        self.name = short
        self.result = value if isinstance(value, Tensor) else None
        try:
            built = rewrite(self, *arguments, **named)
        except Rejected as refusal:
            raise Rejected(refusal.reason, f"{full}: {refusal.detail}") from None
        if self.result is not None and self.builder.shape_of(built.number) != tuple(self.result.shape):
            raise RuntimeError(f"{full} was rewritten to {self.builder.type_of(built.number)}, not {self.result.shape}")
        return built

    def number(self, argument: Any, dtype: DType | None = None) -> int:
        """The value of an argument, a plain number becoming a constant; cast to `dtype` where one is named."""
        if isinstance(argument, Value):
            return argument.number if dtype is None else self.builder.cast(argument.number, dtype)
        if isinstance(argument, (bool, int, float)):
            kind = DType.BOOL if isinstance(argument, bool) else DType.INT64
            return self.builder.scalar(argument, dtype or (DType.FLOAT32 if isinstance(argument, float) else kind))
        raise Rejected(Reason.UNSUPPORTED, f"an argument of type {type(argument).__name__}")

    def kind(self, argument: Any) -> DType:
        """Element type of an argument."""
        return self.builder.type_of(self.number(argument)).dtype

    def shape(self, argument: Value) -> tuple[int, ...]:
        """Sizes of an argument."""
        return self.builder.shape_of(argument.number)

    def result_dtype(self) -> DType:
        """Element type of what the current operation gives."""
        if self.result is None:
            raise RuntimeError("the operation gives more than one tensor")
        return dtype_of(self.result.dtype)

    def result_shape(self) -> tuple[int, ...]:
        """Sizes of what the current operation gives."""
        if self.result is None:
            raise RuntimeError("the operation gives more than one tensor")
        return tuple(int(size) for size in self.result.shape)

    def node(self, operation: str, *operands: int, attributes: tuple[tuple[int, ...], ...] = ()) -> Value:
        """The result of an operation of the program."""
        return Value(self.builder.node(operation, *operands, attributes=attributes))


def _names(target: torch._ops.OpOverload) -> tuple[str, str]:
    short = target._schema.name.removeprefix("aten::")
    return f"{short}.{target._overloadname}", short


def unsupported(name: str) -> Rejected:
    """The refusal of an ATen operation that no rewrite covers, with the nearest form that one does."""
    short = name.split(".")[0].removesuffix("_copy")
    nearest = NEAREST.get(short.removesuffix("_backward"))
    return Rejected(Reason.UNSUPPORTED, f"operation {name}" + (f"; nearest supported: {nearest}" if nearest else ""))

"""Turns what a model draws at random into inputs of its program, wherever in torch the drawing happens.

A step's draws are uniform numbers (rule N5) that are given to it. `DropoutMode` sees the calls a model makes itself,
`RandomnessMode` what torch draws inside its own functions: dropout between recurrent layers or on attention's weights,
and noise. Normal noise is computed from the uniform numbers by the steps of `compute_normal`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from milon.base.errors import Reason, Rejected

aten = torch.ops.aten
Draw = Callable[[tuple[int, ...]], Tensor]  # uniform binary32 numbers of that shape

# Algorithm AS 241 (M. J. Wichura 1988), routine PPND7: the inverse of the normal distribution to about 7 digits.
_CENTRE = (3.3871327179, 50.434271938, 159.29113202, 59.109374720)
_CENTRE_UNDER = (1.0, 17.895169469, 78.757757664, 67.187563600)
_TAIL = (1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103)
_TAIL_UNDER = (1.0, 0.73700164250, 0.12021132975)


def _polynomial(coefficients: tuple[float, ...], at: Tensor) -> Tensor:
    total: Tensor = at * coefficients[-1] + coefficients[-2]
    for coefficient in reversed(coefficients[:-2]):
        total = total * at + coefficient
    return total


def compute_normal(uniform: Tensor) -> Tensor:
    """A standard normal number for each uniform one (a multiple of 2^-24 in [0, 1)), in binary32 by rules N1 and N2.

    The middle of each uniform step goes through the inverse of the distribution, so that no result is infinite (the
    largest is 5.4) and the numbers are symmetric about zero.
    """
    q = (uniform - 0.5) + 2.0**-25  # exact: an odd multiple of 2^-25
    r = 0.180625 - q * q
    centre = q * _polynomial(_CENTRE, r) / _polynomial(_CENTRE_UNDER, r)
    size = q.abs()
    depth = (-torch.log(0.5 - size)).sqrt() - 1.6
    tail = _polynomial(_TAIL, depth) / _polynomial(_TAIL_UNDER, depth)
    return torch.where(size <= 0.425, centre, torch.where(q < 0.0, -tail, tail))


class DropoutMode(TorchFunctionMode):
    """While active, dropout multiplies by `draw < keep` and divides by `keep`; each draw is asked of `draw`."""

    def __init__(self, draw: Draw) -> None:
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


def _uniform(draw: Draw, shape: Sequence[int], named: Mapping[str, Any]) -> Tensor:
    dtype = named.get("dtype")
    if dtype not in (None, torch.float32):
        raise Rejected(Reason.UNSUPPORTED, f"random numbers of type {dtype}; nearest supported: float32")
    return draw(tuple(shape))


def _keep(draw: Draw, value: Tensor, p: Any, dtype: torch.dtype) -> Tensor:
    return torch.lt(draw(tuple(value.shape)), p).to(dtype)


def _between(uniform: Tensor, start: float, end: float) -> Tensor:
    return torch.mul(uniform, end - start) + start


def _spread(normal: Tensor, mean: Any, deviation: Any) -> Tensor:
    return torch.add(torch.mul(normal, deviation), mean)


_Random = Callable[..., Any]  # of the draw, the operation's arguments, and those that are named
_RANDOM: dict[Any, _Random] = {
    aten.rand.default: lambda draw, shape, **named: _uniform(draw, shape, named),
    aten.rand_like.default: lambda draw, like, **named: _uniform(draw, like.shape, named),
    aten.randn.default: lambda draw, shape, **named: compute_normal(_uniform(draw, shape, named)),
    aten.randn_like.default: lambda draw, like, **named: compute_normal(_uniform(draw, like.shape, named)),
    aten.normal_.default: lambda draw, value, mean=0.0, std=1.0, **named: value.copy_(
        _spread(compute_normal(draw(tuple(value.shape))), mean, std)
    ),
    aten.normal.Tensor_Tensor: lambda draw, mean, std, **named: _spread(
        compute_normal(draw(tuple(mean.shape))), mean, std
    ),
    aten.uniform_.default: lambda draw, value, start=0.0, end=1.0, **named: value.copy_(
        _between(draw(tuple(value.shape)), start, end)
    ),
    aten.bernoulli_.float: lambda draw, value, p=0.5, **named: value.copy_(_keep(draw, value, p, value.dtype)),
    aten.bernoulli.p: lambda draw, value, p, **named: _keep(draw, value, p, value.dtype),
    aten.bernoulli.default: lambda draw, value, **named: _keep(draw, value, value, value.dtype),
}


class RandomnessMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves this class untyped
    """While active, torch's random operations read uniform numbers asked of `draw`."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._draw = draw

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        """Replace the random operations, pass everything else through."""
        if function is aten.native_dropout.default:
            value, p = arguments[0], arguments[1]
            mask = self._draw(tuple(value.shape)) < 1.0 - p
            return value * mask.to(value.dtype) * (1.0 / (1.0 - p)), mask
        replaced = _RANDOM.get(function)
        if replaced is None:
            return function(*arguments, **(named or {}))
        return replaced(self._draw, *arguments, **(named or {}))


@contextmanager
def drawing(draw: Draw) -> Iterator[None]:
    """Ask `draw` for every random number until the end of the block, in the order in which they are used."""
    with RandomnessMode(draw), DropoutMode(draw):
        yield

"""How each operation of a program is computed: elementwise arithmetic, reductions, and moves of elements.

Each maker below takes a checked call and gives a function from operand tensors to the result; whatever depends only on
shapes is done once, in the maker. Makers have the names of the table in `milon.pol.operations`, which states what each
operation means; results follow the rules N1 to N6 and are the same bits on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from milon.base.errors import Reason, Rejected
from milon.gpu.elementary import FUNCTIONS, evaluate, power, square_root
from milon.gpu.exact import exact_scatter_sum
from milon.gpu.fast import total
from milon.gpu.fast_products import product
from milon.pol.shapes import DTYPES, DType, TensorType

Kernel = Callable[..., Tensor]

TORCH_DTYPES = {DType.FLOAT32: torch.float32, DType.INT64: torch.int64, DType.BOOL: torch.bool}


@dataclass(frozen=True, slots=True)
class Call:
    """One checked operation of a program, ready to be made into a kernel."""

    operands: tuple[TensorType, ...]  # types of the operands
    attributes: tuple[tuple[int, ...], ...]  # as the table says
    result: TensorType  # type of the result
    magnitude_bits: int  # M of rule N4
    device: torch.device  # where tensors made ahead belong


Maker = Callable[[Call], Kernel]


def maximum(left: Tensor, right: Tensor) -> Tensor:
    """IEEE 754-2019 maximum: NaN wins, +0 above -0 (which the hardware's instruction leaves open)."""
    result = torch.maximum(left, right)
    if result.dtype is not torch.float32:
        return result
    return torch.where((left == 0.0) & (right == 0.0), left + right, result)


def minimum(left: Tensor, right: Tensor) -> Tensor:
    """IEEE 754-2019 minimum: NaN wins, -0 below +0."""
    result = torch.minimum(left, right)
    if result.dtype is not torch.float32:
        return result
    return torch.where((left == 0.0) & (right == 0.0), -((-left) + (-right)), result)


def _cast(call: Call) -> Kernel:
    source, target = call.operands[0].dtype, DTYPES[call.attributes[0][0]]
    if source is target:
        return lambda value: value
    if target is DType.INT64 and source is DType.FLOAT32:
        return _float_to_integer
    dtype = TORCH_DTYPES[target]
    return lambda value: value.to(dtype)


def _float_to_integer(value: Tensor) -> Tensor:
    """Truncation; NaN gives 0 and what does not fit the nearest bound (conversion instructions differ on these)."""
    inside = (value > -(2.0**63)) & (value < 2.0**63)
    result = torch.where(inside, value, 0.0).to(torch.int64)
    result = torch.where(value >= 2.0**63, torch.iinfo(torch.int64).max, result)
    return torch.where(value <= -(2.0**63), torch.iinfo(torch.int64).min, result)


def _sum(call: Call) -> Kernel:
    axes, keep = list(call.attributes[0]), bool(call.attributes[1][0])
    if call.operands[0].dtype is DType.FLOAT32:
        return lambda value: total(value, axes, keep)
    return lambda value: value.sum(axes, keepdim=keep) if axes else value


def _extreme(greatest: bool) -> Maker:
    def make(call: Call) -> Kernel:
        axes, keep = list(call.attributes[0]), bool(call.attributes[1][0])
        reduce = torch.amax if greatest else torch.amin

        def run(value: Tensor) -> Tensor:
            if not axes:
                return value
            result = reduce(value, axes, keep)
            if value.dtype is not torch.float32 or not bool((result == 0.0).any()):
                return result
            zeros = value == 0.0
            sought = zeros & (torch.signbit(value) != greatest)
            found = sought.sum(axes, keepdim=keep) > 0
            return torch.where(result == 0.0, torch.where(found == greatest, 0.0, -0.0), result)

        return run

    return make


def _argmax(call: Call) -> Kernel:
    axis, keep = call.attributes[0][0], bool(call.attributes[1][0])
    size = call.operands[0].shape[axis]

    def run(value: Tensor) -> Tensor:
        best = (value == value.amax(axis, keepdim=True)) | (value != value)
        if value.dtype is torch.float32:
            missing = value != value
            best = torch.where(missing.any(axis, keepdim=True), missing, best)
        places = torch.arange(size, device=value.device).reshape([-1] + [1] * (value.dim() - 1 - axis))
        return torch.where(best, places, size).amin(axis, keepdim=keep)

    return run


def _slice(call: Call) -> Kernel:
    axis, start, stop, step = (attribute[0] for attribute in call.attributes)
    picked = (*(slice(None) for _ in range(axis)), slice(start, stop, step))
    return lambda value: value[picked]


def check_indices(indices: Tensor, size: int) -> None:
    """Refuse indices outside [0, size) before any kernel meets them: devices differ in what they do."""
    if bool(((indices < 0) | (indices >= size)).any()):
        raise Rejected(Reason.OUT_OF_RANGE, f"an index outside [0, {size})")


def _gather(call: Call) -> Kernel:
    axis = call.attributes[0][0]
    size = call.operands[0].shape[axis]

    def run(values: Tensor, indices: Tensor) -> Tensor:
        check_indices(indices, size)
        return values.gather(axis, indices)

    return run


def _scatter_sum(call: Call) -> Kernel:
    axis, size = call.attributes[0][0], call.attributes[1][0]

    def run(values: Tensor, indices: Tensor) -> Tensor:
        check_indices(indices, size)
        return exact_scatter_sum(values, indices, axis, size)

    return run


def _iota(call: Call) -> Kernel:
    whole = torch.arange(call.attributes[0][0], dtype=torch.int64, device=call.device)
    return lambda: whole


def _matmul(call: Call) -> Kernel:
    bits = call.magnitude_bits
    return lambda left, right: product(left, right, bits)


def _plain(kernel: Kernel) -> Maker:
    """A maker for an operation that depends on no attribute."""
    return lambda call: kernel


def _elementary(name: str) -> Maker:
    return _plain(lambda value: evaluate(name, value))


def _shaped(move: Callable[[Tensor, tuple[int, ...]], Tensor]) -> Maker:
    """A maker for a move described by one list of integers."""

    def make(call: Call) -> Kernel:
        described = call.attributes[0]
        return lambda value: move(value, described)

    return make


def _concatenate(call: Call) -> Kernel:
    axis = call.attributes[0][0]
    return lambda *values: torch.cat(values, axis)


MAKERS: dict[str, Maker] = {
    **{name: _elementary(name) for name in FUNCTIONS},
    "neg": _plain(torch.neg),
    "abs": _plain(torch.abs),
    "sqrt": _plain(square_root),
    "not": _plain(torch.logical_not),
    "add": _plain(torch.add),
    "sub": _plain(torch.sub),
    "mul": _plain(torch.mul),
    "div": _plain(torch.div),
    "pow": _plain(power),
    "maximum": _plain(maximum),
    "minimum": _plain(minimum),
    "and": _plain(torch.logical_and),
    "or": _plain(torch.logical_or),
    "eq": _plain(torch.eq),
    "ne": _plain(torch.ne),
    "lt": _plain(torch.lt),
    "le": _plain(torch.le),
    "gt": _plain(torch.gt),
    "ge": _plain(torch.ge),
    "where": _plain(torch.where),
    "cast": _cast,
    "sum": _sum,
    "amax": _extreme(True),
    "amin": _extreme(False),
    "argmax": _argmax,
    "reshape": _shaped(torch.reshape),
    "permute": _shaped(torch.permute),
    "expand": _shaped(torch.Tensor.expand),
    "slice": _slice,
    "concatenate": _concatenate,
    "iota": _iota,
    "gather": _gather,
    "scatter_sum": _scatter_sum,
    "matmul": _matmul,
}

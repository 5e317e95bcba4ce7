"""Makes one operation of a program ready to run on all shards held here, as its placement says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from milon.base.errors import Rejected
from milon.gpu.interpreter import ALL_MAKERS
from milon.gpu.operations import Call, check_indices
from milon.gpu.sharding_ports import Port, once
from milon.gpu.sharding_rules import Placement, Site, Way, localize
from milon.gpu.sharding_split import Split, compute_local_shape
from milon.gpu.sharding_sums import (
    count_together,
    extreme_together,
    multiply_together,
    scatter_together,
    sum_together,
)
from milon.gpu.windows import lay_for_weight_gradient
from milon.pol.shapes import DType, TensorType

Parts = list[Tensor]  # one tensor a shard held here
Runner = Callable[[Sequence[Parts]], Parts]  # from the parts of each operand to those of the result
Devices = Sequence[torch.device]  # one a shard held here


def make_runner(site: Site, placement: Placement, bits: int, port: Port, devices: Devices) -> Runner:
    """What runs the operation; `bits` is M of rule N4."""
    if placement.way is Way.TOGETHER:
        runner = _make_together(site, bits, port, devices)
    else:
        column = _make_kernels(site, placement, bits, port, devices)
        if placement.way is Way.WHOLE:
            return lambda parts: once(_call, column, *parts)

        def runner(parts: Sequence[Parts]) -> Parts:
            return [kernel(*operands) for kernel, *operands in zip(column, *parts, strict=True)]

    axis = site.node.attributes[0][0] if site.node.operation in ("gather", "scatter_sum") else None
    if axis is None:
        return runner
    size = site.types[0].shape[axis] if site.node.operation == "gather" else site.result.shape[axis]
    return _agree_on_indices(runner, size, port)


def _call(kernel: Callable[..., Tensor], *operands: Tensor) -> Tensor:
    return kernel(*operands)


def _agree_on_indices(runner: Runner, size: int, port: Port) -> Runner:
    """Refuse on every shard what one refuses, so that none waits for another that has stopped."""

    def is_refused(indices: Tensor) -> bool:
        try:
            check_indices(indices, size)
        except Rejected:
            return True
        return False

    def run(parts: Sequence[Parts]) -> Parts:
        flags = port.maximum([torch.tensor([int(is_refused(part))], device=part.device) for part in parts[1]])
        check_indices(-flags[0], size)  # one that was refused somewhere becomes -1 everywhere
        return runner(parts)

    return run


def _make_kernels(site: Site, placement: Placement, bits: int, port: Port, devices: Devices) -> list[Any]:
    """A kernel per shard held here; shards of one shape on one device share one."""
    known: dict[tuple[object, ...], Callable[..., Tensor]] = {}
    kernels = []
    for shard, device in zip(port.held, devices, strict=True):

        def local(found: TensorType, split: Split | None, shard: int = shard) -> TensorType:
            if split is None:
                return found
            return TensorType(found.dtype, compute_local_shape(found.shape, split, shard, port.shards))

        operands = tuple(local(*pair) for pair in zip(site.types, placement.operands, strict=True))
        result = local(site.result, placement.result)
        name = operands, result, device
        if name not in known:
            call = Call(operands, localize(site, placement, shard), result, bits, device)
            known[name] = ALL_MAKERS[site.node.operation](call)
        kernels.append(known[name])
    return kernels


def _make_together(site: Site, bits: int, port: Port, devices: Devices) -> Runner:
    attributes, types = site.node.attributes, site.types
    match site.node.operation:
        case "sum":
            axes, keep = list(attributes[0]), bool(attributes[1][0])
            if types[0].dtype is DType.INT64:
                return lambda parts: count_together(port, parts[0], axes, keep)
            terms = types[0].elements // site.result.elements
            return lambda parts: sum_together(port, parts[0], axes, keep, terms)
        case "amax" | "amin" as name:
            kernel = ALL_MAKERS[name](Call(types, attributes, site.result, bits, devices[0]))
            return lambda parts: extreme_together(port, [kernel(part) for part in parts[0]], name == "amax")
        case "matmul":
            inner = types[0].shape[-1]
            return lambda parts: multiply_together(port, parts[0], parts[1], bits, inner)
        case "scatter_sum":
            axis, size = attributes[0][0], attributes[1][0]
            terms = types[0].shape[axis]
            return lambda parts: scatter_together(port, parts[0], parts[1], axis, size, terms)
        case "convolution_weight_gradient":
            return _make_weight_gradient(site, bits, port, devices)
        case name:
            raise RuntimeError(f"{name} has no way to run together")


def _make_weight_gradient(site: Site, bits: int, port: Port, devices: Devices) -> Runner:
    """Each shard lays out the windows of its own images; the product runs over those of all."""
    gradient, shape = site.types[0].shape, site.result.shape
    inner = gradient[0] * prod(gradient[2:])
    made = {
        device: lay_for_weight_gradient(Call(site.types, site.node.attributes, site.result, bits, device))
        for device in devices
    }

    def run(parts: Sequence[Parts]) -> Parts:
        laid = [made[device](*pair) for device, *pair in zip(devices, *parts, strict=True)]
        lefts, rights = [left for left, _ in laid], [right for _, right in laid]
        return once(lambda whole: whole.reshape(shape), multiply_together(port, lefts, rights, bits, inner))

    return run

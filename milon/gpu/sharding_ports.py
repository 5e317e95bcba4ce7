"""What shards that run in lockstep tell one another (rule N7): maxima, totals of integers, and their parts of a tensor.

Two ports do the same. `Loop` holds all shards in this process, on one device or on several. `Ranks` holds one shard;
the others are processes that meet by way of torch.distributed. Integers have no order of addition, so neither shows in
a result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as distributed
from torch import Tensor

MEETING_S = 300.0  # for all ranks to load torch on a busy machine, and for the slowest to reach an exchange


class Port(Protocol):
    """An exchange between shards. Lists have one entry per shard held here, in the order of `held`."""

    shards: int  # how many there are in all
    held: tuple[int, ...]  # the shards of this process

    def maximum(self, parts: list[Tensor]) -> list[Tensor]:
        """The greatest int64 of all shards, element by element; the parts may be overwritten."""
        ...

    def total(self, parts: list[Tensor]) -> list[Tensor]:
        """The sum of the int64 of all shards modulo 2^64, element by element; the parts may be overwritten."""
        ...

    def gather(self, parts: list[Tensor], rows: Sequence[int]) -> list[list[Tensor]]:
        """For each shard held here, the parts [before, rows, after] of all shards in order; `rows` names all sizes."""
        ...


class Loop:
    """All shards in this process, each on a device of its own or several on one."""

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self.shards = len(devices)
        self.held = tuple(range(len(devices)))
        self._devices = tuple(devices)

    def _spread(self, whole: Tensor) -> list[Tensor]:
        copies = {device: whole.to(device) for device in self._devices}
        return [copies[device] for device in self._devices]

    def maximum(self, parts: list[Tensor]) -> list[Tensor]:
        """See `Port`."""
        greatest = parts[0]
        for part in parts[1:]:
            greatest = torch.maximum(greatest, part.to(greatest.device))
        return self._spread(greatest)

    def total(self, parts: list[Tensor]) -> list[Tensor]:
        """See `Port`."""
        total = parts[0]
        for part in parts[1:]:
            total = total + part.to(total.device)
        return self._spread(total)

    def gather(self, parts: list[Tensor], rows: Sequence[int]) -> list[list[Tensor]]:
        """See `Port`."""
        copies = {device: [part.to(device) for part in parts] for device in self._devices}
        return [copies[device] for device in self._devices]


class Ranks:
    """One shard, this process; the group of torch.distributed that it has joined holds the others."""

    def __init__(self) -> None:
        self.shards = distributed.get_world_size()
        self.held: tuple[int, ...] = (distributed.get_rank(),)

    def maximum(self, parts: list[Tensor]) -> list[Tensor]:
        """See `Port`."""
        return [self._reduce(parts[0], distributed.ReduceOp.MAX)]

    def total(self, parts: list[Tensor]) -> list[Tensor]:
        """See `Port`."""
        return [self._reduce(parts[0], distributed.ReduceOp.SUM)]

    def _reduce(self, part: Tensor, operation: distributed.ReduceOp.RedOpType) -> Tensor:
        near = part.cpu().contiguous()
        distributed.all_reduce(near, operation)
        return near.to(part.device)

    def gather(self, parts: list[Tensor], rows: Sequence[int]) -> list[list[Tensor]]:
        """See `Port`."""
        part = parts[0]
        before, _, after = part.shape
        near = torch.zeros(before, max(rows), after, dtype=part.dtype)  # all ranks send equally much
        near[:, : part.shape[1]] = part
        raw = near.view(-1).view(torch.uint8)
        found = [torch.empty_like(raw) for _ in rows]
        distributed.all_gather(found, raw)
        wholes = [each.view(part.dtype).view(before, max(rows), after) for each in found]
        return [[whole[:, :count].to(part.device) for whole, count in zip(wholes, rows, strict=True)]]


def join_ranks(rank: int, ranks: int, meeting: Path) -> Ranks:
    """Meet the other ranks by way of a file that all see and that is not there yet; returns once all have come."""
    timeout = timedelta(seconds=MEETING_S)
    distributed.init_process_group(
        "gloo", init_method=meeting.absolute().as_uri(), rank=rank, world_size=ranks, timeout=timeout
    )
    return Ranks()


def leave_ranks() -> None:
    """End what `join_ranks` began, once all ranks are here."""
    distributed.barrier()
    distributed.destroy_process_group()


def once(function: Callable[..., Tensor], *columns: list[Tensor]) -> list[Tensor]:
    """`function` of each shard's operands; shards that hold the very same tensors share one result."""
    known: dict[tuple[int, ...], Tensor] = {}
    results = []
    for operands in zip(*columns, strict=True):
        names = tuple(id(operand) for operand in operands)
        if names not in known:
            known[names] = function(*operands)
        results.append(known[names])
    return results

"""Training a segment: a fixed number of optimizer steps from one state to the next, whose every bit is prescribed.

Step k of segment n is step s = n * steps_per_segment + k of the round. The round's seed and s fix the rows of its
batch (`milon.pol.batches`) and the key of its random draws; nothing is left to the trainer. A segment starts from the
bytes of the state before it, never from what its trainer still has in memory, so that whoever has those bytes can run
it again.

The trace of a segment holds a fingerprint per step, of the loss and of every gradient. Number the elements of the loss
(which is element 0) and of the gradients (in order of their names, each row-major) p = 0, 1, 2, ...; read each as the
signed 32-bit integer b_p of its binary32 bits, every NaN as 0x7FC00000. The fingerprint is the sum of b_p * (2p + 1)
modulo 2^64, as a signed integer: the same on any device, in any order, for one multiplication an element.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.gpu import fast
from milon.gpu.checkpoint import NAN_BITS, OUTER_PREFIX, from_bytes, to_bytes, verify_same_shape
from milon.gpu.digests import sum_bits
from milon.gpu.interpreter import Plan, Result
from milon.gpu.rows import Dataset
from milon.pol.batches import compute_batch
from milon.pol.program import StepKey

_CHUNK = 1 << 18  # elements fingerprinted at a time: two MiB of weights stay in a core's cache
_WORD = 1 << 64


@dataclass(frozen=True, slots=True)
class RoundWork:
    """What every segment of a round shares."""

    plan: Plan  # the training step
    layout: Mapping[str, Tensor]  # name, shape and dtype of every state tensor; the values do not count
    data: Dataset  # the training rows
    batch_size: int  # rows a step
    steps_per_segment: int  # optimizer steps
    seed: Digest  # the round's
    round: int  # its number


@dataclass(frozen=True, slots=True)
class SegmentRun:
    """What running a segment gave."""

    state: bytes  # canonical bytes after the last step; empty where the run diverged
    fingerprints: tuple[int, ...]  # one a step that was run, signed 64-bit
    loss_bits: int  # binary32 bits of the last step's loss
    diverged_step: int | None  # the step of the segment whose new state was not finite, if one was


@cache
def _chunk_weights() -> Tensor:
    return torch.arange(_CHUNK, dtype=torch.int64) * 2 + 1


def float_bits(tensor: Tensor) -> Tensor:
    """The binary32 bits of `tensor` as signed 32-bit integers, every NaN as 0x7FC00000; same shape."""
    bits = tensor.contiguous().view(torch.int32)
    return torch.where(tensor.isnan(), torch.full_like(bits, NAN_BITS), bits)


def loss_of(result: Result) -> Tensor:
    """The loss of a step or an evaluation, a binary32 scalar."""
    if result.loss is None:
        raise RuntimeError("a program that trains or evaluates was accepted without a loss")
    return result.loss


def loss_bits_of(result: Result) -> int:
    """The binary32 bits of the loss as an unsigned integer, NaN as 0x7FC00000."""
    return int(float_bits(loss_of(result)).item()) & 0xFFFFFFFF


def compute_fingerprint(loss: Tensor, gradients: Mapping[str, Tensor]) -> int:
    """The step's fingerprint as this module's head defines it: signed 64 bits."""
    tensors = [loss, *(gradients[name] for name in sorted(gradients))]
    quickly = sum_bits(tensors)
    total = (_sum_plainly(tensors) if quickly is None else quickly) % _WORD
    return total - _WORD if total >= _WORD >> 1 else total


def _sum_plainly(tensors: Sequence[Tensor]) -> int:
    """The sum of b_p * (2p + 1), on whatever device the tensors are."""
    total = position = 0
    for tensor in tensors:
        flat = float_bits(tensor).reshape(-1)
        for first in range(0, flat.numel(), _CHUNK):
            part = flat[first : first + _CHUNK].to(torch.int64)
            weights = _chunk_weights()[: part.numel()].to(part.device)
            total += int((part * weights).sum().item()) + 2 * position * int(part.sum().item())
            position += part.numel()
    return total


def fingerprint_of(result: Result) -> int:
    """The fingerprint of a training step's result."""
    return compute_fingerprint(loss_of(result), result.gradients)


def is_finite(state: Mapping[str, Tensor]) -> bool:
    """Whether no tensor holds NaN or infinity."""
    return all(fast.is_finite(tensor) for tensor in state.values() if tensor.is_floating_point())


def read_state(raw: bytes, layout: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state in `raw`; `Rejected` unless it is canonical, has the tensors of `layout`, and is finite.

    What an aggregation remembers ("outer.") is nothing that a step reads, and is left out.
    """
    state = {name: tensor for name, tensor in from_bytes(raw).items() if not name.startswith(OUTER_PREFIX)}
    verify_same_shape(layout, state)
    require(is_finite(state), Reason.NOT_FINITE, "the state holds NaN or infinity")
    return state


def run_segment(work: RoundWork, start: bytes, segment: int) -> SegmentRun:
    """Run one segment from the bytes of the state before it.

    Raises `Rejected` where `start` is no finite state of this job. A step after which the state is not finite ends the
    run (rule N6).
    """
    state: Mapping[str, Tensor] = read_state(start, work.layout)
    fingerprints: list[int] = []
    loss_bits = 0
    for k in range(work.steps_per_segment):
        step = segment * work.steps_per_segment + k
        batch = work.data.take(compute_batch(work.seed, step, work.batch_size, work.data.rows))
        result = work.plan.run(state, batch, StepKey(work.seed, work.round, 0, step))
        fingerprints.append(fingerprint_of(result))
        loss_bits = loss_bits_of(result)
        state = result.new_state
        if not is_finite(state):
            return SegmentRun(b"", tuple(fingerprints), loss_bits, k)
    return SegmentRun(to_bytes(state), tuple(fingerprints), loss_bits, None)


def train_segments(work: RoundWork, start: bytes, first: int, count: int) -> Iterator[SegmentRun]:
    """Run `count` segments from segment `first` on, each from the bytes of the one before.

    A run that diverges ends early and keeps the segments before it; `Rejected(NOT_FINITE)` where there is none.
    """
    for segment in range(first, first + count):
        run = run_segment(work, start, segment)
        if run.diverged_step is not None:
            if segment > first:
                return
            detail = f"the training diverged in segment {segment}, step {run.diverged_step}"
            raise Rejected(Reason.NOT_FINITE, detail)
        yield run
        start = run.state

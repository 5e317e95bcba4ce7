"""Cheats of a trainer that knows the job: everything it can change about a segment, put forward as the segment.

Each attempt is a segment of a round of its own. The adversary trains for real where that helps it, and shows the trace
that makes its lie most credible.
"""

from __future__ import annotations

import dataclasses
import random
import struct
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from milon.gpu import attacks
from milon.gpu.checkpoint import to_bytes
from milon.gpu.interpreter import load
from milon.gpu.rows import Dataset
from milon.gpu.train import RoundWork, SegmentRun, fingerprint_of, loss_bits_of, run_segment
from milon.pol.batches import compute_batch
from milon.pol.program import Program, StepKey
from tests.attacks.ground import (
    SEGMENTS,
    Ground,
    Tried,
    grounds,
    is_accepted,
    of_round,
    open_state,
    with_state,
)

ROWS = 60
Rows = tuple[int, ...]
Cheat = Callable[[Ground, random.Random], SegmentRun]


def _floats(names: list[str], state: dict[str, Tensor]) -> list[str]:
    return [name for name in names if state[name].dtype == torch.float32 and state[name].numel()]


def _nudge(tensor: Tensor, chance: random.Random) -> None:
    """Change one element: its last bit, its sign, its size, or a little of it all."""
    flat = tensor.view(-1)
    place = chance.randrange(flat.numel())
    kind = chance.randrange(4)
    if kind == 0:
        flat.view(torch.int32)[place] ^= 1
    elif kind == 1 and float(flat[place]) != 0:
        flat[place] = -flat[place]
    elif kind == 2 and float(flat[place]) != 0:
        flat[place] *= chance.choice((0.5, 0.999, 1.001, 2.0))
    else:
        tensor += chance.choice((1e-3, -1e-3, 0.1))


def _choose(ground: Ground, chance: random.Random, part: str) -> SegmentRun:
    """The honest run with one of its tensors whose name holds `part` changed."""
    state = open_state(ground.honest.state)
    names = _floats([name for name in state if part in name], state)
    _nudge(state[chance.choice(names)], chance)
    return with_state(ground.honest, state)


def inject_momentum(ground: Ground, chance: random.Random) -> SegmentRun:
    """The optimizer's moments tell of steps that never were: afterwards, or before the steps that they then drive."""
    if chance.random() < 0.5:
        return _choose(ground, chance, "optimizer.momentum_buffer")
    start = open_state(ground.start)
    names = [name for name in start if name.startswith("optimizer.momentum_buffer.")]
    for name in names:
        start[name] += chance.choice((-1.0, 1.0)) * chance.choice((1e-4, 1e-2, 1.0))
    return run_segment(ground.work, to_bytes(start), ground.segment)


def tamper_buffers(ground: Ground, chance: random.Random) -> SegmentRun:
    """The running statistics of a normalisation, or its count of batches, are others than the steps made them."""
    if chance.random() < 0.2:
        state = open_state(ground.honest.state)
        state["model.2.num_batches_tracked"] += chance.choice((-1, 1, 1000))
        return with_state(ground.honest, state)
    return _choose(ground, chance, chance.choice(("running_mean", "running_var")))


def _run_steps(
    ground: Ground, rows_of: Callable[[int, Rows], Rows], data: Dataset | None = None, from_step: int = 0
) -> SegmentRun:
    """The segment on other rows than the prescribed ones, or, from a step on, on other data."""
    work, state = ground.work, open_state(ground.start)
    prints, loss_bits = [], 0
    for k in range(work.steps_per_segment):
        step = ground.segment * work.steps_per_segment + k
        rows = rows_of(k, compute_batch(work.seed, step, work.batch_size, work.data.rows))
        batch = (data if data is not None and k == from_step else work.data).take(rows)
        result = work.plan.run(state, batch, StepKey(work.seed, work.round, 0, step))
        prints.append(fingerprint_of(result))
        loss_bits = loss_bits_of(result)
        state = dict(result.new_state)
    return SegmentRun(to_bytes(state), tuple(prints), loss_bits, None)


def _reorder(rows: Rows, chance: random.Random) -> Rows:
    """The same rows in another order, as far as they differ at all."""
    turned = list(rows)
    while tuple(turned) == rows:
        chance.shuffle(turned)
    return tuple(turned)


def swap_data(ground: Ground, chance: random.Random) -> SegmentRun:
    """Another order within a batch, another row, steps exchanged, or the rows of another segment."""
    kind = chance.randrange(4)
    where = chance.randrange(ground.work.steps_per_segment)
    if kind == 0:
        return _run_steps(ground, lambda k, rows: _reorder(rows, chance) if k == where else rows)
    if kind == 1:
        shift = chance.randrange(1, ROWS)
        return _run_steps(ground, lambda k, rows: (*rows[:-1], (rows[-1] + shift) % ROWS) if k == where else rows)
    work = ground.work
    first = (ground.segment if kind == 2 else (ground.segment + 1) % SEGMENTS) * work.steps_per_segment
    steps = work.steps_per_segment

    def other(k: int, rows: Rows) -> Rows:
        return compute_batch(work.seed, first + (k + 1) % steps, work.batch_size, work.data.rows)

    return _run_steps(ground, other)


def _with_targets(work: RoundWork, change: Callable[[Tensor], Tensor]) -> Dataset:
    inputs, targets = work.data.columns
    return dataclasses.replace(work.data, columns=(inputs, change(targets.clone())))


def poison_step(ground: Ground, chance: random.Random) -> SegmentRun:
    """One step of the segment on wrong targets or on images with a mark; all others are honest."""
    images, targets = ground.work.data.columns
    step = chance.randrange(ground.work.steps_per_segment)
    if chance.random() < 0.5:
        shift = chance.randrange(1, 3)
        return _run_steps(ground, lambda k, rows: rows, _with_targets(ground.work, lambda t: (t + shift) % 3), step)
    marked = images.clone()
    marked[:, 0, chance.randrange(4), chance.randrange(4)] = chance.choice((-1.0, 2.0))
    data = dataclasses.replace(ground.work.data, columns=(marked, targets))
    return _run_steps(ground, lambda k, rows: rows, data, step)


def copy_segment(ground: Ground, chance: random.Random) -> SegmentRun:
    """Another trainer's segment, another round's, or the state as it was, under this segment's number."""
    kind = chance.randrange(4)
    other = (ground.segment + chance.randrange(1, SEGMENTS)) % SEGMENTS
    if kind == 0:
        return run_segment(ground.work, ground.start, other)
    if kind == 1:
        earlier = of_round(ground.work, chance.randrange(1 << 40, 1 << 41))
        return run_segment(earlier, ground.start, ground.segment)
    if kind == 2:  # a relayed result: the segment of somebody who began elsewhere
        return run_segment(ground.work, run_segment(ground.work, ground.start, other).state, ground.segment)
    return dataclasses.replace(ground.honest, state=ground.start)


def flip_labels(ground: Ground, chance: random.Random) -> SegmentRun:
    """All steps on wrong targets."""
    shift = chance.randrange(1, 3)
    return run_segment(
        dataclasses.replace(ground.work, data=_with_targets(ground.work, lambda t: (t + shift) % 3)),
        ground.start,
        ground.segment,
    )


def _finals(ground: Ground, count: int) -> list[dict[str, Tensor]]:
    """What other trainers of the round end with."""
    segments = [(ground.segment + place) % SEGMENTS for place in range(count)]
    return [open_state(run_segment(ground.work, ground.start, segment).state) for segment in segments]


def _spread(ground: Ground, made: Callable[[Tensor, Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    """A final state made, tensor by tensor, of the round's state and three trainers' mean and deviation."""
    before, finals = open_state(ground.start), _finals(ground, 3)
    state = dict(finals[0])
    for name in state:
        if name.startswith("model.") and state[name].is_floating_point():
            crowd = torch.stack([final[name] for final in finals])
            state[name] = made(before[name], crowd.mean(0), crowd.std(0, correction=0))
    return state


def poison_update(kind: str) -> Cheat:
    """The final state that a known poisoning of updates makes of the honest ones.

    A little is enough: a few deviations beside the mean (Baruch et al. 2019). Inner product manipulation: the mean
    update turned around (Xie et al. 2020). Mimic: a copy of another's final state (Karimireddy et al. 2022).
    """

    def cheat(ground: Ground, chance: random.Random) -> SegmentRun:
        before, after = open_state(ground.start), open_state(ground.honest.state)
        factor = chance.choice((0.1, 0.5, 1.5, 10.0))
        if kind == "sign flip":
            made = attacks.sign_flip(before, after, factor)
        elif kind == "scaled noise":
            made = attacks.gaussian(before, after, chance.randrange(1 << 20), factor)
        elif kind == "a little is enough":
            made = _spread(ground, lambda start, mean, deviation: mean - deviation * factor)
        elif kind == "inner product":
            made = _spread(ground, lambda start, mean, deviation: start - (mean - start) * factor)
        else:
            made = _finals(ground, 2)[1]
        return with_state(ground.honest, made)

    return cheat


def _judge(cheat: Cheat) -> Callable[[int], Iterator[Tried]]:
    def attempts(seed: int) -> Iterator[Tried]:
        for ground, chance in grounds(seed):
            yield Tried(is_accepted(ground, cheat(ground, chance)))

    return attempts


def _with_number(program: Program, number: float, other: float) -> Program:
    """The program with another number in place of one of its binary32 constants."""
    raw, instead = struct.pack("<f", number), struct.pack("<f", other)
    found = [constant for constant in program.constants if constant.raw == raw]
    if not found or instead == raw:
        raise RuntimeError(f"the program has no constant {number} that {other} could stand for")
    changed = (dataclasses.replace(one, raw=instead) if one.raw == raw else one for one in program.constants)
    return dataclasses.replace(program, constants=tuple(changed))


def attempt_other_rate(seed: int) -> Iterator[Tried]:
    """The job's steps under another learning rate, another momentum or another schedule, everything else in order.

    The normalisation has the learning rate's number for its own too, so its buffers are put right again.
    """
    for ground, chance in grounds(seed):
        number = chance.choice((0.1, 0.1, 0.9, 4.0))
        program = _with_number(ground.work.plan.program, number, number * chance.choice((0.5, 0.999, 1.001, 1.5)))
        lying = dataclasses.replace(ground.work, plan=load(program))
        run = run_segment(lying, ground.start, ground.segment)
        state, honest = open_state(run.state), open_state(ground.honest.state)
        state |= {name: honest[name] for name in honest if ".running_" in name}
        yield Tried(is_accepted(ground, with_state(run, state)))


def attempt_other_schedule(seed: int) -> Iterator[Tried]:
    """The step count that the schedule reads is turned forward, and back again once it has done its work."""
    for ground, chance in grounds(seed):
        start = open_state(ground.start)
        start["optimizer.step"] += chance.choice((1, 2, 3, 100))
        run = run_segment(ground.work, to_bytes(start), ground.segment)
        state = open_state(run.state)
        state["optimizer.step"] = open_state(ground.honest.state)["optimizer.step"]
        yield Tried(is_accepted(ground, with_state(run, state)))


def count_honest(seed: int) -> Iterator[Tried]:
    """No attack: the control that the verdicts above are not simply always no."""
    for ground, _ in grounds(seed):
        yield Tried(is_accepted(ground, ground.honest))


ATTACKS: dict[str, Callable[[int], Iterator[Tried]]] = {
    "injected optimizer momentum": _judge(inject_momentum),
    "a lie about the learning rate": attempt_other_rate,
    "a lie about the schedule": attempt_other_schedule,
    "swapped or reordered data": _judge(swap_data),
    "tampered buffers": _judge(tamper_buffers),
    "one poisoned step": _judge(poison_step),
    "copying or relaying another's segment": _judge(copy_segment),
    "poisoning: sign flip": _judge(poison_update("sign flip")),
    "poisoning: a little is enough (ALIE)": _judge(poison_update("a little is enough")),
    "poisoning: inner product manipulation": _judge(poison_update("inner product")),
    "poisoning: label flip": _judge(flip_labels),
    "poisoning: mimic": _judge(poison_update("mimic")),
    "poisoning: scaled noise": _judge(poison_update("scaled noise")),
}

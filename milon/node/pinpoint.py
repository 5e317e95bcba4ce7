"""Where in a false segment the lie shows: the step, the tensor, and the operation that gives it.

A claim holds the state after a segment and one digest over all its steps' traces, and nothing from in between. So the
segment is run once more, and what it ends with is laid beside what was claimed. If the traces agree, every loss and
every gradient was right, and the difference came into being after the last one. If they do not, a segment of one step
names its step; of a longer one, only a dispute on the chain finds it, where the trainer has to answer for each step.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from milon.base.codec import decode
from milon.base.errors import Rejected
from milon.base.units import Count
from milon.chain.learning import ClosedRound
from milon.node.folder import read_file
from milon.node.task_context import TaskContext, as_result, fetch_files, fetch_job, size_of_state
from milon.pol.program import PROGRAM_BYTES_MAX, InputRole, OutputRole, Program
from milon.pol.terms import JobSpec
from milon.pol.work import Progress, ReplayItem, SegmentsTrained, TrainSegments

HEADER_MAX_BYTES = 4 << 20  # of a state's file: 16,384 tensors with names of 256 bytes
_PIECE_BYTES = 1 << 20  # of two states compared at a time


@dataclass(frozen=True, slots=True)
class Difference:
    """What is known of a lie beyond its segment."""

    step: int | None  # of the segment, from 0; None where the claim does not tell
    tensor: str  # the first in order of name that differs; empty where none is known
    operation: str  # of the training program that gives it; empty where it is not known
    detail: str  # in words, and what cannot be named


@dataclass(frozen=True, slots=True)
class Place:
    """Where two states first differ."""

    tensor: str  # its name
    element: int  # row-major
    mine: str  # hexadecimal, the element's bytes
    claimed: str  # the same
    tensors: int  # that differ in all
    of: int  # tensors in the state


def _parse_layout(raw: bytes) -> list[tuple[str, str, int, int]]:
    """(name, dtype, first byte, last byte) of each tensor in the canonical header of a state that was made here."""
    entries = json.loads(raw)
    return [(name, entry["dtype"], *entry["data_offsets"]) for name, entry in entries.items()]


def compare_states(mine: Path, claimed: Path) -> Place | None:
    """Where the claimed state first differs from mine; None where it has another layout, or is the same."""
    sizes = {"F32": 4, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
    with mine.open("rb") as own, claimed.open("rb") as other:
        length = own.read(8)
        count = min(int.from_bytes(length, "little"), HEADER_MAX_BYTES)
        head = own.read(count)
        if other.read(8 + count) != length + head or mine.stat().st_size != claimed.stat().st_size:
            return None
        layout = _parse_layout(head)
        found: Place | None = None
        differing = 0
        for name, dtype, begin, end in layout:
            place: int | None = None
            for start in range(begin, end, _PIECE_BYTES):
                pieces = [file.read(min(_PIECE_BYTES, end - start)) for file in (own, other)]
                if place is None and pieces[0] != pieces[1]:
                    place = start + next(at for at, (a, b) in enumerate(zip(*pieces, strict=False)) if a != b)
                    at = (place - start) // sizes[dtype] * sizes[dtype]
                    words = [piece[at : at + sizes[dtype]].hex() for piece in pieces]
            if place is not None:
                differing += 1
                element = (place - begin) // sizes[dtype]
                found = found or Place(name, element, words[0], words[1], 0, len(layout))
        return None if found is None else replace(found, tensors=differing)


def name_operation(program: Program, tensor: str) -> str:
    """The operation that gives a state tensor its new value, as "node 12 (subtract)"; empty where there is none."""
    base = len(program.inputs) + len(program.constants)
    values = [entry.value for entry in program.outputs if (entry.role, entry.name) == (OutputRole.NEW_STATE, tensor)]
    if values and values[0] >= base:
        return f"node {values[0] - base} ({program.nodes[values[0] - base].operation})"
    is_held = any(entry.role is InputRole.STATE and entry.name == tensor for entry in program.inputs)
    return "none: a step leaves this tensor as it is" if is_held else ""


def _tell_step(steps: int, is_same_trace: bool) -> tuple[int | None, str]:
    if is_same_trace:
        why = "the traces agree, so every loss and gradient was right: the difference is in the last step's update"
        return steps - 1, why
    if steps == 1:
        return 0, "the segment has a single step"
    why = f"which of the {steps} steps is false cannot be told from the claim; a dispute on the chain would find it"
    return None, why


async def find_difference(
    context: TaskContext, closed: ClosedRound, spec: JobSpec, item: ReplayItem, patience_s: float
) -> Difference:
    """Run a false segment once more, and compare what it ends with to the claimed state, which is fetched.

    What cannot be had or run is said in `detail`; nothing is raised for it, since the segment is false without it.
    """
    steps = int(spec.terms.steps_per_segment)
    try:
        limit = await size_of_state(context, closed.state)
        files = await fetch_job(context, spec)
        files += await fetch_files(context, [item.start], limit, patience_s)
        request = TrainSegments(
            spec, files, item.start, closed.seed, Count(closed.round), item.segment, Count(1), str(context.folder), ""
        )
        trained = as_result(SegmentsTrained, await context.work(request, 0, _ignore))
    except Rejected as error:
        return Difference(None, "", "", f"an honest run does not get through the segment: {error.detail}")
    own = trained.records[0]
    step, why = _tell_step(steps, own.trace == item.record.trace)
    if own.state == item.record.state:
        return Difference(step, "", "", f"the state is right; the trace or the loss beside it is not; {why}")
    try:
        claimed = await context.blobs.ensure(item.record.state, limit, patience_s)
    except Rejected as error:
        return Difference(step, "", "", f"the claimed state is not to be had ({error.detail}); {why}")
    place = await trio.to_thread.run_sync(compare_states, Path(trained.files[0].path), claimed)
    if place is None:
        return Difference(step, "", "", f"the claimed state has other tensors than the job's; {why}")
    program_path = await context.blobs.ensure(spec.train, PROGRAM_BYTES_MAX, patience_s)
    raw = await trio.to_thread.run_sync(read_file, program_path, PROGRAM_BYTES_MAX)
    operation = name_operation(decode(Program, raw, PROGRAM_BYTES_MAX), place.tensor)
    return _describe(step, why, place, operation)


def _describe(step: int | None, why: str, place: Place, operation: str) -> Difference:
    where = (
        f"{place.tensors} of {place.of} tensors differ; {place.tensor} first at element {place.element}: bytes "
        f"{place.claimed} are claimed, {place.mine} come out; {why}"
    )
    return Difference(step, place.tensor, operation if step is not None else "", where)


def _ignore(progress: Progress) -> None:
    """One segment: nothing to show."""

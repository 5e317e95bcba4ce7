"""Whether a job is sound before anybody works on it, and how fast this machine trains it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from torch import Tensor

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import NO_DIGEST
from milon.base.units import Count
from milon.gpu.checkpoint import verify_same_shape
from milon.gpu.evaluate import verify_coverage
from milon.gpu.interpreter import Plan
from milon.gpu.rows import Dataset
from milon.gpu.train import fingerprint_of, read_state
from milon.gpu.work_library import Files, Library, batch_types, layout_of, read_program
from milon.pol.batches import compute_batch
from milon.pol.program import Budget, Cost, Program, ProgramKind, StepKey, verify_program
from milon.pol.shapes import DType
from milon.pol.terms import Field, JobSpec, verify_spec
from milon.pol.work import CheckJob, JobChecked

BENCHMARK_SECONDS = 0.7  # long enough to pass over a hiccup, short enough that a job is held within a block
BENCHMARK_STEPS_MAX = 64  # the smallest models need no more
WORK_SECONDS_MAX = 600.0  # of one segment, and of one evaluation: others' work waits, and a deadline must bear it
CAPACITY_MAX = 1_000_000_000  # segments per hour; the chain counts no higher

_FIELD_DTYPES = {"F32": DType.FLOAT32, "I64": DType.INT64}


def _verify_layout(layout: Mapping[str, Tensor], program: Program, where: str) -> None:
    """A program that does not train may read fewer tensors of the state, but no others."""
    own = layout_of(program)
    unknown = sorted(own.keys() - layout.keys())
    require(not unknown, Reason.DOES_NOT_FIT, f"{where} reads {unknown[:1]} which no training step writes")
    verify_same_shape({name: layout[name] for name in own}, own)


def _verify_batch(program: Program, fields: Sequence[Field], rows: int | None, where: str) -> None:
    """The program's batch tensors are these columns in their order, with `rows` rows (None: any one number)."""
    found = batch_types(program)
    if not found or not found[0][1]:
        raise Rejected(Reason.DOES_NOT_FIT, f"{where} reads no rows")
    expected = found[0][1][0] if rows is None else rows
    wanted = tuple((_FIELD_DTYPES[field.dtype], (expected, *field.shape)) for field in fields)
    if found == wanted:
        return
    have = ", ".join(f"{dtype.value}{list(shape)}" for dtype, shape in found)
    need = ", ".join(f"{dtype.value}{list(shape)}" for dtype, shape in wanted)
    raise Rejected(Reason.DOES_NOT_FIT, f"{where} reads {have:.200}; the data's columns make {need:.200}")


def _check_programs(spec: JobSpec, files: Files, budget: Budget) -> tuple[dict[str, Program], Cost]:
    train = read_program(files, spec.train, ProgramKind.TRAIN)
    cost = verify_program(train, budget)
    programs = {"the training program": train}
    for place, entry in enumerate(spec.evaluate):
        programs[f"evaluation program {place}"] = read_program(files, entry.program, ProgramKind.EVALUATE)
    programs["the prediction program"] = read_program(files, spec.predict, ProgramKind.PREDICT)
    layout = layout_of(train)
    for where, program in programs.items():
        verify_program(program, budget)
        _verify_layout(layout, program, where)
    return programs, cost


def _check_data(spec: JobSpec, programs: Mapping[str, Program], train: Dataset, evaluation: Dataset) -> None:
    shapes = [[(field.dtype, field.shape) for field in rows.fields] for rows in (train, evaluation)]
    require(shapes[0] == shapes[1], Reason.DOES_NOT_FIT, "training and evaluation rows have different columns")
    _verify_batch(programs["the training program"], train.fields, spec.terms.batch_size, "the training program")
    for place, entry in enumerate(spec.evaluate):
        where = f"evaluation program {place}"
        _verify_batch(programs[where], evaluation.fields, entry.rows, where)
    _verify_batch(programs["the prediction program"], evaluation.fields[:-1], None, "the prediction program")
    verify_coverage([entry.rows for entry in spec.evaluate], evaluation.rows)


def _measure_step(plan: Plan, state: Mapping[str, Tensor], data: Dataset, batch_size: int) -> float:
    """Seconds of the fastest of a few real steps; the first one counts only if there is time for no other."""
    best = 0.0
    began = time.perf_counter()
    for step in range(BENCHMARK_STEPS_MAX):
        start = time.perf_counter()
        batch = data.take(compute_batch(NO_DIGEST, step, batch_size, data.rows))
        result = plan.run(state, batch, StepKey(NO_DIGEST, 0, 0, step))
        fingerprint_of(result)
        took = time.perf_counter() - start
        best = took if step < 2 else min(best, took)
        if time.perf_counter() - began > BENCHMARK_SECONDS:
            break
    return best


def _verify_seconds(what: str, seconds: float) -> None:
    """Raise `Rejected(OVER_BUDGET)` where this machine would be busy with one piece of work for too long."""
    is_short = seconds <= WORK_SECONDS_MAX
    require(is_short, Reason.OVER_BUDGET, f"{what} takes {seconds:.0f} s here; {WORK_SECONDS_MAX:.0f} are allowed")


def check_job(request: CheckJob, library: Library) -> JobChecked:
    """Raise `Rejected` with the first thing that is wrong with the job; otherwise its cost and this machine's speed.

    Checked: the terms; that every blob is here; kind, form and cost of the programs; that the first state is theirs and
    finite; that the data is finite and has the columns and batch sizes they read; that evaluation covers its rows. One
    batch of every kind is run, and a segment and an evaluation may not take too long on this machine. What a row's
    values do inside the program (a class number that is too large) shows when that row is first used.
    """
    spec = request.spec
    verify_spec(spec)
    files = Files(request.files)
    budget = Budget(request.memory_bytes_max, request.operations_max)
    programs, cost = _check_programs(spec, files, budget)
    state = read_state(files.read(spec.initial_state), layout_of(programs["the training program"]))
    train = library.open_dataset(files, spec.train_rows)
    evaluation = library.open_dataset(files, spec.evaluation_rows)
    _check_data(spec, programs, train, evaluation)
    key = StepKey(NO_DIGEST, 0, 0, 0)
    for entry in spec.evaluate:
        program = library.open_program(files, entry.program, ProgramKind.EVALUATE)
        began = time.perf_counter()
        program.run(state, evaluation.cut(evaluation.rows - entry.rows, entry.rows), key)
        _verify_seconds("an evaluation", (time.perf_counter() - began) * (evaluation.rows // entry.rows))
    plan = library.open_program(files, spec.train, ProgramKind.TRAIN)
    seconds = _measure_step(plan, state, train, spec.terms.batch_size)
    _verify_seconds("a segment", seconds * spec.terms.steps_per_segment)
    per_hour = int(3600 / max(seconds * spec.terms.steps_per_segment, 1e-9))
    return JobChecked(Count(cost.memory_bytes), Count(cost.operations), Count(max(1, min(per_hour, CAPACITY_MAX))))

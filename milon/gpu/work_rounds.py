"""What a worker does in a round: train segments, replay others', combine the accepted ones and evaluate the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Digest
from milon.base.units import Count
from milon.gpu.aggregate import aggregate_round
from milon.gpu.attacks_runs import run_hostile
from milon.gpu.checkpoint import NAN_BITS, OPTIMIZER_PREFIX, OUTER_PREFIX, from_bytes, map_file, to_bytes
from milon.gpu.evaluate import Evaluation, evaluate_state
from milon.gpu.interpreter import Plan
from milon.gpu.journal import open_folder
from milon.gpu.replay import replay_segment
from milon.gpu.rows import Dataset
from milon.gpu.train import RoundWork, SegmentRun, read_state, train_segments
from milon.gpu.work_library import Files, Library, layout_of, statistics_of, write_blob
from milon.pol.aggregation import Record, Report, Standing
from milon.pol.program import ProgramKind
from milon.pol.verdict import Refusal, RoundOutcome
from milon.pol.work import (
    AggregateRound,
    BlobFile,
    Progress,
    ReplaySegments,
    RoundAggregated,
    SegmentsReplayed,
    SegmentsTrained,
    TrainSegments,
)

Programs = Sequence[tuple[int, Plan]]  # evaluation: rows in a batch, program
PROGRESS_ELEMENTS_MIN = 1 << 24  # numbers in all updates: from about half a second on
PASSES_MAX = 4  # magnitudes, comparison, inner products, combination


def _elapsed_ms(began: float) -> Count:
    return Count(int((time.perf_counter() - began) * 1000))


def _run_segments(request: TrainSegments, work: RoundWork, start: bytes) -> Iterator[SegmentRun]:
    if request.tamper:
        return run_hostile(request, work, start)
    return train_segments(work, start, request.first, request.count)


def train(request: TrainSegments, library: Library, answer: Callable[[Progress], None]) -> SegmentsTrained:
    """Train the requested segments, writing each state as soon as it is there; fewer where the training diverged.

    Raises `Rejected`: NOT_FINITE where the first segment diverged, UNAVAILABLE where a blob is not here, FULL where the
    disk is.
    """
    began = time.perf_counter()
    files = Files(request.files)
    work = library.open_work(files, request.spec, request.seed, request.round)
    kept, start = open_folder(request), files.read(request.state)
    done = Count(len(kept.entries))
    if done:
        last = kept.entries[-1].record
        answer(Progress(last.segment, last.loss_bits, done))
        start = kept.read_last()
    rest = replace(request, first=Count(request.first + done), count=Count(request.count - done))
    try:
        for run in _run_segments(rest, work, start):
            segment, now = Count(request.first + len(kept.entries)), time.perf_counter()
            kept.append(run, segment, int((now - began) * 1000))
            began = now
            answer(Progress(segment, Count(run.loss_bits)))
    except Rejected as rejected:
        if rejected.reason is not Reason.NOT_FINITE or not done:
            raise
    spent = Count(sum(entry.compute_ms for entry in kept.entries))
    records, traces = (entry.record for entry in kept.entries), (entry.trace for entry in kept.entries)
    return SegmentsTrained(tuple(records), tuple(traces), kept.files(), spent)


def replay(request: ReplaySegments, library: Library) -> SegmentsReplayed:
    """Replay every item; `Rejected(UNAVAILABLE)` where a start state or another blob is not here."""
    began = time.perf_counter()
    files = Files(request.files)
    work = library.open_work(files, request.spec, request.seed, request.round)
    starts = [files.read(item.start) for item in request.items]
    results = tuple(replay_segment(work, start, item) for start, item in zip(starts, request.items, strict=True))
    return SegmentsReplayed(results, _elapsed_ms(began))


def _read_finals(
    request: AggregateRound, files: Files, size_bytes: int
) -> tuple[list[tuple[bytes, int, Mapping[str, Tensor]]], dict[AccountId, str]]:
    """The final states, mapped into memory, and why some of them are none; those stay in the list, empty, for the rule
    to refuse."""
    finals: list[tuple[bytes, int, Mapping[str, Tensor]]] = []
    problems: dict[AccountId, str] = {}
    for final in request.finals:
        path = files.find(final.state)
        state: Mapping[str, Tensor] = {}
        if path.stat().st_size != size_bytes:
            problems[final.trainer] = f"a final state of another size than the job's {size_bytes} bytes"
        else:
            try:
                state = map_file(path)
            except Rejected as rejected:
                problems[final.trainer] = rejected.detail
        finals.append((final.trainer, final.steps, state))
    return finals, problems


def _evaluate_old(state: Mapping[str, Tensor], programs: Programs, rows: Dataset) -> Evaluation:
    try:
        return evaluate_state(state, programs, rows)
    except Rejected:
        return Evaluation(NAN_BITS, 0, rows.rows)


def _void(request: AggregateRound, evaluation: Evaluation, problems: Mapping[AccountId, str], why: str) -> RoundOutcome:
    refused = tuple(Refusal(trainer, problems[trainer]) for trainer in sorted(problems))
    numbers = (Count(evaluation.loss_bits), Count(evaluation.correct), Count(evaluation.rows))
    return RoundOutcome(request.state, *numbers, accepted=(), refused=refused, void=why)


def _record(
    request: AggregateRound, report: Report, after: Digest, problems: Mapping[AccountId, str], why: str
) -> Record:
    """What is kept of the aggregation, with the words that the outcome has."""
    standings = tuple(
        replace(standing, reason=problems.get(standing.account, standing.reason)) for standing in report.standings
    )
    states = {final.trainer: final.state for final in request.finals}
    finals = tuple(states[standing.account] for standing in standings)
    return Record(replace(report, standings=standings), finals, request.state, after, why)


def _report_nothing(request: AggregateRound) -> Report:
    """Of a round that came to nothing: who took part."""
    finals = sorted(request.finals, key=lambda final: final.trainer)
    standings = tuple(Standing(final.trainer, final.steps, 0, 0, 0, 0, "") for final in finals)
    terms = request.spec.terms
    return Report(terms.aggregator, int(terms.faulty_count), 0, standings)


def _count_percents(elements: int, answer: Callable[[Progress], None]) -> Callable[[int, int], None] | None:
    """What tells people of each hundredth of a large aggregation; None for a small one, done before anybody looks.

    Passes over the updates are four at most; a round with fewer ends before the last hundredth.
    """
    if elements < PROGRESS_ELEMENTS_MIN:
        return None
    passes, told = 0, 0

    def tell(done: int, total: int) -> None:
        nonlocal passes, told
        reached = (passes * total + done) * 100 // (PASSES_MAX * total)
        passes += done >= total
        while told < reached:
            told += 1
            answer(Progress(Count(told), Count(NAN_BITS)))

    return tell


def aggregate(
    request: AggregateRound, library: Library, answer: Callable[[Progress], None] = lambda progress: None
) -> RoundAggregated:
    """Combine the finals by the job's aggregator, write the new state and evaluate it.

    Where it cannot bear what is left, or the result cannot be evaluated, the outcome is void: the state is the
    old one, and the numbers are its. Everything in the outcome, the reasons included, is a function of the request.
    """
    began = time.perf_counter()
    spec, files = request.spec, Files(request.files)
    train = library.open_program(files, spec.train, ProgramKind.TRAIN).program
    layout, statistics = layout_of(train), statistics_of(train)
    raw = files.read(request.state)
    round_state = read_state(raw, layout)
    initial = read_state(files.read(spec.initial_state), layout)
    slots = {name: tensor for name, tensor in initial.items() if name.startswith(OPTIMIZER_PREFIX)}
    programs = [
        (int(entry.rows), library.open_program(files, entry.program, ProgramKind.EVALUATE)) for entry in spec.evaluate
    ]
    rows = library.open_dataset(files, spec.evaluation_rows)
    finals, problems = _read_finals(request, files, files.find(spec.initial_state).stat().st_size)
    memory = {name: tensor for name, tensor in from_bytes(raw).items() if name.startswith(OUTER_PREFIX)}
    # Every file is open by now: what is refused from here on is refused alike on every machine.
    try:
        pipeline, faulty_count = spec.terms.aggregator, int(spec.terms.faulty_count)
        on_progress = _count_percents(len(finals) * len(raw) // 4, answer)
        options: dict[str, Any] = {"statistics": statistics, "seed": request.seed, "on_progress": on_progress}
        state, report = aggregate_round({**round_state, **memory}, finals, pipeline, faulty_count, slots, **options)
        evaluation = evaluate_state(state, programs, rows)
    except Rejected as rejected:
        outcome = _void(request, _evaluate_old(round_state, programs, rows), problems, rejected.detail)
        record = _record(request, _report_nothing(request), request.state, problems, rejected.detail)
        return RoundAggregated(outcome, (), record, _elapsed_ms(began))
    written: BlobFile = write_blob(Path(request.folder), to_bytes(state))
    record = _record(request, report, written.blob, problems, "")
    outcome = RoundOutcome(
        state=written.blob,
        loss_bits=Count(evaluation.loss_bits),
        correct=Count(evaluation.correct),
        rows=Count(evaluation.rows),
        accepted=tuple(standing.account for standing in record.report.accepted),
        refused=record.report.refused,
        void="",
    )
    return RoundAggregated(outcome, (written,), record, _elapsed_ms(began))

"""The worker as a real process: a whole round through its pipes, hostile requests, and its end."""

import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from milon.base.codec import decode, encode
from milon.base.ids import NO_DIGEST, AccountId, Digest
from milon.base.units import Count
from milon.gpu.checkpoint import from_bytes, state_digest, to_bytes
from milon.gpu.work_data import write_dataset
from milon.gpu.work_library import write_blob
from milon.gpu.worker import read_message, write_message
from milon.pol.claim import commit_trace
from milon.pol.program import Output, OutputRole, Program
from milon.pol.terms import DataManifest, EvaluationProgram, JobSpec
from milon.pol.work import (
    AggregateRound,
    Answer,
    BlobFile,
    CheckJob,
    FinalState,
    JobChecked,
    Progress,
    ReplayItem,
    ReplaySegments,
    Request,
    RoundAggregated,
    SegmentsReplayed,
    SegmentsTrained,
    TrainSegments,
    WorkRefused,
)
from tests.gpu.small_job import SEED, list_files, make_rows, prepare_small

DEADLINE_S = 120.0  # a loaded machine loads torch in several seconds
BUDGET = {"memory_bytes_max": Count(1 << 30), "operations_max": Count(1 << 40)}
COMMAND = [sys.executable, "-m", "milon.gpu.worker", "--threads", "1"]


class WorkerProcess:
    """The node's side of the pipes, without a node."""

    def __init__(self, *options: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([*COMMAND, *options], stdin=pipe, stdout=pipe, stderr=pipe)
        self.progress: list[Progress] = []

    def send(self, request: Request) -> None:
        assert self.process.stdin is not None
        write_message(self.process.stdin, request)  # type: ignore[arg-type]  # typeshed's IO, a BinaryIO in fact

    def receive(self) -> Answer:
        assert self.process.stdout is not None
        raw = read_message(self.process.stdout)  # type: ignore[arg-type]  # as above
        assert raw is not None, "the worker ended"
        answer: Answer = decode(Answer, raw)
        return answer

    def ask(self, request: Request) -> Answer:
        self.send(request)
        self.progress = []
        while isinstance(answer := self.receive(), Progress):
            self.progress.append(answer)
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(DEADLINE_S)


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    """One process for most tests, as a node keeps one for many requests."""
    started = WorkerProcess()
    yield started
    started.close()


def _check(spec: JobSpec | None = None, files: tuple[BlobFile, ...] = (), **budget: Count) -> CheckJob:
    prepared = prepare_small()
    return CheckJob(spec or prepared.spec, (*list_files(prepared), *files), **{**BUDGET, **budget})


def _train(folder: Path, first: int, count: int, tamper: str = "") -> TrainSegments:
    prepared = prepare_small()
    return TrainSegments(
        prepared.spec, list_files(prepared), prepared.spec.initial_state, SEED, Count(0), Count(first), Count(count),
        str(folder), tamper,
    )  # fmt: skip


def _replay(trained: SegmentsTrained) -> ReplaySegments:
    prepared = prepare_small()
    starts = [prepared.spec.initial_state, *(record.state for record in trained.records)]
    items = tuple(
        ReplayItem(record.segment, start, record) for start, record in zip(starts, trained.records, strict=False)
    )
    return ReplaySegments(prepared.spec, (*list_files(prepared), *trained.files), SEED, Count(0), items)


def _aggregate(trained: list[SegmentsTrained], folder: Path, files: tuple[BlobFile, ...] = ()) -> AggregateRound:
    prepared = prepare_small()
    finals = tuple(
        FinalState(AccountId(bytes([place]) * 32), Count(4), each.records[-1].state)
        for place, each in enumerate(trained, 1)
    )
    written = tuple(file for each in trained for file in each.files)
    listed = (*list_files(prepared), *written, *files)
    return AggregateRound(prepared.spec, listed, prepared.spec.initial_state, Count(0), finals, str(folder))


def test_a_sound_job_is_checked_and_measured(worker: WorkerProcess) -> None:
    checked = worker.ask(_check())
    assert isinstance(checked, JobChecked)
    assert checked.memory_bytes > 0 and checked.operations > 0 and checked.segments_per_hour >= 1


def test_a_round_through_the_pipes(worker: WorkerProcess, tmp_path: Path) -> None:
    """Three trainers, one of whom flips its update; replay names the lie, and the rule refuses it without replay."""
    trained = [worker.ask(_train(tmp_path, first, 2, tamper)) for first, tamper in ((0, ""), (2, ""), (4, "scaled"))]
    assert [entry.segment for entry in worker.progress] == [4, 5]
    for each in trained:
        assert isinstance(each, SegmentsTrained)
        assert all(state_digest(Path(file.path).read_bytes()) == file.blob for file in each.files)
        assert [commit_trace(trace) for trace in each.traces] == [record.trace for record in each.records]
    verdicts = []
    for each in trained:
        replayed = worker.ask(_replay(each))  # type: ignore[arg-type]  # seen above
        assert isinstance(replayed, SegmentsReplayed)
        verdicts.append([result.is_same for result in replayed.results])
    assert verdicts == [[True, True], [True, True], [True, False]]
    done = worker.ask(_aggregate(trained, tmp_path))  # type: ignore[arg-type]  # seen above
    assert isinstance(done, RoundAggregated) and done.outcome.void == ""
    assert done.files[0].blob == done.outcome.state and done.outcome.rows == 23
    assert [refusal.trainer[0] for refusal in done.outcome.refused] == [3]
    assert worker.ask(_aggregate(trained, tmp_path)).outcome == done.outcome  # type: ignore[union-attr, arg-type]


def test_shards_make_the_same_claim(worker: WorkerProcess, tmp_path: Path) -> None:
    whole = worker.ask(_train(tmp_path, 0, 2))
    started = WorkerProcess("--shards", "3")
    dealt_out = started.ask(_train(tmp_path, 0, 2))
    assert isinstance(whole, SegmentsTrained) and isinstance(dealt_out, SegmentsTrained)
    assert (dealt_out.records, dealt_out.traces) == (whole.records, whole.traces)
    replayed = started.ask(_replay(whole))
    assert isinstance(replayed, SegmentsReplayed) and all(result.is_same for result in replayed.results)
    started.close()


def test_a_round_nobody_can_bear_is_void(worker: WorkerProcess, tmp_path: Path) -> None:
    trained = worker.ask(_train(tmp_path, 0, 1))
    assert isinstance(trained, SegmentsTrained)
    done = worker.ask(_aggregate([trained], tmp_path))
    assert isinstance(done, RoundAggregated)
    assert "needs 3 updates" in done.outcome.void and done.files == ()
    assert done.outcome.state == prepare_small().spec.initial_state and done.outcome.correct > 0


@pytest.mark.parametrize("content", ["nothing", "other size", "nan"])
def test_a_hostile_final_is_refused_and_the_round_goes_on(worker: WorkerProcess, tmp_path: Path, content: str) -> None:
    trained = [worker.ask(_train(tmp_path, first, 1)) for first in (0, 1, 2)]
    raw = Path(trained[0].files[0].path).read_bytes()  # type: ignore[union-attr]  # a refusal would fail here
    if content == "nan":
        state = from_bytes(raw)
        state["model.5.bias"][0] = float("nan")
        hostile = to_bytes(state)
    else:
        hostile = b"" if content == "other size" else bytes(len(raw))
    file = write_blob(tmp_path, hostile)
    request = _aggregate(trained, tmp_path, (file,))  # type: ignore[arg-type]  # as above
    finals = (*request.finals, FinalState(AccountId(b"\x09" * 32), Count(4), file.blob))
    done = worker.ask(dataclasses.replace(request, finals=finals))
    assert isinstance(done, RoundAggregated) and done.outcome.void == ""
    assert [refusal.trainer[0] for refusal in done.outcome.refused] == [9]
    assert done.outcome.refused[0].reason


@pytest.mark.parametrize("kind", ["sign-flip", "alie-optimised", "label-flip", "bit-flip", "lazy"])
def test_every_adversary_is_refuted_by_replay(worker: WorkerProcess, tmp_path: Path, kind: str) -> None:
    trained = worker.ask(_train(tmp_path, 0, 2, kind))
    assert isinstance(trained, SegmentsTrained)
    replayed = worker.ask(_replay(trained))
    assert isinstance(replayed, SegmentsReplayed)
    assert [result.is_same for result in replayed.results] == [kind not in ("label-flip", "lazy"), False]


def test_an_unknown_adversary_is_refused(worker: WorkerProcess, tmp_path: Path) -> None:
    refused = worker.ask(_train(tmp_path, 0, 1, "polite"))
    assert isinstance(refused, WorkRefused) and refused.reason == "unknown"


def _edited_program(kind: str, **changes: Any) -> bytes:
    prepared = prepare_small()
    path = dict(prepared.blobs)[prepared.spec.train if kind == "train" else prepared.spec.evaluate[0].program]
    program: Program = decode(Program, path.read_bytes())
    return encode(dataclasses.replace(program, **changes))


def _initial_with_nan() -> bytes:
    prepared = prepare_small()
    state = from_bytes(dict(prepared.blobs)[prepared.spec.initial_state].read_bytes())
    state["model.0.weight"].view(-1)[0] = float("nan")
    return to_bytes(state)


def _shifted_manifest() -> bytes:
    prepared = prepare_small()
    manifest = decode(DataManifest, dict(prepared.blobs)[prepared.spec.train_rows].read_bytes())
    fields = (dataclasses.replace(manifest.fields[0], shape=(4, 4, 1)), *manifest.fields[1:])
    return encode(dataclasses.replace(manifest, fields=fields))


HOSTILE: dict[str, tuple[str, Any, str]] = {
    "a program that is none": ("train", lambda: b"\x80", "wrong-type"),
    "a pickle for a program": ("train", lambda: b"\x80\x04\x95\x0c\x00", "malformed"),
    "an evaluation program that trains": ("evaluate", lambda: _edited_program("train"), "wrong-type"),
    "a program without outputs": ("train", lambda: _edited_program("train", outputs=()), "malformed"),
    "unknown numerics": ("train", lambda: _edited_program("train", numerics="native/1"), "unsupported"),
    "an output that is no value": (
        "train",
        lambda: _edited_program("train", outputs=(Output(OutputRole.LOSS, "", 1 << 40),)),
        "malformed",
    ),
    "a state with NaN": ("initial_state", _initial_with_nan, "not-finite"),
    "a state that is none": ("initial_state", lambda: b"{}", "malformed"),
    "a state of another model": ("initial_state", lambda: to_bytes({"model.x": torch.zeros(1)}), "does-not-fit"),
    "a manifest that is none": ("train_rows", lambda: b"\xff" * 9, "malformed"),
    "a manifest of other rows than the shard's": ("train_rows", _shifted_manifest, "differs"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_job_is_refused_with_a_reason(worker: WorkerProcess, tmp_path: Path, case: str) -> None:
    field, make, reason = HOSTILE[case]
    file = write_blob(tmp_path, make())
    spec = prepare_small().spec
    if field == "evaluate":
        changed = dataclasses.replace(spec, evaluate=(EvaluationProgram(Count(23), file.blob),))
    else:
        changed = dataclasses.replace(spec, **{field: file.blob})
    refused = worker.ask(_check(changed, (file,)))
    assert isinstance(refused, WorkRefused), refused
    assert refused.reason == reason, refused
    assert refused.detail


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"batch_size": Count(9)}, "does-not-fit"),
        ({"rounds": Count(0)}, "out-of-range"),
    ],
)
def test_terms_that_do_not_fit_are_refused(worker: WorkerProcess, change: dict[str, Any], reason: str) -> None:
    spec = prepare_small().spec
    refused = worker.ask(_check(dataclasses.replace(spec, terms=dataclasses.replace(spec.terms, **change))))
    assert isinstance(refused, WorkRefused) and refused.reason == reason


def test_a_job_over_budget_or_not_whole_is_refused(worker: WorkerProcess) -> None:
    spec = prepare_small().spec
    for request, reason in (
        (_check(memory_bytes_max=Count(1_000)), "over-budget"),
        (_check(operations_max=Count(1_000)), "over-budget"),
        (_check(dataclasses.replace(spec, predict=Digest(b"\x05" * 32))), "unavailable"),
        (_check(dataclasses.replace(spec, predict=spec.train)), "wrong-type"),
        (_check(dataclasses.replace(spec, evaluation_rows=spec.train_rows)), "does-not-fit"),
    ):
        refused = worker.ask(request)
        assert isinstance(refused, WorkRefused) and refused.reason == reason, refused


def test_rows_whose_classes_the_model_does_not_have_are_refused(worker: WorkerProcess, tmp_path: Path) -> None:
    images, classes = make_rows(60, 1)
    files = write_dataset(("images", "classes"), (images, classes + 3), tmp_path)
    spec = dataclasses.replace(prepare_small().spec, train_rows=files[-1].blob)
    refused = worker.ask(_check(spec, tuple(files)))
    assert isinstance(refused, WorkRefused) and refused.reason == "out-of-range", refused


def test_a_missing_start_state_is_said(worker: WorkerProcess, tmp_path: Path) -> None:
    refused = worker.ask(dataclasses.replace(_train(tmp_path, 0, 1), state=NO_DIGEST))
    assert isinstance(refused, WorkRefused) and refused.reason == "unavailable"


def test_killed_in_the_middle_another_one_does_the_same_work(worker: WorkerProcess, tmp_path: Path) -> None:
    request = _train(tmp_path, 0, 4_000)
    victim = WorkerProcess()
    victim.send(request)
    first = victim.receive()
    victim.process.kill()
    victim.process.wait(DEADLINE_S)
    assert isinstance(first, Progress)
    for path in tmp_path.glob("[0-9a-f]*"):
        assert state_digest(path.read_bytes()).hex() == path.name, "a half-written state has a name"
    again = worker.ask(_train(tmp_path, 0, 1))
    assert isinstance(again, SegmentsTrained) and again.records[0].loss_bits == first.loss_bits


def test_it_ends_when_nobody_is_left_even_in_the_middle_of_work(tmp_path: Path) -> None:
    started = WorkerProcess()
    started.send(_train(tmp_path, 0, 4_000))
    assert isinstance(started.receive(), Progress)
    began = time.monotonic()
    started.close()
    assert started.process.returncode == 0 and time.monotonic() - began < DEADLINE_S / 2
    assert started.process.stderr is not None and b"Traceback" not in started.process.stderr.read()


def test_a_request_that_is_none_ends_it_with_a_traceback() -> None:
    """Its only caller is its own node: bytes that are no request are a fault, and a fault is loud."""
    started = WorkerProcess()
    assert started.process.stdin is not None and started.process.stderr is not None
    started.process.stdin.write(b"\x00\x00\x00\x01\x00")
    started.process.stdin.flush()
    assert started.process.wait(DEADLINE_S) == 1
    assert b"Traceback" in started.process.stderr.read()
    started.close()

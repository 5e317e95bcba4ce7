"""The same bits for one thread and two, and on the plainest instruction set: training, aggregation, evaluation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from milon.base.hashing import digest
from milon.base.ids import AccountId, Digest
from milon.base.units import Count
from milon.node.workers import Worker
from milon.pol.terms import JobSpec
from milon.pol.verdict import RoundOutcome
from milon.pol.work import AggregateRound, BlobFile, FinalState, RoundAggregated, SegmentsTrained, TrainSegments
from tests.system.in_process import prepare_example

pytestmark = pytest.mark.system

SEGMENTS = 3  # of 3 steps each: convolution, batch norm, dropout and Adam all take part
TERMS = ("--steps-per-segment", "3", "--segments-per-round", "3", "--audit", "0")
PLAIN = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}


@dataclass(frozen=True, slots=True)
class Bits:
    """What one machine came to."""

    states: tuple[Digest, ...]  # after each segment
    traces: tuple[Digest, ...]  # of each segment
    outcome: RoundOutcome  # of a round of three trainers


async def work(spec: JobSpec, blobs: tuple[BlobFile, ...], folder: Path, threads: int) -> Bits:
    """Train a few segments in a worker process of its own, and aggregate three updates with it."""
    folder.mkdir()
    worker = Worker(threads, "cpu", folder / "worker.log")
    first, seed = spec.initial_state, digest("seed", b"of this test")
    try:
        request = TrainSegments(spec, blobs, first, seed, Count(0), Count(0), Count(SEGMENTS), str(folder), "")
        trained = await worker.run(request, 0, lambda progress: None)
        assert isinstance(trained, SegmentsTrained)
        steps = spec.terms.steps_per_segment
        states = tuple(record.state for record in trained.records)
        finals = tuple(FinalState(AccountId(bytes((index,)) * 32), steps, end) for index, end in enumerate(states))
        asked = AggregateRound(spec, blobs + trained.files, first, Count(0), finals, str(folder))
        aggregated = await worker.run(asked, 0, lambda progress: None)
        assert isinstance(aggregated, RoundAggregated)
        return Bits(states, trained.traces, aggregated.outcome)
    finally:
        await worker.stop()


async def test_threads_and_instruction_set_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _, paths = prepare_example(tmp_path / "job", *TERMS)
    blobs = tuple(BlobFile(Digest(bytes.fromhex(path.name)), str(path)) for path in paths if len(path.name) == 64)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = await work(spec, blobs, tmp_path / "one", threads=1)
    assert not one.outcome.void and len(one.outcome.accepted) == 3 and one.outcome.state != spec.initial_state
    assert len({*one.states, one.outcome.state, spec.initial_state}) == SEGMENTS + 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert await work(spec, blobs, tmp_path / "two", threads=2) == one
    for name, value in PLAIN.items():
        monkeypatch.setenv(name, value)
    assert os.environ["ATEN_CPU_CAPABILITY"] == "default"
    assert await work(spec, blobs, tmp_path / "plain", threads=1) == one

"""Fetching a claim's evidence: what is withheld, what is a lie by its size, and what is nobody's fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, ClaimId, Digest, JobId
from milon.base.signing import secret_key_from
from milon.base.units import Count, Height, Round
from milon.chain.params import Parameters
from milon.contracts.claims_records import ClaimRecord, ClaimStatus
from milon.node.task_context import SHARDS_MAX, TaskContext, fetch_job, fetch_starts
from milon.node.work_progress import WorkBoard
from milon.pol.claim import SegmentRecord, SegmentRecords, commit_trace, compute_records_root
from milon.pol.terms import DataManifest, Field, Shard
from milon.pol.work import Progress, Request, Result, SegmentReplayed
from tests.contracts.helpers import make_spec, name_of
from tests.node.local_blobs import LocalBlobs

STATE_BYTES = 100


async def refuse_work(request: Request, priority: int, on_progress: Callable[[Progress], None]) -> Result:
    raise Rejected(Reason.UNAVAILABLE, "no worker here")


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def context(blobs: LocalBlobs, tmp_path: Path) -> TaskContext:
    key = secret_key_from("verifier")
    return TaskContext(key, Parameters(), blobs, refuse_work, tmp_path, WorkBoard(), "", False)


def make_claim(blobs: LocalBlobs, start: Digest, states: list[Digest], is_held: bool = True) -> ClaimRecord:
    """A claim of segments 0, 1, ... from `start`, that ended in these states."""
    records = tuple(
        SegmentRecord(Count(place), state, commit_trace(name_of(f"trace {place}")), Count(0))
        for place, state in enumerate(states)
    )
    held = blobs.store.put_bytes(encode(SegmentRecords(records))) if is_held else name_of("records")
    return ClaimRecord(
        claim=ClaimId(name_of("claim")),
        job=JobId(name_of("job")),
        round=Round(0),
        trainer=AccountId(name_of("trainer")),
        first=Count(0),
        count=Count(len(records)),
        start=start,
        continues=None,
        records_root=compute_records_root(records),
        records=held,
        final_state=states[-1],
        compute_ms=Count(1),
        height=Height(1),
        status=ClaimStatus.COMMITTING,
        problem="",
        deadline=Count(0),
        beacon=None,
        committee=(),
        commitments=(),
        attestations=(),
        accusations=(),
        resumed=ClaimStatus.COMMITTING,
        withheld_from=Count(0),
        judgements=(),
    )


async def test_the_starts_of_an_honest_claim_are_found(context: TaskContext, blobs: LocalBlobs) -> None:
    states = [blobs.store.put_bytes(bytes([number]) * STATE_BYTES) for number in range(3)]
    found = await fetch_starts(context, make_claim(blobs, states[0], states[1:]), states[0], (0, 1))
    assert isinstance(found, tuple)
    items, files = found
    assert [item.start for item in items] == states[:2]
    assert [file.blob for file in files] == states[:2]


async def test_what_a_trainer_withholds_counts_against_it(context: TaskContext, blobs: LocalBlobs) -> None:
    state = blobs.store.put_bytes(bytes(STATE_BYTES))
    claim = make_claim(blobs, state, [name_of("withheld"), name_of("final")])
    assert await fetch_starts(context, claim, state, (1,)) is None
    assert isinstance(await fetch_starts(context, claim, state, (0,)), tuple)
    assert await fetch_starts(context, make_claim(blobs, state, [state, state], is_held=False), state, (0,)) is None


async def test_a_state_larger_than_any_of_the_job_is_a_difference(context: TaskContext, blobs: LocalBlobs) -> None:
    state = blobs.store.put_bytes(bytes(STATE_BYTES))
    large = blobs.store.put_bytes(bytes(STATE_BYTES + 1))
    found = await fetch_starts(context, make_claim(blobs, state, [state, large, name_of("final")]), state, (0, 1, 2))
    assert isinstance(found, SegmentReplayed)
    assert (found.segment, found.is_same) == (2, False)


async def test_a_missing_round_state_is_not_the_trainers_fault(context: TaskContext, blobs: LocalBlobs) -> None:
    with pytest.raises(Rejected) as refused:
        missing = name_of("round state")
        await fetch_starts(context, make_claim(blobs, missing, [name_of("final")]), missing, (0,))
    assert refused.value.reason is Reason.UNAVAILABLE


async def test_a_dataset_of_very_many_shards_is_refused_unfetched(context: TaskContext, blobs: LocalBlobs) -> None:
    shards = tuple(Shard(name_of(f"shard {number}"), Count(1), Count(1)) for number in range(SHARDS_MAX + 1))
    rows = blobs.store.put_bytes(
        encode(DataManifest(Count(len(shards)), (Field("x", "F32", ()), Field("y", "I64", ())), shards))
    )
    other = blobs.store.put_bytes(b"program or state")
    spec = make_spec()
    entries = tuple(type(entry)(entry.rows, other) for entry in spec.evaluate)
    spec = type(spec)(spec.name, other, entries, other, other, rows, rows, spec.terms)
    with pytest.raises(Rejected) as refused:
        await fetch_job(context, spec)
    assert refused.value.reason is Reason.OVER_BUDGET

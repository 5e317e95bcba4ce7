"""A claim binds its records, and a trace is bound before it is opened."""

import dataclasses

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Digest
from milon.base.units import Count
from milon.pol.claim import (
    SegmentRecord,
    commit_trace,
    compute_records_root,
    compute_trace,
    key_traces,
    verify_records,
)


def _record(segment: int) -> SegmentRecord:
    trace = commit_trace(compute_trace([segment, -segment]))
    return SegmentRecord(Count(segment), Digest(bytes([segment]) * 32), trace, Count(7))


RECORDS = tuple(_record(segment) for segment in range(4, 9))
ROOT = compute_records_root(RECORDS)
FINAL = RECORDS[-1].state


def test_the_claims_own_records_pass() -> None:
    verify_records(RECORDS, ROOT, 4, 5, FINAL)
    assert compute_records_root(RECORDS[:-1]) != ROOT


@pytest.mark.parametrize("field", ["state", "trace", "loss_bits"])
def test_a_changed_record_is_refused(field: str) -> None:
    value = Count(8) if field == "loss_bits" else Digest(b"\xff" * 32)
    changed = (dataclasses.replace(RECORDS[0], **{field: value}), *RECORDS[1:])
    with pytest.raises(Rejected) as refused:
        verify_records(changed, ROOT, 4, 5, FINAL)
    assert refused.value.reason is Reason.BAD_PROOF


@pytest.mark.parametrize(
    ("records", "first", "count"),
    [(RECORDS[:-1], 4, 5), (RECORDS, 3, 5), (RECORDS[::-1], 4, 5), ((), 4, 5), (RECORDS, 4, 4)],
)
def test_other_segments_are_refused(records: tuple[SegmentRecord, ...], first: int, count: int) -> None:
    with pytest.raises(Rejected) as refused:
        verify_records(records, ROOT, first, count, FINAL)
    assert refused.value.reason is Reason.DIFFERS


def test_a_final_state_that_is_not_the_last_records_is_refused() -> None:
    with pytest.raises(Rejected, match="final state"):
        verify_records(RECORDS, ROOT, 4, 5, RECORDS[0].state)


def test_no_records_never_pass() -> None:
    with pytest.raises(Rejected):
        verify_records((), compute_records_root(()), 0, 0, FINAL)


def test_traces_hold_signs_order_and_length() -> None:
    traces = [compute_trace(prints) for prints in ([], [1], [-1], [1, 2], [2, 1], [-(1 << 63), (1 << 63) - 1])]
    assert len({*traces}) == len(traces)
    assert commit_trace(traces[0]) != traces[0]


def test_keyed_traces_are_useless_to_another_verifier() -> None:
    traces = [compute_trace([1]), compute_trace([2])]
    mine, yours = AccountId(b"\x01" * 32), AccountId(b"\x02" * 32)
    assert key_traces(mine, traces) != key_traces(yours, traces)
    assert key_traces(mine, traces) != key_traces(mine, traces[::-1])

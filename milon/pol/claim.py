"""What a trainer asserts about a round: one record per segment, under a Merkle root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from milon.base.codec import encode, wire
from milon.base.errors import Reason, require
from milon.base.hashing import digest
from milon.base.ids import AccountId, Digest
from milon.base.merkle import compute_root
from milon.base.units import Count


@wire("segment-record/1")
@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """One trained segment."""

    segment: Count  # its number in the round
    state: Digest  # blob id of the state after it
    trace: Digest  # commitment to its trace: see `commit_trace`
    loss_bits: Count  # binary32 bits of the last step's loss


@wire("segment-records/1")
@dataclass(frozen=True, slots=True)
class SegmentRecords:
    """A claim's records in their order, the content of its records blob."""

    records: tuple[SegmentRecord, ...]  # consecutive segments


EMPTY_TRACE = digest("trace")  # before the first step
FINGERPRINT_BYTES = 8  # signed, big-endian


def extend_trace(trace: Digest, fingerprint: int) -> Digest:
    """The trace after one more step; `fingerprint` is a signed 64-bit integer."""
    return digest("trace-step", trace, fingerprint.to_bytes(FINGERPRINT_BYTES, "big", signed=True))


def compute_trace(fingerprints: Sequence[int]) -> Digest:
    """A segment's trace, over one fingerprint a step, which only running the steps yields: secret until opened.

    It grows step by step, so that a dispute can name the step from which on two traces differ.
    """
    trace = EMPTY_TRACE
    for fingerprint in fingerprints:
        trace = extend_trace(trace, fingerprint)
    return trace


def commit_trace(trace: Digest) -> Digest:
    """What the record shows of a trace: binding, and it reveals nothing."""
    return digest("trace-commitment", trace)


def key_traces(verifier: AccountId, traces: Sequence[Digest]) -> Digest:
    """A verifier's own digest over the traces of the segments it replayed, in segment order; useless to anyone else."""
    return digest("keyed-traces", verifier, *traces)


def compute_records_root(records: Sequence[SegmentRecord]) -> Digest:
    """The Merkle root a claim carries."""
    return compute_root([encode(record) for record in records])


def verify_records(records: Sequence[SegmentRecord], root: Digest, first: int, count: int, final: Digest) -> None:
    """Raise `Rejected` unless `records` are the `count` segments from `first` under `root`, ending in state `final`."""
    require(len(records) == count, Reason.DIFFERS, f"{len(records)} records where the claim has {count}")
    numbers = [record.segment for record in records]
    require(numbers == list(range(first, first + count)), Reason.DIFFERS, "the segment numbers are not the claim's")
    require(compute_records_root(records) == root, Reason.BAD_PROOF, "the records lead to another root")
    require(bool(records) and records[-1].state == final, Reason.DIFFERS, "the last record is not the final state")

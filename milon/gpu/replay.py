"""Running a trainer's segments again and comparing bits: there is no tolerance, so a difference is a proof."""

from __future__ import annotations

from milon.base.errors import Rejected
from milon.base.ids import NO_DIGEST
from milon.gpu.checkpoint import state_digest
from milon.gpu.train import RoundWork, run_segment
from milon.pol.claim import commit_trace, compute_trace
from milon.pol.work import ReplayItem, SegmentReplayed


def replay_segment(work: RoundWork, start: bytes, item: ReplayItem) -> SegmentReplayed:
    """What running the item's segment from `start`, the bytes of its start state, gives beside what is asserted.

    A start state that is none, and a run that diverges, are differences too: no honest trainer goes on from either. The
    result then names no state, and the trace is of the steps that were run.
    """
    try:
        run = run_segment(work, start, item.segment)
    except Rejected:
        return SegmentReplayed(item.segment, NO_DIGEST, compute_trace(()), is_same=False)
    trace = compute_trace(run.fingerprints)
    if run.diverged_step is not None:
        return SegmentReplayed(item.segment, NO_DIGEST, trace, is_same=False)
    state = state_digest(run.state)
    record = item.record
    is_same = (state, commit_trace(trace), run.loss_bits) == (record.state, record.trace, record.loss_bits)
    return SegmentReplayed(item.segment, state, trace, is_same and record.segment == item.segment)

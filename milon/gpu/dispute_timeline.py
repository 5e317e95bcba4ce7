"""The state roots of a segment, step by step, from a run of one's own.

A state's root stands for all that the next step reads and all that a record says of a run: a leaf for the root of each
tensor, in order of name, one for the commitment to the trace so far, and one for the root of the last loss (before the
first step: of 0.0). The root after the last step is therefore a function of the record and the blob it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.gpu.dispute_steps import StepRunner
from milon.gpu.dispute_trees import Tree, build_root_tree, compute_value_root
from milon.gpu.train import fingerprint_of, is_finite, loss_of, read_state
from milon.pol.claim import EMPTY_TRACE, SegmentRecord, commit_trace, extend_trace
from milon.pol.dispute_tree import compute_leaf_digest


@dataclass(frozen=True, slots=True)
class Moment:
    """What a segment has come to after so many of its steps."""

    step: int  # how many
    state: Mapping[str, Tensor]  # all tensors, by name
    trace: Digest  # over the steps so far; secret until opened
    loss: Digest  # value root of the last step's loss


def compute_state_tree(state: Mapping[str, Tensor], commitment: Digest, loss: Digest) -> Tree:
    """The tree over a state, a commitment to the trace so far, and the value root of the last loss."""
    return build_root_tree([*(compute_value_root(state[name]) for name in sorted(state)), commitment, loss])


def compute_recorded_root(state: Mapping[str, Tensor], record: SegmentRecord) -> Digest:
    """The root after a segment's last step, by its record and the state that it names."""
    require(record.loss_bits < 1 << 32, Reason.OUT_OF_RANGE, f"loss bits {record.loss_bits}")
    loss = compute_leaf_digest(record.loss_bits.to_bytes(4, "little"))
    return compute_state_tree(state, record.trace, loss).root


def compute_start_root(state: Mapping[str, Tensor]) -> Digest:
    """The root before a segment's first step."""
    return compute_state_tree(state, commit_trace(EMPTY_TRACE), compute_value_root(torch.zeros(()))).root


class Timeline:
    """Runs a segment as often as it is asked about; holds one state of it, and the roots seen so far."""

    def __init__(self, runner: StepRunner, start: bytes) -> None:
        self._runner = runner
        self._start = start
        self._anchor: Moment | None = None  # where the next question is likely to begin
        self._roots: dict[int, Digest | None] = {}

    def find_roots(self, first: int, ends: Sequence[int]) -> list[Digest | None]:
        """State roots after so many steps each (ascending); None from where on an honest run has no state.

        `first`, not above any of them, is where the next questions are about.
        """
        if any(end not in self._roots for end in ends):
            self._run(first, ends)
        return [self._roots[end] for end in ends]

    def reach(self, step: int) -> Moment:
        """What there is before a step; `Rejected` where an honest run does not get there."""
        if self._anchor is None or self._anchor.step != step:
            self._run(step, [step])
        if self._anchor is None or self._anchor.step != step:
            raise Rejected(Reason.NOT_FINITE, f"no honest run comes to step {step}")
        return self._anchor

    def _run(self, first: int, ends: Sequence[int]) -> None:
        wanted = {*ends}
        moment = self._anchor if self._anchor is not None and self._anchor.step <= first else self._begin()
        while moment is not None:
            if moment.step == first:
                self._anchor = moment
            if moment.step in wanted:
                self._roots[moment.step] = compute_state_tree(
                    moment.state, commit_trace(moment.trace), moment.loss
                ).root
            if moment.step == ends[-1]:
                return
            moment = self._advance(moment)
        self._roots |= {end: None for end in ends if end not in self._roots}

    def _begin(self) -> Moment | None:
        try:
            state = read_state(self._start, self._runner.work.layout)
        except Rejected:
            return None
        return Moment(0, state, EMPTY_TRACE, compute_value_root(torch.zeros(())))

    def _advance(self, moment: Moment) -> Moment | None:
        work, step = self._runner.work, moment.step
        try:
            result = work.plan.run(moment.state, self._runner.batch(step), self._runner.key(step))
        except Rejected:
            return None
        if not is_finite(result.new_state):
            return None
        trace = extend_trace(moment.trace, fingerprint_of(result))
        return Moment(step + 1, result.new_state, trace, compute_value_root(loss_of(result)))

"""What a node asks of its worker process and what comes back: digests, integers and names of files, never tensors.

A request and its answers travel as wire values in frames of four length bytes (big-endian) on the worker's standard
input and output. One request is answered by any number of `Progress` and then exactly one result. Cancelling a request
means ending the process: nothing it had written counts until its result has arrived, but for a training's finished
segments, which the same request finds again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from milon.base.codec import wire
from milon.base.ids import NO_DIGEST, AccountId, Digest
from milon.base.units import Count
from milon.pol import dispute
from milon.pol.aggregation import Record
from milon.pol.claim import SegmentRecord
from milon.pol.terms import JobSpec
from milon.pol.verdict import RoundOutcome, Verdict


@wire("blob-file/1")
@dataclass(frozen=True, slots=True)
class BlobFile:
    """A blob that lies on this machine's disk, already checked against its id."""

    blob: Digest  # its id
    path: str  # where it lies


@wire("check-job/1")
@dataclass(frozen=True, slots=True)
class CheckJob:
    """Decode programs, first state and data, and see that they fit each other and the budget; measure the speed."""

    spec: JobSpec  # the job
    files: tuple[BlobFile, ...]  # programs, state, manifests, shards
    memory_bytes_max: Count  # what one step may hold at once
    operations_max: Count  # arithmetic operations of one step


@wire("job-checked/1")
@dataclass(frozen=True, slots=True)
class JobChecked:
    """The job is sound, and how fast this node trains it."""

    memory_bytes: Count  # of one training step, by the program's own account
    operations: Count  # of one training step
    segments_per_hour: Count  # measured, at least 1


@wire("train-segments/2")
@dataclass(frozen=True, slots=True)
class TrainSegments:
    """Train consecutive segments of a round from the state before them, writing states into a folder.

    With `keep_every` the folder is this training's alone, and what an earlier run of the same finished in it counts.
    """

    spec: JobSpec  # the job
    files: tuple[BlobFile, ...]  # program, manifest, shards, and the state before the first segment
    state: Digest  # the state before the first segment: the round's, or the last of the claim that is continued
    seed: Digest  # the round's seed
    round: Count  # its number
    first: Count  # first segment
    count: Count  # how many
    folder: str  # where the states go, each under its id in hexadecimal
    tamper: str  # empty for the honest; an adversary's kind on a node that was told to be one
    keep_every: Count = Count(0)  # k: the states after k, 2k, ... segments and the last one stay; 0: all, from scratch


@wire("segments-trained/1")
@dataclass(frozen=True, slots=True)
class SegmentsTrained:
    """The records of the trained segments and the traces behind their commitments."""

    records: tuple[SegmentRecord, ...]  # one a segment
    traces: tuple[Digest, ...]  # one a segment, secret until opened
    files: tuple[BlobFile, ...]  # the states that stay
    compute_ms: Count  # time spent training, earlier runs included


@wire("replay-item/1")
@dataclass(frozen=True, slots=True)
class ReplayItem:
    """One segment to run again."""

    segment: Count  # its number in the round
    start: Digest  # the state before it
    record: SegmentRecord  # what the trainer asserts


@wire("replay-segments/1")
@dataclass(frozen=True, slots=True)
class ReplaySegments:
    """Run segments again and compare the bits."""

    spec: JobSpec  # the job
    files: tuple[BlobFile, ...]  # program, manifest, shards, start states
    seed: Digest  # the round's seed
    round: Count  # its number
    items: tuple[ReplayItem, ...]  # in segment order


@wire("segment-replayed/1")
@dataclass(frozen=True, slots=True)
class SegmentReplayed:
    """What one replay gave."""

    segment: Count  # its number
    state: Digest  # the state after it
    trace: Digest  # the trace, to be keyed
    is_same: bool  # state and trace commitment are those of the record


@wire("segments-replayed/1")
@dataclass(frozen=True, slots=True)
class SegmentsReplayed:
    """All results, in the order asked."""

    results: tuple[SegmentReplayed, ...]  # one an item
    compute_ms: Count  # time spent


@wire("final-state/1")
@dataclass(frozen=True, slots=True)
class FinalState:
    """What a trainer's accepted claims of a round came to: one update."""

    trainer: AccountId  # whose
    steps: Count  # verified steps behind it, of all its claims: its weight
    state: Digest  # blob id of the last one's


def collect_finals(parts: Iterable[tuple[AccountId, int, Digest]]) -> tuple[FinalState, ...]:
    """One update a trainer, in order of trainer, from accepted claims: (trainer, steps, final state) as they came.

    A claim of segments that it took over goes on from its claim before: the last final state holds them all.
    """
    finals: dict[AccountId, FinalState] = {}
    for trainer, steps, state in parts:
        before = finals[trainer].steps if trainer in finals else 0
        finals[trainer] = FinalState(trainer, Count(before + steps), state)
    return tuple(finals[trainer] for trainer in sorted(finals))


@wire("aggregate-round/1")
@dataclass(frozen=True, slots=True)
class AggregateRound:
    """Combine the accepted finals into the next state and evaluate it."""

    spec: JobSpec  # the job
    files: tuple[BlobFile, ...]  # evaluation programs, manifest, shards, first state, round state, finals
    state: Digest  # the round's state
    round: Count  # its number
    finals: tuple[FinalState, ...]  # in order of trainer, one each
    folder: str  # where the new state goes, under its id in hexadecimal
    seed: Digest = NO_DIGEST  # the round's, for aggregators that draw


@wire("round-aggregated/1")
@dataclass(frozen=True, slots=True)
class RoundAggregated:
    """The outcome to sign, and the new state's file (none where the round is void)."""

    outcome: RoundOutcome  # see there
    files: tuple[BlobFile, ...]  # zero or one
    record: Record  # how every update fared
    compute_ms: Count  # time spent


@wire("dispute-work/1")
@dataclass(frozen=True, slots=True)
class DisputeWork:
    """A segment in dispute and how far the game has come."""

    spec: JobSpec  # the job
    files: tuple[BlobFile, ...]  # program, manifest, shards, and the states that are read
    seed: Digest  # the round's seed
    round: Count  # its number
    item: ReplayItem  # the segment, the state before it, and the trainer's record
    game: dispute.Game  # see there


@wire("dispute-answer-work/2")
@dataclass(frozen=True, slots=True)
class DisputeAnswer:
    """Say what a run shows where the game asks the trainer; reads the state before the segment."""

    work: DisputeWork  # the segment and the game
    tamper: str = ""  # empty for the honest; an adversary's kind where it claimed the segment falsely


@wire("dispute-answered/1")
@dataclass(frozen=True, slots=True)
class DisputeAnswered:
    """The trainer's next move."""

    answer: dispute.Answer  # what is shown


@wire("dispute-choose-work/1")
@dataclass(frozen=True, slots=True)
class DisputeChoose:
    """Say what of the game's last answer differs from an honest run; reads the state before the segment."""

    work: DisputeWork  # the segment and the game


@wire("dispute-chosen/1")
@dataclass(frozen=True, slots=True)
class DisputeChosen:
    """The challenger's next move."""

    choice: dispute.Choice  # what it makes of the answer


@wire("referee-piece-work/1")
@dataclass(frozen=True, slots=True)
class RefereePiece:
    """Judge a game that has come to the referees; reads a state only at BINDING: the one before, or the record's."""

    work: DisputeWork  # the segment and the game


@wire("piece-refereed/1")
@dataclass(frozen=True, slots=True)
class PieceRefereed:
    """Who was right: FALSE is against the trainer, TRUE against the challenger."""

    verdict: Verdict  # TRUE or FALSE
    compute_ms: Count  # time spent


@wire("work-progress/2")
@dataclass(frozen=True, slots=True)
class Progress:
    """A segment is done; for people watching."""

    segment: Count  # its number
    loss_bits: Count  # binary32 bits of its last loss
    resumed: Count = Count(0)  # segments that an earlier run had finished, this one the last of them; 0: a new one


@wire("work-refused/1")
@dataclass(frozen=True, slots=True)
class WorkRefused:
    """The request cannot be done, and why: a job that does not fit, a run that diverged, a file that is not there."""

    reason: str  # a `Reason`
    detail: str  # for people


DisputeRequest = DisputeAnswer | DisputeChoose | RefereePiece
DisputeResult = DisputeAnswered | DisputeChosen | PieceRefereed
Request = CheckJob | TrainSegments | ReplaySegments | AggregateRound | DisputeRequest
Result = JobChecked | SegmentsTrained | SegmentsReplayed | RoundAggregated | DisputeResult | WorkRefused
Answer = Result | Progress

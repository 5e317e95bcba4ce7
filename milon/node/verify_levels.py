"""How deep a block may be checked, what each level proves and what it leaves open, and the report in those words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, ClaimId, Digest
from milon.base.units import Height
from milon.chain.block import Header, compute_header_hash
from milon.node.pinpoint import Difference

SAMPLE_SEGMENTS = 4  # of a sample where nobody says how many: a lie in half of the segments is met in 94 of 100
EXAMPLE_SHARE = 0.1  # of false segments, for which a sample's chance is told


class Level(StrEnum):
    """Each holds all that the ones before it do."""

    CERTIFICATES = "certificates"  # is the block final, and its report the one it commits to?
    SAMPLE = "sample"  # do some segments, drawn here, replay to the same bits?
    SEGMENTS = "segments"  # do all?
    FULL = "full"  # and do aggregate and evaluation come out again?


CERTIFIED = "the block is final: a quorum of its epoch's validators signed it, whom the genesis leads to"
ALWAYS_OPEN = (
    "the rounds before this block, whose result is this block's first state",
    "whether the job's data is good, and what its owner meant by it: only that the job was done as it is written",
)
NEXT_STEPS = {
    Reason.UNAVAILABLE: "ask again later, with more --bootstrap addresses, with a longer --patience, or on a node's "
    "own folder with --node",
    Reason.UNKNOWN: "ask a node that keeps the past (`milon join --mode archive`)",
    Reason.CORRUPT: "the file is damaged: ask peers with --bootstrap instead, and see `milon doctor`",
}


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and what it gave."""

    height: Height  # of the block
    hash: Digest  # of its header
    verdict: str  # "valid", "invalid", or "undecided" where something needed was not to be had
    detail: str  # what is wrong; empty where nothing is
    claim: str  # hexadecimal name of the claim that lies; empty where none does
    segment: int | None  # of that claim
    trainer: str  # hexadecimal; whose claim
    rounds: int  # closed by the block
    segments_total: int  # in its accepted claims
    segments_replayed: int  # of those, run again here
    proved: tuple[str, ...]  # in words
    not_proved: tuple[str, ...]  # in words
    level: str = Level.FULL.value  # how deep it was to be checked
    step: int | None = None  # of a false segment, where the claim tells
    tensor: str = ""  # of the state, where the lie first shows
    operation: str = ""  # of the training program, that gives the tensor
    finding: str = ""  # what differs, and what cannot be named
    reason: str = ""  # of an undecided verdict, a `Reason`
    consequence: str = ""  # of an undecided verdict, in words
    next_step: str = ""  # for whoever asked


class Lie(Exception):
    """The block is final and says something that the bits contradict."""

    def __init__(self, claim: ClaimId, segment: int | None, detail: str, found: Difference | None) -> None:
        super().__init__(detail)
        self.claim = claim
        self.segment = segment
        self.detail = detail
        self.found = found or Difference(None, "", "", "")


@dataclass(frozen=True, slots=True)
class Done:
    """How far a check came."""

    level: Level  # asked for
    rounds: int  # the block closes
    segments: int  # in its accepted claims
    replayed: int  # of those
    recomputed: int  # rounds whose aggregate and evaluation were


def list_open(done: Done) -> tuple[str, ...]:
    """What the check leaves open, in words."""
    left: list[str] = []
    missing = done.segments - done.replayed
    if missing and done.replayed:
        caught = 100 * (1 - (1 - EXAMPLE_SHARE) ** done.replayed)
        left.append(
            f"{missing} of {done.segments} segments were not replayed; with one in ten of them false, a sample of "
            f"{done.replayed} shows it with a chance of {caught:.0f} %"
        )
    elif missing:
        left.append(f"{missing} of {done.segments} segments were not replayed: for them the round's verifiers stand")
    if done.rounds and done.recomputed < done.rounds:
        left.append("the aggregate and its evaluation, where they were not recomputed: for them a quorum's word stands")
    if not done.rounds:
        left.append("nothing was learned in this block: it closes no round")
    return (*left, *ALWAYS_OPEN)


def make_report(
    header: Header, done: Done, proved: Sequence[str], lie: Lie | None, doubt: Rejected | None, trainer: AccountId
) -> VerifyReport:
    """The report of a check that found a lie, or could not go on, or neither."""
    found = lie.found if lie else Difference(None, "", "", "")
    return VerifyReport(
        height=header.height,
        hash=compute_header_hash(header),
        verdict="invalid" if lie else "undecided" if doubt else "valid",
        detail=lie.detail if lie else doubt.detail if doubt else "",
        claim=lie.claim.hex() if lie else "",
        segment=lie.segment if lie else None,
        trainer=trainer.hex(),
        rounds=done.rounds,
        segments_total=done.segments,
        segments_replayed=done.replayed,
        proved=tuple(proved),
        not_proved=list_open(done),
        level=done.level.value,
        step=found.step,
        tensor=found.tensor,
        operation=found.operation,
        finding=found.detail,
        reason=doubt.reason.value if doubt else "",
        consequence="the block is neither proved nor refuted beyond what is listed as proved" if doubt else "",
        next_step=NEXT_STEPS.get(doubt.reason, "see what the reason says, and ask again") if doubt else "",
    )

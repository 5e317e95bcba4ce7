"""What a job is: its programs, first state and data by digest, and the terms everybody works under."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from milon.base.codec import wire
from milon.base.errors import Reason, require
from milon.base.ids import AccountId, Digest
from milon.base.units import Amount, Count
from milon.pol.pipeline import parse_pipeline

PARTS_PER_MILLION = 1_000_000
ROUNDS_MAX = 10_000  # a job's accounting stays far inside 63 bits
SEGMENTS_MAX = 2_000  # a claim of them all is opened in one transaction: 128 bytes each, 256 KiB together
STEPS_MAX = 10_000  # a segment that a verifier can replay within a deadline
COMMITTEE_MAX = 32  # each member's attestation is a transaction
BLOCKS_MAX = 1_000_000  # about twelve days at a second a block
NAME_CHARACTERS_MAX = 128  # fits a line on a screen
TRAINERS_MAX = 256  # a job's record, read for each of its transactions, is decoded in a few milliseconds
AUDIT_RATES_MAX = 256  # the same; rounds beyond them share the last one

# Controls, marks without width or that turn the direction, surrogates and private use. A list of our own, since what
# `str.isprintable` says changes with Python's version, and all nodes must refuse the same names.
_HIDDEN = (
    (0x00, 0x1F),
    (0x7F, 0x9F),
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0xD800, 0xF8FF),
    (0xFEFF, 0xFEFF),
    (0xE0000, 0x10FFFF),
)


@wire("field/1")
@dataclass(frozen=True, slots=True)
class Field:
    """One column of a dataset."""

    name: str  # the tensor's name in every shard
    dtype: str  # safetensors' name: "F32" or "I64"
    shape: tuple[int, ...]  # of one row


@wire("shard/1")
@dataclass(frozen=True, slots=True)
class Shard:
    """A run of consecutive rows, kept as one safetensors blob."""

    blob: Digest  # its content
    rows: Count  # how many
    size_bytes: Count  # of the blob


@wire("data-manifest/1")
@dataclass(frozen=True, slots=True)
class DataManifest:
    """A dataset: the last field is the target, the others are the model's inputs in their order."""

    rows: Count  # in all shards
    fields: tuple[Field, ...]  # columns
    shards: tuple[Shard, ...]  # in row order


@wire("evaluation-program/1")
@dataclass(frozen=True, slots=True)
class EvaluationProgram:
    """Evaluation of a batch of one size; a second one covers the rows left over at the end."""

    rows: Count  # in a batch
    program: Digest  # the blob of the encoded program


class Settlement(StrEnum):
    """How a segment is decided that somebody calls false."""

    REPLAY = "replay"  # every validator replays it whole
    BISECTION = "bisection"  # the two sides halve it down to one piece, which every validator computes


@wire("job-terms/3")
@dataclass(frozen=True, slots=True)
class JobTerms:
    """The terms of a job; deadlines count nominal block times, by the blocks' own time."""

    rounds: Count  # how many
    segments_per_round: Count  # shared out among the trainers by capacity
    steps_per_segment: Count  # optimizer steps
    batch_size: Count  # rows a step
    aggregator: str  # how updates become one, as `milon.pol.pipeline` writes it
    faulty_count: Count  # hostile updates it must bear
    audit_ppm: tuple[Count, ...]  # chance that a verifier replays a segment, per round; the last one holds for the rest
    committee_size: Count  # verifiers per claim
    trainers_min: Count  # fewer than this: the job waits
    trainers_target: Count  # as soon as so many are enrolled, it starts; no round takes more
    enrol_blocks: Count  # it starts without the target after so many
    claim_blocks: Count  # from a round's start to its last claim
    attest_blocks: Count  # for each of commitments, attestations and the opening
    judge_blocks: Count  # from a challenge, or a dispute's end, to the last validator's judgement
    aggregate_blocks: Count  # from the last settled claim to the round's outcome
    segment_price: Amount  # to the trainer, per accepted segment
    replay_price: Amount  # to the verifier, per replayed segment
    bond_min: Amount  # a trainer's stake at risk
    trainers: tuple[AccountId, ...]  # who may take part; nobody named: anyone with the bond
    settlement: Settlement = Settlement.REPLAY  # how a challenged segment is decided
    dispute_blocks: Count = Count(30)  # for each move of a dispute
    challenge_blocks: Count = Count(0)  # an accepted claim may be challenged at least so long
    reassign_blocks: Count = Count(0)  # to train what nobody claimed, handed out again once a round; 0: it never is


@wire("job-spec/1")
@dataclass(frozen=True, slots=True)
class JobSpec:
    """Everything that decides a job's result."""

    name: str  # for people
    train: Digest  # program blob: one training step
    evaluate: tuple[EvaluationProgram, ...]  # one or two
    predict: Digest  # program blob: the model's output for a batch
    initial_state: Digest  # state blob
    train_rows: Digest  # blob of an encoded DataManifest
    evaluation_rows: Digest  # blob of an encoded DataManifest
    terms: JobTerms  # see there


def audit_ppm_of(terms: JobTerms, round_number: int) -> int:
    """The audit rate of a round, in parts per million."""
    return terms.audit_ppm[min(round_number, len(terms.audit_ppm) - 1)]


def replays_max_per_member(segments: int, audit_ppm: int) -> int:
    """The most of a claim's segments that a committee member may have to replay: see `sampling.count_replays`."""
    return -(-segments * audit_ppm // PARTS_PER_MILLION)


def compute_cost_max(terms: JobTerms) -> int:
    """The most a job can pay out: every segment accepted, and every replay of every audit.

    Chance may round the replays of every claim up, so a round may hold up to one more replay a claim than its segments
    suggest; claims are never more than segments, nor than `trainers_target`, or twice as many where segments are handed
    out again: k runs of them among t trainers make less than k + t claims, and k + t is no more than `trainers_target`.
    What is not needed goes back in the end.
    """
    listed = min(terms.rounds, len(terms.audit_ppm))
    total = sum(_compute_round_cost_max(terms, ppm) for ppm in terms.audit_ppm[:listed])
    return total + (terms.rounds - listed) * _compute_round_cost_max(terms, terms.audit_ppm[-1])


def _compute_round_cost_max(terms: JobTerms, ppm: int) -> int:
    replays = replays_max_per_member(terms.segments_per_round, ppm)
    if ppm:
        claims = terms.trainers_target * (2 if terms.reassign_blocks else 1)
        replays = min(terms.segments_per_round, replays + claims)
    return terms.segments_per_round * terms.segment_price + replays * terms.committee_size * terms.replay_price


def verify_terms(terms: JobTerms) -> None:
    """Raise `Rejected` unless every term lies in its range and the aggregator is one."""
    parse_pipeline(terms.aggregator)
    bounds = (
        ("rounds", terms.rounds, 1, ROUNDS_MAX),
        ("segments_per_round", terms.segments_per_round, 1, SEGMENTS_MAX),
        ("steps_per_segment", terms.steps_per_segment, 1, STEPS_MAX),
        ("batch_size", terms.batch_size, 1, 1 << 20),
        ("faulty_count", terms.faulty_count, 0, 1_000),
        ("committee_size", terms.committee_size, 1, COMMITTEE_MAX),
        ("trainers_min", terms.trainers_min, 1, TRAINERS_MAX),
        ("trainers_target", terms.trainers_target, terms.trainers_min, TRAINERS_MAX),
        ("enrol_blocks", terms.enrol_blocks, 1, BLOCKS_MAX),
        ("claim_blocks", terms.claim_blocks, 3, BLOCKS_MAX),
        ("attest_blocks", terms.attest_blocks, 1, BLOCKS_MAX),
        ("judge_blocks", terms.judge_blocks, 1, BLOCKS_MAX),
        ("aggregate_blocks", terms.aggregate_blocks, 1, BLOCKS_MAX),
        ("dispute_blocks", terms.dispute_blocks, 1, BLOCKS_MAX),
        ("challenge_blocks", terms.challenge_blocks, 0, BLOCKS_MAX),
        ("reassign_blocks", terms.reassign_blocks, 0, BLOCKS_MAX),
        ("segment_price", terms.segment_price, 0, 1 << 40),
        ("replay_price", terms.replay_price, 0, 1 << 40),
        ("bond_min", terms.bond_min, 0, 1 << 60),
        ("trainers named", len(terms.trainers), 0, TRAINERS_MAX),
        ("audit rates", len(terms.audit_ppm), 1, AUDIT_RATES_MAX),
    )
    for name, value, low, high in bounds:
        require(low <= value <= high, Reason.OUT_OF_RANGE, f"{name} is {value}; it may be {low} to {high}")
    for ppm in terms.audit_ppm:
        require(ppm <= PARTS_PER_MILLION, Reason.OUT_OF_RANGE, f"an audit rate of {ppm} ppm is more than everything")
    named = len(dict.fromkeys(terms.trainers))
    enough = not terms.trainers or named >= terms.trainers_min
    require(enough, Reason.OUT_OF_RANGE, f"{named} trainers are named where {terms.trainers_min} are needed")


def is_showable(name: str) -> bool:
    """Whether a job's name has a length and characters that people can be shown."""
    is_plain = not any(low <= ord(character) <= high for character in name for low, high in _HIDDEN)
    return 0 < len(name) <= NAME_CHARACTERS_MAX and is_plain


def verify_spec(spec: JobSpec) -> None:
    """Raise `Rejected(OUT_OF_RANGE)` unless the terms lie in their ranges, the name can be shown, and evaluation has
    one program, or a second one for fewer rows."""
    is_good_name = is_showable(spec.name)
    require(is_good_name, Reason.OUT_OF_RANGE, f"a job's name has 1 to {NAME_CHARACTERS_MAX} printable characters")
    rows = [program.rows for program in spec.evaluate]
    require(1 <= len(rows) <= 2, Reason.OUT_OF_RANGE, f"{len(rows)} evaluation programs; one or two may be")
    require(min(rows) > 0, Reason.OUT_OF_RANGE, "an evaluation program for batches of no rows")
    require(len(rows) == 1 or rows[1] < rows[0], Reason.OUT_OF_RANGE, "the second evaluation program is for fewer rows")
    verify_terms(spec.terms)

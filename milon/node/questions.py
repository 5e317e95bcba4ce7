"""What a node may ask another beside consensus: blocks and why they are final, parts of the ledger, jobs, the time."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.codec import wire
from milon.base.ids import Digest, JobId
from milon.base.units import Count, Height, TimeMs
from milon.chain.block import Block, Header
from milon.chain.certificate import Validator
from milon.chain.finality import FinalityProof
from milon.chain.learning import BlockReport
from milon.chain.transaction import Transaction, TransactionBody
from milon.state.commitment import StateProof

QUESTION_MAX_BYTES = 64 << 10  # the longest, hashes of a thousand transactions, is 34 KiB
HASHES_MAX = 1_000  # of transactions in one question
HEADERS_MAX = 1_024  # in one answer: about 0.7 MiB
TRANSACTIONS_MAX_BYTES = 512 << 10  # of transactions in one answer


@wire("ask-genesis/1")
@dataclass(frozen=True, slots=True)
class AskGenesis:
    """The genesis, to be checked against its hash; answered with a `Genesis`."""


@wire("ask-block/1")
@dataclass(frozen=True, slots=True)
class AskBlock:
    """The final block of a hash; answered with a `BlockAnswer`."""

    block: Digest  # its header hash


@wire("ask-height/1")
@dataclass(frozen=True, slots=True)
class AskHeight:
    """The final block at a height; answered with a `BlockAnswer`."""

    height: Height  # which


@wire("block-answer/1")
@dataclass(frozen=True, slots=True)
class BlockAnswer:
    """A block, its report, and why it is final."""

    block: Block  # the block
    report: BlockReport  # to be checked against the header's roots
    proof: FinalityProof  # see there


@wire("ask-job/1")
@dataclass(frozen=True, slots=True)
class AskJob:
    """The transaction that submitted a job, to be checked against the job's name; answered with a `JobAnswer`."""

    job: JobId  # which


@wire("job-answer/1")
@dataclass(frozen=True, slots=True)
class JobAnswer:
    """The body whose digest is the job's name."""

    body: TransactionBody  # with a `SubmitJob`


@wire("ask-transactions/1")
@dataclass(frozen=True, slots=True)
class AskTransactions:
    """Waiting transactions that I lack; answered with a `TransactionsAnswer`."""

    known: tuple[Digest, ...]  # hashes of those I have


@wire("transactions-answer/1")
@dataclass(frozen=True, slots=True)
class TransactionsAnswer:
    """Some of them."""

    transactions: tuple[Transaction, ...]  # each to be checked


@wire("ask-header/1")
@dataclass(frozen=True, slots=True)
class AskHeader:
    """The header at a height with what proves it final; answered with a `HeaderAnswer`."""

    height: Height  # which; 0: the newest


@wire("header-answer/1")
@dataclass(frozen=True, slots=True)
class HeaderAnswer:
    """A header, and everything that shows to somebody who knows a hash of its validators that it is final."""

    header: Header  # the header
    proof: FinalityProof  # see there
    validators: tuple[Validator, ...]  # of its epoch, to be checked against a hash that is trusted


@wire("ask-headers/1")
@dataclass(frozen=True, slots=True)
class AskHeaders:
    """The headers of some heights; answered with a `HeadersAnswer`."""

    first: Height  # from this height on
    last: Height  # to this one


@wire("headers-answer/1")
@dataclass(frozen=True, slots=True)
class HeadersAnswer:
    """Headers, to be checked by their hashes."""

    headers: tuple[Header, ...]  # heights ascending without a gap


@wire("ask-state/1")
@dataclass(frozen=True, slots=True)
class AskState:
    """A value of the ledger at the newest block; answered with a `StateAnswer`."""

    key: bytes  # the ledger key


@wire("state-answer/1")
@dataclass(frozen=True, slots=True)
class StateAnswer:
    """A value of the ledger or its absence, proved under the state root of a header that is proved final."""

    answer: HeaderAnswer  # the newest header
    value: bytes | None  # none: the key is not there
    proof: StateProof  # under the header's state root


@wire("ask-snapshots/1")
@dataclass(frozen=True, slots=True)
class AskSnapshots:
    """Which snapshots of the ledger do you serve? Answered with a `SnapshotsAnswer`."""


@wire("snapshot-offer/1")
@dataclass(frozen=True, slots=True)
class SnapshotOffer:
    """A snapshot of the ledger after a final block, in chunks."""

    height: Height  # of the block
    depth: Count  # of its chunks: there are `2^depth`


@wire("snapshots-answer/1")
@dataclass(frozen=True, slots=True)
class SnapshotsAnswer:
    """Snapshots that are served."""

    offers: tuple[SnapshotOffer, ...]  # heights ascending


@wire("ask-chunk/1")
@dataclass(frozen=True, slots=True)
class AskChunk:
    """A chunk of a snapshot; answered with a `StateChunk`."""

    height: Height  # of the snapshot
    index: Count  # of the chunk


@wire("ask-clock/1")
@dataclass(frozen=True, slots=True)
class AskClock:
    """What time is it with you? Answered with a `ClockAnswer`."""


@wire("clock-answer/1")
@dataclass(frozen=True, slots=True)
class ClockAnswer:
    """A node's clock and how far its chain is."""

    time_ms: TimeMs  # when it answered
    height: Height  # of its newest final block


Question = (
    AskGenesis
    | AskBlock
    | AskHeight
    | AskJob
    | AskTransactions
    | AskHeader
    | AskHeaders
    | AskState
    | AskSnapshots
    | AskChunk
    | AskClock
)

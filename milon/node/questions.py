"""What one node may ask another beside consensus: the genesis, reports of blocks, jobs, waiting transactions."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.codec import wire
from milon.base.ids import Digest, JobId
from milon.base.units import Height
from milon.chain.block import Block
from milon.chain.finality import FinalityProof
from milon.chain.learning import BlockReport
from milon.chain.transaction import Transaction, TransactionBody

QUESTION_MAX_BYTES = 64 << 10  # the longest, hashes of a thousand transactions, is 34 KiB
HASHES_MAX = 1_000  # of transactions in one question
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


Question = AskGenesis | AskBlock | AskHeight | AskJob | AskTransactions

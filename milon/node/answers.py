"""Answers other nodes' questions from the store: see `questions`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

import trio

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import JobId
from milon.chain.block import Block
from milon.chain.genesis import Genesis
from milon.chain.learning import BlockReport
from milon.chain.transaction import SubmitJob, Transaction, compute_transaction_hash
from milon.contracts.records import Job, job_key
from milon.node.light_answers import LightAnswers
from milon.node.proofs import prove_finality
from milon.node.questions import (
    HASHES_MAX,
    QUESTION_MAX_BYTES,
    TRANSACTIONS_MAX_BYTES,
    AskBlock,
    AskChunk,
    AskClock,
    AskGenesis,
    AskHeader,
    AskHeaders,
    AskHeight,
    AskJob,
    AskSnapshots,
    AskState,
    AskTransactions,
    BlockAnswer,
    JobAnswer,
    Question,
    TransactionsAnswer,
)
from milon.p2p.allowance import Allowance
from milon.p2p.transport import PeerId
from milon.state.ledger import Ledger
from milon.state.store import Store, StoreReader

READERS = 2  # threads that read for others: the engine's work goes on beside them
ANSWERS_PER_S, ANSWERS_MAX = 2.0, 64.0  # to one peer: an answer takes up to a fifth of a second of one core
CHUNK_COST = 0.05  # a file of about 256 KiB, sent as it lies there: forty a second


class Answers:
    """Reads the store in threads; changes nothing."""

    def __init__(
        self, genesis: Genesis, store: Store, waiting: Callable[[], tuple[Transaction, ...]], light: LightAnswers
    ) -> None:
        """`waiting` lists the mempool; `light` answers those who keep no chain."""
        self._genesis = genesis
        self._store = store
        self._waiting = waiting
        self._light = light
        self._allowance = Allowance(ANSWERS_PER_S, ANSWERS_MAX, trio.current_time)
        self._threads = trio.CapacityLimiter(READERS)

    async def answer(self, peer: PeerId, raw: bytes) -> bytes:
        """The answer's bytes; `Rejected` where the question is none, one too many, or the thing is not here."""
        question: Any = decode(Question, raw, QUESTION_MAX_BYTES)
        cost = CHUNK_COST if isinstance(question, AskChunk) else 1.0
        require(self._allowance.take(peer, cost), Reason.FULL, "too many questions; ask again in a while")
        return await trio.to_thread.run_sync(self._answer, question, limiter=self._threads)

    def _answer(self, question: Question) -> bytes:
        match question:
            case AskGenesis():
                return encode(self._genesis)
            case AskBlock():
                return encode(find_block(self._store, self._store.block_by_hash(question.block)))
            case AskHeight():
                return encode(find_block(self._store, self._store.block_by_height(question.height)))
            case AskJob():
                return encode(find_job(self._store, question.job))
            case AskTransactions():
                return encode(self._transactions(question))
            case AskHeader() | AskHeaders() | AskState() | AskSnapshots() | AskChunk() | AskClock():
                return self._light.answer(question)
            case _:
                assert_never(question)

    def _transactions(self, question: AskTransactions) -> TransactionsAnswer:
        require(len(question.known) <= HASHES_MAX, Reason.TOO_LARGE, f"more than {HASHES_MAX} hashes")
        known = frozenset(question.known)
        chosen: list[Transaction] = []
        room = TRANSACTIONS_MAX_BYTES
        for transaction in self._waiting():
            size = len(encode(transaction))
            if size <= room and compute_transaction_hash(transaction) not in known:
                chosen.append(transaction)
                room -= size
        return TransactionsAnswer(tuple(chosen))


def find_block(store: StoreReader, raw: bytes | None) -> BlockAnswer:
    """A final block with its report and proof; `Rejected`: UNKNOWN where it is not here, UNAVAILABLE: no report."""
    if raw is None:
        raise Rejected(Reason.UNKNOWN, "no such final block is here")
    block = decode(Block, raw)
    report = store.receipts_at(block.header.height)
    if report is None:
        raise Rejected(Reason.UNAVAILABLE, "no report of that block is here")
    return BlockAnswer(block, decode(BlockReport, report), prove_finality(store, block.header.height))


def find_job(store: StoreReader, job: JobId) -> JobAnswer:
    """The transaction that submitted a job; `Rejected`: UNKNOWN, or UNAVAILABLE where its block is not here."""
    record = Ledger(store).load(job_key(job), Job)
    if record is None:
        raise Rejected(Reason.UNKNOWN, f"no job {job.hex()[:8]} on this chain")
    raw = store.block_by_height(record.submitted_height)
    for transaction in decode(Block, raw).transactions if raw is not None else ():
        is_it = JobId(compute_transaction_hash(transaction)) == job
        if is_it and isinstance(transaction.body.action, SubmitJob):
            return JobAnswer(transaction.body)
    raise Rejected(Reason.UNAVAILABLE, "the block that took the job in is not here")

"""Answers other nodes' questions from the store: see `questions`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

import trio

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import JobId
from milon.base.units import Height
from milon.chain.block import Block, Header
from milon.chain.finality import HEADERS_MAX, FinalityProof, decode_finality
from milon.chain.genesis import Genesis
from milon.chain.learning import BlockReport
from milon.chain.transaction import SubmitJob, Transaction, compute_transaction_hash
from milon.contracts.records import Job, job_key
from milon.node.questions import (
    HASHES_MAX,
    QUESTION_MAX_BYTES,
    TRANSACTIONS_MAX_BYTES,
    AskBlock,
    AskGenesis,
    AskHeight,
    AskJob,
    AskTransactions,
    BlockAnswer,
    JobAnswer,
    Question,
    TransactionsAnswer,
)
from milon.p2p.allowance import Allowance
from milon.p2p.transport import PeerId
from milon.state.ledger import Ledger
from milon.state.store import Store

READERS = 2  # threads that read for others: the engine's work goes on beside them
ANSWERS_PER_S, ANSWERS_MAX = 2.0, 64.0  # to one peer: an answer takes up to a fifth of a second of one core


class Answers:
    """Reads the store in threads; changes nothing."""

    def __init__(self, genesis: Genesis, store: Store, waiting: Callable[[], tuple[Transaction, ...]]) -> None:
        """`waiting` lists the mempool."""
        self._genesis = genesis
        self._store = store
        self._waiting = waiting
        self._allowance = Allowance(ANSWERS_PER_S, ANSWERS_MAX, trio.current_time)
        self._threads = trio.CapacityLimiter(READERS)

    async def answer(self, peer: PeerId, raw: bytes) -> bytes:
        """The answer's bytes; `Rejected` where the question is none, one too many, or the thing is not here."""
        require(self._allowance.take(peer, 1.0), Reason.FULL, "too many questions; ask again in a while")
        question: Any = decode(Question, raw, QUESTION_MAX_BYTES)
        return await trio.to_thread.run_sync(self._answer, question, limiter=self._threads)

    def _answer(self, question: Question) -> bytes:
        match question:
            case AskGenesis():
                return encode(self._genesis)
            case AskBlock():
                return encode(self._block(self._store.block_by_hash(question.block)))
            case AskHeight():
                return encode(self._block(self._store.block_by_height(question.height)))
            case AskJob():
                return encode(self._job(question))
            case AskTransactions():
                return encode(self._transactions(question))
            case _:
                assert_never(question)

    def _block(self, raw: bytes | None) -> BlockAnswer:
        if raw is None:
            raise Rejected(Reason.UNKNOWN, "this node has no such final block")
        block = decode(Block, raw)
        report = self._store.receipts_at(block.header.height)
        if report is None:
            raise Rejected(Reason.UNAVAILABLE, "this node has no report of that block")
        return BlockAnswer(block, decode(BlockReport, report), self._prove(block))

    def _prove(self, block: Block) -> FinalityProof:
        """The headers up to the next one with a finalization of its own, as the newest and each epoch's last have."""
        headers: list[Header] = []
        height = block.header.height
        while (certificate := self._store.certificate_at(height)) is None:
            height = Height(height + 1)
            raw = self._store.block_by_height(height)
            if raw is None or len(headers) == HEADERS_MAX:
                raise Rejected(Reason.UNAVAILABLE, "this node has no finalization near that block")
            headers.append(decode(Block, raw).header)
        proof = decode_finality(certificate)
        return FinalityProof((*headers, *proof.headers), proof.finalization)

    def _job(self, question: AskJob) -> JobAnswer:
        record = Ledger(self._store).load(job_key(question.job), Job)
        if record is None:
            raise Rejected(Reason.UNKNOWN, f"no job {question.job.hex()[:8]} on this chain")
        raw = self._store.block_by_height(record.submitted_height)
        for transaction in decode(Block, raw).transactions if raw is not None else ():
            is_it = JobId(compute_transaction_hash(transaction)) == question.job
            if is_it and isinstance(transaction.body.action, SubmitJob):
                return JobAnswer(transaction.body)
        raise Rejected(Reason.UNAVAILABLE, "the block that took the job in is not here")

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

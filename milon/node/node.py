"""A node: consensus, learning, answers and what it shows, over shells that `wiring` builds."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import trio

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId, Digest, JobId
from milon.base.units import Height, Nonce, Power, Round
from milon.chain.finality import decode_finality
from milon.chain.genesis import Genesis
from milon.chain.learning import BlockReport
from milon.chain.transaction import Action, AggregateVote, Transaction, compute_transaction_hash, verify_transaction
from milon.consensus.effects import FinalizedBlock
from milon.consensus.events import TransactionsReceived
from milon.consensus.mempool import list_candidates
from milon.consensus.messages import Status, encode_message
from milon.contracts.accounts import load_account
from milon.contracts.duties import Role as DutyRole
from milon.node.answers import Answers
from milon.node.blob_room import BlobRoom
from milon.node.clocks import watch_clock
from milon.node.config import Role
from milon.node.inbox import STATUS_TOPIC, TRANSACTION_TOPIC, Inbox
from milon.node.keeping import Keeper
from milon.node.learner import Learner
from milon.node.light_answers import LightAnswers
from milon.node.outbox import Outbox
from milon.node.proofs import load_validators_of
from milon.node.pull import pull_transactions
from milon.node.recompute_tasks import recompute_wanted
from milon.node.reports import read_report
from milon.node.runner import Runner, read_clock_ms
from milon.node.shelf import Shelf
from milon.node.snapshots import (
    build_account_view,
    build_block_view,
    build_job_view,
    build_job_views,
    build_validator_view,
    build_validator_views,
)
from milon.node.status import Identity, build_status
from milon.node.supervisor import supervise
from milon.node.task_context import FETCH_S, TaskContext
from milon.node.view import AccountView, BlockView, JobView, ReceiptView, ReportView, StatusView, ValidatorView
from milon.p2p.discovery import PEERS_TOPIC, Discovery
from milon.p2p.transport import PAYLOAD_MAX_BYTES, Channel, Transport
from milon.state.ledger import Ledger
from milon.state.store import Store

_LOG = logging.getLogger(__name__)

RECEIPTS_KEPT = 20_000  # of the newest transactions, for those who ask what became of theirs
RECEIPT_BLOCKS_READ = 200  # at the start, from the store


@dataclass(frozen=True, slots=True)
class Parts:
    """What a node is made of."""

    genesis: Genesis  # of the chain
    identity: Identity  # who this node is
    runner_of: Callable[[Callable[[tuple[FinalizedBlock, ...]], None]], Runner]  # makes the loop
    store: Store  # the final state
    transport: Transport  # the network
    discovery: Discovery  # who is in it
    blobs: BlobRoom  # files
    shelf: Shelf  # snapshots for newcomers
    keeper: Keeper  # what happens to the past
    task_context: TaskContext  # how learning is done


class Node:
    """Implements `view.NodePort`; `run` serves until `stop` or cancelled."""

    def __init__(self, parts: Parts) -> None:
        """Nothing runs yet."""
        self._parts = parts
        self._store = parts.store
        self._genesis = parts.genesis
        key = parts.task_context.key
        self._runner = parts.runner_of(self._on_final)
        self._outbox = Outbox(key, parts.genesis.chain_id, parts.genesis.parameters.fee_min)
        challenge_bond = max(1, int(parts.genesis.parameters.challenge_bond)) if parts.task_context.watch_ppm else 0
        role = DutyRole(key.account, parts.identity.role != Role.FULL, challenge_bond)
        self._learner = Learner(parts.task_context, role, self._deliver)
        hearers = {PEERS_TOPIC: parts.discovery.hear}
        self._inbox = Inbox(parts.transport, parts.genesis.parameters, read_clock_ms, self._runner.feed, hearers)
        self._receipts: OrderedDict[Digest, ReceiptView] = OrderedDict()
        self._final = trio.Event()
        self._stop = trio.Event()
        self._fault: Rejected | None = None
        light = LightAnswers(parts.genesis, parts.store, parts.shelf, read_clock_ms)
        answers = Answers(parts.genesis, parts.store, lambda: list_candidates(self._runner.state.mempool), light)
        parts.transport.serve(Channel.SYNC, answers.answer)

    async def run(self) -> None:
        """Serve until `stop` is called or cancelled. Raises what `give_up` was called with."""
        await trio.to_thread.run_sync(self._read_receipts)
        async with trio.open_nursery() as nursery:
            parts = self._parts
            nursery.start_soon(self._runner.run)
            nursery.start_soon(supervise, "inbox", self._inbox.run)
            nursery.start_soon(supervise, "discovery", self._parts.discovery.run)
            nursery.start_soon(supervise, "learning", self._follow)
            puller = partial(pull_transactions, self._parts.transport, self._runner, self._inbox)
            nursery.start_soon(supervise, "transaction pull", puller)
            nursery.start_soon(supervise, "keeping", parts.keeper.run)
            if parts.task_context.checkpoints is not None:
                recompute = partial(recompute_wanted, parts.task_context, parts.task_context.checkpoints)
                nursery.start_soon(supervise, "checkpoints", recompute)
            drift_ms = int(parts.genesis.parameters.clock_drift_ms_max)
            nursery.start_soon(supervise, "clock", partial(watch_clock, parts.transport, drift_ms))
            await self._stop.wait()
            nursery.cancel_scope.cancel()
        if self._fault is not None:
            raise self._fault

    def give_up(self, fault: Rejected) -> None:
        """End the node for a reason that its operator must see to."""
        self._fault = fault
        self._stop.set()

    def _read_receipts(self) -> None:
        tip = self._store.tip()
        if tip is None:
            return
        for height in range(max(1, tip[0] - RECEIPT_BLOCKS_READ), tip[0] + 1):
            raw = self._store.receipts_at(Height(height))
            if raw is not None:
                self._keep_receipts(decode(BlockReport, raw), Height(height))

    def _keep_receipts(self, report: BlockReport, height: Height) -> None:
        for receipt in report.receipts:
            self._receipts[receipt.transaction] = ReceiptView(receipt.transaction, height, receipt.problem)
        while len(self._receipts) > RECEIPTS_KEPT:
            self._receipts.popitem(last=False)

    def _on_final(self, finalized: tuple[FinalizedBlock, ...]) -> None:
        for entry in finalized:
            header = entry.block.header
            self._keep_receipts(BlockReport(entry.receipts, entry.closed), header.height)
            _LOG.info(
                "block %d %s: %d transactions, view %d, by %s",
                *(header.height, entry.hash.hex()[:8], len(entry.receipts), header.view, header.proposer.hex()[:8]),
            )
            for transaction, receipt in zip(entry.block.transactions, entry.receipts, strict=True):
                if receipt.problem:  # a vote on an aggregate that was decided meanwhile is no news
                    level = logging.DEBUG if isinstance(transaction.body.action, AggregateVote) else logging.INFO
                    _LOG.log(level, "transaction %s refused: %s", receipt.transaction.hex()[:8], receipt.problem)
        self._parts.keeper.note(finalized[-1].block.header.height)
        self._final.set()

    async def _follow(self) -> None:
        """After every final block: do what the ledger asks, and send what is done."""
        async with trio.open_nursery() as nursery:
            while True:
                self._final = trio.Event()
                if self._store.tip() is not None:
                    self._outbox.retain(self._learner.update(Ledger(self._store), nursery))
                    await self._send_due()
                    await self._announce()
                await self._final.wait()

    def _deliver(self, name: Digest, action: Action) -> None:
        self._outbox.add(name, action)
        self._final.set()

    async def _send_due(self) -> None:
        tip = self._store.tip()
        account = self._parts.task_context.key.account
        mempool = self._runner.state.mempool
        given = self._outbox.own_nonces()
        waiting = {int(nonce) for sender, nonce in mempool.entries if sender == account}
        next_nonce = load_account(Ledger(self._store), account).nonce
        height = tip[0] if tip is not None else Height(0)
        for transaction in self._outbox.due(next_nonce, frozenset(waiting - given), height):
            await self._spread(transaction)

    async def _spread(self, transaction: Transaction) -> None:
        """Into the own mempool, and to everybody else: by gossip, or directly where it is too large for that."""
        self._runner.feed(TransactionsReceived(read_clock_ms(), (transaction,)))
        raw = encode(transaction)
        if len(raw) <= PAYLOAD_MAX_BYTES[Channel.GOSSIP]:
            await self._parts.transport.publish(TRANSACTION_TOPIC, raw)
        else:
            self._parts.transport.broadcast(Channel.TRANSACTION, raw)

    async def _announce(self) -> None:
        """Tell the network the newest height, for those who follow without a vote."""
        tip = self._store.tip()
        raw = None if tip is None else self._store.certificate_at(tip[0])
        if tip is not None and raw is not None:
            status = encode_message(Status(tip[0], decode_finality(raw).finalization))
            if len(status) <= PAYLOAD_MAX_BYTES[Channel.GOSSIP]:
                await self._parts.transport.publish(STATUS_TOPIC, status)

    def status(self) -> StatusView:
        """See `NodePort`."""
        parts = self._parts
        return build_status(
            parts.identity,
            parts.genesis,
            self._runner.state,
            parts.store,
            parts.transport,
            parts.discovery.address_of,
            parts.task_context.board.views(),
        )

    def genesis(self) -> Genesis:
        """See `NodePort`."""
        return self._genesis

    def jobs(self) -> tuple[JobView, ...]:
        """See `NodePort`."""
        return build_job_views(self._store, int(self._genesis.parameters.block_time_ms))

    def job(self, job: JobId) -> JobView | None:
        """See `NodePort`."""
        return build_job_view(Ledger(self._store), job, int(self._genesis.parameters.block_time_ms))

    def report(self, job: JobId, round_number: Round) -> ReportView | None:
        """See `NodePort`."""
        folder, view = self._parts.task_context.reports, self.job(job)
        record = None if folder is None else read_report(folder, job, round_number)
        closed = [entry for entry in view.rounds if entry.round == round_number] if view is not None else []
        if record is None or not closed:
            return None
        return ReportView(round_number, record.after == closed[0].outcome.state, record)

    def account(self, account: AccountId) -> AccountView:
        """See `NodePort`."""
        nonce = int(load_account(Ledger(self._store), account).nonce)
        entries = self._runner.state.mempool.entries
        while (account, Nonce(nonce)) in entries:
            nonce += 1
        return build_account_view(self._store, account, Nonce(nonce))

    def validators(self) -> tuple[ValidatorView, ...]:
        """See `NodePort`."""
        return build_validator_views(self._store)

    def validator(self, account: AccountId) -> ValidatorView:
        """See `NodePort`."""
        return build_validator_view(self._store, account)

    def block(self, name: Height | Digest) -> BlockView | None:
        """See `NodePort`."""
        view = build_block_view(self._store, name)
        raw = None if view is None else self._store.certificate_at(view.header.height)
        if view is None or raw is None:
            return view
        signers = decode_finality(raw).finalization.signers
        try:
            validators = load_validators_of(self._genesis, self._store, view.header.epoch)
        except Rejected:
            return view  # an epoch so long ago that the ledger no longer knows who voted in it
        power = sum(entry.power for entry in validators if entry.account in signers)
        total = sum(entry.power for entry in validators)
        return replace(view, certificate_power=Power(power), total_power=Power(total))

    def receipt(self, transaction: Digest) -> ReceiptView | None:
        """See `NodePort`."""
        known = self._receipts.get(transaction)
        if known is not None:
            return known
        entries = self._runner.state.mempool.entries.values()
        if any(compute_transaction_hash(entry.transaction) == transaction for entry in entries):
            return ReceiptView(transaction, None, "")
        return None

    async def submit(self, transaction: Transaction) -> Digest:
        """See `NodePort`."""
        body, parameters = transaction.body, self._genesis.parameters
        is_ours = body.chain_id == self._genesis.chain_id
        require(
            is_ours, Reason.WRONG_CHAIN, f"signed for chain {body.chain_id!r:.80}, this is {self._genesis.chain_id}"
        )
        size, limit = len(encode(transaction)), int(parameters.transaction_bytes_max)
        require(size <= limit, Reason.TOO_LARGE, f"a transaction of {size} bytes; {limit} are allowed")
        await trio.to_thread.run_sync(verify_transaction, transaction)
        account = load_account(Ledger(self._store), body.sender)
        require(
            body.nonce >= account.nonce, Reason.WRONG_NONCE, f"nonce {body.nonce} was used; {account.nonce} is next"
        )
        waiting = self._runner.state.mempool.entries.get((body.sender, body.nonce))
        if waiting is not None and waiting.transaction != transaction:
            raise Rejected(Reason.DUPLICATE, f"another transaction with nonce {body.nonce} of this account is waiting")
        can_pay = parameters.fee_min <= body.fee <= account.balance
        require(can_pay, Reason.INSUFFICIENT_FUNDS, f"a fee of {body.fee}; the balance is {account.balance}")
        await self._spread(transaction)
        return compute_transaction_hash(transaction)

    async def put_blob(self, path: Path) -> Digest:
        """See `NodePort`."""
        return await self._parts.blobs.put_file(path)

    async def get_blob(self, blob: Digest, size_max_bytes: int) -> Path:
        """See `NodePort`."""
        return await self._parts.blobs.ensure(blob, size_max_bytes, FETCH_S)

    async def stop(self) -> None:
        """See `NodePort`."""
        self._stop.set()

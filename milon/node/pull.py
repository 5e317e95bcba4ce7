"""The pull path beside gossip: ask a peer now and then for waiting transactions that this node lacks."""

from __future__ import annotations

import logging

import trio

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.chain.transaction import compute_transaction_hash
from milon.consensus.mempool import list_candidates
from milon.node.inbox import Inbox
from milon.node.questions import HASHES_MAX, AskTransactions, TransactionsAnswer
from milon.node.runner import Runner
from milon.p2p.transport import Channel, PeerId, Transport

_LOG = logging.getLogger(__name__)

PULL_S = 3.0  # a transaction that gossip lost is here after a few of these
ANSWER_S = 5.0  # a peer that takes longer is passed over


async def pull_transactions(transport: Transport, runner: Runner, inbox: Inbox) -> None:
    """Ask the peers in turn, for ever."""
    turn = 0
    while True:
        await trio.sleep(PULL_S)
        peers = transport.peers()
        if not peers:
            continue
        peer = peers[turn % len(peers)]
        turn += 1
        try:
            await _pull_from(transport, runner, inbox, peer)
        except Rejected as error:
            _LOG.debug("transactions of %s: %s", peer, error)
            if error.reason is not Reason.UNAVAILABLE:
                transport.report(peer, error.reason)


async def _pull_from(transport: Transport, runner: Runner, inbox: Inbox, peer: PeerId) -> None:
    waiting = list_candidates(runner.state.mempool)[:HASHES_MAX]
    question = AskTransactions(tuple(compute_transaction_hash(transaction) for transaction in waiting))
    raw = await transport.request(peer, Channel.SYNC, encode(question), timeout_s=ANSWER_S)
    answer = await trio.to_thread.run_sync(decode, TransactionsAnswer, raw)
    for transaction in answer.transactions:
        await inbox.accept_transaction(encode(transaction))

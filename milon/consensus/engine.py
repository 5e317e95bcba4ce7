"""Consensus as a function: `step(config, state, event) -> (state, effects)`.

The protocol is Simplex (Chan and Pass 2023), weighted by stake. Validators go through numbered views. Each view has one
leader, known beforehand, who proposes one block on the newest parent it can justify. A validator that finds the block
valid signs NOTARIZE; one that waits in vain, or finds it invalid for ever, signs NULLIFY. Votes of one kind for one
thing with more than two thirds of the power are a certificate.

    a NOTARIZATION of view v    the block may be built on: sign FINALIZE for it unless NULLIFY was signed, enter v + 1
    a NULLIFICATION of view v   the view may be skipped: enter v + 1
    a FINALIZATION of view v    the block and all its ancestors are final: commit them, enter v + 1

A block of view v names its parent, of view u, and commits to the parent's notarization and to a nullification of every
view between. So: two quorums share an honest validator, hence no view is both finalized and nullified, and none has two
notarized blocks; a finalized block was notarized; every later block shows that the views it skips were nullified;
hence no later chain skips a finalized block.

An epoch is a fixed number of blocks with one set of validators; its last block names the next set. That block must be
final before the next epoch begins. Until it is, leaders of later views propose blocks above it that change nothing: if
one of those is final, so is the last block. Then views start again at 1, and the last block stands where genesis stood;
the blocks above it are forgotten but for their headers, which prove it final. A node that is in an older epoch fetches
the blocks that lead on, each epoch's by the word of its own validators; one that is not in the set only follows.

Who signs two votes that exclude each other, or NOTARIZE for a block whose justification does not hold, has left the
evidence with others. It is told to everybody, goes into a block before the transactions, and is checked by all.

A step does four things. It takes the event in. It settles: enter the newest view, commit what is final, judge the
proposal, propose, give the view up when its time is over; round and round until nothing changes. It notes when to wake
up next. And it puts the effects into their one order: written down first, sent afterwards, committed last. An event
that is refused (`Rejected`) changes nothing, and the peer that sent it is blamed.

Where to find what: `votes` signs, `tally` counts, `justification` finds parents, `proposals` builds and judges,
`blocks` executes, `finality` commits, `members` and `epochs` know who votes when, `accusation` has the evidence, `sync`
fetches, `views` keeps time, `restore` starts from disk.
"""

from __future__ import annotations

from milon.base.errors import Rejected
from milon.chain.certificate import Certificate, Vote
from milon.chain.evidence import BadJustification, Contradiction
from milon.chain.transaction import Transaction, compute_transaction_hash
from milon.consensus.accusation import take_evidence
from milon.consensus.application import Config
from milon.consensus.blocks import ledger_after
from milon.consensus.effects import Blame, Effect, TransactionRefused
from milon.consensus.epochs import is_of_other_epoch, take_early
from milon.consensus.events import Committed, Event, MessageReceived, Peer, TimerFired, TransactionsReceived
from milon.consensus.finality import commit_final, commit_up_to, take_committed
from milon.consensus.mempool import add_transaction
from milon.consensus.messages import (
    BlockRequest,
    BlockResponse,
    CertificateBatch,
    CertificateRequest,
    JustificationPart,
    JustificationRequest,
    Message,
    Proposal,
    RangeRequest,
    RangeResponse,
    Status,
    StatusRequest,
)
from milon.consensus.proposals import answer_justification, judge_proposal, propose, take_part, take_proposal
from milon.consensus.state import State
from milon.consensus.sync import (
    answer_block,
    answer_certificates,
    answer_range,
    answer_status,
    follow_ahead,
    take_block,
    take_certificates,
    take_range,
    take_status,
)
from milon.consensus.tally import take_certificate, take_vote
from milon.consensus.turn import Turn
from milon.consensus.views import advance_view, nullify_when_due, postpone_standstill, resend_when_due

PEERS_MAX = 32  # to ask in turn; more would not find a block sooner
SETTLE_ROUNDS_MAX = 1_000  # each round enters a view or casts a vote; a step that needs more is a defect


def step(config: Config, state: State, event: Event) -> tuple[State, tuple[Effect, ...]]:
    """The state after the event, and what the shell must do, in that order.

    The same arguments always give the same result, as long as the store's tip is the same. Raises RuntimeError where
    going on would be wrong: a final block that is invalid here.
    """
    peer = event.peer if isinstance(event, MessageReceived) else None
    turn = Turn(config, state, event.now_ms, peer)
    try:
        _take(turn, event)
    except Rejected as error:
        turn = Turn(config, state, event.now_ms, peer)
        if peer is not None:
            turn.emit(Blame(peer, error.reason, error.detail))
    settle(turn)
    return turn.finish(is_timer_spent=isinstance(event, TimerFired))


def _take(turn: Turn, event: Event) -> None:
    match event:
        case MessageReceived():
            _note_peer(turn, event.peer, event.message)
            _take_message(turn, event.message)
        case TransactionsReceived():
            for transaction in event.transactions:
                _take_transaction(turn, transaction)
        case Committed():
            take_committed(turn, event.height)
        case TimerFired():
            pass  # settling looks at the clock


def _note_peer(turn: Turn, peer: Peer, message: Message) -> None:
    """Remember who may be asked; where there are more than enough, votes do not push out those who said more."""
    peers = turn.state.peers
    if peer not in peers and (len(peers) < PEERS_MAX or not isinstance(message, Vote | Certificate)):
        turn.update(peers=(*peers, peer)[-PEERS_MAX:])


def _take_message(turn: Turn, message: Message) -> None:
    if is_of_other_epoch(turn, message):
        return
    match message:
        case Vote():
            take_vote(turn, message)
        case Certificate():
            take_certificate(turn, message)
        case Proposal():
            take_proposal(turn, message)
        case JustificationPart():
            take_part(turn, message)
        case CertificateBatch():
            take_certificates(turn, message)
        case BlockResponse():
            take_block(turn, message)
        case RangeResponse():
            found = take_range(turn, message)
            if found is not None:
                commit_up_to(turn, *found)
        case Status():
            take_status(turn, message)
        case Contradiction() | BadJustification():
            take_evidence(turn, message)
        case _:
            _answer(turn, message)


def _take_early(turn: Turn) -> None:
    """What was said of this epoch before it began here, each message as if it came now."""
    speaker = turn.peer
    for peer, message in take_early(turn):
        saved = turn.mark(peer)
        try:
            _take_message(turn, message)
        except Rejected as error:
            turn.undo(saved)
            turn.emit(Blame(peer, error.reason, error.detail))
    turn.peer = speaker


_Request = BlockRequest | RangeRequest | CertificateRequest | JustificationRequest | StatusRequest


def _answer(turn: Turn, request: _Request) -> None:
    match request:
        case JustificationRequest():
            answer_justification(turn, request)
        case BlockRequest():
            answer_block(turn, request)
        case RangeRequest():
            answer_range(turn, request)
        case CertificateRequest():
            answer_certificates(turn, request)
        case StatusRequest():
            answer_status(turn)


def _take_transaction(turn: Turn, transaction: Transaction) -> None:
    config, state = turn.config, turn.state
    ledger = ledger_after(config, state, state.tip.hash)
    standing = config.application.standing_of(ledger, transaction.body.sender)
    try:
        pool = add_transaction(state.mempool, transaction, standing, config.chain_id, config.parameters)
        turn.update(mempool=pool)
    except Rejected as error:
        turn.emit(TransactionRefused(compute_transaction_hash(transaction), error.reason, error.detail))


def settle(turn: Turn) -> None:
    """Do everything that the state and the clock call for, until nothing more changes."""
    final = (turn.state.members.epoch, turn.state.final_view)
    for _ in range(SETTLE_ROUNDS_MAX):
        before = turn.state
        _take_early(turn)
        advance_view(turn)
        commit_final(turn)
        judge_proposal(turn)
        propose(turn)
        nullify_when_due(turn)
        if turn.state is before:
            break
    else:
        raise RuntimeError("the engine does not come to rest")
    if (turn.state.members.epoch, turn.state.final_view) > final:
        postpone_standstill(turn)
    follow_ahead(turn)
    resend_when_due(turn)

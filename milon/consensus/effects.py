"""What the engine asks of its shell. A step returns effects in the order in which they must be carried out."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.errors import Reason
from milon.base.ids import AccountId, Digest
from milon.base.units import TimeMs, View
from milon.chain.block import Block, Receipt
from milon.chain.evidence import Evidence, offender_of
from milon.chain.learning import ClosedRound
from milon.consensus.events import Peer
from milon.consensus.messages import LogRecord, Message
from milon.consensus.votes import Place
from milon.state.store import Commit


@dataclass(frozen=True, slots=True)
class Persist:
    """Append to the vote log. All of a step's records are synced to disk before the first `Send`."""

    record: LogRecord  # what must survive a crash


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message; it may be lost."""

    peer: Peer | None  # to whom; None: to every connected peer
    message: Message  # what


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Feed `TimerFired` at this time. There is one timer; this replaces it."""

    at_ms: TimeMs  # by this node's clock; may be in the past


@dataclass(frozen=True, slots=True)
class FinalizedBlock:
    """A block that is final, for whoever reports on it."""

    block: Block  # with its transactions
    hash: Digest  # of its header
    receipts: tuple[Receipt, ...]  # one a transaction
    closed: tuple[ClosedRound, ...]  # the rounds it closes


@dataclass(frozen=True, slots=True)
class CommitBlocks:
    """Make blocks durable in one store transaction, then feed `Committed`."""

    commit: Commit  # for the store
    finalized: tuple[FinalizedBlock, ...]  # the same blocks, heights ascending


@dataclass(frozen=True, slots=True)
class PruneLog:
    """Records up to this place may leave the vote log."""

    place: Place  # the last one below the stored tip's


@dataclass(frozen=True, slots=True)
class Blame:
    """A peer sent something no honest node sends."""

    peer: Peer  # who
    reason: Reason  # why it was refused
    detail: str  # for people


@dataclass(frozen=True, slots=True)
class Accuse:
    """A validator is proven to have broken the rules of voting."""

    evidence: Evidence  # the proof, which goes into a block

    @property
    def offender(self) -> AccountId:
        """Who did."""
        return offender_of(self.evidence)


@dataclass(frozen=True, slots=True)
class ProposalRefused:
    """A leader's block is invalid by this node's rules; where many are, two versions of the rules are at work."""

    view: View  # in which it was proposed
    proposer: AccountId  # its leader
    detail: str  # what is wrong with it


@dataclass(frozen=True, slots=True)
class TransactionRefused:
    """A transaction did not enter the mempool."""

    transaction: Digest  # its hash
    reason: Reason  # why
    detail: str  # for people


Effect = Persist | Send | SetTimer | CommitBlocks | PruneLog | Blame | Accuse | ProposalRefused | TransactionRefused

# Persist before send: what must survive a crash is on disk before anybody hears of it.
ORDER: tuple[type[Effect], ...] = (
    Persist,
    Send,
    SetTimer,
    CommitBlocks,
    PruneLog,
    Accuse,
    Blame,
    ProposalRefused,
    TransactionRefused,
)

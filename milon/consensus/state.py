"""What an engine knows at one moment: a value that only `engine.step` replaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from milon.base.ids import AccountId, Digest
from milon.base.units import Count, Epoch, Height, TimeMs, View
from milon.chain.block import Block, Receipt
from milon.chain.certificate import Certificate, Validator, Vote
from milon.chain.evidence import BadJustification, Evidence
from milon.chain.finality import FinalityProof
from milon.chain.learning import ClosedRound
from milon.consensus.events import Peer
from milon.consensus.mempool import Mempool
from milon.consensus.messages import LogRecord, Message, Proposal
from milon.consensus.quorum import Pool
from milon.consensus.votes import OwnVotes, Place

NO_VIEW = View(0)  # before the first
NO_PLACE: Place = (Epoch(0), NO_VIEW)  # before the first
NO_TIME = TimeMs(0)  # long ago


@dataclass(frozen=True, slots=True)
class Ancestor:
    """What a block must know of its parent."""

    height: Height  # 0 for genesis
    hash: Digest  # of the header, or of the genesis
    view: View  # 0 for genesis and for the block before an epoch's first
    time_ms: TimeMs  # its own
    beacon: Digest  # its own
    state_root: Digest  # after it
    next_validators_hash: Digest  # of the set of the block after it


@dataclass(frozen=True, slots=True)
class Members:
    """Who votes and who leads in an epoch."""

    epoch: Epoch  # which
    validators: tuple[Validator, ...]  # in order of account
    accounts: frozenset[AccountId]  # theirs
    hash: Digest  # of the set, as headers have it
    leaders: tuple[AccountId, ...]  # of one schedule
    last_height: Height  # of the epoch's last block


@dataclass(frozen=True, slots=True)
class Executed:
    """A block whose effect is known and not yet in the store."""

    block: Block  # valid on top of its parent
    ancestor: Ancestor  # what its children must know
    receipts: tuple[Receipt, ...]  # one a transaction
    closed: tuple[ClosedRound, ...]  # the rounds it closes
    changes: Mapping[bytes, bytes | None]  # to the parent's ledger
    nodes: Mapping[bytes, bytes | None]  # to the parent's state tree


@dataclass(frozen=True, slots=True)
class Request:
    """Something asked for and not yet had."""

    attempts: int  # made so far
    again_ms: TimeMs  # when to ask somebody else


@dataclass(frozen=True, slots=True)
class Ahead:
    """A later epoch that a peer spoke of: others may be there."""

    epoch: Epoch  # which
    again_ms: TimeMs  # when to ask for the blocks that lead there
    attempts: int  # made since the last answer


NOT_AHEAD = Ahead(Epoch(0), NO_TIME, 0)


@dataclass(frozen=True, slots=True)
class State:
    """All of it. Views are the epoch's; mappings by view hold those above the last final one, but for what is noted."""

    tip: Ancestor  # the newest block handed out for commit
    members: Members  # of the epoch of the block after the tip
    view: View  # the current one
    entered_ms: TimeMs  # when it became so
    delta_ms: Count  # the assumed message delay, for the timers of this view
    mempool: Mempool  # transactions waiting
    finalization: Certificate | None = None  # the epoch's newest known, perhaps above the tip
    finality: FinalityProof | None = None  # of the tip, where it has its own
    pools: Mapping[View, Pool] = field(default_factory=dict)  # votes, for views near the current one, some final
    notarizations: Mapping[View, Certificate] = field(default_factory=dict)  # the last final view's too
    nullifications: Mapping[View, Certificate] = field(default_factory=dict)  # one a view
    verified: Mapping[Digest, View] = field(default_factory=dict)  # hashes of certificates' exact bytes
    proposals: Mapping[View, Proposal] = field(default_factory=dict)  # the first of each view
    parts: Mapping[Digest, tuple[Certificate, ...]] = field(default_factory=dict)  # justifications beyond the proposal
    bodies: Mapping[Digest, Block] = field(default_factory=dict)  # blocks above the tip, not yet executed
    executed: Mapping[Digest, Executed] = field(default_factory=dict)  # and final ones until the store has them
    refused: Mapping[Digest, View] = field(default_factory=dict)  # blocks found invalid for ever
    own: Mapping[View, OwnVotes] = field(default_factory=dict)  # what this validator signed
    signed: Place = NO_PLACE  # the highest place signed in
    floor: Place = NO_PLACE  # nothing is signed up to there: votes may be lost from the log
    later: tuple[LogRecord, ...] = ()  # of the log, of epochs that begin once this one's last block is final again
    early: tuple[tuple[Peer, Message], ...] = ()  # votes and proposals for the next epoch, not yet looked at
    ahead: Ahead = NOT_AHEAD  # see there
    requests: Mapping[bytes, Request] = field(default_factory=dict)  # by what was asked for
    peers: tuple[Peer, ...] = ()  # heard of lately, oldest first
    weighed: tuple[View, int, int] = (NO_VIEW, 0, 0)  # view, mempool version and evidence: there was nothing to say
    standstill_ms: TimeMs = NO_TIME  # when to send again what others may have missed
    timer_ms: TimeMs = NO_TIME  # what the shell's timer is set to
    evidence: Mapping[Digest, Evidence] = field(default_factory=dict)  # by id: verified, not yet in a final block
    accused: frozenset[Digest] = frozenset()  # ids of evidence already reported
    unjustified: Mapping[Digest, BadJustification] = field(default_factory=dict)  # by block: what is wrong with it

    @property
    def final_view(self) -> View:
        """The last view known to be final, whether its block is here or not."""
        certified = View(0) if self.finalization is None else self.finalization.content.view
        return max(certified, self.tip.view)


def find_block(state: State, block: Digest) -> Block | None:
    """The block above the stored tip with that hash, executed or not, or None."""
    entry = state.executed.get(block)
    return entry.block if entry is not None else state.bodies.get(block)


def last_votes(state: State, count: int) -> tuple[Vote, ...]:
    """Own votes of the newest `count` views that have any, oldest first."""
    views = sorted(state.own)[-count:]
    return tuple(vote for view in views for vote in state.own[view].listed())

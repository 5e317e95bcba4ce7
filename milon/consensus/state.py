"""What an engine knows at one moment: a value that only `engine.step` replaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from milon.base.ids import AccountId, Digest
from milon.base.units import Count, Height, TimeMs, View
from milon.chain.block import Block, Receipt
from milon.chain.certificate import Certificate, Vote
from milon.chain.learning import ClosedRound
from milon.consensus.events import Peer
from milon.consensus.mempool import Mempool
from milon.consensus.messages import Proposal
from milon.consensus.quorum import Pool
from milon.consensus.votes import OwnVotes

NO_VIEW = View(0)  # before the first
NO_TIME = TimeMs(0)  # long ago


@dataclass(frozen=True, slots=True)
class Ancestor:
    """What a block must know of its parent."""

    height: Height  # 0 for genesis
    hash: Digest  # of the header, or of the genesis
    view: View  # 0 for genesis
    time_ms: TimeMs  # its own
    beacon: Digest  # its own
    state_root: Digest  # after it


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
class State:
    """All of it. Mappings by view hold views above the last final one only, but for what the note says."""

    tip: Ancestor  # the newest block handed out for commit
    view: View  # the current one
    entered_ms: TimeMs  # when it became so
    delta_ms: Count  # the assumed message delay, for the timers of this view
    mempool: Mempool  # transactions waiting
    finalization: Certificate | None = None  # the newest known, perhaps above the tip
    pools: Mapping[View, Pool] = field(default_factory=dict)  # votes, for views near the current one
    notarizations: Mapping[View, Certificate] = field(default_factory=dict)  # the last final view's too
    nullifications: Mapping[View, Certificate] = field(default_factory=dict)  # one a view
    verified: Mapping[Digest, View] = field(default_factory=dict)  # hashes of certificates' exact bytes
    proposals: Mapping[View, Proposal] = field(default_factory=dict)  # the first of each view
    parts: Mapping[Digest, tuple[Certificate, ...]] = field(default_factory=dict)  # justifications beyond the proposal
    bodies: Mapping[Digest, Block] = field(default_factory=dict)  # blocks above the tip, not yet executed
    executed: Mapping[Digest, Executed] = field(default_factory=dict)  # and final ones until the store has them
    refused: Mapping[Digest, View] = field(default_factory=dict)  # blocks found invalid for ever
    own: Mapping[View, OwnVotes] = field(default_factory=dict)  # what this validator signed
    signed_view: View = NO_VIEW  # the highest view signed in
    floor: View = NO_VIEW  # nothing is signed in views up to this one: their votes may be lost from the log
    requests: Mapping[bytes, Request] = field(default_factory=dict)  # by what was asked for
    peers: tuple[Peer, ...] = ()  # heard of lately, oldest first
    weighed: tuple[View, int] = (NO_VIEW, 0)  # view and mempool version in which there was nothing to say
    standstill_ms: TimeMs = NO_TIME  # when to send again what others may have missed
    timer_ms: TimeMs = NO_TIME  # what the shell's timer is set to
    accused: frozenset[tuple[View, AccountId]] = frozenset()  # contradictions already reported

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

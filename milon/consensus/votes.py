"""The only place that signs votes, and the rules about which ones.

In one view a validator signs at most one NOTARIZE, one NULLIFY and one FINALIZE. NOTARIZE comes first or never: not
after any own vote in that view, and only in the current view. NULLIFY may follow NOTARIZE, for a block that others
did not get in time, but never FINALIZE. FINALIZE may follow NOTARIZE of the same block, but never NULLIFY. Nothing is
signed below the highest epoch and view signed in, nor up to the floor that a restart sets where the log lost votes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from milon.base.units import Epoch, View
from milon.chain.certificate import Vote, VoteContent, VoteKind
from milon.consensus.application import Config

Place = tuple[Epoch, View]  # where in the chain's life something is signed: ordered by epoch, then by view


@dataclass(frozen=True, slots=True)
class OwnVotes:
    """What this validator signed in one view."""

    notarize: Vote | None = None  # for a block
    nullify: Vote | None = None  # for skipping
    finalize: Vote | None = None  # for a block

    def listed(self) -> tuple[Vote, ...]:
        """The votes there are."""
        return tuple(vote for vote in (self.notarize, self.nullify, self.finalize) if vote is not None)


NO_VOTES = OwnVotes()


def may_notarize(own: OwnVotes) -> bool:
    """Only as the first vote in its view."""
    return own == NO_VOTES


def may_nullify(own: OwnVotes) -> bool:
    """Once, and not where finality was voted for."""
    return own.nullify is None and own.finalize is None


def may_finalize(own: OwnVotes, content: VoteContent) -> bool:
    """Once, not where skipping was voted for, and for no other block than the one notarized."""
    if own.finalize is not None or own.nullify is not None:
        return False
    return own.notarize is None or own.notarize.content.block == content.block


def is_allowed(own: OwnVotes, content: VoteContent, current: Place, signed: Place, floor: Place) -> bool:
    """Whether this validator, in epoch and view `current`, may sign `content`.

    `own` is what it signed in that view, `signed` the highest place it signed in, and up to `floor` it signs nothing.
    """
    place = (content.epoch, content.view)
    if place <= floor or place < signed or content.epoch != current[0]:
        return False
    if content.kind is VoteKind.FINALIZE:
        return may_finalize(own, content)
    if place != current:
        return False
    return may_notarize(own) if content.kind is VoteKind.NOTARIZE else may_nullify(own)


def with_own_vote(own: OwnVotes, vote: Vote) -> OwnVotes:
    """The view's votes with one more."""
    if vote.content.kind is VoteKind.NOTARIZE:
        return replace(own, notarize=vote)
    if vote.content.kind is VoteKind.NULLIFY:
        return replace(own, nullify=vote)
    return replace(own, finalize=vote)


def sign_if_allowed(
    config: Config, own: OwnVotes, content: VoteContent, current: Place, signed: Place, floor: Place
) -> Vote | None:
    """The signed vote, or None where the rules (see `is_allowed`) or the lack of a validator's key forbid it."""
    if config.key is None or not is_allowed(own, content, current, signed, floor):
        return None
    return config.cryptography.sign_vote(config.key, config.chain_id, content)

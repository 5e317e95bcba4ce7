"""What a validator may sign, as a table over everything it may have signed in the view before."""

from dataclasses import replace

import pytest

from milon.base.ids import Digest
from milon.base.signing import secret_key_from
from milon.base.units import Epoch, View
from milon.chain.certificate import Vote, VoteContent, VoteKind, sign_vote
from milon.consensus.votes import NO_VOTES, OwnVotes, is_allowed, with_own_vote

KEY = secret_key_from("signer")
BLOCK, OTHER = Digest(b"b" * 32), Digest(b"o" * 32)
VIEW = View(5)


def _content(kind: VoteKind, block: Digest = BLOCK, view: View = VIEW) -> VoteContent:
    return VoteContent(kind, Epoch(0), view, None if kind is VoteKind.NULLIFY else block)


def _at(view: int, epoch: int = 0) -> tuple[Epoch, View]:
    return Epoch(epoch), View(view)


def _vote(kind: VoteKind, block: Digest = BLOCK) -> Vote:
    return sign_vote(KEY, "votes", _content(kind, block))


def _own(*votes: Vote) -> OwnVotes:
    own = NO_VOTES
    for vote in votes:
        own = with_own_vote(own, vote)
    return own


NOTARIZED = _own(_vote(VoteKind.NOTARIZE))
NULLIFIED = _own(_vote(VoteKind.NULLIFY))
FINALIZED = _own(_vote(VoteKind.FINALIZE))
BOTH = _own(_vote(VoteKind.NOTARIZE), _vote(VoteKind.NULLIFY))
DONE = _own(_vote(VoteKind.NOTARIZE), _vote(VoteKind.FINALIZE))


@pytest.mark.parametrize(
    ("own", "notarize", "nullify", "finalize", "finalize_other"),
    [
        (NO_VOTES, True, True, True, True),
        (NOTARIZED, False, True, True, False),
        (NULLIFIED, False, False, False, False),
        (FINALIZED, False, False, False, False),
        (BOTH, False, False, False, False),
        (DONE, False, False, False, False),
    ],
)
def test_the_rules(own: OwnVotes, notarize: bool, nullify: bool, finalize: bool, finalize_other: bool) -> None:
    contents = (
        _content(VoteKind.NOTARIZE),
        _content(VoteKind.NULLIFY),
        _content(VoteKind.FINALIZE),
        _content(VoteKind.FINALIZE, OTHER),
    )
    found = tuple(is_allowed(own, content, _at(VIEW), _at(VIEW), _at(0)) for content in contents)
    assert found == (notarize, nullify, finalize, finalize_other)


@pytest.mark.parametrize("kind", list(VoteKind))
def test_nothing_is_signed_below_what_was_signed_or_up_to_the_floor(kind: VoteKind) -> None:
    content = _content(kind)
    assert is_allowed(NO_VOTES, content, _at(VIEW), _at(5), _at(4))
    assert not is_allowed(NO_VOTES, content, _at(VIEW), _at(6), _at(4))
    assert not is_allowed(NO_VOTES, content, _at(VIEW), _at(5), _at(5))


def test_only_finality_may_be_voted_for_outside_the_current_view() -> None:
    allowed = [kind for kind in VoteKind if is_allowed(NO_VOTES, _content(kind), _at(6), _at(4), _at(0))]
    assert allowed == [VoteKind.FINALIZE]


@pytest.mark.parametrize("kind", list(VoteKind))
def test_epochs_come_before_views(kind: VoteKind) -> None:
    content = _content(kind)
    assert not is_allowed(NO_VOTES, content, _at(5, epoch=1), _at(4), _at(0)), "a vote of an epoch that is over"
    assert not is_allowed(NO_VOTES, content, _at(5), _at(1, epoch=1), _at(0)), "something was signed in the next epoch"
    assert not is_allowed(NO_VOTES, content, _at(5), _at(4), _at(1, epoch=1))
    later = replace(content, epoch=Epoch(1))
    assert is_allowed(NO_VOTES, later, _at(5, epoch=1), _at(900), _at(900))

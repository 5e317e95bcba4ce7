"""Pools and certificates: power decides, one vote a validator and kind, contradictions are found."""

import pytest

from milon.base.ids import Digest
from milon.base.signing import secret_key_from
from milon.base.units import Epoch, Power, View
from milon.chain.certificate import Validator, Vote, VoteContent, VoteKind, sign_vote, verify_certificate
from milon.consensus.quorum import EMPTY_POOL, Pool, build_certificate, find_contradiction, is_quorum, with_vote

KEYS = sorted((secret_key_from(f"quorum-{index}") for index in range(4)), key=lambda key: key.account)
VALIDATORS = tuple(Validator(key.account, Power(power)) for key, power in zip(KEYS, (1, 1, 1, 6), strict=True))
BLOCK, OTHER = Digest(b"b" * 32), Digest(b"o" * 32)


def _vote(index: int, kind: VoteKind, block: Digest | None = BLOCK) -> Vote:
    content = VoteContent(kind, Epoch(0), View(3), None if kind is VoteKind.NULLIFY else block)
    return sign_vote(KEYS[index], "quorum", content)


def _pool(*votes: Vote) -> Pool:
    pool = EMPTY_POOL
    for vote in votes:
        pool = with_vote(pool, vote)
    return pool


@pytest.mark.parametrize(("power", "total", "enough"), [(2, 3, False), (3, 3, True), (66, 99, False), (67, 99, True)])
def test_more_than_two_thirds_are_needed(power: int, total: int, enough: bool) -> None:
    assert is_quorum(power, total) is enough


def test_a_certificate_needs_power_not_heads() -> None:
    content = _vote(0, VoteKind.NOTARIZE).content
    three = _pool(*(_vote(index, VoteKind.NOTARIZE) for index in (2, 1, 0)))
    assert build_certificate(three, content, VALIDATORS) is None
    two = _pool(_vote(3, VoteKind.NOTARIZE), _vote(0, VoteKind.NOTARIZE))
    certificate = build_certificate(two, content, VALIDATORS)
    assert certificate is not None and certificate.signers == (KEYS[0].account, KEYS[3].account)
    verify_certificate(certificate, "quorum", VALIDATORS)


def test_votes_for_something_else_do_not_count() -> None:
    pool = _pool(_vote(3, VoteKind.NOTARIZE), _vote(0, VoteKind.NOTARIZE, OTHER), _vote(1, VoteKind.NULLIFY))
    assert build_certificate(pool, _vote(0, VoteKind.NOTARIZE).content, VALIDATORS) is None


def test_the_first_vote_of_a_kind_stays() -> None:
    pool = _pool(_vote(0, VoteKind.NOTARIZE), _vote(0, VoteKind.NOTARIZE, OTHER))
    assert pool[(VoteKind.NOTARIZE, KEYS[0].account)].content.block == BLOCK


@pytest.mark.parametrize(
    ("first", "second", "is_contradiction"),
    [
        ((VoteKind.NOTARIZE, BLOCK), (VoteKind.NOTARIZE, OTHER), True),
        ((VoteKind.FINALIZE, BLOCK), (VoteKind.FINALIZE, OTHER), True),
        ((VoteKind.NULLIFY, None), (VoteKind.FINALIZE, BLOCK), True),
        ((VoteKind.NOTARIZE, BLOCK), (VoteKind.FINALIZE, OTHER), True),
        ((VoteKind.NOTARIZE, BLOCK), (VoteKind.NULLIFY, None), False),
        ((VoteKind.NOTARIZE, BLOCK), (VoteKind.FINALIZE, BLOCK), False),
        ((VoteKind.NOTARIZE, BLOCK), (VoteKind.NOTARIZE, BLOCK), False),
    ],
)
def test_contradictions_are_found_in_either_order(
    first: tuple[VoteKind, Digest | None], second: tuple[VoteKind, Digest | None], is_contradiction: bool
) -> None:
    for one, two in ((first, second), (second, first)):
        pool = _pool(_vote(0, *one))
        assert (find_contradiction(pool, _vote(0, *two)) is not None) is is_contradiction
        assert find_contradiction(pool, _vote(1, *two)) is None

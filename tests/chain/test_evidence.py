"""Evidence: each offence is proven from bytes alone, and nothing an honest validator signs can be turned into one."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest, Signature, VrfProof
from milon.base.merkle import compute_root
from milon.base.signing import SecretKey, secret_key_from
from milon.base.units import Count, Epoch, Height, Power, TimeMs, View
from milon.chain.certificate import Certificate, Validator, Vote, VoteContent, VoteKind, sign_vote
from milon.chain.evidence import (
    BadJustification,
    Contradiction,
    Evidence,
    Offence,
    compute_evidence_id,
    make_bad_justification,
    make_contradiction,
    offence_of,
    verify_evidence,
)
from milon.chain.header import Header, compute_header_hash

CHAIN = "evidence"
KEYS = sorted((secret_key_from(f"validator-{index}") for index in range(4)), key=lambda key: key.account)
VALIDATORS = tuple(Validator(key.account, Power(10)) for key in KEYS)
ONE, OTHER = Digest(b"1" * 32), Digest(b"2" * 32)


def _vote(kind: VoteKind, block: Digest | None, view: int = 7, key: SecretKey = KEYS[1], chain: str = CHAIN) -> Vote:
    return sign_vote(key, chain, VoteContent(kind, Epoch(3), View(view), block))


def _certificate(kind: VoteKind, view: int, block: Digest | None, keys: Sequence[SecretKey] = KEYS[:3]) -> Certificate:
    content = VoteContent(kind, Epoch(3), View(view), block)
    votes = [sign_vote(key, CHAIN, content) for key in keys]
    return Certificate(content, tuple(vote.signer for vote in votes), tuple(vote.signature for vote in votes))


def _header(entries: Sequence[bytes], view: int = 7, parent_view: int = 4) -> Header:
    return Header(
        chain_id=CHAIN,
        version=Count(1),
        height=Height(5),
        epoch=Epoch(3),
        view=View(view),
        parent_hash=ONE,
        parent_view=View(parent_view),
        proposer=KEYS[1].account,
        time_ms=TimeMs(1),
        transactions_root=ONE,
        receipts_root=ONE,
        state_root=ONE,
        evidence_root=ONE,
        learning_root=ONE,
        validators_hash=ONE,
        next_validators_hash=ONE,
        parameters_hash=ONE,
        justification_hash=compute_root(entries),
        vrf=VrfProof(bytes(80)),
        beacon=ONE,
    )


def _entries() -> list[bytes]:
    """A valid justification of view 7 on a parent of view 4."""
    certificates = [
        _certificate(VoteKind.NOTARIZE, 4, ONE),
        _certificate(VoteKind.NULLIFY, 5, None),
        _certificate(VoteKind.NULLIFY, 6, None),
    ]
    return [encode(certificate) for certificate in certificates]


def _accuse(entries: Sequence[bytes], index: int, **changes: int) -> BadJustification:
    header = _header(entries, **changes)
    return make_bad_justification(_vote(VoteKind.NOTARIZE, compute_header_hash(header)), header, entries, index)


@pytest.mark.parametrize(
    ("one", "other", "offence"),
    [
        ((VoteKind.NOTARIZE, ONE), (VoteKind.NOTARIZE, OTHER), Offence.NOTARIZE_TWICE),
        ((VoteKind.FINALIZE, OTHER), (VoteKind.FINALIZE, ONE), Offence.FINALIZE_TWICE),
        ((VoteKind.NULLIFY, None), (VoteKind.FINALIZE, ONE), Offence.NULLIFY_AND_FINALIZE),
    ],
)
def test_two_votes_that_exclude_each_other_convict_their_signer(
    one: tuple[VoteKind, Digest | None], other: tuple[VoteKind, Digest | None], offence: Offence
) -> None:
    evidence = make_contradiction(_vote(*one), _vote(*other))
    assert evidence == make_contradiction(_vote(*other), _vote(*one))
    assert offence_of(evidence) is offence
    assert verify_evidence(evidence, CHAIN, VALIDATORS) == KEYS[1].account
    assert decode(Contradiction, encode(evidence)) == evidence


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (_vote(VoteKind.NOTARIZE, ONE), _vote(VoteKind.NULLIFY, None)),
        (_vote(VoteKind.NOTARIZE, ONE), _vote(VoteKind.FINALIZE, ONE)),
        (_vote(VoteKind.NOTARIZE, ONE), _vote(VoteKind.NOTARIZE, ONE)),
        (_vote(VoteKind.NOTARIZE, ONE), _vote(VoteKind.NOTARIZE, OTHER, view=8)),
        (_vote(VoteKind.NOTARIZE, ONE), _vote(VoteKind.NOTARIZE, OTHER, key=KEYS[2])),
        (_vote(VoteKind.NOTARIZE, OTHER), _vote(VoteKind.NOTARIZE, ONE)),
        (_vote(VoteKind.NOTARIZE, ONE), _vote(VoteKind.NOTARIZE, OTHER, chain="another")),
        (_vote(VoteKind.NOTARIZE, ONE), replace(_vote(VoteKind.NOTARIZE, OTHER), signature=Signature(bytes(64)))),
    ],
)
def test_what_contradicts_nothing_convicts_nobody(first: Vote, second: Vote) -> None:
    with pytest.raises(Rejected):
        verify_evidence(Contradiction(first, second), CHAIN, VALIDATORS)


def test_a_stranger_cannot_be_convicted() -> None:
    evidence = make_contradiction(_vote(VoteKind.NOTARIZE, ONE), _vote(VoteKind.NOTARIZE, OTHER))
    with pytest.raises(Rejected) as refused:
        verify_evidence(evidence, CHAIN, VALIDATORS[:1])
    assert refused.value.reason is Reason.NOT_ALLOWED


def test_a_valid_justification_convicts_nobody() -> None:
    for index in range(3):
        with pytest.raises(Rejected) as refused:
            verify_evidence(_accuse(_entries(), index), CHAIN, VALIDATORS)
        assert refused.value.reason is Reason.BAD_PROOF
    genesis = [b"", *(encode(_certificate(VoteKind.NULLIFY, view, None)) for view in range(1, 7))]
    for index in range(7):
        with pytest.raises(Rejected):
            verify_evidence(_accuse(genesis, index, parent_view=0), CHAIN, VALIDATORS)


@pytest.mark.parametrize(
    ("index", "entry"),
    [
        (1, encode(_certificate(VoteKind.NOTARIZE, 5, OTHER))),  # a notarized view is skipped
        (1, encode(_certificate(VoteKind.NULLIFY, 6, None))),  # of another view
        (1, encode(_certificate(VoteKind.NULLIFY, 5, None, KEYS[:2]))),  # too few
        (0, encode(_certificate(VoteKind.NOTARIZE, 4, OTHER))),  # of another parent
        (2, b"no certificate"),
        (0, b""),
    ],
)
def test_a_bad_entry_convicts_whoever_notarized_it(index: int, entry: bytes) -> None:
    entries = _entries()
    entries[index] = entry
    evidence = _accuse(entries, index)
    assert verify_evidence(evidence, CHAIN, VALIDATORS) == KEYS[1].account
    assert decode(BadJustification, encode(evidence)) == evidence
    for good in {0, 1, 2} - {index}:
        with pytest.raises(Rejected):
            verify_evidence(_accuse(entries, good), CHAIN, VALIDATORS)


def test_an_entry_that_the_header_does_not_commit_to_convicts_nobody() -> None:
    evidence = _accuse(_entries(), 1)
    other_vote = replace(evidence, vote=_vote(VoteKind.NOTARIZE, ONE))
    other_header = replace(evidence, header=replace(evidence.header, time_ms=TimeMs(2)))
    more_entries = _accuse([*_entries(), b"bad"], 3)
    for broken in (replace(evidence, entry=b"bad"), replace(evidence, index=Count(3)), other_vote, other_header):
        with pytest.raises(Rejected):
            verify_evidence(broken, CHAIN, VALIDATORS)
    with pytest.raises(Rejected):
        verify_evidence(more_entries, CHAIN, VALIDATORS)


def test_evidence_is_one_per_offender_view_and_offence() -> None:
    third = Digest(b"3" * 32)
    pieces: list[Evidence] = [
        make_contradiction(_vote(VoteKind.NOTARIZE, ONE), _vote(VoteKind.NOTARIZE, OTHER)),
        make_contradiction(_vote(VoteKind.NOTARIZE, third), _vote(VoteKind.NOTARIZE, OTHER)),
        make_contradiction(_vote(VoteKind.FINALIZE, ONE), _vote(VoteKind.FINALIZE, OTHER)),
        make_contradiction(_vote(VoteKind.NOTARIZE, ONE, view=8), _vote(VoteKind.NOTARIZE, OTHER, view=8)),
        make_contradiction(_vote(VoteKind.NOTARIZE, ONE, key=KEYS[0]), _vote(VoteKind.NOTARIZE, OTHER, key=KEYS[0])),
        _accuse([b"bad"] * 3, 0),
        _accuse([b"bad"] * 3, 1),
    ]
    names = [compute_evidence_id(piece) for piece in pieces]
    assert names[0] == names[1] and names[5] == names[6]
    assert len({bytes(name) for name in names}) == 5

"""Proof that a validator broke the rules of voting: two votes that no honest validator signs, or one it must not.

Four offences are provable from bytes alone, by anybody who knows the validators of their epoch:

    two NOTARIZE for different blocks in one view          both would build different chains
    two FINALIZE for different blocks in one view          both would be final
    NULLIFY and FINALIZE in one view                       the view would be skipped and final
    NOTARIZE for a block whose committed justification     a certificate in it is none, or is another view's,
    is invalid                                             so that the block skips what must not be skipped

The fourth shows one entry of the justification, opened against the header's commitment. The number of entries follows
from the header, so that an honest validator, which saw every entry in those bytes, can never be accused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from milon.base.codec import decode, encode, wire
from milon.base.errors import Reason, Rejected, require
from milon.base.hashing import digest
from milon.base.ids import AccountId, Digest
from milon.base.merkle import compute_proof, compute_root, verify_proof
from milon.base.units import Count, Epoch, View
from milon.chain.certificate import (
    Certificate,
    Validator,
    Vote,
    VoteContent,
    VoteKind,
    verify_certificate,
    verify_vote,
)
from milon.chain.header import Header, compute_header_hash

EVIDENCE_MAX = 32  # pieces in a block: those of the largest set's third come into six blocks
EVIDENCE_BYTES_MAX = 512 << 10  # in a block: seven opened certificates of the largest set, or 32 pairs of votes
ENTRY_MAX_BYTES = 64 << 10  # an opened entry: a certificate of the largest set has 51 KiB


class Offence(IntEnum):
    """What a piece of evidence shows."""

    NOTARIZE_TWICE = 1  # two blocks in one view
    FINALIZE_TWICE = 2  # two blocks in one view
    NULLIFY_AND_FINALIZE = 3  # one view skipped and final
    BAD_JUSTIFICATION = 4  # NOTARIZE for a block that commits to what justifies nothing


@wire("contradiction/1")
@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two votes of one validator in one view that exclude each other."""

    first: Vote  # whose encoded content is the smaller
    second: Vote  # the other


@wire("bad-justification/1")
@dataclass(frozen=True, slots=True)
class BadJustification:
    """A NOTARIZE, its block's header, and an entry of the justification that it commits to, which is invalid."""

    vote: Vote  # the offender's NOTARIZE
    header: Header  # of the block
    index: Count  # of the entry: 0 the parent's, i that of view parent + i
    entry: bytes  # the entry's bytes
    opening: tuple[Digest, ...]  # Merkle path from the entry to the header's commitment


Evidence = Contradiction | BadJustification


def make_contradiction(one: Vote, other: Vote) -> Contradiction:
    """The two votes in their one order."""
    first, second = sorted((one, other), key=lambda vote: encode(vote.content))
    return Contradiction(first, second)


def make_bad_justification(vote: Vote, header: Header, entries: Sequence[bytes], index: int) -> BadJustification:
    """The evidence that entry `index` of all the justification's entries is bad."""
    return BadJustification(vote, header, Count(index), entries[index], compute_proof(entries, index))


def _vote_of(evidence: Evidence) -> Vote:
    return evidence.first if isinstance(evidence, Contradiction) else evidence.vote


def offender_of(evidence: Evidence) -> AccountId:
    """Whom the evidence accuses; what it is worth, `verify_evidence` finds."""
    return _vote_of(evidence).signer


def epoch_of(evidence: Evidence) -> Epoch:
    """The epoch of the offence, whose validators must judge it."""
    return _vote_of(evidence).content.epoch


def view_of(evidence: Evidence) -> View:
    """The view of the offence."""
    return _vote_of(evidence).content.view


def find_offence(one: VoteContent, other: VoteContent) -> Offence | None:
    """What it is to have signed both, in whichever order; None where an honest validator may."""
    if (one.epoch, one.view) != (other.epoch, other.view):
        return None
    kinds = {one.kind, other.kind}
    if kinds == {VoteKind.NULLIFY, VoteKind.FINALIZE}:
        return Offence.NULLIFY_AND_FINALIZE
    if len(kinds) == 2 or one.block == other.block:
        return None
    return Offence.NOTARIZE_TWICE if one.kind is VoteKind.NOTARIZE else Offence.FINALIZE_TWICE


def offence_of(evidence: Evidence) -> Offence:
    """The offence; `Rejected(BAD_PROOF)` where two votes contradict nothing."""
    if isinstance(evidence, BadJustification):
        return Offence.BAD_JUSTIFICATION
    offence = find_offence(evidence.first.content, evidence.second.content)
    if offence is None:
        raise Rejected(Reason.BAD_PROOF, "an honest validator may sign both votes")
    return offence


def compute_evidence_id(evidence: Evidence) -> Digest:
    """Names offender, epoch, view and offence: other bytes for the same are no second piece of evidence."""
    place = (epoch_of(evidence), view_of(evidence), int(offence_of(evidence)))
    return digest("evidence", offender_of(evidence), *(number.to_bytes(8, "big") for number in place))


def compute_evidence_root(evidence: Sequence[Evidence]) -> Digest:
    """What the header commits to."""
    return compute_root([encode(piece) for piece in evidence])


def count_entries(header: Header) -> int:
    """How many entries the header's justification has; the first is empty where the parent's view is 0."""
    return header.view - header.parent_view


def verify_entry_content(header: Header, index: int, content: VoteContent) -> None:
    """Raise `Rejected(DIFFERS)` unless a certificate for `content` is what entry `index` must be."""
    require(content.epoch == header.epoch, Reason.DIFFERS, "a certificate of another epoch")
    if index == 0:
        is_parent = content.view == header.parent_view and content.block == header.parent_hash
        require(is_parent and content.kind is not VoteKind.NULLIFY, Reason.DIFFERS, "not the parent's certificate")
        return
    view = header.parent_view + index
    is_skip = content.kind is VoteKind.NULLIFY and content.view == view
    require(is_skip, Reason.DIFFERS, f"no nullification of view {view}")


VerifyVote = Callable[[Vote, str], None]
VerifyCertificate = Callable[[Certificate, str, Sequence[Validator]], None]


def verify_evidence(
    evidence: Evidence,
    chain_id: str,
    validators: Sequence[Validator],
    verify_vote: VerifyVote = verify_vote,
    verify_certificate: VerifyCertificate = verify_certificate,
) -> AccountId:
    """The offender, one of the `validators` of the evidence's epoch.

    Raises `Rejected` unless the evidence is in its one form, signed by the offender, and shows an offence. Whether it
    is too old or known already is not looked at here.
    """
    offender = offender_of(evidence)
    is_validator = any(validator.account == offender for validator in validators)
    require(is_validator, Reason.NOT_ALLOWED, f"{offender.hex()[:8]} was not a validator")
    if isinstance(evidence, Contradiction):
        _verify_contradiction(evidence, chain_id, verify_vote)
    else:
        verify_vote(evidence.vote, chain_id)
        _verify_opened(evidence)
        require(
            not _holds(evidence, chain_id, validators, verify_certificate),
            Reason.BAD_PROOF,
            "the entry of the justification holds",
        )
    return offender


def _verify_contradiction(evidence: Contradiction, chain_id: str, verify_vote: VerifyVote) -> None:
    first, second = evidence.first, evidence.second
    require(first.signer == second.signer, Reason.BAD_PROOF, "votes of two validators")
    offence_of(evidence)
    is_ordered = encode(first.content) < encode(second.content)
    require(is_ordered, Reason.NOT_CANONICAL, "the votes are out of order")
    verify_vote(first, chain_id)
    verify_vote(second, chain_id)


def _verify_opened(evidence: BadJustification) -> None:
    """Raise `Rejected` unless the vote is for the header and the entry is what the header commits to."""
    header, content = evidence.header, evidence.vote.content
    expected = VoteContent(VoteKind.NOTARIZE, header.epoch, header.view, compute_header_hash(header))
    require(content == expected, Reason.BAD_PROOF, "the vote is not for the block")
    require(len(evidence.entry) <= ENTRY_MAX_BYTES, Reason.TOO_LARGE, f"an entry of {len(evidence.entry)} bytes")
    count = count_entries(header)
    verify_proof(header.justification_hash, evidence.entry, evidence.index, count, evidence.opening)


def _holds(
    evidence: BadJustification,
    chain_id: str,
    validators: Sequence[Validator],
    verify_certificate: VerifyCertificate,
) -> bool:
    """Whether the entry is what an honest validator would accept there."""
    header = evidence.header
    if evidence.index == 0 and header.parent_view == 0:
        return evidence.entry == b""
    try:
        certificate = decode(Certificate, evidence.entry, ENTRY_MAX_BYTES)
        verify_entry_content(header, evidence.index, certificate.content)
        verify_certificate(certificate, chain_id, validators)
    except Rejected:
        return False
    return True

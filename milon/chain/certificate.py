"""Votes of validators, and certificates: enough votes of one kind for one thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from milon.base.codec import encode, wire
from milon.base.errors import Reason, require
from milon.base.hashing import digest
from milon.base.ids import AccountId, Digest, Signature
from milon.base.signing import SecretKey, sign, verify
from milon.base.units import Count, Epoch, Power, View


class VoteKind(IntEnum):
    """The three votes of Simplex."""

    NOTARIZE = 1  # this block is valid and the only one I support in this view
    NULLIFY = 2  # this view should be skipped
    FINALIZE = 3  # I saw the notarization and did not nullify


@wire("validator/2")
@dataclass(frozen=True, slots=True)
class Validator:
    """A member of the set."""

    account: AccountId  # its key
    power: Power  # its stake
    learning: Count = Count(0)  # protocol fees burned for segments of its that were verified, halved each epoch


@wire("vote-content/1")
@dataclass(frozen=True, slots=True)
class VoteContent:
    """What a vote says; under a signature with a domain per kind and the chain id."""

    kind: VoteKind  # see there
    epoch: Epoch  # which
    view: View  # which
    block: Digest | None  # header hash; none for NULLIFY


@wire("vote/1")
@dataclass(frozen=True, slots=True)
class Vote:
    """One validator's vote."""

    content: VoteContent  # what
    signer: AccountId  # who
    signature: Signature  # over the content


@wire("certificate/1")
@dataclass(frozen=True, slots=True)
class Certificate:
    """Votes of power >= Q for one content."""

    content: VoteContent  # what
    signers: tuple[AccountId, ...]  # in the validator set's order, no duplicates
    signatures: tuple[Signature, ...]  # one a signer


def _domain(kind: VoteKind) -> str:
    return f"vote-{kind.name.lower()}"


def sign_vote(key: SecretKey, chain_id: str, content: VoteContent) -> Vote:
    """The vote with its signature."""
    return Vote(content, key.account, sign(key, _domain(content.kind), chain_id, encode(content)))


def verify_vote(vote: Vote, chain_id: str) -> None:
    """Raise `Rejected` unless the vote is well formed and signed by its signer."""
    verify_content(vote.content)
    verify(vote.signer, _domain(vote.content.kind), chain_id, encode(vote.content), vote.signature)


def verify_content(content: VoteContent) -> None:
    """Raise `Rejected` unless NULLIFY names no block and the others name one, in a view that exists."""
    require((content.block is None) == (content.kind is VoteKind.NULLIFY), Reason.MALFORMED, "vote and block disagree")
    require(content.view >= 1, Reason.OUT_OF_RANGE, "views start at 1")


def compute_quorum(total: int) -> Power:
    """Q = floor(2W/3) + 1: two quorums share more than a third of the power."""
    return Power(2 * total // 3 + 1)


def compute_validators_hash(validators: Sequence[Validator]) -> Digest:
    """What headers commit to; the set is ordered by account."""
    return digest("validators", *(encode(validator) for validator in validators))


def verify_certificate(certificate: Certificate, chain_id: str, validators: Sequence[Validator]) -> None:
    """Raise `Rejected` unless the certificate carries valid votes of power >= Q, in validator order, none twice."""
    verify_content(certificate.content)
    powers: Mapping[AccountId, Power] = {validator.account: validator.power for validator in validators}
    places = {validator.account: index for index, validator in enumerate(validators)}
    count = len(certificate.signers)
    require(count == len(certificate.signatures), Reason.MALFORMED, "signers and signatures do not pair")
    require(count <= len(validators), Reason.TOO_LARGE, "more signers than validators")
    previous = -1
    power = 0
    for signer in certificate.signers:
        require(signer in places, Reason.NOT_ALLOWED, f"{signer.hex()[:8]} is not a validator")
        require(places[signer] > previous, Reason.NOT_CANONICAL, "signers are out of order or double")
        previous = places[signer]
        power += powers[signer]
    quorum = compute_quorum(sum(powers.values()))
    require(power >= quorum, Reason.TOO_FEW, f"power {power} where {quorum} is needed")
    domain, raw = _domain(certificate.content.kind), encode(certificate.content)
    for signer, signature in zip(certificate.signers, certificate.signatures, strict=True):
        verify(signer, domain, chain_id, raw, signature)

"""An attestation is committed to before it is shown, so that nobody can wait for the others' and copy them."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.codec import encode, wire
from milon.base.hashing import digest
from milon.base.ids import AccountId, ClaimId, Digest, VrfProof


@wire("attestation-content/1")
@dataclass(frozen=True, slots=True)
class AttestationContent:
    """What a committee member says of a claim: all of its sample replays to the same bits."""

    claim: ClaimId  # which
    proof: VrfProof  # why this sample
    keyed_traces: Digest  # over the sample's traces and the verifier's name


def commit_attestation(verifier: AccountId, content: AttestationContent, salt: Digest) -> Digest:
    """What a member shows first: it binds, reveals nothing, and under another's name it is worth nothing."""
    return digest("attestation", verifier, encode(content), salt)

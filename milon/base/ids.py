"""Names for byte strings that identify things; each has one fixed length, in bytes."""

from typing import NewType

Digest = NewType("Digest", bytes)  # SHA-256 of something
AccountId = NewType("AccountId", bytes)  # an ed25519 public key: whoever can sign for it owns the account
Signature = NewType("Signature", bytes)  # an ed25519 signature
VrfProof = NewType("VrfProof", bytes)  # an ECVRF-EDWARDS25519-SHA512-TAI proof, RFC 9381
JobId = NewType("JobId", bytes)  # the digest of the transaction that submitted the job
ClaimId = NewType("ClaimId", bytes)  # the digest of the transaction that made the claim

LENGTH_BYTES: dict[object, int] = {Digest: 32, AccountId: 32, Signature: 64, VrfProof: 80, JobId: 32, ClaimId: 32}

NO_DIGEST = Digest(bytes(32))


def short(identifier: bytes) -> str:
    """The first eight hexadecimal digits: for people, never for programs."""
    return identifier.hex()[:8]

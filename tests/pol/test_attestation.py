"""A commitment binds its maker to one content, and nobody else to any."""

from __future__ import annotations

from dataclasses import replace

from milon.base.ids import AccountId, ClaimId, Digest, VrfProof
from milon.pol.attestation import AttestationContent, commit_attestation

CONTENT = AttestationContent(ClaimId(bytes(32)), VrfProof(bytes(80)), Digest(bytes(32)))


def test_every_part_is_bound() -> None:
    me, salt = AccountId(bytes([1]) * 32), Digest(bytes([2]) * 32)
    made = {
        commit_attestation(me, CONTENT, salt),
        commit_attestation(AccountId(bytes([3]) * 32), CONTENT, salt),
        commit_attestation(me, CONTENT, Digest(bytes([4]) * 32)),
        commit_attestation(me, replace(CONTENT, claim=ClaimId(bytes([5]) * 32)), salt),
        commit_attestation(me, replace(CONTENT, proof=VrfProof(bytes([6]) * 80)), salt),
        commit_attestation(me, replace(CONTENT, keyed_traces=Digest(bytes([7]) * 32)), salt),
    }
    assert len(made) == 6
    assert commit_attestation(me, CONTENT, salt) in made

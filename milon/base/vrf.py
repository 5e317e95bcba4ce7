"""A verifiable random function: ECVRF-EDWARDS25519-SHA512-TAI of RFC 9381, with the account's own key.

Only the key's owner can compute the output for an input, and there is exactly one; anyone can check it. Points are
32-byte encodings, scalars 32 bytes little-endian. Stricter than the RFC where that removes choice: a key and a proof's
point must lie in the prime-order subgroup, not only off its small one, so that no proof has a twin.
"""

from __future__ import annotations

import hashlib

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId, VrfProof
from milon.base.signing import (
    SecretKey,
    base_multiply,
    is_valid_point,
    point_add,
    point_multiply,
    point_subtract,
    scalar_add,
    scalar_multiply,
    scalar_reduce,
)

GROUP_ORDER = (1 << 252) + 27742317777372353535851937790883648493
FIELD_PRIME = (1 << 255) - 19
PROOF_BYTES = 80  # a point, a challenge and a scalar
OUTPUT_BYTES = 64

_POINT_BYTES = 32
_CHALLENGE_BYTES = 16
_SUITE = b"\x03"  # the suite string of ECVRF-EDWARDS25519-SHA512-TAI, RFC 9381 section 5.5
_IDENTITY = b"\x01" + bytes(31)
_COUNTER_END = 256  # one byte; each try succeeds with probability 1/2, so nobody ever sees the end


def is_valid_key(account: AccountId) -> bool:
    """Whether proofs of this key can be verified (RFC 9381 section 5.4.5, and in the prime-order subgroup)."""
    return is_valid_point(account)


def _multiply_by_cofactor(point: bytes) -> bytes:
    for _ in range(3):  # the cofactor is 8
        point = point_add(point, point)
    return point


def _hash_to_point(account: AccountId, alpha: bytes) -> bytes:
    """Try and increment, RFC 9381 section 5.4.1.1, salted with the public key."""
    for counter in range(_COUNTER_END):
        hashed = hashlib.sha512(_SUITE + b"\x01" + account + alpha + bytes((counter, 0))).digest()[:_POINT_BYTES]
        if int.from_bytes(hashed, "little") & ((1 << 255) - 1) >= FIELD_PRIME:
            continue  # RFC 8032 section 5.1.3 decodes no such encoding
        try:
            point = _multiply_by_cofactor(hashed)
        except Rejected:
            continue  # not the encoding of a point: half of all strings are none
        if point != _IDENTITY:
            return point
    raise RuntimeError("no counter gives a point; the chance of that is 2 to the -256")


def _compute_challenge(*points: bytes) -> bytes:
    """RFC 9381 section 5.4.3: 16 bytes."""
    return hashlib.sha512(_SUITE + b"\x02" + b"".join(points) + b"\x00").digest()[:_CHALLENGE_BYTES]


def _decode_proof(proof: bytes) -> tuple[bytes, bytes, bytes]:
    """Point, challenge (as a scalar) and response of a proof, RFC 9381 section 5.4.4, or `Rejected(BAD_PROOF)`."""
    require(len(proof) == PROOF_BYTES, Reason.BAD_PROOF, f"a VRF proof has {PROOF_BYTES} bytes, not {len(proof)}")
    gamma = proof[:_POINT_BYTES]
    challenge = proof[_POINT_BYTES : _POINT_BYTES + _CHALLENGE_BYTES]
    response = proof[_POINT_BYTES + _CHALLENGE_BYTES :]
    require(is_valid_point(gamma), Reason.BAD_PROOF, "the VRF proof's point is not in the prime-order subgroup")
    require(int.from_bytes(response, "little") < GROUP_ORDER, Reason.BAD_PROOF, "the VRF proof's scalar is not reduced")
    return gamma, challenge + bytes(16), response


def prove(key: SecretKey, alpha: bytes) -> VrfProof:
    """The proof for input `alpha`, RFC 9381 section 5.1: the same bytes every time."""
    account = key.account
    expanded = hashlib.sha512(key.seed).digest()
    clamped = bytes((expanded[0] & 248, *expanded[1:31], expanded[31] & 127 | 64))  # RFC 8032 section 5.1.5
    secret = scalar_reduce(clamped + bytes(32))
    point = _hash_to_point(account, alpha)
    gamma = point_multiply(secret, point)
    nonce = scalar_reduce(hashlib.sha512(expanded[32:] + point).digest())  # RFC 9381 section 5.4.2.2
    challenge = _compute_challenge(account, point, gamma, base_multiply(nonce), point_multiply(nonce, point))
    response = scalar_add(nonce, scalar_multiply(challenge + bytes(16), secret))
    return VrfProof(gamma + challenge + response)


def compute_output(proof: VrfProof) -> bytes:
    """The 64 bytes a proof stands for, RFC 9381 section 5.2; random to everyone only if the proof verifies."""
    gamma, _, _ = _decode_proof(proof)
    return hashlib.sha512(_SUITE + b"\x03" + _multiply_by_cofactor(gamma) + b"\x00").digest()


def verify(account: AccountId, alpha: bytes, proof: VrfProof) -> bytes:
    """The 64-byte output for `alpha`, RFC 9381 section 5.3; `Rejected(BAD_PROOF)` unless `proof` is that key's.

    A zero challenge or response, which no honest prover ever meets, is refused too.
    """
    require(is_valid_key(account), Reason.BAD_PROOF, "a key with which no VRF proof is accepted")
    gamma, challenge, response = _decode_proof(proof)
    point = _hash_to_point(account, alpha)
    left = point_subtract(base_multiply(response), point_multiply(challenge, account))
    right = point_subtract(point_multiply(response, point), point_multiply(challenge, gamma))
    if _compute_challenge(account, point, gamma, left, right) != challenge[:_CHALLENGE_BYTES]:
        raise Rejected(Reason.BAD_PROOF, f"the VRF proof is not {account.hex()[:8]}'s for this input")
    return compute_output(proof)

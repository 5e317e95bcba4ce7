"""The VRF: the vectors of RFC 9381 appendix B.3, exactly one output per key and input, and hostile keys and proofs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, VrfProof
from milon.base.signing import SecretKey, secret_key_from
from milon.base.vrf import GROUP_ORDER, OUTPUT_BYTES, PROOF_BYTES, compute_output, is_valid_key, prove, verify
from tests.base import curve

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rfc9381_tai.json").read_text())["examples"]
KEY = secret_key_from("leader")


def refused(account: bytes, alpha: bytes, proof: bytes) -> bool:
    with pytest.raises(Rejected) as caught:
        verify(AccountId(account), alpha, VrfProof(proof))
    return caught.value.reason is Reason.BAD_PROOF


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"example {vector['example']}")
def test_vectors_of_the_rfc(vector: dict[str, str]) -> None:
    key = SecretKey(bytes.fromhex(vector["secret"]))
    alpha, proof, output = (bytes.fromhex(vector[name]) for name in ("alpha", "proof", "output"))
    assert key.account.hex() == vector["public"]
    assert prove(key, alpha) == proof
    assert verify(key.account, alpha, VrfProof(proof)) == compute_output(VrfProof(proof)) == output


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_what_is_proved_verifies(seed: bytes, alpha: bytes) -> None:
    key = SecretKey(seed)
    proof = prove(key, alpha)
    assert len(proof) == PROOF_BYTES
    assert len(verify(key.account, alpha, proof)) == OUTPUT_BYTES
    assert prove(key, alpha) == proof
    assert refused(key.account, alpha + b"\x00", proof)
    assert refused(secret_key_from("other").account, alpha, proof)


def test_every_changed_bit_is_noticed() -> None:
    proof = prove(KEY, b"alpha")
    for bit in range(8 * PROOF_BYTES):
        changed = bytearray(proof)
        changed[bit >> 3] ^= 1 << (bit & 7)
        assert refused(KEY.account, b"alpha", bytes(changed))


def test_a_scalar_has_one_encoding() -> None:
    proof = prove(KEY, b"alpha")
    scalar = int.from_bytes(proof[48:], "little")
    for multiple in (1, 2, 15):
        assert refused(KEY.account, b"alpha", proof[:48] + (scalar + multiple * GROUP_ORDER).to_bytes(32, "little"))
    assert refused(KEY.account, b"alpha", proof[:48] + bytes(32))
    assert refused(KEY.account, b"alpha", proof[:32] + bytes(16) + proof[48:])


def test_odd_points_and_lengths_are_refused() -> None:
    proof = prove(KEY, b"alpha")
    odd = (*curve.SMALL_ORDER, *curve.ODD_ENCODINGS, curve.NOT_ON_THE_CURVE)
    for point in odd:
        assert refused(KEY.account, b"alpha", point + proof[32:])
        assert refused(point, b"alpha", proof)
        assert not is_valid_key(AccountId(point))
        with pytest.raises(Rejected):
            compute_output(VrfProof(point + proof[32:]))
    for length in (0, 1, 79, 81, 160):
        assert refused(KEY.account, b"alpha", (proof * 2)[:length])
    for length in (0, 31, 33):
        assert refused((KEY.account * 2)[:length], b"alpha", proof)


def test_a_key_or_point_moved_by_torsion_gives_no_second_proof() -> None:
    """With only the RFC's check of keys, a key of mixed order could prove where the challenge cancels its torsion."""
    proof = prove(KEY, b"alpha")
    for torsion in curve.SMALL_ORDER[1:]:
        assert refused(KEY.account, b"alpha", curve.add(proof[:32], torsion) + proof[32:])
        assert not is_valid_key(AccountId(curve.add(KEY.account, torsion)))
        assert refused(curve.add(KEY.account, torsion), b"alpha", proof)


def test_outputs_look_random() -> None:
    outputs = {compute_output(prove(KEY, bytes((number,)))) for number in range(64)}
    assert len(outputs) == 64
    ones = sum(bin(int.from_bytes(output, "big")).count("1") for output in outputs)
    assert abs(ones - 64 * 256) < 5 * 91  # five standard deviations of 32,768 fair bits


def test_frozen_proof() -> None:
    assert hashlib.sha256(prove(KEY, b"0|1|beacon")).hexdigest() == FROZEN_PROOF


FROZEN_PROOF = "80586d3273311ede34b83c1d924a5d2ffbf8cd212aa102805e355ddd614ec589"

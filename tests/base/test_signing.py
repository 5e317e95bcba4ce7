"""Signatures: what is signed, and the frozen table of odd keys and signatures, which is part of consensus."""

from __future__ import annotations

import hashlib

import pytest

from milon.base import signing
from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Signature
from milon.base.signing import SecretKey, is_signed, is_valid_point, secret_key_from, sign, verify
from tests.base import curve

DOMAIN, CHAIN, RAW = "vote", "test-chain", b"content"
MESSAGE = b"milon/v1/vote\x00\x00\x0atest-chaincontent"  # domain, zero, length of the chain id, chain id, content


def test_frozen_signature() -> None:
    key = SecretKey(bytes(range(32)))
    signature = sign(key, DOMAIN, CHAIN, RAW)
    assert key.account.hex() == "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    assert signature.hex() == FROZEN_SIGNATURE
    verify(key.account, DOMAIN, CHAIN, RAW, signature)


FROZEN_SIGNATURE = (
    "03dec86c8d0ba3297cd9926757b9d5bc7b38a44b74a6fc8fa9ae50611ae40263"
    "5219c4a2690f8f67eefbf990f6442a67c832b6220fda57c6e182f15780e9ea05"
)


def test_the_message_is_the_one_documented() -> None:
    account = AccountId(curve.POINT)
    assert is_signed(account, DOMAIN, CHAIN, RAW, Signature(curve.signature_with(account, curve.SECRET, 77, MESSAGE)))


def test_domain_chain_content_and_key_are_bound() -> None:
    key = secret_key_from("alice")
    signature = sign(key, DOMAIN, CHAIN, RAW)
    other = secret_key_from("bob").account
    for account, domain, chain, raw in (
        (key.account, "votes", CHAIN, RAW),
        (key.account, "proposal", CHAIN, RAW),
        (key.account, DOMAIN, "test-chai", b"n" + RAW),
        (key.account, DOMAIN, CHAIN + "c", RAW[1:]),
        (key.account, DOMAIN, CHAIN, RAW + b"x"),
        (key.account, DOMAIN, CHAIN, b""),
        (other, DOMAIN, CHAIN, RAW),
    ):
        assert not is_signed(account, domain, chain, raw, signature)
        with pytest.raises(Rejected) as caught:
            verify(account, domain, chain, raw, signature)
        assert caught.value.reason is Reason.BAD_SIGNATURE


def test_every_changed_bit_is_noticed() -> None:
    key = secret_key_from("alice")
    signature = sign(key, DOMAIN, CHAIN, RAW)
    for bit in range(512):
        changed = bytearray(signature)
        changed[bit >> 3] ^= 1 << (bit & 7)
        assert not is_signed(key.account, DOMAIN, CHAIN, RAW, Signature(bytes(changed)))


def test_odd_lengths_are_refused() -> None:
    key = secret_key_from("alice")
    signature = sign(key, DOMAIN, CHAIN, RAW)
    for length in (0, 1, 31, 33, 64):
        account = AccountId((key.account * 2)[:length])
        assert not is_signed(account, DOMAIN, CHAIN, RAW, signature)
        assert not is_valid_point(account)
    for cut in (0, 1, 63):
        assert not is_signed(key.account, DOMAIN, CHAIN, RAW, Signature(signature[:cut]))
    assert not is_signed(key.account, DOMAIN, CHAIN, RAW, Signature(signature + b"m"))
    assert not is_signed(key.account, DOMAIN, CHAIN, RAW, Signature(signature + b"\x00"))


def corner_cases() -> dict[str, tuple[bytes, bytes]]:
    """Key and signature over `MESSAGE` by name; each satisfies the group equation, up to torsion at least."""
    key, secret = curve.POINT, curve.SECRET
    honest = curve.signature_with(key, secret, 5, MESSAGE)
    scalar = int.from_bytes(honest[32:], "little")
    cases = {"honest": (key, honest)}
    for multiple in (1, 2, 15):
        twin = (scalar + multiple * curve.ORDER).to_bytes(32, "little")
        cases[f"scalar plus {multiple} orders"] = (key, honest[:32] + twin)
    cases["scalar with the top bit"] = (key, honest[:63] + bytes((honest[63] | 0x80,)))
    cases["commitment is the identity"] = (key, curve.signature_with(key, secret, 0, MESSAGE))
    for index, torsion in enumerate(curve.SMALL_ORDER[1:], 1):
        cases[f"commitment of small order {index}"] = (key, curve.signature_with(key, secret, 0, MESSAGE, torsion))
        cases[f"commitment moved by torsion {index}"] = (key, curve.signature_with(key, secret, 5, MESSAGE, torsion))
        mixed = curve.add(key, torsion)
        for remainder in (0, 1, 4):  # whether the torsion cancels: it does where 8 divides the challenge
            nonce = next(
                nonce
                for nonce in range(1, 1000)
                if curve.challenge(curve.times_base(nonce), mixed, MESSAGE) % 8 == remainder
            )
            cases[f"key moved by torsion {index}, challenge {remainder} mod 8"] = (
                mixed,
                curve.signature_with(mixed, secret, nonce, MESSAGE),
            )
    for index, small in enumerate((*curve.SMALL_ORDER, *curve.ODD_ENCODINGS)):
        name = f"key of small order or odd encoding {index}"
        cases[f"{name}, zero scalar"] = (small, curve.IDENTITY + bytes(32))
        cases[f"{name}, some nonce"] = (small, curve.signature_with(small, 0, 5, MESSAGE))
        cases[f"key and commitment {index}, zero scalar"] = (small, small + bytes(32))
    cases["commitment is the identity, not canonical"] = (
        key,
        curve.IDENTITY_NOT_CANONICAL
        + (curve.challenge(curve.IDENTITY_NOT_CANONICAL, key, MESSAGE) * secret % curve.ORDER).to_bytes(32, "little"),
    )
    cases["key not on the curve"] = (curve.NOT_ON_THE_CURVE, honest)
    cases["all zero"] = (bytes(32), bytes(64))
    return cases


def test_frozen_acceptance_of_corner_cases() -> None:
    cases = corner_cases()
    table = b"".join(name.encode() + b"\x00" + key + signature for name, (key, signature) in cases.items())
    assert (len(cases), hashlib.sha256(table).hexdigest()) == (80, FROZEN_CASES)
    accepted = {
        name
        for name, (key, signature) in cases.items()
        if is_signed(AccountId(key), DOMAIN, CHAIN, RAW, Signature(signature))
    }
    assert accepted == FROZEN_ACCEPTED


FROZEN_CASES = "e5d95105d217e3cd44e4fc8bf80184e7eaa99fbfbf8a68a8cf071e615d54713a"
# Verification is without the cofactor: a key of mixed order signs exactly where the challenge cancels its torsion.
FROZEN_ACCEPTED = (
    {"honest"}
    | {f"key moved by torsion {index}, challenge 0 mod 8" for index in range(1, 8)}
    | {f"key moved by torsion {index}, challenge 4 mod 8" for index in (1, 2, 3)}
)


def test_points() -> None:
    assert is_valid_point(curve.POINT)
    mixed = curve.add(curve.POINT, curve.ORDER_8)
    for point in (*curve.SMALL_ORDER, *curve.ODD_ENCODINGS, curve.NOT_ON_THE_CURVE, mixed):
        assert not is_valid_point(point)
    one = curve.IDENTITY
    for operation, arguments in (
        (signing.point_add, (curve.POINT, curve.NOT_ON_THE_CURVE)),
        (signing.point_subtract, (curve.NOT_ON_THE_CURVE, curve.POINT)),
        (signing.point_multiply, (one, curve.ORDER_8)),
        (signing.point_multiply, (one, curve.add(curve.POINT, curve.ORDER_2))),
        (signing.point_multiply, (bytes(32), curve.POINT)),
        (signing.base_multiply, (bytes(32),)),
    ):
        with pytest.raises(Rejected) as caught:
            operation(*arguments)
        assert caught.value.reason is Reason.BAD_PROOF
    two = (2).to_bytes(32, "little")
    assert signing.point_add(curve.POINT, curve.POINT) == signing.point_multiply(two, curve.POINT)
    assert signing.point_subtract(curve.POINT, curve.POINT) == curve.IDENTITY


def test_a_secret_key_never_prints_and_has_32_bytes() -> None:
    key = secret_key_from("alice")
    assert key.seed.hex() not in repr(key) + str(key)
    assert key.account.hex()[:8] in repr(key)
    with pytest.raises(Rejected):
        SecretKey(bytes(31))
    assert secret_key_from("alice") == key != secret_key_from("bob")

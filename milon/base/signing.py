"""Ed25519 keys and signatures with a domain and the chain id under them, and the curve operations of the VRF."""

from __future__ import annotations

from dataclasses import dataclass

import nacl.bindings
from nacl.exceptions import CryptoError

from milon.base.errors import Reason, Rejected
from milon.base.hashing import digest
from milon.base.ids import AccountId, Signature

_SECRET_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
POINT_BYTES = 32


@dataclass(frozen=True, slots=True, repr=False)
class SecretKey:
    """An ed25519 seed; it never prints."""

    seed: bytes  # 32 random bytes (RFC 8032 section 5.1.5)

    def __post_init__(self) -> None:
        if len(self.seed) != _SECRET_KEY_BYTES:
            raise Rejected(Reason.MALFORMED, f"a secret key has {_SECRET_KEY_BYTES} bytes, not {len(self.seed)}")

    def __repr__(self) -> str:
        return f"SecretKey(of {self.account.hex()[:8]})"

    @property
    def account(self) -> AccountId:
        """The public key, which is the account's name."""
        return AccountId(nacl.bindings.crypto_sign_seed_keypair(self.seed)[0])


def secret_key_from(text: str) -> SecretKey:
    """A key from a label, for tests and simulations only: anyone who knows the label knows the key."""
    return SecretKey(digest("test-key", text.encode()))


def _message(domain: str, chain_id: str, raw: bytes) -> bytes:
    chain = chain_id.encode()
    return b"milon/v1/" + domain.encode() + b"\x00" + len(chain).to_bytes(2, "big") + chain + raw


def sign(key: SecretKey, domain: str, chain_id: str, raw: bytes) -> Signature:
    """Sign `"milon/v1/" + domain + 0x00 + length of the chain id + chain id + raw`."""
    secret = nacl.bindings.crypto_sign_seed_keypair(key.seed)[1]
    return Signature(nacl.bindings.crypto_sign(_message(domain, chain_id, raw), secret)[:64])


def is_signed(account: AccountId, domain: str, chain_id: str, raw: bytes, signature: Signature) -> bool:
    """Whether `signature` is `account`'s over `raw` in that domain and chain, by libsodium's acceptance rules.

    They are stricter than RFC 8032: no scalar at or above the group's order, no key or commitment of small order, no
    key with a second encoding. The rules are part of consensus; `tests/base/test_signing.py` freezes them.
    """
    return is_signed_plainly(account, _message(domain, chain_id, raw), signature)


def is_signed_plainly(account: AccountId, message: bytes, signature: Signature) -> bool:
    """As `is_signed`, for the bytes of a whole message: the part that others' test vectors can reach."""
    if len(account) != POINT_BYTES or len(signature) != _SIGNATURE_BYTES:
        return False  # the binding checks neither: a short key would read beyond its end
    try:
        nacl.bindings.crypto_sign_open(signature + message, account)
    except (CryptoError, ValueError):
        return False
    return True


def verify(account: AccountId, domain: str, chain_id: str, raw: bytes, signature: Signature) -> None:
    """Raise `Rejected(BAD_SIGNATURE)` unless the signature holds."""
    if not is_signed(account, domain, chain_id, raw, signature):
        raise Rejected(Reason.BAD_SIGNATURE, f"not signed by {account.hex()[:8]} for {domain} on {chain_id}")


# Point and scalar operations on edwards25519 in libsodium's encodings (32 bytes each), for `vrf`.


def is_valid_point(point: bytes) -> bool:
    """Whether `point` is a canonical encoding of a point of the prime-order subgroup other than the identity."""
    return len(point) == POINT_BYTES and bool(nacl.bindings.crypto_core_ed25519_is_valid_point(point))


def _refuse_point() -> Rejected:
    """Without the library's own words: receipts hold these, and all nodes must agree on receipts."""
    return Rejected(Reason.BAD_PROOF, "not a point the operation is defined for")


def point_add(left: bytes, right: bytes) -> bytes:
    """The sum of two points of the whole curve; `Rejected(BAD_PROOF)` for bytes that are no point."""
    try:
        return bytes(nacl.bindings.crypto_core_ed25519_add(left, right))
    except CryptoError:
        raise _refuse_point() from None


def point_subtract(left: bytes, right: bytes) -> bytes:
    """The difference of two points of the whole curve; `Rejected(BAD_PROOF)` for bytes that are no point."""
    try:
        return bytes(nacl.bindings.crypto_core_ed25519_sub(left, right))
    except CryptoError:
        raise _refuse_point() from None


def point_multiply(scalar: bytes, point: bytes) -> bytes:
    """`scalar` times a point of the prime-order subgroup; `Rejected(BAD_PROOF)` for other points and for zero."""
    try:
        return bytes(nacl.bindings.crypto_scalarmult_ed25519_noclamp(scalar, point))
    except CryptoError:
        raise _refuse_point() from None


def base_multiply(scalar: bytes) -> bytes:
    """`scalar` times the base point; `Rejected(BAD_PROOF)` for zero."""
    try:
        return bytes(nacl.bindings.crypto_scalarmult_ed25519_base_noclamp(scalar))
    except CryptoError:
        raise _refuse_point() from None


def scalar_reduce(wide: bytes) -> bytes:
    """A 64-byte little-endian integer modulo the order of the group."""
    return bytes(nacl.bindings.crypto_core_ed25519_scalar_reduce(wide))


def scalar_multiply(left: bytes, right: bytes) -> bytes:
    """The product of two scalars modulo the order of the group."""
    return bytes(nacl.bindings.crypto_core_ed25519_scalar_mul(left, right))


def scalar_add(left: bytes, right: bytes) -> bytes:
    """The sum of two scalars modulo the order of the group."""
    return bytes(nacl.bindings.crypto_core_ed25519_scalar_add(left, right))

"""Ed25519 keys and signatures with a domain and the chain id under them, and the curve operations of the VRF."""

from __future__ import annotations

from dataclasses import dataclass

import nacl.bindings
from nacl.exceptions import CryptoError

from milon.base.errors import Reason, Rejected
from milon.base.hashing import digest
from milon.base.ids import AccountId, Signature

_SECRET_KEY_BYTES = 32


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
    """Whether `signature` is `account`'s over `raw` in that domain and chain, by libsodium's acceptance rules."""
    try:
        nacl.bindings.crypto_sign_open(signature + _message(domain, chain_id, raw), account)
    except (CryptoError, ValueError):
        return False
    return True


def verify(account: AccountId, domain: str, chain_id: str, raw: bytes, signature: Signature) -> None:
    """Raise `Rejected(BAD_SIGNATURE)` unless the signature holds."""
    if not is_signed(account, domain, chain_id, raw, signature):
        raise Rejected(Reason.BAD_SIGNATURE, f"not signed by {account.hex()[:8]} for {domain} on {chain_id}")


# Point and scalar operations on edwards25519 in libsodium's encodings (32 bytes each), for `vrf`.
point_add = nacl.bindings.crypto_core_ed25519_add
point_subtract = nacl.bindings.crypto_core_ed25519_sub
point_multiply = nacl.bindings.crypto_scalarmult_ed25519_noclamp
base_multiply = nacl.bindings.crypto_scalarmult_ed25519_base_noclamp
is_valid_point = nacl.bindings.crypto_core_ed25519_is_valid_point
scalar_reduce = nacl.bindings.crypto_core_ed25519_scalar_reduce
scalar_multiply = nacl.bindings.crypto_core_ed25519_scalar_mul
scalar_add = nacl.bindings.crypto_core_ed25519_scalar_add

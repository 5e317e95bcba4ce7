"""Stand-ins for simulations only: signatures that cost one hash, on one chain id, and a ledger that counts.

Only the arithmetic is cheap: the rules about votes, certificates and evidence are the product's own functions, whose
two primitives `sign` and `verify` answer for the chain `CHEAP_CHAIN` here and for every other chain as before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from milon.base import signing
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId, Signature, VrfProof
from milon.base.signing import SecretKey
from milon.base.units import Amount, Nonce
from milon.chain import certificate as certificates
from milon.chain.block import Receipt
from milon.chain.transaction import Transaction, compute_transaction_hash
from milon.consensus.application import Application, Cryptography
from milon.consensus.mempool import Standing
from milon.contracts.apply import Applied, BlockContext
from milon.state.ledger import Ledger

CHEAP_CHAIN = "simulated"  # on this chain alone a vote's signature is a hash

_accounts: dict[bytes, AccountId] = {}


def account_of(key: SecretKey) -> AccountId:
    """The key's account, computed once."""
    if key.seed not in _accounts:
        _accounts[key.seed] = key.account
    return _accounts[key.seed]


def _mark(account: AccountId, domain: str, raw: bytes) -> Signature:
    return Signature(hashlib.sha512(account + domain.encode() + raw).digest())


def _sign(key: SecretKey, domain: str, chain_id: str, raw: bytes) -> Signature:
    if chain_id == CHEAP_CHAIN:
        return _mark(account_of(key), domain, raw)
    return signing.sign(key, domain, chain_id, raw)


def _verify(account: AccountId, domain: str, chain_id: str, raw: bytes, signature: Signature) -> None:
    if chain_id == CHEAP_CHAIN:
        require(signature == _mark(account, domain, raw), Reason.BAD_SIGNATURE, "not its signature")
    else:
        signing.verify(account, domain, chain_id, raw, signature)


certificates.sign = _sign  # type: ignore[attr-defined]
certificates.verify = _verify  # type: ignore[attr-defined]


def _prove(key: SecretKey, alpha: bytes) -> VrfProof:
    return VrfProof(hashlib.sha512(account_of(key) + alpha).digest() + bytes(16))


def _verify_proof(account: AccountId, alpha: bytes, proof: VrfProof) -> bytes:
    output = hashlib.sha512(account + alpha).digest()
    require(proof == output + bytes(16), Reason.BAD_PROOF, "not its proof")
    return output


CHEAP = Cryptography(
    certificates.sign_vote, certificates.verify_vote, certificates.verify_certificate, _prove, _verify_proof
)


def _nonce_key(account: AccountId) -> bytes:
    return b"nonce" + account


def _next_nonce(ledger: Ledger, account: AccountId) -> Nonce:
    raw = ledger.get(_nonce_key(account))
    return Nonce(0 if raw is None else int.from_bytes(raw, "big"))


def _apply_block(ledger: Ledger, context: BlockContext, transactions: Sequence[Transaction]) -> Applied:
    ledger = ledger.with_change(b"beacon", context.beacon).with_change(b"time", context.time_ms.to_bytes(8, "big"))
    for transaction in transactions:
        sender = transaction.body.sender
        nonce = _next_nonce(ledger, sender)
        if transaction.body.nonce != nonce:
            raise Rejected(Reason.WRONG_NONCE, f"{transaction.body.nonce} where {nonce} is next")
        ledger = ledger.with_change(_nonce_key(sender), (nonce + 1).to_bytes(8, "big"))
    receipts = tuple(Receipt(compute_transaction_hash(transaction), "") for transaction in transactions)
    return Applied(ledger, receipts, ())


def _select(ledger: Ledger, context: BlockContext, candidates: Sequence[Transaction]) -> tuple[Transaction, ...]:
    chosen: list[Transaction] = []
    nonces: dict[AccountId, int] = {}
    for transaction in candidates:
        sender = transaction.body.sender
        expected = nonces.get(sender, _next_nonce(ledger, sender))
        if transaction.body.nonce == expected and len(chosen) < context.parameters.block_transactions_max:
            chosen.append(transaction)
            nonces[sender] = expected + 1
    return tuple(chosen)


def _standing_of(ledger: Ledger, account: AccountId) -> Standing:
    return Standing(_next_nonce(ledger, account), Amount(1 << 40))


COUNTING = Application(_apply_block, _select, lambda ledger: False, _standing_of)

"""Stand-ins for simulations only: signatures that cost one hash, and a ledger that counts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId, Signature, VrfProof
from milon.base.signing import SecretKey
from milon.base.units import Amount, Nonce
from milon.chain.block import Receipt
from milon.chain.certificate import Certificate, Validator, Vote, VoteContent
from milon.chain.transaction import Transaction, compute_transaction_hash
from milon.consensus import quorum
from milon.consensus.application import Application, Cryptography
from milon.consensus.mempool import Standing
from milon.contracts.apply import Applied, BlockContext
from milon.state.ledger import Ledger

_accounts: dict[bytes, AccountId] = {}


def account_of(key: SecretKey) -> AccountId:
    """The key's account, computed once."""
    if key.seed not in _accounts:
        _accounts[key.seed] = key.account
    return _accounts[key.seed]


def _mark(account: AccountId, chain_id: str, content: VoteContent) -> Signature:
    said = f"{chain_id}|{content.kind.value}|{content.epoch}|{content.view}|".encode()
    return Signature(hashlib.sha512(account + said + (content.block or b"")).digest())


def _sign_vote(key: SecretKey, chain_id: str, content: VoteContent) -> Vote:
    account = account_of(key)
    return Vote(content, account, _mark(account, chain_id, content))


def _verify_vote(vote: Vote, chain_id: str) -> None:
    require(vote.signature == _mark(vote.signer, chain_id, vote.content), Reason.BAD_SIGNATURE, "not its vote")


def _verify_certificate(certificate: Certificate, chain_id: str, validators: Sequence[Validator]) -> None:
    powers = {validator.account: int(validator.power) for validator in validators}
    order = [validator.account for validator in validators if validator.account in certificate.signers]
    require(tuple(order) == certificate.signers, Reason.NOT_CANONICAL, "signers out of order, double or unknown")
    power = sum(powers[signer] for signer in certificate.signers)
    require(quorum.is_quorum(power, sum(powers.values())), Reason.TOO_FEW, f"power {power}")
    for signer, signature in zip(certificate.signers, certificate.signatures, strict=True):
        _verify_vote(Vote(certificate.content, signer, signature), chain_id)


def _prove(key: SecretKey, alpha: bytes) -> VrfProof:
    return VrfProof(hashlib.sha512(account_of(key) + alpha).digest() + bytes(16))


def _verify_proof(account: AccountId, alpha: bytes, proof: VrfProof) -> bytes:
    output = hashlib.sha512(account + alpha).digest()
    require(proof == output + bytes(16), Reason.BAD_PROOF, "not its proof")
    return output


CHEAP = Cryptography(_sign_vote, _verify_vote, _verify_certificate, _prove, _verify_proof)


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

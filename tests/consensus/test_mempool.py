"""The mempool: bounded by count, bytes and sender; replaced, refused and dropped as it says."""

from dataclasses import replace

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Signature
from milon.base.units import Amount, Count, Nonce
from milon.chain.params import Parameters
from milon.chain.transaction import Transaction, TransactionBody, Transfer
from milon.consensus import mempool as rules
from milon.consensus.mempool import Mempool, add_transaction, drop_stale, list_candidates

PARAMETERS = Parameters()


def _account(index: int) -> AccountId:
    return AccountId(index.to_bytes(32, "big"))


def _transaction(sender: int, nonce: int, fee: int = 1) -> Transaction:
    action = Transfer(_account(0), Amount(1))
    body = TransactionBody("pool", _account(sender), Nonce(nonce), Amount(fee), action)
    return Transaction(body, Signature(bytes(64)))


def _fill(*transactions: Transaction) -> Mempool:
    pool = Mempool()
    for transaction in transactions:
        pool = add_transaction(pool, transaction, Nonce(0), PARAMETERS)
    return pool


def _refused(pool: Mempool, transaction: Transaction, next_nonce: int = 0) -> Reason:
    with pytest.raises(Rejected) as refused:
        add_transaction(pool, transaction, Nonce(next_nonce), PARAMETERS)
    return refused.value.reason


def test_senders_take_turns_and_each_keeps_its_order() -> None:
    pool = _fill(_transaction(2, 1), _transaction(2, 0), _transaction(1, 0), _transaction(2, 2))
    order = [(int(entry.body.sender[-1]), entry.body.nonce) for entry in list_candidates(pool)]
    assert order == [(2, 0), (1, 0), (2, 1), (2, 2)]


def test_a_newer_transaction_takes_the_place_of_one_with_its_nonce() -> None:
    pool = _fill(_transaction(1, 0), _transaction(1, 0, fee=9))
    assert [entry.body.fee for entry in list_candidates(pool)] == [9]
    assert pool.per_sender == {_account(1): 1}
    assert pool.size_bytes == sum(entry.size_bytes for entry in pool.entries.values())


def test_what_is_refused_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = _fill(_transaction(1, 0), _transaction(1, 1))
    assert _refused(pool, _transaction(1, 0)) is Reason.DUPLICATE
    assert _refused(pool, _transaction(3, 4), next_nonce=5) is Reason.STALE
    assert _refused(pool, _transaction(3, 5_000)) is Reason.OUT_OF_RANGE
    assert _refused(pool, _transaction(3, 0, fee=0)) is Reason.INSUFFICIENT_FUNDS
    monkeypatch.setattr(rules, "SENDER_MAX", 2)
    assert _refused(pool, _transaction(1, 2)) is Reason.FULL
    monkeypatch.setattr(rules, "COUNT_MAX", 2)
    assert _refused(pool, _transaction(2, 0)) is Reason.FULL
    monkeypatch.setattr(rules, "COUNT_MAX", 9)
    monkeypatch.setattr(rules, "BYTES_MAX", pool.size_bytes + 10)
    assert _refused(pool, _transaction(2, 0)) is Reason.FULL
    small = replace(PARAMETERS, transaction_bytes_max=Count(10))
    with pytest.raises(Rejected) as refused:
        add_transaction(Mempool(), _transaction(1, 0), Nonce(0), small)
    assert refused.value.reason is Reason.TOO_LARGE


def test_a_replacement_fits_into_a_full_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = _fill(_transaction(1, 0), _transaction(1, 1))
    monkeypatch.setattr(rules, "COUNT_MAX", 2)
    monkeypatch.setattr(rules, "SENDER_MAX", 2)
    pool = add_transaction(pool, _transaction(1, 1, fee=7), Nonce(0), PARAMETERS)
    assert len(pool.entries) == 2


def test_stale_transactions_leave_and_the_rest_stays_counted() -> None:
    pool = _fill(*(_transaction(1, nonce) for nonce in range(4)), _transaction(2, 0))
    left = drop_stale(pool, {_account(1): Nonce(3)})
    assert sorted(left.entries) == [(_account(1), 3), (_account(2), 0)]
    assert left.per_sender == {_account(1): 1, _account(2): 1}
    assert left.size_bytes == sum(entry.size_bytes for entry in left.entries.values())
    assert left.version != pool.version
    assert drop_stale(left, {_account(9): Nonce(3)}) is left

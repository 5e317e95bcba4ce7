"""The mempool: bounded by count, bytes and sender; replaced, refused and dropped as it says."""

from dataclasses import replace

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Signature
from milon.base.units import Amount, Count, Nonce
from milon.chain.params import Parameters
from milon.chain.transaction import Transaction, TransactionBody, Transfer
from milon.consensus import mempool as rules
from milon.consensus.mempool import Mempool, Standing, add_transaction, drop_stale, list_candidates

PARAMETERS = Parameters()
RICH = Standing(Nonce(0), Amount(1_000))


def _account(index: int) -> AccountId:
    return AccountId(index.to_bytes(32, "big"))


def _transaction(sender: int, nonce: int, fee: int = 1) -> Transaction:
    action = Transfer(_account(0), Amount(1))
    body = TransactionBody("pool", _account(sender), Nonce(nonce), Amount(fee), action)
    return Transaction(body, Signature(bytes(64)))


def _fill(*transactions: Transaction) -> Mempool:
    pool = Mempool()
    for transaction in transactions:
        pool = add_transaction(pool, transaction, RICH, "pool", PARAMETERS)
    return pool


def _refused(pool: Mempool, transaction: Transaction, next_nonce: int = 0, balance: int = 1_000) -> Reason:
    with pytest.raises(Rejected) as refused:
        add_transaction(pool, transaction, Standing(Nonce(next_nonce), Amount(balance)), "pool", PARAMETERS)
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
    assert _refused(pool, _transaction(2, 5)) is Reason.FULL
    monkeypatch.setattr(rules, "COUNT_MAX", 9)
    monkeypatch.setattr(rules, "BYTES_MAX", pool.size_bytes + 10)
    assert _refused(pool, _transaction(2, 5)) is Reason.FULL
    small = replace(PARAMETERS, transaction_bytes_max=Count(10))
    with pytest.raises(Rejected) as refused:
        add_transaction(Mempool(), _transaction(1, 0), RICH, "pool", small)
    assert refused.value.reason is Reason.TOO_LARGE


def test_a_replacement_fits_into_a_full_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = _fill(_transaction(1, 0), _transaction(1, 1))
    monkeypatch.setattr(rules, "COUNT_MAX", 2)
    monkeypatch.setattr(rules, "SENDER_MAX", 2)
    pool = add_transaction(pool, _transaction(1, 1, fee=7), RICH, "pool", PARAMETERS)
    assert len(pool.entries) == 2


def test_stale_transactions_leave_and_the_rest_stays_counted() -> None:
    pool = _fill(*(_transaction(1, nonce) for nonce in range(4)), _transaction(2, 0))
    left = drop_stale(pool, {_account(1): Standing(Nonce(3), Amount(9))})
    assert sorted(left.entries) == [(_account(1), 3), (_account(2), 0)]
    assert left.per_sender == {_account(1): 1, _account(2): 1}
    assert left.size_bytes == sum(entry.size_bytes for entry in left.entries.values())
    assert left.version != pool.version
    assert drop_stale(left, {_account(9): Standing(Nonce(3), Amount(9))}) is left


def test_keys_without_coins_get_no_place() -> None:
    assert _refused(Mempool(), _transaction(1, 0), balance=0) is Reason.INSUFFICIENT_FUNDS
    pool = _fill(_transaction(1, 0, fee=400), _transaction(1, 1, fee=400))
    assert _refused(pool, _transaction(1, 2, fee=400)) is Reason.INSUFFICIENT_FUNDS
    replaced = add_transaction(pool, _transaction(1, 1, fee=600), RICH, "pool", PARAMETERS)
    assert len(replaced.entries) == 2


def test_a_transaction_for_another_chain_takes_nobodys_place() -> None:
    with pytest.raises(Rejected) as refused:
        add_transaction(_fill(_transaction(1, 0)), _transaction(1, 0, fee=2), RICH, "other", PARAMETERS)
    assert refused.value.reason is Reason.WRONG_CHAIN


def test_in_a_full_pool_the_greedy_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = _fill(*(_transaction(1, nonce) for nonce in range(3)), _transaction(2, 0))
    monkeypatch.setattr(rules, "COUNT_MAX", 4)
    pool = _join(pool, _transaction(3, 0))
    assert sorted(pool.entries) == [(_account(1), 0), (_account(1), 1), (_account(2), 0), (_account(3), 0)]
    assert pool.size_bytes == sum(entry.size_bytes for entry in pool.entries.values())
    assert _refused(pool, _transaction(1, 2)) is Reason.FULL


def test_in_a_full_pool_what_cannot_come_up_gives_way_first(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = _fill(_transaction(1, 7), _transaction(2, 0), _transaction(2, 1))
    monkeypatch.setattr(rules, "COUNT_MAX", 3)
    pool = _join(pool, _transaction(3, 0))
    assert sorted(pool.entries) == [(_account(2), 0), (_account(2), 1), (_account(3), 0)]
    assert _refused(pool, _transaction(4, 3)) is Reason.FULL


def test_what_can_no_longer_be_paid_leaves() -> None:
    pool = _fill(*(_transaction(1, nonce, fee=10) for nonce in range(4)))
    left = drop_stale(pool, {_account(1): Standing(Nonce(1), Amount(25))})
    assert sorted(left.entries) == [(_account(1), 1), (_account(1), 2)]


def _join(pool: Mempool, transaction: Transaction) -> Mempool:
    return add_transaction(pool, transaction, RICH, "pool", PARAMETERS)

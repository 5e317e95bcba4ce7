"""Reading and moving coins inside a draft."""

from __future__ import annotations

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.units import Height
from milon.contracts.accounts import (
    burn,
    credit,
    debit,
    load_account,
    load_beacon,
    load_supply,
    load_validators,
    shift_open_claims,
)
from milon.contracts.records import Account
from milon.state.ledger import Draft, Ledger
from tests.contracts.helpers import BALANCE, STAKE, Chain, account_id


def test_an_account_never_seen_has_nothing() -> None:
    assert load_account(Chain().ledger, account_id(1)) == Account()


def test_credit_and_debit_meet() -> None:
    chain = Chain()
    draft = Draft(chain.ledger)
    account = chain.keys[0].account
    debit(draft, account, BALANCE)
    assert load_account(draft, account).balance == 0
    with pytest.raises(Rejected) as refusal:
        debit(draft, account, 1)
    assert refusal.value.reason is Reason.INSUFFICIENT_FUNDS
    credit(draft, account, BALANCE)
    assert load_account(draft, account) == chain.account(chain.keys[0])


def test_burned_coins_are_counted() -> None:
    draft = Draft(Chain().ledger)
    burn(draft, 3)
    burn(draft, 4)
    assert load_supply(draft).burned == 7


def test_open_claims_are_counted_both_ways() -> None:
    draft = Draft(Chain().ledger)
    for change, expected in ((1, 1), (1, 2), (-1, 1)):
        shift_open_claims(draft, account_id(1), change)
        assert load_account(draft, account_id(1)).open_claims == expected


def test_the_validators_are_those_of_genesis() -> None:
    chain = Chain(3)
    found = load_validators(chain.ledger).validators
    assert [(entry.account, entry.power) for entry in found] == [(key.account, STAKE) for key in chain.keys]


def test_a_ledger_without_genesis_is_a_broken_invariant() -> None:
    for load in (load_supply, load_validators, lambda ledger: load_beacon(ledger, Height(1))):
        with pytest.raises(RuntimeError):
            load(Ledger({}))

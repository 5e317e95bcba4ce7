"""Reading and moving coins inside a draft; every function keeps the supply equation."""

from __future__ import annotations

from dataclasses import replace

from milon.base.errors import Reason, require
from milon.base.ids import AccountId, Digest
from milon.base.units import Amount, Count, Height
from milon.contracts.records import (
    SUPPLY_KEY,
    VALIDATORS_KEY,
    Account,
    Supply,
    ValidatorSet,
    account_key,
    beacon_key,
)
from milon.state.ledger import Draft, Ledger


def load_account(ledger: Ledger | Draft, account: AccountId) -> Account:
    """The account's coins; one never seen has none."""
    return ledger.load(account_key(account), Account) or Account()


def store_account(draft: Draft, account: AccountId, record: Account) -> None:
    """Write the account's coins."""
    draft.store(account_key(account), record)


def credit(draft: Draft, account: AccountId, amount: int) -> None:
    """Add to the free balance; the caller has taken the same amount from somewhere."""
    record = load_account(draft, account)
    store_account(draft, account, replace(record, balance=Amount(record.balance + amount)))


def debit(draft: Draft, account: AccountId, amount: int) -> None:
    """Take from the free balance; `Rejected(INSUFFICIENT_FUNDS)` where there is less."""
    record = load_account(draft, account)
    require(
        record.balance >= amount,
        Reason.INSUFFICIENT_FUNDS,
        f"{account.hex()[:8]} has {record.balance}, {amount} are needed",
    )
    store_account(draft, account, replace(record, balance=Amount(record.balance - amount)))


def shift_open_claims(draft: Draft, account: AccountId, change: int) -> None:
    """Count a claim that the account made (+1), or that its round has closed (-1)."""
    record = load_account(draft, account)
    store_account(draft, account, replace(record, open_claims=Count(record.open_claims + change)))


def burn(draft: Draft, amount: int) -> None:
    """Count coins as gone; the caller has taken them from somewhere."""
    supply = load_supply(draft)
    draft.store(SUPPLY_KEY, replace(supply, burned=Amount(supply.burned + amount)))


def load_supply(ledger: Ledger | Draft) -> Supply:
    """All coins minted and burned."""
    supply = ledger.load(SUPPLY_KEY, Supply)
    if supply is None:
        raise RuntimeError("a ledger without genesis")
    return supply


def load_beacon(ledger: Ledger | Draft, height: Height) -> Digest:
    """The beacon of a recent block that was applied."""
    beacon = ledger.get(beacon_key(height))
    if beacon is None:
        raise RuntimeError(f"no beacon of height {height}")
    return Digest(beacon)


def load_validators(ledger: Ledger | Draft) -> ValidatorSet:
    """Who votes."""
    validators = ledger.load(VALIDATORS_KEY, ValidatorSet)
    if validators is None:
        raise RuntimeError("a ledger without genesis")
    return validators

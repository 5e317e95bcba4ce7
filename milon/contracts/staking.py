"""Stake: put in, asked back, collected after the waiting time, and taken from liars."""

from __future__ import annotations

from dataclasses import replace

from milon.base.errors import Reason, require
from milon.base.ids import AccountId
from milon.base.units import Amount, Height
from milon.chain.params import EPOCH_NEVER_ENDS, Parameters
from milon.chain.transaction import Bond, Unbond
from milon.contracts.accounts import burn, credit, debit, load_account, load_validators, store_account
from milon.contracts.delegation import collect_left, is_frozen
from milon.contracts.records import Unbonding, power_of
from milon.contracts.validators import compute_release_height, load_validator
from milon.pol.terms import PARTS_PER_MILLION
from milon.state.ledger import Draft

UNBONDING_MAX = 16  # an account record stays small


def apply_bond(draft: Draft, sender: AccountId, action: Bond) -> None:
    """Move `amount` > 0 from the sender's balance to its bond."""
    require(action.amount > 0, Reason.OUT_OF_RANGE, "a bond of nothing")
    debit(draft, sender, action.amount)
    record = load_account(draft, sender)
    store_account(draft, sender, replace(record, bonded=Amount(record.bonded + action.amount)))


def apply_unbond(draft: Draft, sender: AccountId, action: Unbond, height: Height, parameters: Parameters) -> None:
    """Start the waiting time of `amount` > 0 of the sender's bond.

    Stake that votes in a set that never changes stays, since power without stake behind it could lie for free; in one
    that changes it may go, and waits from the epoch's end.
    """
    require(action.amount > 0, Reason.OUT_OF_RANGE, "nothing to unbond")
    record = load_account(draft, sender)
    is_fixed = parameters.epoch_blocks >= EPOCH_NEVER_ENDS
    power = power_of(load_validators(draft), sender) if is_fixed else 0
    left = record.bonded - action.amount
    require(left >= 0, Reason.INSUFFICIENT_FUNDS, f"{record.bonded} are bonded, {action.amount} are asked back")
    require(left >= power, Reason.NOT_ALLOWED, f"{power} of this stake votes in the validator set fixed in genesis")
    require(len(record.unbonding) < UNBONDING_MAX, Reason.FULL, "too many unbondings at once; withdraw first")
    waiting = Unbonding(action.amount, compute_release_height(draft, sender, height, parameters))
    store_account(draft, sender, replace(record, bonded=Amount(left), unbonding=(*record.unbonding, waiting)))


def apply_withdraw(draft: Draft, sender: AccountId, height: Height, parameters: Parameters) -> None:
    """Move all stake whose waiting time is over, own and delegated, to the sender's balance.

    None leaves while a claim of the sender is undecided, however long that takes: it must be there to be slashed.
    """
    record = load_account(draft, sender)
    require(record.open_claims == 0, Reason.NOT_NOW, f"{record.open_claims} claims of this account are undecided")
    must_stay = is_frozen(load_validator(draft, sender), height, parameters)
    waiting = tuple(entry for entry in record.unbonding if must_stay or entry.release_height > height)
    left = collect_left(draft, sender, height, parameters)
    is_ripe = left is not None or waiting != record.unbonding
    require(is_ripe, Reason.NOT_NOW, "no stake has finished its waiting time")
    ripe = (left or 0) + sum(entry.amount for entry in record.unbonding if entry not in waiting)
    store_account(draft, sender, replace(record, balance=Amount(record.balance + ripe), unbonding=waiting))


def take_stake(draft: Draft, account: AccountId, share_ppm: int) -> int:
    """Take a share of the account's stake, bonded and unbonding alike, rounded down in each place; how much it was.

    The caller burns it or gives it to somebody.
    """
    record = load_account(draft, account)

    def share(amount: int) -> int:
        return amount * share_ppm // PARTS_PER_MILLION

    taken = share(record.bonded)
    waiting: list[Unbonding] = []
    for entry in record.unbonding:
        lost = share(entry.amount)
        taken += lost
        if lost < entry.amount:
            waiting.append(replace(entry, amount=Amount(entry.amount - lost)))
    bonded = Amount(record.bonded - share(record.bonded))
    slashed = Amount(record.slashed + taken)
    store_account(draft, account, replace(record, bonded=bonded, unbonding=tuple(waiting), slashed=slashed))
    return taken


def take_bond(draft: Draft, account: AccountId, amount: int) -> int:
    """Take up to `amount` of the account's stake, the bonded part first; how much it was. The caller passes it on."""
    record = load_account(draft, account)
    taken = min(amount, int(record.bonded))
    waiting: list[Unbonding] = []
    left = amount - taken
    for entry in record.unbonding:
        lost = min(left, int(entry.amount))
        left, taken = left - lost, taken + lost
        if lost < entry.amount:
            waiting.append(replace(entry, amount=Amount(entry.amount - lost)))
    bonded = Amount(record.bonded - min(amount, int(record.bonded)))
    slashed = Amount(record.slashed + taken)
    store_account(draft, account, replace(record, bonded=bonded, unbonding=tuple(waiting), slashed=slashed))
    return taken


def split_taken(draft: Draft, taken: int, winner: AccountId) -> int:
    """Burn half of what was taken and give the winner the other half; its part. An odd coin burns."""
    reward = taken // 2
    credit(draft, winner, reward)
    burn(draft, taken - reward)
    return reward

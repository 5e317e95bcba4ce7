"""Stake that delegators moved from one validator to another: how the offences of the first still reach it.

It stands behind its new validator as shares like all others: it votes, earns and is slashed there. Beside that, each
validator knows how many shares of which others came from it and have not arrived. A slash of it burns those shares,
with what they are worth, for all delegators at once.
"""

from __future__ import annotations

from dataclasses import replace

from milon.base.errors import Reason, require
from milon.base.ids import AccountId
from milon.base.units import Amount, Count
from milon.contracts.accounts import burn
from milon.contracts.records import MovedShares, MovedStake, moved_stake_key
from milon.contracts.validators import load_validator, store_validator
from milon.state.ledger import Draft, Ledger

TARGETS_MAX = 16  # of one validator's stake at a time: a slash of it visits them all


def load_moved(ledger: Ledger | Draft, source: AccountId) -> tuple[MovedShares, ...]:
    """Where stake stands that moved away from `source` and still answers for it."""
    found = ledger.load(moved_stake_key(source), MovedStake)
    return found.targets if found else ()


def _store(draft: Draft, source: AccountId, targets: list[MovedShares]) -> None:
    if targets:
        draft.store(moved_stake_key(source), MovedStake(tuple(sorted(targets, key=lambda entry: entry.target))))
    else:
        draft.remove(moved_stake_key(source))


def add_moved(draft: Draft, source: AccountId, target: AccountId, shares: int) -> None:
    """Note that so many shares of `target` came from `source`; `Rejected(FULL)` where too many targets are noted."""
    targets = {entry.target: entry for entry in load_moved(draft, source)}
    entry = targets.get(target, MovedShares(target, Count(0), Count(0)))
    targets[target] = replace(entry, shares=Count(entry.shares + shares), parts=Count(entry.parts + 1))
    has_room = len(targets) <= TARGETS_MAX
    require(has_room, Reason.FULL, f"stake has moved from this validator to {TARGETS_MAX} others; undelegate instead")
    _store(draft, source, list(targets.values()))


def release_moved(draft: Draft, source: AccountId, target: AccountId, shares: int) -> None:
    """Note that one delegator's part, now `shares`, has arrived; what rounding left after the last part is given up."""
    targets = {entry.target: entry for entry in load_moved(draft, source)}
    entry = targets.pop(target)
    left = replace(entry, shares=Count(entry.shares - shares), parts=Count(entry.parts - 1))
    if left.parts:
        targets[target] = left
    elif left.shares:
        record = load_validator(draft, target)
        remaining = Count(record.shares - left.shares)
        gone = 0 if remaining else int(record.delegated)
        store_validator(draft, target, replace(record, shares=remaining, delegated=Amount(record.delegated - gone)))
        burn(draft, gone)
    _store(draft, source, list(targets.values()))


def burn_moved(draft: Draft, source: AccountId, part: int, whole: int) -> None:
    """Burn `part / whole` of the shares that came from `source`, with what they are worth.

    What is left is rounded up for each target: never less than the delegators' parts of it together. The worth is
    rounded down, so that it takes nothing from who has other shares there.
    """
    targets: list[MovedShares] = []
    for entry in load_moved(draft, source):
        record = load_validator(draft, entry.target)
        shares = entry.shares * part // whole
        coins = shares * record.delegated // record.shares if shares else 0
        delegated, total = Amount(record.delegated - coins), Count(record.shares - shares)
        store_validator(draft, entry.target, replace(record, delegated=delegated, shares=total))
        burn(draft, coins)
        targets.append(replace(entry, shares=Count(entry.shares - shares)))
    _store(draft, source, targets)

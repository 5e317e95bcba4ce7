"""Stake lent to a validator: shares of a pool that grows with what it earns and shrinks when it is slashed.

A delegator holds whole shares of what is delegated to a validator; a share is worth `delegated / shares` coins. Rewards
raise that and slashes lower it, for all delegators at once and at no cost a delegator. Nobody pays for a part of a
share, so rounding takes nothing from one delegator to give it to another: it is below one coin a step.

Stake that moved from one validator to another (`redelegation`) becomes like any other behind the second once it has
answered for the first long enough, with the delegator's next transaction that asks for stake back.
"""

from __future__ import annotations

from dataclasses import replace

from milon.base.errors import Reason, require
from milon.base.ids import AccountId
from milon.base.units import UNSIGNED_END, Amount, Count, Height
from milon.chain.params import Parameters
from milon.chain.transaction import Delegate, Undelegate
from milon.contracts.accounts import debit, load_account
from milon.contracts.moved import release_moved
from milon.contracts.records import Delegation, Delegations, Leaving, Moving, ValidatorRecord, delegations_key
from milon.contracts.validators import compute_release_height, load_validator, store_validator
from milon.pol.terms import PARTS_PER_MILLION
from milon.state.ledger import Draft, Ledger

DELEGATIONS_MAX = 16  # held, leaving, and moving: a delegator's record stays small


def load_delegations(ledger: Ledger | Draft, account: AccountId) -> Delegations:
    """The account's stake behind others."""
    return ledger.load(delegations_key(account), Delegations) or Delegations()


def store_delegations(draft: Draft, account: AccountId, delegations: Delegations) -> None:
    """Write the account's stake behind others; nothing where there is none."""
    if delegations == Delegations():
        draft.remove(delegations_key(account))
    else:
        draft.store(delegations_key(account), delegations)


def compute_value(record: ValidatorRecord, shares: int) -> int:
    """What so many shares of what is delegated to the validator are worth, in whole coins."""
    return shares * record.delegated // record.shares if record.shares else 0


def compute_left(record: ValidatorRecord, leaving: Leaving) -> int:
    """What is left of stake that is leaving, after what burned since."""
    return _scale(record, leaving.amount, leaving.taken_ppm)


def compute_moved(source: ValidatorRecord, moving: Moving) -> int:
    """The shares that are left of moved stake, after what burned since for the source's offences."""
    return _scale(source, moving.shares, moving.taken_ppm)


def _scale(record: ValidatorRecord, amount: int, taken_ppm: int) -> int:
    if taken_ppm >= PARTS_PER_MILLION:
        return 0
    return amount * (PARTS_PER_MILLION - record.taken_ppm) // (PARTS_PER_MILLION - taken_ppm)


def with_shares(delegations: Delegations, validator: AccountId, shares: int) -> Delegations:
    """The delegations with so many held shares of the validator."""
    others = tuple(entry for entry in delegations.held if entry.validator != validator)
    held = (*others, Delegation(validator, Count(shares))) if shares else others
    return replace(delegations, held=tuple(sorted(held, key=lambda entry: entry.validator)))


def shares_of(delegations: Delegations, validator: AccountId) -> int:
    """How many shares of the validator are held."""
    return next((int(entry.shares) for entry in delegations.held if entry.validator == validator), 0)


def require_room(delegations: Delegations, validator: AccountId) -> None:
    """`Rejected(FULL)` where one validator more would be too many, those counted where stake is still moving to."""
    validators = {validator, *(entry.validator for entry in delegations.held)}
    validators.update(entry.target for entry in delegations.moving)
    has_room = len(validators) <= DELEGATIONS_MAX
    require(has_room, Reason.FULL, f"delegations to {DELEGATIONS_MAX} validators at most")


def quote_shares(record: ValidatorRecord, amount: Amount) -> tuple[int, int]:
    """As many whole shares of a candidate as `amount` pays for, and just what they cost; `Rejected` where none are."""
    require(record.is_candidate, Reason.NOT_ALLOWED, "only candidates for the validator set take delegations")
    shares = cost = int(amount)
    if record.shares:
        require(record.delegated > 0, Reason.NOT_ALLOWED, "what was delegated to this validator is gone")
        shares = amount * record.shares // record.delegated
        cost = -(-shares * record.delegated // record.shares)
    require(shares > 0, Reason.OUT_OF_RANGE, "less than a share costs")
    require(record.shares + shares < UNSIGNED_END, Reason.FULL, "no more shares of this validator")
    return shares, cost


def settle_moving(draft: Draft, account: AccountId, height: Height, parameters: Parameters) -> Delegations:
    """Count what has arrived as held; the account's stake behind others after that."""
    delegations = load_delegations(draft, account)
    waiting: list[Moving] = []
    for entry in delegations.moving:
        source = load_validator(draft, entry.source)
        if entry.release_height > height or is_frozen(source, height, parameters):
            waiting.append(entry)
            continue
        shares = compute_moved(source, entry)
        release_moved(draft, entry.source, entry.target, shares)
        delegations = with_shares(delegations, entry.target, shares_of(delegations, entry.target) + shares)
    if len(waiting) < len(delegations.moving):
        delegations = replace(delegations, moving=tuple(waiting))
        store_delegations(draft, account, delegations)
    return delegations


def apply_delegate(draft: Draft, sender: AccountId, action: Delegate) -> None:
    """Buy as many whole shares as `amount` pays for, for just what they cost."""
    record = load_validator(draft, action.validator)
    require(sender != action.validator, Reason.NOT_ALLOWED, "own stake is bonded, not delegated")
    require(action.amount > 0, Reason.OUT_OF_RANGE, "a delegation of nothing")
    balance = load_account(draft, sender).balance
    require(action.amount <= balance, Reason.INSUFFICIENT_FUNDS, f"a balance of {balance}")
    shares, cost = quote_shares(record, action.amount)
    delegations = load_delegations(draft, sender)
    held = shares_of(delegations, action.validator)
    require_room(delegations, action.validator)
    debit(draft, sender, cost)
    store_delegations(draft, sender, with_shares(delegations, action.validator, held + shares))
    delegated, total = Amount(record.delegated + cost), Count(record.shares + shares)
    store_validator(draft, action.validator, replace(record, delegated=delegated, shares=total))


def apply_undelegate(
    draft: Draft, sender: AccountId, action: Undelegate, height: Height, parameters: Parameters
) -> None:
    """Give up as few shares as `amount` is worth, and start its waiting time.

    Who gives up the last share gets what rounding left over. Shares of what burned altogether are just given up.
    """
    delegations = settle_moving(draft, sender, height, parameters)
    record = load_validator(draft, action.validator)
    held = shares_of(delegations, action.validator)
    require(held > 0, Reason.NOT_NOW, "nothing is delegated to this validator")
    require(action.amount > 0, Reason.OUT_OF_RANGE, "nothing to undelegate")
    if record.delegated == 0:
        store_delegations(draft, sender, with_shares(delegations, action.validator, 0))
        store_validator(draft, action.validator, replace(record, shares=Count(record.shares - held)))
        return
    worth = compute_value(record, held)
    require(action.amount <= worth, Reason.INSUFFICIENT_FUNDS, f"{worth} are delegated, {action.amount} are asked back")
    require(len(delegations.leaving) < DELEGATIONS_MAX, Reason.FULL, "too much is leaving at once; withdraw first")
    shares = -(-action.amount * record.shares // record.delegated)
    amount = record.delegated if shares == record.shares else action.amount
    release = compute_release_height(draft, action.validator, height, parameters)
    waiting = Leaving(action.validator, amount, record.taken_ppm, release)
    kept = with_shares(delegations, action.validator, held - shares)
    store_delegations(draft, sender, replace(kept, leaving=(*kept.leaving, waiting)))
    store_validator(
        draft,
        action.validator,
        replace(
            record,
            delegated=Amount(record.delegated - amount),
            shares=Count(record.shares - shares),
            leaving=Amount(record.leaving + amount),
        ),
    )


def is_frozen(record: ValidatorRecord, height: Height, parameters: Parameters) -> bool:
    """Whether stake behind a tombstoned validator has to stay, since more of it may burn."""
    return record.is_tombstoned and height <= record.tombstoned_at + parameters.evidence_age_blocks


def collect_left(draft: Draft, account: AccountId, height: Height, parameters: Parameters) -> int | None:
    """Take all delegated stake of the account whose waiting time is over; what is left of it, for the caller to credit.

    None where no waiting time is over; 0 where all of it burned meanwhile, or has only moved.
    """
    has_moved = load_delegations(draft, account).moving
    delegations = settle_moving(draft, account, height, parameters)

    def is_ripe(entry: Leaving) -> bool:
        record = load_validator(draft, entry.validator)
        return entry.release_height <= height and not is_frozen(record, height, parameters)

    ripe = [entry for entry in delegations.leaving if is_ripe(entry)]
    if not ripe:
        return None if delegations.moving == has_moved else 0
    waiting = tuple(entry for entry in delegations.leaving if entry not in ripe)
    total = 0
    for entry in ripe:
        record = load_validator(draft, entry.validator)
        left = compute_left(record, entry)
        store_validator(draft, entry.validator, replace(record, leaving=Amount(record.leaving - left)))
        total += left
    store_delegations(draft, account, replace(delegations, leaving=waiting))
    return total

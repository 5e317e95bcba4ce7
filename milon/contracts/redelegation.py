"""Moving delegated stake from one validator to another without the waiting time, and without a way out of a slash.

The stake stands behind the new validator at once. For as long as it would have waited it answers for the old one's
offences too, cannot be asked back, and cannot move again: so it never answers for more than two.
"""

from __future__ import annotations

from dataclasses import replace

from milon.base.errors import Reason, require
from milon.base.ids import AccountId
from milon.base.units import Amount, Count, Height
from milon.chain.params import Parameters
from milon.chain.transaction import Redelegate
from milon.contracts.delegation import (
    DELEGATIONS_MAX,
    compute_value,
    quote_shares,
    require_room,
    settle_moving,
    shares_of,
    store_delegations,
    with_shares,
)
from milon.contracts.moved import add_moved
from milon.contracts.records import Delegations, Leaving, Moving
from milon.contracts.validators import compute_release_height, load_validator, store_validator
from milon.state.ledger import Draft


def _require_held(delegations: Delegations, source: AccountId) -> int:
    """How many shares of `source` may move; `Rejected` where there are none, with the height where some will be."""
    held = shares_of(delegations, source)
    arrives = min((entry.release_height for entry in delegations.moving if entry.target == source), default=None)
    later = "" if arrives is None else f"; what moved there may move again from height {arrives} on"
    require(held > 0, Reason.NOT_NOW, f"nothing is delegated to this validator{later}")
    return held


def apply_redelegate(
    draft: Draft, sender: AccountId, action: Redelegate, height: Height, parameters: Parameters
) -> None:
    """Buy whole shares of `target` for at most `amount`, and give up as few shares of `source` as they cost.

    Who gives up the last share of `source` gets what rounding left over there back, after the waiting time.
    """
    require(action.source != action.target, Reason.NOT_ALLOWED, "from a validator to itself")
    require(sender != action.target, Reason.NOT_ALLOWED, "own stake is bonded, not delegated")
    require(action.amount > 0, Reason.OUT_OF_RANGE, "nothing to move")
    delegations = settle_moving(draft, sender, height, parameters)
    source, target = load_validator(draft, action.source), load_validator(draft, action.target)
    held = _require_held(delegations, action.source)
    worth = compute_value(source, held)
    require(action.amount <= worth, Reason.INSUFFICIENT_FUNDS, f"{worth} are delegated, {action.amount} are to move")
    bought, cost = quote_shares(target, action.amount)
    sold = -(-cost * source.shares // source.delegated)
    rest = source.delegated - cost if sold == source.shares else 0
    require(len(delegations.moving) < DELEGATIONS_MAX, Reason.FULL, "too much is moving at once; wait for some of it")
    require_room(delegations, action.target)
    release = compute_release_height(draft, action.source, height, parameters)
    moving = Moving(action.source, action.target, Count(bought), source.taken_ppm, release)
    kept = with_shares(delegations, action.source, held - sold)
    kept = replace(kept, moving=(*kept.moving, moving))
    if rest:
        require(len(kept.leaving) < DELEGATIONS_MAX, Reason.FULL, "too much is leaving at once; withdraw first")
        waiting = Leaving(action.source, Amount(rest), source.taken_ppm, release)
        kept = replace(kept, leaving=(*kept.leaving, waiting))
    store_delegations(draft, sender, kept)
    add_moved(draft, action.source, action.target, bought)
    left = replace(
        source,
        delegated=Amount(source.delegated - cost - rest),
        shares=Count(source.shares - sold),
        leaving=Amount(source.leaving + rest),
    )
    store_validator(draft, action.source, left)
    grown = replace(target, delegated=Amount(target.delegated + cost), shares=Count(target.shares + bought))
    store_validator(draft, action.target, grown)

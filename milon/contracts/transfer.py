"""Moving coins between accounts."""

from __future__ import annotations

from milon.base.errors import Reason, require
from milon.base.ids import AccountId
from milon.chain.transaction import Transfer
from milon.contracts.accounts import credit, debit
from milon.state.ledger import Draft


def apply_transfer(draft: Draft, sender: AccountId, action: Transfer) -> None:
    """Move `amount` > 0 from the sender's balance to another account."""
    require(action.amount > 0, Reason.OUT_OF_RANGE, "a transfer of nothing")
    debit(draft, sender, action.amount)
    credit(draft, action.to, action.amount)

"""The ledger's rules as the engine is given them, and the first commit of a new store."""

from __future__ import annotations

from milon.base.ids import AccountId
from milon.chain.genesis import Genesis
from milon.consensus.application import Application
from milon.consensus.mempool import Standing
from milon.consensus.restore import compute_genesis_commit
from milon.contracts.accounts import load_account
from milon.contracts.apply import (
    apply_block,
    compute_genesis_ledger,
    is_waiting_for_blocks,
    select_transactions,
)
from milon.contracts.offences import select_evidence
from milon.contracts.validators import load_validators_at
from milon.state.ledger import Ledger
from milon.state.store import Store


def standing_of(ledger: Ledger, account: AccountId) -> Standing:
    """What the ledger expects of a sender and what it has."""
    record = load_account(ledger, account)
    return Standing(record.nonce, record.balance)


CONTRACTS = Application(
    apply_block, select_transactions, is_waiting_for_blocks, standing_of, load_validators_at, select_evidence
)


def prepare_store(store: Store, genesis: Genesis) -> None:
    """Commit the genesis where the store is empty."""
    if store.tip() is None:
        store.commit(compute_genesis_commit(genesis, compute_genesis_ledger(genesis)))

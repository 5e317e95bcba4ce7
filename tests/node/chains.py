"""Short chains made by the production engine in the simulator, as the tests of a node's tools need them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from milon.base.codec import encode
from milon.base.signing import SecretKey, secret_key_from
from milon.base.units import Amount, Height, Nonce
from milon.chain.genesis import Genesis
from milon.chain.transaction import TransactionBody, Transfer, sign_transaction
from milon.consensus.application import ED25519
from milon.contracts.apply import compute_genesis_ledger
from milon.node.application import CONTRACTS, prepare_store
from milon.node.folder import NodeFolder, write_file
from milon.node.keys import ensure_key, ensure_token, write_key
from milon.node.vote_log import VoteLog
from milon.state.lmdb_store import LmdbStore
from milon.state.memory_store import MemoryStore
from milon.state.store import Commit
from tests.simulation.cheap import account_of
from tests.simulation.network import START_MS, Behaviour, Faults, Network


@dataclass(frozen=True, slots=True)
class Grown:
    """A chain that was grown."""

    genesis: Genesis
    key: SecretKey  # of its one validator
    store: MemoryStore  # of a node that has all of it


@cache
def grow(time_ms: int = 3_000, transfers: int = 12) -> Grown:
    """A chain of one validator after so much simulated time, with transfers to as many accounts; made once."""
    network = Network(
        7,
        (100,),
        [Behaviour()],
        Faults(),
        application=CONTRACTS,
        cryptography=ED25519,
        make_table=compute_genesis_ledger,
    )
    key = network.keys[0]
    for nonce in range(transfers):
        action = Transfer(secret_key_from(f"receiver {nonce}").account, Amount(1 + nonce))
        body = TransactionBody("simulated", account_of(key), Nonce(nonce), Amount(1), action)
        network.submit(START_MS + 150 + nonce * 120, 0, sign_transaction(key, body))
    network.run_until(time_ms)
    return Grown(network.genesis, key, network.nodes[0].store)


def copy_chain(grown: Grown, store: LmdbStore, up_to: int | None = None) -> None:
    """Bring the chain into a store on disk in one commit, as a state sync would leave it but with all its blocks."""
    tip = grown.store.tip()
    assert tip is not None and up_to is None
    prepare_store(store, grown.genesis)
    heights = [Height(height) for height in range(1, tip[0] + 1)]
    blocks, certificates, receipts = [], [], []
    for height in heights:
        raw = grown.store.block_by_height(height)
        assert raw is not None
        name = next(name for name, at in grown.store._tables.heights.items() if at == height)
        blocks.append((height, name, raw))
        for found, into in (
            (grown.store.certificate_at(height), certificates),
            (grown.store.receipts_at(height), receipts),
        ):
            if found is not None:
                into.append((height, found))
    tables = grown.store._tables
    store.commit(
        Commit(
            tuple(blocks),
            tuple(certificates),
            tuple(receipts),
            dict(tables.ledger),
            dict(tables.nodes),
            tip,
            tables.root,
        )
    )


def make_folder(grown: Grown, root: Path) -> NodeFolder:
    """A stopped node's folder that holds the chain."""
    folder = NodeFolder(root)
    folder.make()
    write_key(folder.validator_key, grown.key)
    ensure_key(folder.network_key)
    ensure_token(folder)
    write_file(folder.genesis, encode(grown.genesis))
    VoteLog(folder.votes).close()
    store = LmdbStore(folder.chain)
    copy_chain(grown, store)
    store.close()
    return folder

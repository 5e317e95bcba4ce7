"""Short chains made by the production engine in the simulator, as the tests of a node's tools need them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from milon.base.codec import encode
from milon.base.ids import Digest
from milon.base.signing import SecretKey, secret_key_from
from milon.base.units import Amount, Count, Height, Nonce, TimeMs
from milon.chain.genesis import Genesis
from milon.chain.transaction import Bond, TransactionBody, Transfer, sign_transaction
from milon.consensus.application import ED25519
from milon.contracts.apply import compute_genesis_ledger
from milon.node.answers import Answers
from milon.node.application import CONTRACTS, prepare_store
from milon.node.folder import NodeFolder, write_file
from milon.node.keys import ensure_key, ensure_token, write_key
from milon.node.light_answers import LightAnswers
from milon.node.shelf import Shelf
from milon.node.vote_log import VoteLog
from milon.p2p.transport import Channel, PeerId
from milon.state.lmdb_store import LmdbStore
from milon.state.memory_store import MemoryStore
from milon.state.store import Commit, Store
from tests.p2p.networks import AnyTransport
from tests.p2p.networks import Network as P2PNetwork
from tests.simulation.cheap import account_of
from tests.simulation.network import PARAMETERS, START_MS, Behaviour, Faults, Network

Tamper = Callable[[bytes, bytes], bytes]  # question and honest answer to what is sent


def unchanged(question: bytes, answer: bytes) -> bytes:
    """An honest peer."""
    return answer


@dataclass(frozen=True, slots=True)
class Grown:
    """A chain that was grown."""

    genesis: Genesis
    key: SecretKey  # of its one validator
    store: MemoryStore  # of a node that has all of it
    sets: Path  # a shelf that kept every epoch's validators while the chain grew


@cache
def grow(time_ms: int = 3_000, transfers: int = 12, epoch_blocks: int = 0, unbond_blocks: int = 1_000) -> Grown:
    """A chain of one validator after so much simulated time, with transfers to as many accounts; made once.

    With epochs of some blocks the validator bonds a coin with every second transaction, so that its power, and with it
    the validator set, differs from epoch to epoch.
    """
    parameters = PARAMETERS
    if epoch_blocks:
        parameters = replace(
            PARAMETERS,
            epoch_blocks=Count(epoch_blocks),
            evidence_age_blocks=Count(2 * epoch_blocks),
            unbond_blocks=Count(unbond_blocks),
        )
    network = Network(
        7, (1_000_000,), [Behaviour()], Faults(), application=CONTRACTS, cryptography=ED25519,
        make_table=compute_genesis_ledger, parameters=parameters,
    )  # fmt: skip
    key = network.keys[0]
    for nonce in range(transfers):
        receiver = secret_key_from(f"receiver {nonce}").account
        action = Bond(Amount(1)) if epoch_blocks and nonce % 2 else Transfer(receiver, Amount(1 + nonce))
        body = TransactionBody("simulated", account_of(key), Nonce(nonce), Amount(1), action)
        network.submit(START_MS + 150 + nonce * 120, 0, sign_transaction(key, body))
    sets = Path(tempfile.mkdtemp(prefix="milon-sets-"))
    atexit.register(shutil.rmtree, sets, ignore_errors=True)
    shelf, store = Shelf(sets), network.nodes[0].store
    for now_ms in range(200, time_ms + 1, 200):
        network.run_until(now_ms)
        shelf.keep_validators(store, parameters)
    return Grown(network.genesis, key, store, sets)


def copy_chain(grown: Grown, store: Store) -> None:
    """Bring the chain into another store, all of it in one commit."""
    tip = grown.store.tip()
    assert tip is not None
    prepare_store(store, grown.genesis)
    heights = [Height(height) for height in range(1, tip[0] + 1)]
    blocks: list[tuple[Height, Digest, bytes]] = []
    certificates: list[tuple[Height, bytes]] = []
    receipts: list[tuple[Height, bytes]] = []
    names = {at: name for name, at in grown.store._tables.heights.items()}
    for height in heights:
        raw = grown.store.block_by_height(height)
        assert raw is not None
        blocks.append((height, names[height], raw))
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


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer that answers from a chain."""

    transport: AnyTransport
    store: MemoryStore
    shelf: Shelf


async def serve_chain(
    network: P2PNetwork,
    name: str,
    grown: Grown,
    folder: Path,
    *,
    has_snapshot: bool = False,
    tamper: Tamper = unchanged,
) -> Peer:
    """A peer that answers from a copy of the chain, with a snapshot of its tip; `tamper` changes what it sends."""
    store = MemoryStore()
    copy_chain(grown, store)
    if (grown.sets / "validators").exists():
        shutil.copytree(grown.sets, folder / name)
    shelf = Shelf(folder / name)
    if has_snapshot:
        shelf.make(store.snapshot())
    transport = network.make(name)
    light = LightAnswers(grown.genesis, store, shelf, lambda: TimeMs(5))
    answers = Answers(grown.genesis, store, lambda: (), light)

    async def answer(peer: PeerId, raw: bytes) -> bytes:
        return tamper(raw, await answers.answer(peer, raw))

    transport.serve(Channel.SYNC, answer)
    await network.start(transport)
    return Peer(transport, store, shelf)

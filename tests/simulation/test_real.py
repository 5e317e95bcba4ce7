"""The engine with everything real that it will meet: ed25519, the VRF, canonical bytes, the contracts' ledger."""

from milon.base.units import Amount, Height, Nonce
from milon.chain.transaction import TransactionBody, Transfer, sign_transaction
from milon.consensus.application import ED25519
from milon.contracts.accounts import load_account
from milon.contracts.apply import compute_genesis_ledger
from milon.state.ledger import Ledger
from tests.simulation.cheap import account_of
from tests.simulation.network import START_MS, Behaviour, Faults, Network
from tests.simulation.scenario import CONTRACTS

CHAIN = "simulated-in-full"  # no stand-in signs there


def _make_network(seed: int, faults: Faults) -> Network:
    return Network(
        seed,
        (10, 10, 10, 10),
        [Behaviour() for _ in range(4)],
        faults,
        application=CONTRACTS,
        cryptography=ED25519,
        make_table=compute_genesis_ledger,
        is_encoded=True,
        chain_id=CHAIN,
    )


def test_transfers_take_effect_on_every_node_through_loss_and_crashes() -> None:
    network = _make_network(3, Faults(loss_percent=5, crash_per_mille=10, heal_ms=2_000))
    sender, receiver = network.keys[0], account_of(network.keys[1])
    for nonce in range(6):
        action = Transfer(receiver, Amount(100))
        body = TransactionBody(CHAIN, account_of(sender), Nonce(nonce), Amount(1), action)
        transaction = sign_transaction(sender, body)
        for node in network.nodes:
            network.submit(START_MS + 2_100 + 150 * nonce, node.index, transaction)
    network.run_until(5_000)
    assert min(network.heights()) >= 6
    states = [(load_account(Ledger(node.store), receiver).balance, node.store.tip()) for node in network.nodes]
    assert all(balance == 10**6 + 600 for balance, _ in states)
    height = Height(min(network.heights()))
    roots = {node.store.block_by_height(height) for node in network.nodes}
    assert len(roots) == 1 and None not in roots


def test_a_busy_chain_is_faster_than_an_idle_one() -> None:
    idle, busy = _make_network(4, Faults()), _make_network(4, Faults())
    sender = busy.keys[0]
    for nonce in range(40):
        action = Transfer(account_of(sender), Amount(1))
        body = TransactionBody(CHAIN, account_of(sender), Nonce(nonce), Amount(1), action)
        for node in busy.nodes:
            busy.submit(START_MS + 200 + 20 * nonce, node.index, sign_transaction(sender, body))
    idle.run_until(1_200)
    busy.run_until(1_200)
    assert min(busy.heights()) >= min(idle.heights()) + 3

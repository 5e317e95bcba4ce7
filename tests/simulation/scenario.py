"""What a seed stands for: the validators and their stake, who is crooked and how, what users do, what goes wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from milon.base.units import Amount, Nonce
from milon.chain.transaction import Action, Transaction, TransactionBody, Transfer, sign_transaction
from milon.consensus.application import Application
from milon.consensus.mempool import Standing
from milon.contracts.accounts import load_account
from milon.contracts.apply import apply_block, compute_genesis_ledger, is_waiting_for_blocks, select_transactions
from milon.contracts.offences import select_evidence
from milon.contracts.validators import load_validators_at
from milon.state.ledger import Ledger
from tests.simulation.adversaries.double_key import DoubleKeyOperator
from tests.simulation.adversaries.equivocator import Equivocator
from tests.simulation.adversaries.forger import Forger
from tests.simulation.adversaries.forking_leader import ForkingLeader
from tests.simulation.adversaries.nullifier import Nullifier
from tests.simulation.adversaries.replayer import Replayer
from tests.simulation.adversaries.silent_leader import SilentLeader
from tests.simulation.adversaries.spammer import Spammer
from tests.simulation.adversaries.twin import Twin
from tests.simulation.adversaries.vote_withholder import VoteWithholder
from tests.simulation.cheap import account_of
from tests.simulation.faults import draw_faults
from tests.simulation.network import START_MS, Behaviour, Network

CHAOS_MS = 3_600  # simulated time until the network heals
STAKE = 10_000  # of a validator with one share of the power
POWERS = ((1, 1, 1, 1),) * 5 + ((6, 5, 5, 3, 1),) * 2 + ((6, 6, 6, 1, 1, 1, 1), (1,) * 7)  # shares of stake

_MAKE: dict[str, Callable[[int], Behaviour]] = {
    "forking leader": lambda seed: ForkingLeader(),
    "equivocator": lambda seed: Equivocator(),
    "nullifier": lambda seed: Nullifier(),
    "silent leader": lambda seed: SilentLeader(),
    "replayer": Replayer,
    "forger": Forger,
    "spammer": Spammer,
    "vote withholder": VoteWithholder,
}
KINDS = ("none", "twins", "double key", *_MAKE)


def _standing_of(ledger: Ledger, account: object) -> Standing:
    record = load_account(ledger, account)  # type: ignore[arg-type]
    return Standing(record.nonce, record.balance)


CONTRACTS = Application(
    apply_block, select_transactions, is_waiting_for_blocks, _standing_of, load_validators_at, select_evidence
)


@dataclass
class Cast:
    """The nodes of a network, in order."""

    powers: tuple[int, ...]  # of the accounts
    behaviours: list[Behaviour]  # one a node
    keys: list[int | None]  # whose key each node has
    late: set[int] = field(default_factory=set)  # nodes that somebody else starts


def make_network(seed: int, kind: str | None = None) -> tuple[Network, str]:
    """The network of a seed: four validators, five of unequal power, or seven, the most of them crooked."""
    kind = KINDS[seed % len(KINDS)] if kind is None else kind
    chance = random.Random(f"{kind} {seed}")
    cast = _draw_cast(chance, seed, kind)
    faults = draw_faults(chance, len(cast.behaviours), CHAOS_MS)
    network = Network(
        f"{kind} {seed}",
        cast.powers,
        cast.behaviours,
        faults,
        keys=cast.keys,
        application=CONTRACTS,
        make_table=compute_genesis_ledger,
        late=frozenset(cast.late),
    )
    skew_ms = chance.choice((40, 40, 40, 400))
    for node in network.nodes:
        node.clock_skew_ms = chance.randrange(-skew_ms, skew_ms + 1) if node.index % 3 == 0 else chance.randrange(40)
    _let_users_act(chance, network)
    return network, kind


def _draw_cast(chance: random.Random, seed: int, kind: str) -> Cast:
    powers = tuple(share * STAKE for share in chance.choice(POWERS))
    cast = Cast(powers, [Behaviour() for _ in powers], list(range(len(powers))))
    for crooked in _draw_crooked(chance, powers) if kind != "none" else ():
        if kind in ("twins", "double key"):
            second = len(cast.behaviours)
            cast.behaviours[crooked] = Twin() if kind == "twins" else DoubleKeyOperator(second)
            cast.behaviours.append(Twin() if kind == "twins" else DoubleKeyOperator(None))
            cast.keys.append(crooked)
            if kind == "double key":
                cast.late.add(second)
        else:
            cast.behaviours[crooked] = _MAKE[kind](seed)
    if chance.randrange(4) == 0:
        cast.behaviours.append(Behaviour())
        cast.keys.append(None)
    return cast


def _draw_crooked(chance: random.Random, powers: tuple[int, ...]) -> list[int]:
    """As many validators as the protocol bears, less than a third of the power; now and then as many heads as can."""
    crooked: list[int] = []
    order = chance.sample(range(len(powers)), len(powers))
    if chance.randrange(2):
        order.sort(key=lambda index: powers[index])
    for index in order:
        if 3 * (powers[index] + sum(powers[other] for other in crooked)) < sum(powers):
            crooked.append(index)
    return crooked


def _let_users_act(chance: random.Random, network: Network) -> None:
    """A few transfers, each handed to every node at its own time; some senders repeat themselves or skip a number."""
    for sender in range(2):
        for number in range(chance.randrange(4)):
            receiver = account_of(chance.choice(network.keys))
            transaction = make_transaction(network, sender, number, Transfer(receiver, Amount(chance.randrange(1, 99))))
            hand_out(chance, network, transaction, chance.randrange(CHAOS_MS))


def make_transaction(network: Network, sender: int, nonce: int, action: Action) -> Transaction:
    """A signed transaction of account number `sender`."""
    key = network.keys[sender]
    body = TransactionBody(network.genesis.chain_id, account_of(key), Nonce(nonce), Amount(1), action)
    return sign_transaction(key, body)


def hand_out(chance: random.Random, network: Network, transaction: Transaction, at_ms: int) -> None:
    """Give the transaction to every node, not to all at once."""
    for node in network.nodes:
        network.submit(START_MS + at_ms + chance.randrange(200), node.index, transaction)

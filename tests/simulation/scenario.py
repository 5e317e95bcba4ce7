"""What a seed stands for: the validators and their stake, who is crooked and how, what users do, what goes wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from milon.base.units import Amount, Count, Nonce
from milon.chain.certificate import compute_quorum
from milon.chain.params import EPOCH_NEVER_ENDS, Parameters
from milon.chain.transaction import (
    Action,
    Bond,
    Delegate,
    Redelegate,
    Retire,
    Stand,
    Transaction,
    TransactionBody,
    Transfer,
    Undelegate,
    Unjail,
    sign_transaction,
)
from milon.contracts.apply import compute_genesis_ledger
from milon.contracts.power import cap_powers
from milon.node.application import CONTRACTS
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
from tests.simulation.adversaries.whisperer import Whisperer
from tests.simulation.cheap import account_of
from tests.simulation.faults import draw_faults
from tests.simulation.network import PARAMETERS, START_MS, Behaviour, Network

CHAOS_MS = 3_600  # simulated time until the network heals
STAKE = 10_000  # of a validator with one share of the power
POWERS = ((1, 1, 1, 1),) * 5 + ((6, 5, 5, 3, 1),) * 2 + ((6, 6, 6, 1, 1, 1, 1), (1,) * 7)  # shares of stake
ROOMY_POWERS = tuple(shares for shares in POWERS if len(shares) > 4)  # bear a crooked one with honest power in jail
USERS = 2  # honest accounts that do this and that
NO_JAIL = 1_000_000  # turns in an epoch, which no run has
EPOCHS = (EPOCH_NEVER_ENDS, 2, 4, 4, 7)  # blocks; a run has ten to thirty

_MAKE: dict[str, Callable[[int], Behaviour]] = {
    "forking leader": lambda seed: ForkingLeader(),
    "equivocator": lambda seed: Equivocator(),
    "nullifier": lambda seed: Nullifier(),
    "silent leader": lambda seed: SilentLeader(),
    "replayer": Replayer,
    "forger": Forger,
    "spammer": Spammer,
    "vote withholder": VoteWithholder,
    "whisperer": Whisperer,
}
KINDS = ("none", "twins", "double key", *_MAKE)


@dataclass
class Cast:
    """The nodes of a network, in order."""

    powers: tuple[int, ...]  # of the accounts; 0: none yet
    behaviours: list[Behaviour]  # one a node
    keys: list[int | None]  # whose key each node has
    late: set[int] = field(default_factory=set)  # nodes that somebody else starts
    leavers: tuple[int, ...] = ()  # honest validators that will retire
    joiners: tuple[int, ...] = ()  # honest accounts that will stand for validator
    crooked: tuple[int, ...] = ()  # less than a third of the power, whoever of the others has left


def make_network(seed: int, kind: str | None = None) -> tuple[Network, str]:
    """The network of a seed: four, five or seven validators, as many crooked ones as the protocol bears, and others."""
    kind = KINDS[seed % len(KINDS)] if kind is None else kind
    chance = random.Random(f"{kind} {seed}")
    is_jailing = kind == "none" or chance.randrange(3) == 0
    parameters = _draw_parameters(chance, is_jailing)
    cast = _draw_cast(chance, seed, kind, parameters)
    network = Network(
        f"{kind} {seed}",
        cast.powers,
        cast.behaviours,
        draw_faults(chance, len(cast.behaviours), CHAOS_MS),
        keys=cast.keys,
        application=CONTRACTS,
        parameters=parameters,
        make_table=compute_genesis_ledger,
        late=frozenset(cast.late),
    )
    skew_ms = chance.choice((40, 40, 40, 400))
    for node in network.nodes:
        node.clock_skew_ms = chance.randrange(-skew_ms, skew_ms + 1) if node.index % 3 == 0 else chance.randrange(40)
    _let_users_act(chance, network, cast)
    return network, kind


def _draw_parameters(chance: random.Random, is_jailing: bool) -> Parameters:
    """Epochs of a few blocks or none; who misses turns goes to jail, or nobody does."""
    return replace(
        PARAMETERS,
        epoch_blocks=Count(chance.choice(EPOCHS)),
        unbond_blocks=Count(60),
        evidence_age_blocks=Count(50),
        block_reward=Amount(chance.choice((0, 7))),
        jail_turns_min=Count(chance.choice((1, 2)) if is_jailing else NO_JAIL),
        jail_missed_ppm=Count(chance.choice((300_000, 600_000))),
        jail_blocks=Count(2),
    )


def _draw_cast(chance: random.Random, seed: int, kind: str, parameters: Parameters) -> Cast:
    is_jailing = parameters.jail_turns_min < NO_JAIL
    shares = chance.choice(ROOMY_POWERS if is_jailing and kind != "none" else POWERS)
    powers = tuple(share * STAKE for share in shares)
    count = len(powers)
    joiners: tuple[int, ...] = ()
    leavers: tuple[int, ...] = ()
    if parameters.epoch_blocks < EPOCH_NEVER_ENDS:
        joiners = tuple(range(count, count + chance.randrange(3)))
        leavers = (chance.randrange(count),) if count > 4 and chance.randrange(2) else ()
    crooked = () if kind == "none" else _draw_crooked(chance, powers, leavers, parameters)
    accounts = (*powers, *(0 for _ in joiners))
    cast = Cast(accounts, [Behaviour() for _ in accounts], list(range(len(accounts))), set(), leavers, joiners, crooked)
    for index in crooked:
        if kind in ("twins", "double key"):
            _double(cast, index, kind == "twins")
        else:
            cast.behaviours[index] = _MAKE[kind](seed)
    if chance.randrange(4) == 0:
        cast.behaviours.append(Behaviour())
        cast.keys.append(None)
    return cast


def _double(cast: Cast, index: int, is_twin: bool) -> None:
    """Put a second node with the same key there: at once, or later, from a copy of the first one's disk."""
    second = len(cast.behaviours)
    cast.behaviours[index] = Twin() if is_twin else DoubleKeyOperator(second)
    cast.behaviours.append(Twin() if is_twin else DoubleKeyOperator(None))
    cast.keys.append(index)
    if not is_twin:
        cast.late.add(second)


def _draw_crooked(
    chance: random.Random, powers: Sequence[int], leavers: Sequence[int], parameters: Parameters
) -> tuple[int, ...]:
    """As many validators as the protocol bears, less than a third of the power, now and then as many heads as can.

    That must hold in every set that may come: before and after the leavers have left, with the largest capped, and once
    an epoch's end has sent as much honest power to jail as it may. Several ends may send more; then the run is over.
    """
    crooked: list[int] = []
    order = chance.sample(range(len(powers)), len(powers))
    if chance.randrange(2):
        order.sort(key=lambda index: powers[index])
    for index in order:
        wanted = {*crooked, index}
        if index not in leavers and all(_is_bearable(powers, wanted, gone, parameters) for gone in ((), leavers)):
            crooked.append(index)
    return tuple(crooked)


def _is_bearable(powers: Sequence[int], crooked: set[int], gone: Sequence[int], parameters: Parameters) -> bool:
    there = sorted((index for index in range(len(powers)) if index not in gone), key=lambda index: -powers[index])
    capped = cap_powers([powers[index] for index in there], int(parameters.power_cap_ppm))
    for shares in (capped, [powers[index] for index in there]):
        bad = sum(share for index, share in zip(there, shares, strict=True) if index in crooked)
        left = compute_quorum(sum(shares)) if parameters.jail_turns_min < NO_JAIL else sum(shares)
        if 3 * bad >= left:
            return False
    return True


class _Wallet:
    """Signs what one account asks for, one after the other."""

    def __init__(self, chance: random.Random, network: Network, account: int) -> None:
        self._chance, self._network, self._account = chance, network, account
        self._nonce = 0
        self._at_ms = chance.randrange(CHAOS_MS // 2)

    def ask(self, action: Action, wait_ms: int = 300) -> None:
        """Some time after the last request, hand the next one to every node, not to all at once."""
        transaction = make_transaction(self._network, self._account, self._nonce, action)
        for node in self._network.nodes:
            self._network.submit(START_MS + self._at_ms + self._chance.randrange(200), node.index, transaction)
        self._nonce += 1
        self._at_ms += self._chance.randrange(wait_ms)


def make_transaction(network: Network, sender: int, nonce: int, action: Action) -> Transaction:
    """A signed transaction of account number `sender`."""
    key = network.keys[sender]
    body = TransactionBody(network.genesis.chain_id, account_of(key), Nonce(nonce), Amount(1), action)
    return sign_transaction(key, body)


def _let_users_act(chance: random.Random, network: Network, cast: Cast) -> None:
    """Joiners bond and stand, leavers retire, others lend, move, take back, send coins, ask in vain or to come back."""
    accounts = [account_of(key) for key in network.keys]
    honest = [index for index in range(len(cast.powers)) if index not in cast.crooked]
    for joiner in cast.joiners:
        wallet = _Wallet(chance, network, joiner)
        wallet.ask(Bond(Amount(STAKE)))
        wallet.ask(Stand(Count(chance.randrange(200_000))))
    for leaver in cast.leavers:
        _Wallet(chance, network, leaver).ask(Retire())
    busy = {*cast.joiners, *cast.leavers}
    others = [index for index in honest if index not in busy]
    for number, sender in enumerate(chance.sample(others, len(others))):
        wallet = _Wallet(chance, network, sender)
        if number >= USERS:  # with nothing on its mind but to come back from jail
            wallet.ask(Unjail(), CHAOS_MS // 2)
            wallet.ask(Unjail())
            continue
        if number == 0 and chance.randrange(2):
            friend = accounts[chance.choice([index for index in honest if index not in cast.joiners])]
            wallet.ask(Delegate(friend, Amount(chance.randrange(1, STAKE))))
            wallet.ask(Redelegate(friend, accounts[chance.choice(honest)], Amount(chance.randrange(1, STAKE))))
            wallet.ask(Undelegate(friend, Amount(chance.randrange(1, STAKE))), CHAOS_MS // 2)
        elif number == 1 and cast.crooked:
            friend = accounts[chance.choice(cast.crooked)]
            wallet.ask(Delegate(friend, Amount(99)))  # too little to count
            wallet.ask(Redelegate(friend, accounts[chance.choice(honest)], Amount(98)))
        for _ in range(chance.randrange(3)):
            wallet.ask(chance.choice((Transfer(chance.choice(accounts), Amount(99)), Unjail(), Bond(Amount(0)))))

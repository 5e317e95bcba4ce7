"""A network of engines in a plain loop: one seed decides delays, loss, partitions, crashes and who misbehaves how."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from milon.base.codec import encode
from milon.base.signing import SecretKey, secret_key_from
from milon.base.units import Amount, Count, Height, TimeMs, View
from milon.chain.genesis import Genesis, GenesisAccount
from milon.chain.params import Parameters
from milon.chain.transaction import Transaction
from milon.consensus.application import Application, Config, Cryptography, make_config
from milon.consensus.effects import Accuse, Blame, CommitBlocks, Effect, Persist, PruneLog, Send, SetTimer
from milon.consensus.engine import step
from milon.consensus.events import Committed, Event, MessageReceived, TimerFired, TransactionsReceived
from milon.consensus.messages import (
    LoggedVote,
    LogRecord,
    Message,
    decode_message,
    decode_record,
    encode_message,
    view_of_record,
)
from milon.consensus.restore import compute_genesis_commit, restore
from milon.consensus.state import NO_VIEW, State
from milon.state.memory_store import MemoryStore
from tests.simulation.cheap import CHEAP, COUNTING, account_of
from tests.simulation.invariants import Auditor

PARAMETERS = Parameters(
    block_time_ms=Count(200),
    busy_block_time_ms=Count(60),
    delta_ms=Count(100),
    delta_max_ms=Count(1_500),
    clock_drift_ms_max=Count(500),
)
DELAY_MAX_MS = 40  # one way, when nothing is wrong: well under delta
START_MS = 1_000_000


class Behaviour:
    """What a node does with what its engine wants to do; this one is honest."""

    is_honest = True

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        """The effects to carry out instead."""
        return list(effects)

    def hear(self, node: Node, sender: int, message: Message) -> None:
        """Something came in."""


@dataclass
class Node:
    """One engine with its disk, its behaviour and its place in the network."""

    index: int  # its name on the network
    key: SecretKey | None  # of a validator, shared by twins
    network: Network  # the one it is in
    behaviour: Behaviour  # honest or not
    store: MemoryStore = field(default_factory=MemoryStore)  # survives crashes
    log: list[LogRecord] = field(default_factory=list)  # survives crashes
    signed_view: View = NO_VIEW  # survives crashes
    clock_skew_ms: int = 0  # its clock minus the network's
    config: Config = field(init=False)
    state: State | None = None  # None: down
    timer_ms: int | None = None  # by the network's clock

    def start(self) -> None:
        """Come up from disk."""
        self.config = make_config(
            self.network.genesis, self.store, self.network.application, self.key, self.network.cryptography
        )
        self.state, effects = restore(self.config, tuple(self.log), self.signed_view, self.now())
        self.carry_out(effects)

    def now(self) -> TimeMs:
        """This node's clock."""
        return TimeMs(self.network.now_ms + self.clock_skew_ms)

    def take(self, event: Event) -> None:
        """Step and carry out the effects; a node that is down hears nothing."""
        if self.state is not None:
            self.state, effects = step(self.config, self.state, event)
            self.carry_out(effects)

    def carry_out(self, effects: Sequence[Effect]) -> None:
        """Persist, send, commit, in that order; a crash may come between any two."""
        wanted = self.behaviour.act(self, effects)
        steps_left = self.network.draw_crash(self, len(wanted))
        committed: Height | None = None
        for effect in wanted:
            if steps_left == 0:
                self.crash()
                return
            steps_left -= 1
            match effect:
                case Persist():
                    self.log.append(
                        decode_record(encode(effect.record)) if self.network.is_encoded else effect.record
                    )
                    if isinstance(effect.record, LoggedVote):
                        self.signed_view = max(self.signed_view, effect.record.vote.content.view)
                case Send():
                    self.network.send(self, effect.peer, effect.message)
                case SetTimer():
                    self.timer_ms = effect.at_ms - self.clock_skew_ms
                    self.network.schedule(self.timer_ms, ("timer", self.index, self.timer_ms))
                case CommitBlocks():
                    self.store.commit(effect.commit)
                    committed = effect.commit.tip[0]
                case PruneLog():
                    self.log = [record for record in self.log if view_of_record(record) > effect.view]
                case _:
                    pass
            if self.behaviour.is_honest:
                self.network.auditor.observe(self, effect)
        if committed is not None:
            self.take(Committed(self.now(), committed))

    def crash(self) -> None:
        """Forget everything that is not on disk, and come back some time later."""
        self.state = None
        self.timer_ms = None
        self.network.schedule(self.network.now_ms + self.network.random.randrange(50, 1_500), ("start", self.index))


@dataclass
class Faults:
    """What goes wrong before the network heals."""

    loss_percent: int = 0  # of messages
    slow_percent: int = 0  # of messages take up to ten times as long
    crash_per_mille: int = 0  # of steps with effects end in a crash
    partitions: tuple[tuple[int, int, frozenset[int]], ...] = ()  # from, to, and who is cut off from the others
    heal_ms: int = 0  # simulated time after which nothing goes wrong any more


class Network:
    """Engines, the messages on their way between them, and a clock."""

    def __init__(
        self,
        seed: int,
        powers: Sequence[int],
        behaviours: Sequence[Behaviour],
        faults: Faults,
        *,
        keys: Sequence[int | None] | None = None,
        application: Application = COUNTING,
        cryptography: Cryptography = CHEAP,
        parameters: Parameters = PARAMETERS,
        make_table: Callable[[Genesis], Mapping[bytes, bytes]] = lambda genesis: {b"genesis": b"ledger"},
        late: frozenset[int] = frozenset(),
        is_encoded: bool = False,
    ) -> None:
        """Nodes in order of `behaviours`; node i has the key of validator `keys[i]` (None: an observer).

        Nodes in `late` start only when told to; `is_encoded`: messages and log records travel as bytes.
        """
        self.is_encoded = is_encoded
        self.bytes_sent = 0
        self.kinds_sent: Counter[type] = Counter()
        self.random = random.Random(seed)
        self.application = application
        self.cryptography = cryptography
        self.faults = faults
        self.now_ms = START_MS
        secrets = sorted((secret_key_from(f"validator-{index}") for index in range(len(powers))), key=account_of)
        accounts = tuple(
            GenesisAccount(account_of(key), Amount(10**6), Amount(power), True)
            for key, power in zip(secrets, powers, strict=True)
        )
        self.genesis = Genesis("simulated", TimeMs(START_MS), parameters, accounts)
        self.keys = secrets
        self._queue: list[tuple[int, int, tuple[object, ...]]] = []
        self._sequence = 0
        places = list(range(len(behaviours))) if keys is None else list(keys)
        self.nodes = [
            Node(index, None if place is None else secrets[place], self, behaviour)
            for index, (behaviour, place) in enumerate(zip(behaviours, places, strict=True))
        ]
        honest = {account_of(node.key) for node in self.nodes if node.behaviour.is_honest and node.key is not None}
        crooked = {account_of(node.key) for node in self.nodes if not node.behaviour.is_honest and node.key is not None}
        self.auditor = Auditor(frozenset(honest - crooked))
        table = make_table(self.genesis)
        for node in self.nodes:
            node.store.commit(compute_genesis_commit(self.genesis, table))
            if node.index not in late:
                self.schedule(START_MS + self.random.randrange(100), ("start", node.index))

    @property
    def honest(self) -> list[Node]:
        """The nodes that keep to the rules."""
        return [node for node in self.nodes if node.behaviour.is_honest]

    def is_healed(self) -> bool:
        """Whether nothing goes wrong any more."""
        return self.now_ms >= START_MS + self.faults.heal_ms

    def schedule(self, at_ms: int, item: tuple[object, ...]) -> None:
        """Let something happen at a time, after what was scheduled for that time before."""
        self._sequence += 1
        heapq.heappush(self._queue, (max(at_ms, self.now_ms), self._sequence, item))

    def draw_crash(self, node: Node, effects: int) -> int:
        """How many effects a node carries out before it crashes; -1: all, and it lives on."""
        if self.is_healed() or not node.behaviour.is_honest or effects == 0:
            return -1
        if self.random.randrange(1_000) >= self.faults.crash_per_mille:
            return -1
        return self.random.randrange(effects)

    def send(self, sender: Node, peer: str | None, message: Message) -> None:
        """Put a message on its way, to one node or to all others."""
        if self.is_encoded:
            raw = encode_message(message)
            message = decode_message(raw)
            self.bytes_sent += len(raw)
        self.kinds_sent[type(message)] += 1
        targets = [node.index for node in self.nodes if node is not sender] if peer is None else [int(peer)]
        for target in targets:
            delay = self._draw_delay(sender.index, target)
            if delay is not None:
                self.schedule(self.now_ms + delay, ("message", sender.index, target, message))

    def _draw_delay(self, sender: int, target: int) -> int | None:
        delay = self.random.randrange(1, DELAY_MAX_MS)
        if self.is_healed():
            return delay
        if self.random.randrange(100) < self.faults.loss_percent:
            return None
        since = self.now_ms - START_MS
        for begin, end, cut in self.faults.partitions:
            if begin <= since < end and (sender in cut) != (target in cut):
                return None
        return delay * self.random.randrange(1, 10) if self.random.randrange(100) < self.faults.slow_percent else delay

    def submit(self, at_ms: int, target: int, transaction: Transaction) -> None:
        """Let a user hand a transaction to a node."""
        self.schedule(at_ms, ("transaction", target, transaction))

    def run_until(self, end_ms: int) -> None:
        """Let everything happen up to a time since the start."""
        while self._queue and self._queue[0][0] <= START_MS + end_ms:
            self.now_ms, _, item = heapq.heappop(self._queue)
            self._happen(item)
        self.now_ms = START_MS + end_ms

    def _happen(self, item: tuple[object, ...]) -> None:
        match item:
            case ("message", int(sender), int(target), message):
                node = self.nodes[target]
                if node.state is not None:
                    node.behaviour.hear(node, sender, message)  # type: ignore[arg-type]
                    node.take(MessageReceived(node.now(), str(sender), message))  # type: ignore[arg-type]
            case ("timer", int(target), int(at_ms)):
                node = self.nodes[target]
                if node.timer_ms == at_ms:
                    node.timer_ms = None
                    node.take(TimerFired(node.now()))
            case ("start", int(target)):
                if self.nodes[target].state is None:
                    self.nodes[target].start()
            case ("transaction", int(target), transaction):
                node = self.nodes[target]
                node.take(TransactionsReceived(node.now(), (transaction,)))  # type: ignore[arg-type]

    def heights(self) -> list[int]:
        """The final heights of the honest nodes that are up."""
        return [int(node.state.tip.height) for node in self.honest if node.state is not None]


__all__ = ["Accuse", "Behaviour", "Blame", "Faults", "Network", "Node"]

"""A network of engines in a plain loop: one seed decides delays, loss, partitions, crashes and who misbehaves how."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from milon.base.signing import SecretKey, secret_key_from
from milon.base.units import Amount, Count, Height, TimeMs
from milon.chain.genesis import Genesis, GenesisAccount
from milon.chain.params import Parameters
from milon.chain.transaction import Transaction
from milon.consensus.application import Application, Config, Cryptography, make_config
from milon.consensus.effects import CommitBlocks, Effect, Persist, PruneLog, Send, SetTimer
from milon.consensus.engine import step
from milon.consensus.events import Committed, Event, MessageReceived, TimerFired, TransactionsReceived
from milon.consensus.messages import LogRecord, Message, decode_message, encode_message
from milon.consensus.restore import compute_genesis_commit, restore
from milon.consensus.state import State
from milon.consensus.votes import Place
from milon.state.memory_store import MemoryStore
from tests.simulation.cheap import CHEAP, CHEAP_CHAIN, COUNTING, account_of
from tests.simulation.disk import Disk
from tests.simulation.faults import DOWN_MS_MAX, DOWN_MS_MIN, Faults
from tests.simulation.invariants import Auditor

PARAMETERS = Parameters(
    block_time_ms=Count(200),
    busy_block_time_ms=Count(60),
    delta_ms=Count(100),
    delta_max_ms=Count(1_500),
    clock_drift_ms_max=Count(500),
)
START_MS = 1_000_000
FREE_COINS = 10**6  # of every account at the start

Tell = Callable[[int, str, str], None]  # a trace: node, what happened, what came of it


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
    disk: Disk  # survives crashes
    clock_skew_ms: int = 0  # its clock minus the network's
    config: Config = field(init=False)
    state: State | None = None  # None: down
    timer_ms: int | None = None  # by the network's clock
    is_gone: bool = False  # switched off for good

    @property
    def store(self) -> MemoryStore:
        """Its final blocks and its ledger."""
        return self.disk.store

    @property
    def log(self) -> list[LogRecord]:
        """What its vote log would give back."""
        return self.disk.log

    @property
    def signed(self) -> Place:
        """The highest epoch and view that the file beside the log knows of."""
        return self.disk.signed

    def start(self) -> None:
        """Come up from disk."""
        network = self.network
        self.config = make_config(network.genesis, self.store, network.application, self.key, network.cryptography)
        self.state, effects = restore(self.config, tuple(self.log), self.signed, self.now(), self.disk.signed_votes)
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
        """Write all that must survive, then send, then commit; a crash may come at any point of it."""
        wanted = self.behaviour.act(self, effects)
        records = [effect.record for effect in wanted if isinstance(effect, Persist)]
        steps_left = self.network.draw_crash(self, wanted)
        if 0 <= steps_left < len(records):
            self.disk.tear(records, min(1.0, 1.25 * self.network.random.random()))
            self.crash()
            return
        if records:
            self.disk.append(records)
        committed: Height | None = None
        for place, effect in enumerate(wanted):
            if place == steps_left:
                self.crash()
                return
            if isinstance(effect, Send):
                self.network.send(self, effect.peer, effect.message)
            elif isinstance(effect, SetTimer):
                self.timer_ms = effect.at_ms - self.clock_skew_ms
                self.network.schedule(self.timer_ms, self.network.fire, self, self.timer_ms)
            elif isinstance(effect, CommitBlocks):
                self.store.commit(effect.commit)
                committed = effect.commit.tip[0]
            elif isinstance(effect, PruneLog):
                self.disk.prune(effect.place)
            self.network.auditor.observe(self, effect)
        if committed is not None:
            self.take(Committed(self.now(), committed))

    def crash(self, down_ms: int | None = None) -> None:
        """Forget everything that is not on disk, and come back some time later."""
        chance, faults = self.network.random, self.network.faults
        self.state = None
        self.timer_ms = None
        self.network.auditor.forget(self)
        if self.index == faults.old_log_node and chance.randrange(100) < faults.old_log_percent:
            self.disk.lose_newest(chance.randrange(1, 6))
        wait = chance.randrange(DOWN_MS_MIN, DOWN_MS_MAX) if down_ms is None else down_ms
        self.network.schedule(self.network.now_ms + wait, self.network.bring_up, self)

    def switch_off(self) -> None:
        """Leave for good."""
        self.state, self.timer_ms, self.is_gone = None, None, True


class Network:
    """Engines, the messages on their way between them, and a clock."""

    def __init__(
        self,
        seed: int | str,
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
        chain_id: str = CHEAP_CHAIN,
        make_node: Callable[..., Node] = Node,
    ) -> None:
        """Nodes in order of `behaviours`; node i has the key of account `keys[i]` (None: no key, an observer).

        A power of 0 is an account that is no validator yet. Nodes in `late` start only when told to; `is_encoded`:
        messages and log records travel as bytes.
        """
        self.is_encoded = is_encoded
        self.bytes_sent = 0
        self.events = 0
        self.kinds_sent: Counter[type] = Counter()
        self.random = random.Random(seed)
        self.application = application
        self.cryptography = cryptography
        self.faults = faults
        self.now_ms = START_MS
        self.tell: Tell | None = None
        self.genesis, self.keys = _make_genesis(powers, parameters, chain_id)
        self._queue: list[tuple[int, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0
        places = list(range(len(behaviours))) if keys is None else list(keys)
        self.nodes = [
            make_node(index, None if place is None else self.keys[place], self, behaviour, Disk(is_encoded))
            for index, (behaviour, place) in enumerate(zip(behaviours, places, strict=True))
        ]
        honest = {account_of(node.key) for node in self.nodes if node.behaviour.is_honest and node.key is not None}
        crooked = {account_of(node.key) for node in self.nodes if not node.behaviour.is_honest and node.key is not None}
        self.auditor = Auditor(frozenset(honest - crooked))
        table = make_table(self.genesis)
        for node in self.nodes:
            node.store.commit(compute_genesis_commit(self.genesis, table))
            if node.index not in late:
                self.schedule(START_MS + self.random.randrange(100), self.bring_up, node)
        for moment in faults.blackouts:
            self.schedule(START_MS + moment, self._black_out)

    @property
    def honest(self) -> list[Node]:
        """The nodes that keep to the rules and are not switched off for good."""
        return [node for node in self.nodes if node.behaviour.is_honest and not node.is_gone]

    def is_healed(self) -> bool:
        """Whether nothing goes wrong any more."""
        return self.now_ms >= START_MS + self.faults.heal_ms

    def schedule(self, at_ms: int, action: Callable[..., None], *arguments: object) -> None:
        """Let something happen at a time, after what was scheduled for that time before."""
        self._sequence += 1
        heapq.heappush(self._queue, (max(at_ms, self.now_ms), self._sequence, action, arguments))

    def draw_crash(self, node: Node, effects: Sequence[Effect]) -> int:
        """How many effects a node carries out before it crashes; -1: all, and it lives on."""
        if not effects or self.is_healed() or not node.behaviour.is_honest:
            return -1
        is_writing = isinstance(effects[0], Persist)
        if is_writing and self.random.randrange(1_000) < self.faults.full_per_mille:
            return 0
        is_frail = self.faults.old_log_percent and node.index == self.faults.old_log_node
        if self.random.randrange(200 if is_frail else 1_000) >= self.faults.crash_per_mille:
            return -1
        return self.random.randrange(len(effects))

    def send(self, sender: Node, peer: str | None, message: Message) -> None:
        """Put a message on its way, to one node or to all others."""
        if self.is_encoded:
            raw = encode_message(message)
            message = decode_message(raw)
            self.bytes_sent += len(raw)
        self.kinds_sent[type(message)] += 1
        targets = [node.index for node in self.nodes if node is not sender] if peer is None else [int(peer)]
        for target in targets:
            for delay in self._draw_delays(sender.index, target):
                self.schedule(self.now_ms + delay, self.deliver, sender.index, target, message)

    def _draw_delays(self, sender: int, target: int) -> list[int]:
        """How long each copy of a message takes: usually one."""
        faults, chance = self.faults, self.random
        delay = chance.randrange(*faults.delay_ms)
        if self.is_healed():
            return [delay]
        if chance.randrange(100) < faults.loss_percent:
            return []
        since = self.now_ms - START_MS
        for begin, end, cut in faults.partitions:
            if begin <= since < end and (sender in cut) != (target in cut):
                return []
        if faults.slow_percent and chance.randrange(100) < faults.slow_percent:
            delay *= chance.randrange(1, 10)
        if faults.twice_percent and chance.randrange(100) < faults.twice_percent:
            return [delay, delay + chance.randrange(1, 400)]
        return [delay]

    def submit(self, at_ms: int, target: int, transaction: Transaction) -> None:
        """Let a user hand a transaction to a node."""
        self.schedule(at_ms, self._receive, self.nodes[target], transaction)

    def run_until(self, end_ms: int) -> None:
        """Let everything happen up to a time since the start."""
        queue, end = self._queue, START_MS + end_ms
        while queue and queue[0][0] <= end:
            self.now_ms, _, action, arguments = heapq.heappop(queue)
            self.events += 1
            action(*arguments)
        self.now_ms = end

    def deliver(self, sender: int, target: int, message: Message) -> None:
        """A message arrives; nobody is there to hear it where the node is down."""
        node = self.nodes[target]
        if node.state is None:
            return
        if self.tell is not None:
            self.tell(target, f"from {sender}", describe(message))
        node.behaviour.hear(node, sender, message)
        self.auditor.listen(node, message)
        with self.auditor.judging(node, message):
            node.take(MessageReceived(node.now(), str(sender), message))
        self.auditor.check_accusations(node, message)

    def fire(self, node: Node, at_ms: int) -> None:
        """A timer runs out, unless it was set to another time since."""
        if node.timer_ms == at_ms:
            node.timer_ms = None
            if self.tell is not None:
                self.tell(node.index, "timer", "")
            node.take(TimerFired(node.now()))

    def bring_up(self, node: Node) -> None:
        """A node starts, unless it runs or is gone."""
        if node.state is None and not node.is_gone:
            if self.tell is not None:
                self.tell(node.index, "start", f"{len(node.log)} records")
            node.start()

    def _receive(self, node: Node, transaction: Transaction) -> None:
        if self.tell is not None:
            self.tell(node.index, "transaction", type(transaction.body.action).__name__)
        node.take(TransactionsReceived(node.now(), (transaction,)))

    def _black_out(self) -> None:
        for node in self.nodes:
            if node.behaviour.is_honest and node.state is not None:
                node.crash()

    def heights(self) -> list[int]:
        """The final heights of the honest nodes that are up."""
        return [int(node.state.tip.height) for node in self.honest if node.state is not None]


def _make_genesis(powers: Sequence[int], parameters: Parameters, chain_id: str) -> tuple[Genesis, list[SecretKey]]:
    secrets = sorted((secret_key_from(f"validator-{index}") for index in range(len(powers))), key=account_of)
    accounts = tuple(
        GenesisAccount(account_of(key), Amount(FREE_COINS), Amount(power), power > 0)
        for key, power in zip(secrets, powers, strict=True)
    )
    return Genesis(chain_id, TimeMs(START_MS), parameters, accounts), secrets


def describe(message: Message) -> str:
    """One line for people: what kind of message, and where in the chain it belongs."""
    content = getattr(message, "content", None) or getattr(getattr(message, "vote", None), "content", None)
    if content is None:
        return type(message).__name__
    name = "" if content.block is None else f" {content.block.hex()[:8]}"
    return f"{type(message).__name__} {content.kind.name} {content.epoch}/{content.view}{name}"


__all__ = ["PARAMETERS", "START_MS", "Behaviour", "Faults", "Network", "Node"]

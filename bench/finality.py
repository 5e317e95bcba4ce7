"""`python -m bench.finality`: transactions per second and time to finality on four real nodes of this machine.

The submitter first shares coins out to many accounts; then each sends transfers over HTTP, always to the same node, at
rates that rise until nodes refuse or drop some, fall behind what is asked, or finality takes longer than a limit. One
more client watches the first node: a transaction's time runs from its request until a block that holds it is final
there. Senders and watcher share the machine with the nodes, as a user's programs would.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock, Thread

from bench.round import describe_machine
from milon.base.errors import Rejected
from milon.base.ids import AccountId
from milon.base.signing import SecretKey, secret_key_from
from milon.base.units import Amount, Nonce
from milon.chain.transaction import Transaction, TransactionBody, Transfer, compute_transaction_hash, sign_transaction
from milon.client.http import NodeClient
from milon.client.waiting import wait_for
from milon.node.folder import read_address
from milon.node.keys import load_key
from milon.node.testnet_files import Testnet, load_testnet

REPOSITORY = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "finality.json"
SENDERS = 32
COINS = 100_000  # each
NODES = 4
STEP_S = 10.0  # at each rate
WATCH_S = 0.05  # between two looks at the height
PATIENCE_S = 60.0  # without any transaction becoming final before those that are left count as dropped
SLOW_S = 10.0  # at this p99 the queue only grows
BEHIND = 0.8  # of what is asked: senders that get no further are the limit themselves
FEE = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """One rate."""

    asked_per_s: float  # that was tried
    sent: int  # taken by the nodes
    sent_per_s: float  # while it was tried
    refused: int  # for want of room
    dropped: int  # taken, and never final
    final_per_s: float  # from the first request to the last final one
    p50_s: float  # from request to final
    p99_s: float  # from request to final
    blocks: int  # that hold them


@dataclass
class Load:
    """What is under way at one rate; the threads share it."""

    began: float = field(default_factory=time.monotonic)
    waiting: dict[str, float] = field(default_factory=dict)  # hash to when it was sent
    sent: int = 0
    refused: int = 0
    lock: Lock = field(default_factory=Lock)


class Sender:
    """An account with its next nonce."""

    def __init__(self, key: SecretKey, nonce: int = 0) -> None:
        """Of a funded key."""
        self.key = key
        self.account = key.account
        self.nonce = nonce

    def make(self, chain_id: str, receiver: AccountId, amount: int) -> Transaction:
        """The next transfer, signed."""
        body = TransactionBody(
            chain_id, self.account, Nonce(self.nonce), Amount(FEE), Transfer(receiver, Amount(amount))
        )
        return sign_transaction(self.key, body)


def feed(load: Load, client: NodeClient, senders: Sequence[Sender], chain_id: str, rate: float) -> None:
    """Send at `rate` for a while, each sender in its turn."""
    for number in range(int(STEP_S * rate)):
        due, now = load.began + number / rate, time.monotonic()
        if now >= load.began + STEP_S:
            return
        if now < due:
            time.sleep(due - now)
        sender = senders[number % len(senders)]
        transaction = sender.make(chain_id, senders[(number + 1) % len(senders)].account, 1)
        name = compute_transaction_hash(transaction).hex()
        with load.lock:
            load.waiting[name] = time.monotonic()
        try:
            client.submit(transaction)
        except Rejected:
            with load.lock:
                load.refused += 1
                del load.waiting[name]
            continue
        sender.nonce += 1
        with load.lock:
            load.sent += 1


def watch(load: Load, client: NodeClient, feeders: Sequence[Thread], height: int) -> tuple[list[float], float, int]:
    """Look at every new block until all is final or nothing more becomes so: the times, when the last did, blocks."""
    times: list[float] = []
    last, blocks = time.monotonic(), 0
    while any(feeder.is_alive() for feeder in feeders) or (load.waiting and time.monotonic() < last + PATIENCE_S):
        newest = int(client.status()["height"])
        now = time.monotonic()
        while height < newest:
            height += 1
            found = [load.waiting.pop(name, None) for name in client.block(height)["transactions"]]
            ours = [now - started for started in found if started is not None]
            times += ours
            blocks += bool(ours)
            last = now if ours else last
        time.sleep(WATCH_S)
    return times, last, blocks


def measure(testnet: Testnet, senders: Sequence[Sender], chain_id: str, rate: float) -> Measured:
    """Send at `rate` for a while from one thread a node, and wait until all is final."""
    clients = [open_client(testnet, index) for index in range(NODES)]
    watcher = open_client(testnet, 0)
    height, load = int(watcher.status()["height"]), Load()
    feeders = [
        Thread(target=feed, args=(load, client, senders[index::NODES], chain_id, rate / NODES), daemon=True)
        for index, client in enumerate(clients)
    ]
    for feeder in feeders:
        feeder.start()
    times, last, blocks = watch(load, watcher, feeders, height)
    for client in (*clients, watcher):
        client.close()
    ordered = sorted(times) or [PATIENCE_S]
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    final_per_s = len(times) / max(last - load.began, WATCH_S)
    dropped, sent_per_s = load.sent - len(times), load.sent / STEP_S
    p50 = statistics.median(ordered)
    return Measured(rate, load.sent, sent_per_s, load.refused, dropped, final_per_s, p50, p99, blocks)


def open_client(testnet: Testnet, index: int) -> NodeClient:
    """A client of a node that may spend."""
    folder = testnet.nodes[index]
    return NodeClient(read_address(folder) or "", folder.token.read_text().strip())


def fund(client: NodeClient, key: SecretKey, senders: Sequence[Sender], chain_id: str) -> None:
    """Share coins out and wait until all have some."""
    submitter = Sender(key, int(client.account(key.account.hex())["nonce"]))
    for sender in senders:
        client.submit(submitter.make(chain_id, sender.account, COINS))
        submitter.nonce += 1
    account = senders[-1].account.hex()
    wait_for(lambda: int(client.account(account)["balance"]) or None, 120.0)


def is_the_limit(one: Measured) -> bool:
    """Whether a higher rate would show nothing new."""
    return bool(one.refused or one.dropped) or one.p99_s > SLOW_S or one.sent_per_s < BEHIND * one.asked_per_s


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[20, 50, 100, 200, 400, 800])
    rates = parser.parse_args().rates
    senders = [Sender(secret_key_from(f"bench sender {index}")) for index in range(SENDERS)]
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="milon-finality-") as place:
        root = Path(place) / "net"
        milon = [sys.executable, "-m", "milon_cli", "testnet"]
        subprocess.run([*milon, "up", "--nodes", str(NODES), "--dir", str(root)], cwd=REPOSITORY, check=True)
        try:
            testnet = load_testnet(root)
            with open_client(testnet, 0) as client:
                chain_id = str(client.status()["chain_id"])
                fund(client, load_key(testnet.submitter_key), senders, chain_id)
            for rate in rates:
                found.append(one := measure(testnet, senders, chain_id, rate))
                print(
                    f"asked {rate:.0f}/s: {one.sent_per_s:.0f}/s sent, {one.final_per_s:.0f}/s final in {one.blocks} "
                    f"blocks, {one.refused} refused, {one.dropped} dropped, p50 {one.p50_s:.2f}, p99 {one.p99_s:.2f} s",
                    flush=True,
                )
                if is_the_limit(one):
                    break
        finally:
            subprocess.run([*milon, "down", "--dir", str(root)], cwd=REPOSITORY, check=True)
    RESULT.parent.mkdir(exist_ok=True)
    kept = {"machine": describe_machine(), "rates": [asdict(one) for one in found]}
    RESULT.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()

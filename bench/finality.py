"""`python -m bench.finality`: transactions per second and time to finality on four real nodes of this machine.

The submitter first shares coins out to many accounts; then each sends transfers over HTTP to the nodes in turn, at
rates that rise until the nodes refuse for want of room or finality takes longer than a limit. Of every transaction the
time from the request until the answering node has it in a final block is taken, by polling the receipts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.round import describe_machine
from milon.base.errors import Rejected
from milon.base.signing import SecretKey, secret_key_from
from milon.base.units import Amount, Nonce
from milon.chain.transaction import Transaction, TransactionBody, Transfer, compute_transaction_hash, sign_transaction
from milon.client.http import NodeClient
from milon.client.waiting import wait_for
from milon.node.folder import read_address
from milon.node.keys import load_key
from milon.node.testnet_files import load_testnet

REPOSITORY = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "finality.json"
SENDERS = 32
COINS = 100_000  # each
NODES = 4
STEP_S = 10.0  # at each rate
SLOW_S = 10.0  # at this p99 the queue only grows
FEE = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """One rate."""

    asked_per_s: float  # that was tried
    sent: int  # taken by the nodes
    refused: int  # for want of room
    final_per_s: float  # from the first request to the last final one
    p50_s: float  # from request to final
    p99_s: float  # from request to final


class Sender:
    """An account with its next nonce."""

    def __init__(self, key: SecretKey, nonce: int = 0) -> None:
        """Of a funded key."""
        self.key = key
        self.nonce = nonce

    def make(self, chain_id: str, receiver: SecretKey, amount: int) -> Transaction:
        """The next transfer, signed."""
        action = Transfer(receiver.account, Amount(amount))
        body = TransactionBody(chain_id, self.key.account, Nonce(self.nonce), Amount(FEE), action)
        return sign_transaction(self.key, body)


def measure(clients: list[NodeClient], senders: list[Sender], chain_id: str, rate: float) -> Measured:
    """Send at `rate` for a while, then wait until all is final."""
    waiting: dict[str, tuple[float, NodeClient]] = {}
    times: list[float] = []
    refused = sent = 0
    began = time.monotonic()
    last = began

    def poll(share: int) -> None:
        nonlocal last
        for name in list(waiting)[:share]:
            started, client = waiting[name]
            if client.receipt(name)["status"] != "pending":
                last = time.monotonic()
                times.append(last - started)
                del waiting[name]

    number = 0
    while (now := time.monotonic()) < began + STEP_S:
        if number >= (now - began) * rate:
            poll(4)
            continue
        sender, client = senders[number % len(senders)], clients[number % len(clients)]
        transaction = sender.make(chain_id, senders[(number + 1) % len(senders)].key, 1)
        number += 1
        try:
            client.submit(transaction)
        except Rejected:
            refused += 1
            continue
        sender.nonce += 1
        sent += 1
        waiting[compute_transaction_hash(transaction).hex()] = (now, client)
    while waiting:
        poll(len(waiting))
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return Measured(rate, sent, refused, sent / (last - began), statistics.median(ordered), p99)


def fund(client: NodeClient, key: SecretKey, senders: list[Sender], chain_id: str) -> None:
    """Share coins out and wait until all have some."""
    submitter = Sender(key, int(client.account(key.account.hex())["nonce"]))
    for sender in senders:
        client.submit(submitter.make(chain_id, sender.key, COINS))
        submitter.nonce += 1
    account = senders[-1].key.account.hex()
    wait_for(lambda: int(client.account(account)["balance"]) or None, 120.0)


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[20, 50, 100, 200, 400])
    rates = parser.parse_args().rates
    senders = [Sender(secret_key_from(f"bench sender {index}")) for index in range(SENDERS)]
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="milon-finality-") as place:
        root = Path(place) / "net"
        milon = [sys.executable, "-m", "milon_cli", "testnet"]
        subprocess.run([*milon, "up", "--nodes", str(NODES), "--dir", str(root)], cwd=REPOSITORY, check=True)
        try:
            testnet = load_testnet(root)
            clients = [
                NodeClient(read_address(folder) or "", folder.token.read_text().strip()) for folder in testnet.nodes
            ]
            chain_id = str(clients[0].status()["chain_id"])
            fund(clients[0], load_key(testnet.submitter_key), senders, chain_id)
            for rate in rates:
                found.append(measure(clients, senders, chain_id, rate))
                one = found[-1]
                print(
                    f"asked {rate:.0f}/s: {one.final_per_s:.0f}/s final, {one.refused} refused, "
                    f"p50 {one.p50_s:.2f} s, p99 {one.p99_s:.2f} s",
                    flush=True,
                )
                if one.refused or one.p99_s > SLOW_S:
                    break
        finally:
            subprocess.run([*milon, "down", "--dir", str(root)], cwd=REPOSITORY, check=True)
    RESULT.parent.mkdir(exist_ok=True)
    kept = {"machine": describe_machine(), "rates": [asdict(one) for one in found]}
    RESULT.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""`python -m bench.sync`: how long a fresh node takes to 5,000 blocks, from genesis and from a snapshot.

A chain is made by the engine in the simulator, a transfer in every second block, and put into the folder of a node with
a snapshot of its ledger some blocks below the tip. That node runs as a real process and gives out what it has; a fresh
one joins over loopback, first with nothing but the genesis hash, then with a trusted hash, and is watched over its API.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.round import describe_machine
from milon.base.codec import decode, encode
from milon.base.errors import Rejected
from milon.base.signing import secret_key_from
from milon.base.units import Amount, Height, Nonce
from milon.chain.block import Block, compute_header_hash
from milon.chain.genesis import compute_genesis_hash
from milon.chain.transaction import TransactionBody, Transfer, sign_transaction
from milon.client.http import NodeClient
from milon.client.refusals import NoNode
from milon.consensus.application import ED25519
from milon.contracts.apply import compute_genesis_ledger
from milon.node.application import CONTRACTS
from milon.node.config import Config, save_config
from milon.node.folder import NodeFolder, read_address, write_file
from milon.node.keys import ensure_key, ensure_token
from milon.node.shelf import Shelf
from milon.node.vote_log import VoteLog
from milon.state.lmdb_store import LmdbStore
from tests.node.chains import Grown, copy_chain
from tests.simulation.cheap import account_of
from tests.simulation.network import START_MS, Behaviour, Faults, Network

REPOSITORY = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "sync.json"
CHAIN = "bench-sync"  # on the simulator's own chain id votes are not signed
SNAPSHOT_BELOW = 100  # blocks above the snapshot, to be fetched as blocks
TRUSTED_HEIGHT = 100  # whose hash the joining node is told
UP_MS = 150  # the simulated node is up by then: a transaction that it missed would hold up all that follow it
STEP_MS = 20_000  # of simulated time between two looks
WAIT_S = 900.0  # far above what a quiet machine needs
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Measured:
    """One joining node."""

    seconds: float  # from the start of its process to the tip
    start: float  # of those, until its API answered
    rate: float  # blocks per second from there on
    cpu: float  # seconds of processor time from there on: what a quiet core would need at least


def make_chain(blocks: int, folder: NodeFolder) -> Grown:
    """A chain of at least so many blocks in the folder of a node that has no vote in it."""
    network = Network(
        7, (1_000_000,), [Behaviour()], Faults(), application=CONTRACTS, cryptography=ED25519,
        make_table=compute_genesis_ledger, chain_id=CHAIN,
    )  # fmt: skip
    key, store, end_ms, nonce = network.keys[0], network.nodes[0].store, 0, 0
    shelf = Shelf(folder.snapshots)
    while (tip := store.tip()) is None or tip[0] < blocks:
        for offset in range(0, STEP_MS, 300):
            action = Transfer(secret_key_from(f"receiver {nonce}").account, Amount(1))
            body = TransactionBody(CHAIN, account_of(key), Nonce(nonce), Amount(1), action)
            network.submit(START_MS + end_ms + UP_MS + offset, 0, sign_transaction(key, body))
            nonce += 1
        end_ms += STEP_MS
        network.run_until(end_ms)
        if not shelf.heights() and tip is not None and tip[0] >= blocks - SNAPSHOT_BELOW - STEP_MS // 150:
            shelf.make(store.snapshot())
        print(f"\rmade {tip[0] if tip else 0} of {blocks} blocks", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    grown = Grown(network.genesis, key, store, folder.snapshots)
    folder.make()
    ensure_key(folder.validator_key)
    ensure_key(folder.network_key)
    ensure_token(folder)
    write_file(folder.genesis, encode(grown.genesis))
    save_config(folder, Config(role="full", mode="archive", snapshot_blocks=0, disk_free_bytes_min=0))
    VoteLog(folder.votes).close()
    with contextlib.closing(LmdbStore(folder.chain)) as disk:
        copy_chain(grown, disk)
    return grown


@contextlib.contextmanager
def running(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node's process, ended with the block."""
    log = folder.with_suffix(".log")
    with log.open("wb") as file:
        command = [sys.executable, "-m", "milon_cli", "join", "--data", str(folder), *options]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def ask_height(folder: Path) -> int | None:
    """The node's height; None while it does not answer."""
    url = read_address(NodeFolder(folder))
    if url is None:
        return None
    with contextlib.suppress(NoNode, Rejected), NodeClient(url) as client:
        return int(client.status()["height"])
    return None


def require_running(process: subprocess.Popen[bytes], folder: Path) -> None:
    """End with the log's last lines where the node has ended."""
    if process.poll() is not None:
        lines = folder.with_suffix(".log").read_text().splitlines()[-5:]
        raise SystemExit("\n".join([f"the node in {folder} ended with {process.returncode}", *lines]))


def wait_address(process: subprocess.Popen[bytes], folder: Path) -> str:
    """An address of a running node."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        require_running(process, folder)
        url = read_address(NodeFolder(folder))
        if url is not None:
            with contextlib.suppress(NoNode, Rejected), NodeClient(url) as client:
                return str(client.status()["addresses"][0])
        time.sleep(POLL_S)
    raise SystemExit(f"the node in {folder} does not start; see {folder.with_suffix('.log')}")


def read_cpu_s(pid: int) -> float:
    """Processor time of a process so far, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def join(folder: Path, tip: int, *options: str) -> Measured:
    """Let a fresh node join and wait until it is at the tip."""
    began = time.monotonic()
    first: tuple[float, int] | None = None
    spent = 0.0
    with running(folder, "--role", "full", *options) as process:
        while time.monotonic() < began + WAIT_S:
            require_running(process, folder)
            height = ask_height(folder)
            now = time.monotonic()
            if height is not None and first is None:
                first = (now, height)
                spent = read_cpu_s(process.pid)
            if height is not None and first is not None and height >= tip:
                rate = (height - first[1]) / max(now - first[0], POLL_S)
                return Measured(now - began, first[0] - began, rate, read_cpu_s(process.pid) - spent)
            time.sleep(POLL_S)
    raise SystemExit(f"not at the tip after {WAIT_S:.0f} s; see {folder.with_suffix('.log')}")


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=5_000)
    blocks = parser.parse_args().blocks
    with tempfile.TemporaryDirectory(prefix="milon-sync-") as place:
        root = Path(place)
        grown = make_chain(blocks, NodeFolder(root / "server"))
        tip = grown.store.tip()
        raw = grown.store.block_by_height(Height(TRUSTED_HEIGHT))
        if tip is None or raw is None:
            raise SystemExit("the chain is too short")
        trusted = compute_header_hash(decode(Block, raw).header).hex()
        snapshot = Shelf(root / "server" / "snapshots").heights()[-1]
        with running(root / "server") as process:
            name = compute_genesis_hash(grown.genesis).hex()
            where = ("--bootstrap", wait_address(process, root / "server"), "--genesis-hash", name)
            genesis = join(root / "genesis", tip[0], *where)
            short = join(root / "snapshot", tip[0], *where, "--trusted-hash", trusted)
    found = {
        "machine": describe_machine(), "blocks": tip[0], "snapshot": snapshot,
        "genesis_cpu": genesis.cpu,
        "genesis_seconds": genesis.seconds, "genesis_start": genesis.start, "genesis_blocks_per_s": genesis.rate,
        "snapshot_seconds": short.seconds, "snapshot_start": short.start,
    }  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    print(
        f"from genesis to block {tip[0]}: {genesis.seconds:.1f} s, {genesis.rate:.0f} blocks per second once it runs, "
        f"{tip[0] / max(genesis.cpu, POLL_S):.0f} per second of processor time"
    )
    print(f"from the snapshot of block {snapshot}: {short.seconds:.1f} s, of which {short.start:.1f} s to its start")


if __name__ == "__main__":
    main()

"""Makes the files of a test network: one genesis, and a folder per node with its keys and settings."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId
from milon.base.units import Amount, TimeMs
from milon.chain.genesis import Genesis, GenesisAccount, compute_genesis_hash, verify_genesis
from milon.chain.params import Parameters
from milon.node.config import Config, save_config
from milon.node.folder import PRIVATE, NodeFolder, read_file, refusing_os_errors, write_file
from milon.node.keys import ensure_token, generate_key, read_account, write_key
from milon.p2p.identity import compute_peer_id

NODES_MAX = 64  # of one machine; each is a process with a worker beside it
GENESIS_MAX_BYTES = 4 << 20  # some ten thousand accounts
BOOTSTRAP_COUNT = 2  # so that a network starts again while its first node is away

_START_SCRIPT = """#!/bin/sh
# Starts this node; the settings are in config.toml beside this script. Run it where `milon` is installed.
exec milon join --data "$(dirname "$0")" "$@"
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one node runs."""

    host: str  # IP address at which the others reach it
    listen_port: int  # TCP, for other nodes
    api_port: int  # TCP on its loopback; 0: a free one at every start


@dataclass(frozen=True, slots=True)
class TestnetPlan:
    """What a test network shall be."""

    __test__ = False  # not a test class, whatever its name says

    chain_id: str  # of the new chain
    time_ms: TimeMs  # of its genesis
    places: tuple[Place, ...]  # one a node
    parameters: Parameters = field(default_factory=Parameters)  # of the chain
    adversaries: Mapping[int, str] = field(default_factory=dict)  # index of a node and how its training misbehaves
    bonded: Amount = Amount(1_000_000)  # of each node
    balance: Amount = Amount(1_000_000)  # of each node
    submitter_balance: Amount = Amount(1_000_000_000)  # of the account that pays for jobs
    threads: int = 1  # of each node's worker
    device: str = "cpu"  # of each node's worker


@dataclass(frozen=True, slots=True)
class Testnet:
    """The files of a test network that exists."""

    __test__ = False

    root: Path  # the folder

    @property
    def genesis(self) -> Path:
        """The encoded genesis, the same as in every node's folder."""
        return self.root / "genesis.cbor"

    @property
    def submitter_key(self) -> Path:
        """The key of the account that pays for jobs."""
        return self.root / "keys" / "submitter.key"

    @property
    def nodes(self) -> tuple[NodeFolder, ...]:
        """The nodes' folders, in order of index."""
        count = 0
        while (self.root / f"node{count}").is_dir():
            count += 1
        return tuple(NodeFolder(self.root / f"node{index}") for index in range(count))

    @property
    def accounts(self) -> tuple[str, ...]:
        """The nodes' accounts in hexadecimal, in order of index."""
        return tuple(read_account(folder.validator_key).hex() for folder in self.nodes)


def load_testnet(root: Path) -> Testnet:
    """The test network in a folder; `Rejected(UNAVAILABLE)` where there is none."""
    testnet = Testnet(root)
    if not testnet.genesis.exists() or not testnet.nodes:
        raise Rejected(Reason.UNAVAILABLE, f"{root} holds no test network; make one with `milon testnet up`")
    return testnet


def load_genesis(path: Path) -> Genesis:
    """A checked genesis from its file."""
    genesis = decode(Genesis, read_file(path, GENESIS_MAX_BYTES), GENESIS_MAX_BYTES)
    verify_genesis(genesis)
    return genesis


def make_genesis(
    chain_id: str,
    time_ms: TimeMs,
    parameters: Parameters,
    validators: Sequence[tuple[AccountId, Amount, Amount]],
    others: Sequence[tuple[AccountId, Amount]],
) -> Genesis:
    """A checked genesis of validators (account, balance, bonded) and other accounts (account, balance)."""
    accounts = [GenesisAccount(account, balance, bonded, True) for account, balance, bonded in validators]
    accounts += [GenesisAccount(account, balance, Amount(0), False) for account, balance in others]
    genesis = Genesis(chain_id, time_ms, parameters, tuple(sorted(accounts, key=lambda entry: entry.account)))
    verify_genesis(genesis)
    return genesis


def make_testnet(root: Path, plan: TestnetPlan) -> Testnet:
    """Write a test network into a folder that does not exist yet (or is empty); it appears whole or not at all."""
    count = len(plan.places)
    require(1 <= count <= NODES_MAX, Reason.OUT_OF_RANGE, f"{count} nodes; a test network has 1 to {NODES_MAX}")
    for index in plan.adversaries:
        require(0 <= index < count, Reason.OUT_OF_RANGE, f"there is no node {index}; they are 0 to {count - 1}")
    with refusing_os_errors(f"cannot create {root}"):
        if root.exists() and any(root.iterdir()):
            raise Rejected(Reason.DUPLICATE, f"{root} is not empty; name another folder with --dir, or delete it")
        root.parent.mkdir(parents=True, exist_ok=True)
        partial = root.with_name(f".{root.name}.{secrets.token_hex(4)}")
        partial.mkdir()
        try:
            _fill(partial, plan)
            os.replace(partial, root)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Testnet(root)


def _fill(root: Path, plan: TestnetPlan) -> None:
    node_keys = [generate_key() for _ in plan.places]
    network_keys = [generate_key() for _ in plan.places]
    submitter = generate_key()
    validators = [(key.account, plan.balance, plan.bonded) for key in node_keys]
    genesis = make_genesis(
        plan.chain_id, plan.time_ms, plan.parameters, validators, [(submitter.account, plan.submitter_balance)]
    )
    raw = encode(genesis)
    write_file(root / "genesis.cbor", raw)
    write_key(root / "keys" / "submitter.key", submitter)
    addresses = [
        _multiaddress(place, compute_peer_id(key.account)) for place, key in zip(plan.places, network_keys, strict=True)
    ]
    for index, place in enumerate(plan.places):
        folder = NodeFolder(root / f"node{index}")
        folder.make()
        write_key(folder.validator_key, node_keys[index])
        write_key(folder.network_key, network_keys[index])
        ensure_token(folder)
        write_file(folder.genesis, raw)
        others = [address for position, address in enumerate(addresses) if position != index]
        config = _make_config(plan, place, index, tuple(others[:BOOTSTRAP_COUNT]), compute_genesis_hash(genesis))
        save_config(folder, config)
        write_file(folder.root / "start.sh", _START_SCRIPT.encode(), PRIVATE | 0o110)


def _multiaddress(place: Place, peer_id: str) -> str:
    return f"/{'ip6' if ':' in place.host else 'ip4'}/{place.host}/tcp/{place.listen_port}/p2p/{peer_id}"


def _make_config(
    plan: TestnetPlan, place: Place, index: int, bootstrap: tuple[str, ...], genesis_hash: bytes
) -> Config:
    is_loopback = place.host in ("127.0.0.1", "::1")
    return Config(
        role="validator",
        genesis_hash=genesis_hash.hex(),
        listen_host=place.host if is_loopback else "::" if ":" in place.host else "0.0.0.0",
        listen_port=place.listen_port,
        announce_host="" if is_loopback else place.host,
        bootstrap=bootstrap,
        api_port=place.api_port,
        device=plan.device,
        threads=plan.threads,
        adversary=plan.adversaries.get(index, ""),
    )

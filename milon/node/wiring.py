"""Builds a node's shells and runs it; the only module that knows which ones there are."""

from __future__ import annotations

import logging
import random
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path

import trio

from milon.base.codec import encode
from milon.base.errors import Rejected
from milon.base.signing import SecretKey
from milon.chain.genesis import Genesis, compute_genesis_hash, validators_of
from milon.consensus.application import make_config
from milon.consensus.effects import FinalizedBlock
from milon.consensus.restore import restore
from milon.node.application import CONTRACTS, prepare_store
from milon.node.blob_room import BlobRoom
from milon.node.checkpoints import Checkpoints
from milon.node.config import Config, parse_digest
from milon.node.folder import NodeFolder, locked, publish_address, withdraw_address, write_file
from milon.node.inbox import STATUS_TOPIC, TRANSACTION_TOPIC
from milon.node.keeping import Keeper, Keeping
from milon.node.keys import load_key
from milon.node.light import visiting
from milon.node.moving import require_here, require_votes
from milon.node.node import Node, Parts
from milon.node.own_rounds import forget_leftovers, list_own_rounds
from milon.node.runner import Runner, read_clock_ms
from milon.node.shelf import Shelf
from milon.node.state_sync import StateSync
from milon.node.status import Identity
from milon.node.task_context import TaskContext
from milon.node.testnet_files import load_genesis
from milon.node.verify import fetch_genesis
from milon.node.view import ApiServer
from milon.node.vote_log import VoteLog
from milon.node.work_progress import WorkBoard
from milon.node.workers import Worker
from milon.p2p.blob_store import BlobStore
from milon.p2p.blobs import BlobClient, serve_blobs
from milon.p2p.discovery import PEERS_TOPIC, Discovery
from milon.p2p.libp2p_transport import LibP2PTransport
from milon.p2p.settings import TransportSettings
from milon.p2p.transport import Transport
from milon.state.lmdb_store import LmdbStore
from milon.state.store import Store

_LOG = logging.getLogger(__name__)

TOPICS = (TRANSACTION_TOPIC, STATUS_TOPIC, PEERS_TOPIC)
ACCEPTING = "accept"  # the adversary that attests and judges in favour of everybody


def transport_settings(config: Config, genesis: Genesis, seed: bytes) -> TransportSettings:
    """A node's place on the network of one chain."""
    return TransportSettings(
        seed=seed,
        chain=compute_genesis_hash(genesis),
        topics=TOPICS,
        listen_host=config.listen_host,
        listen_port=config.listen_port,
    )


def _advertised(config: Config, transport: Transport) -> tuple[str, ...]:
    """Where others reach this node, where that is not where it listens."""
    if not config.announce_host:
        return ()
    kind = "ip6" if ":" in config.announce_host else "ip4"
    return (f"/{kind}/{config.announce_host}/tcp/{config.listen_port}/p2p/{transport.peer_id}",)


def make_node(
    folder: NodeFolder,
    config: Config,
    genesis: Genesis,
    key: SecretKey,
    settings: TransportSettings,
    transport: Transport,
    store: Store,
    vote_log: VoteLog,
    worker: Worker,
) -> Node:
    """A node over the given shells; nothing runs yet."""
    engine_config = make_config(genesis, store, CONTRACTS, key)
    blob_store = BlobStore(folder.blobs, config.blob_store_bytes_max)
    checkpoints = Checkpoints(blob_store, config.checkpoint_bytes_max, list_own_rounds(folder.work))
    serve_blobs(transport, blob_store, checkpoints)
    blobs = BlobRoom(blob_store, BlobClient(transport, blob_store), transport, checkpoints)

    def make_runner(on_final: Callable[[tuple[FinalizedBlock, ...]], None]) -> Runner:
        state, effects = restore(
            engine_config, vote_log.records, vote_log.signed, read_clock_ms(), vote_log.signed_votes
        )
        return Runner(engine_config, state, effects, store, vote_log, transport, on_final)

    context = TaskContext(
        key=key,
        parameters=genesis.parameters,
        blobs=blobs,
        work=worker.run,
        folder=folder.work,
        board=WorkBoard(),
        adversary="" if config.adversary == ACCEPTING else config.adversary,
        will_accept=config.adversary == ACCEPTING,
        reports=folder.reports,
        checkpoints=checkpoints,
        watch_ppm=config.watch_ppm,
    )
    discovery = Discovery(
        transport,
        settings,
        bootstrap=config.bootstrap,
        now_ms=read_clock_ms,
        jitter=random.SystemRandom().random,
        advertised=_advertised(config, transport),
        on_twin=lambda error: node.give_up(error),
    )
    identity = Identity(key.account, config.role, compute_genesis_hash(genesis), validators_of(genesis))
    shelf = Shelf(folder.snapshots)
    keeper = Keeper(store, shelf, Keeping(config.mode, config.snapshot_blocks), genesis.parameters)
    node = Node(Parts(genesis, identity, make_runner, store, transport, discovery, blobs, shelf, keeper, context))
    return node


async def _obtain_genesis(folder: NodeFolder, config: Config, seed: bytes) -> Genesis:
    """The folder's genesis, or the one of the configured hash from a bootstrap peer, which is then kept."""
    if folder.genesis.exists():
        return load_genesis(folder.genesis)
    wanted = parse_digest("genesis_hash", config.genesis_hash)
    settings = TransportSettings(seed=seed, chain=wanted, topics=TOPICS)
    transport = LibP2PTransport(settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(transport.run))
        for address in config.bootstrap:
            try:
                await transport.connect(address, timeout_s=10.0)
            except Rejected as error:
                _LOG.warning("%s: %s", address, error)
        genesis = await fetch_genesis(transport, wanted)
        nursery.cancel_scope.cancel()
    write_file(folder.genesis, encode(genesis))
    return genesis


async def _begin(folder: NodeFolder, config: Config, genesis: Genesis, store: Store) -> None:
    """Fill an empty store: with the genesis, or with the state of a snapshot where a recent hash is trusted."""
    if store.tip() is None and config.trusted_hash:
        async with visiting(config.bootstrap, compute_genesis_hash(genesis)) as visit:
            trusted = parse_digest("trusted_hash", config.trusted_hash)
            sync = StateSync(visit.transport, genesis, trusted, folder.sync, _LOG.info)
            commit = await sync.run()
            await trio.to_thread.run_sync(store.commit, commit)
            await trio.to_thread.run_sync(sync.forget)
    prepare_store(store, genesis)


async def _serve(folder: NodeFolder, config: Config, server: ApiServer) -> None:
    require_votes(folder)
    key, network_key = load_key(folder.validator_key), load_key(folder.network_key)
    genesis = await _obtain_genesis(folder, config, network_key.seed)
    settings = transport_settings(config, genesis, network_key.seed)
    transport = LibP2PTransport(settings)
    await trio.to_thread.run_sync(forget_leftovers, folder.work)
    async with AsyncExitStack() as stack:
        vote_log = stack.enter_context(closing(VoteLog(folder.votes)))  # before the chain: see `require_votes`
        store = stack.enter_context(closing(LmdbStore(folder.chain, free_bytes_min=config.disk_free_bytes_min)))
        await _begin(folder, config, genesis, store)
        worker = Worker(config.threads, config.device, folder.root / "worker.log")
        stack.push_async_callback(worker.stop)
        node = make_node(folder, config, genesis, key, settings, transport, store, vote_log, worker)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(transport.run))
            url: str = await nursery.start(partial(server, node))
            publish_address(folder, url)
            stack.callback(withdraw_address, folder)
            nursery.start_soon(_stop_on_signal, node)
            _LOG.info("account %s listens on %s, API on %s", key.account.hex()[:8], transport.addresses, url)
            await node.run()
            nursery.cancel_scope.cancel()


async def _stop_on_signal(node: Node) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            _LOG.info("asked to stop")
            await node.stop()


def run_node(root: Path, config: Config, server: ApiServer) -> int:
    """Run a node until it is told to stop; its exit code. `Rejected` where it cannot start."""
    logging.basicConfig(
        level=config.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for noisy in ("libp2p", "multiaddr", "async_service", "milon.api"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    folder = NodeFolder(root)
    with locked(folder):
        require_here(folder)
        trio.run(_serve, folder, config, server)
    return 0

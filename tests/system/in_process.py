"""A whole network in one process: real nodes and a real worker over the memory transport."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from milon.base.codec import decode
from milon.base.ids import JobId
from milon.base.signing import SecretKey, secret_key_from
from milon.base.units import Amount, Count
from milon.chain.genesis import Genesis, GenesisAccount
from milon.chain.params import Parameters
from milon.chain.transaction import SubmitJob, TransactionBody, sign_transaction
from milon.node.application import prepare_store
from milon.node.config import Config
from milon.node.folder import NodeFolder
from milon.node.node import Node
from milon.node.runner import read_clock_ms
from milon.node.view import JobView
from milon.node.vote_log import VoteLog
from milon.node.wiring import make_node, transport_settings
from milon.node.workers import Worker
from milon.p2p.memory_transport import MemoryNetwork
from milon.pol.terms import JobSpec, compute_cost_max
from milon.state.memory_store import MemoryStore
from tests.gpu.small_job import prepare_small

DEADLINES = ("enrol_blocks", "claim_blocks", "attest_blocks", "judge_blocks", "aggregate_blocks", "dispute_blocks")
QUICK = Parameters(block_time_ms=Count(300), busy_block_time_ms=Count(50))
EXAMPLE = Path(__file__).parents[2] / "examples" / "digits" / "job.py"
STAKE = 1_000_000


@dataclass(frozen=True, slots=True)
class Network:
    """Running nodes, their keys, and the funded submitter."""

    genesis: Genesis
    nodes: tuple[Node, ...]
    keys: tuple[SecretKey, ...]
    submitter: SecretKey


def prepare_example(folder: Path, *options: str) -> tuple[JobSpec, int, tuple[Path, ...]]:
    """The digits job as the user's machine prepares it: spec, reward, blob files."""
    command = [sys.executable, "-m", "milon.client.prepare", str(EXAMPLE), "--out", str(folder), *options]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    spec = decode(JobSpec, (folder / "spec.cbor").read_bytes())
    blobs = tuple(sorted(path for path in folder.iterdir() if path.name != "spec.cbor"))
    return spec, int(json.loads(finished.stdout)["reward"]), blobs


def make_test_genesis(count: int, parameters: Parameters) -> tuple[Genesis, tuple[SecretKey, ...], SecretKey]:
    """`count` equal validators and a submitter."""
    keys = tuple(secret_key_from(f"node {index}") for index in range(count))
    submitter = secret_key_from("submitter")
    accounts = [GenesisAccount(key.account, Amount(STAKE), Amount(STAKE), True) for key in keys]
    accounts.append(GenesisAccount(submitter.account, Amount(100 * STAKE), Amount(0), False))
    ordered = tuple(sorted(accounts, key=lambda entry: entry.account))
    return Genesis("in-process", read_clock_ms(), parameters, ordered), keys, submitter


@asynccontextmanager
async def running_network(
    folder: Path, count: int, adversaries: Mapping[int, str], parameters: Parameters, watcher: int | None = None
) -> AsyncIterator[Network]:
    """`count` nodes that share one worker process; ended when the block ends. One of them may watch all claims."""
    genesis, keys, submitter = make_test_genesis(count, parameters)
    network = MemoryNetwork(seed=1)
    worker = Worker(1, "cpu", folder / "worker.log")
    nodes: list[Node] = []
    async with trio.open_nursery() as nursery:
        first_address = ()
        for index, key in enumerate(keys):
            place = NodeFolder(folder / f"node-{index}")
            place.make()
            watch_ppm = 1_000_000 if index == watcher else 0
            config = Config(adversary=adversaries.get(index, ""), bootstrap=first_address, watch_ppm=watch_ppm)
            settings = transport_settings(config, genesis, secret_key_from(f"host {index}").seed)
            transport = network.join(f"node{index}", settings)
            store = MemoryStore()
            prepare_store(store, genesis)
            node = make_node(place, config, genesis, key, settings, transport, store, VoteLog(place.votes), worker)
            await nursery.start(partial(transport.run))
            first_address = first_address or transport.addresses[:1]
            nursery.start_soon(node.run)
            nodes.append(node)
        yield Network(genesis, tuple(nodes), keys, submitter)
        nursery.cancel_scope.cancel()
    await worker.stop()


def make_small_spec(trainers: int, **changes: Any) -> JobSpec:
    """The small job for so many trainers, with no deadline that a loaded machine could miss: it is tested what happens,
    not how fast. `changes`: other terms, by name."""
    spec = prepare_small().spec
    terms = replace(spec.terms, trainers_target=Count(trainers), **dict.fromkeys(DEADLINES, Count(5_000)))
    return replace(spec, terms=replace(terms, **changes))


async def submit_small(network: Network, spec: JobSpec, scratch: Path) -> JobId:
    """Hand the small job's blobs to the first node and the job to the chain."""
    scratch.mkdir(exist_ok=True)
    for _, blob in prepare_small().blobs:
        await network.nodes[0].put_blob(Path(shutil.copy(blob, scratch / blob.name)))
    account = network.nodes[0].account(network.submitter.account)
    body = TransactionBody(
        network.genesis.chain_id,
        network.submitter.account,
        account.nonce,
        network.genesis.parameters.fee_min,
        SubmitJob(spec, Amount(compute_cost_max(spec.terms))),
    )
    return JobId(await network.nodes[0].submit(sign_transaction(network.submitter, body)))


async def wait_for_job(node: Node, job: JobId, is_there: Callable[[JobView], bool], timeout_s: float) -> JobView:
    """The job's view once the condition holds."""
    with trio.fail_after(timeout_s):
        while True:
            view = node.job(job)
            if view is not None and is_there(view):
                return view
            await trio.sleep(0.05)

"""A visitor on the network: connects, asks, checks and leaves; it keeps no chain and has no stake."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId, Digest
from milon.base.signing import SecretKey
from milon.base.units import Height
from milon.chain.genesis import Genesis
from milon.node.keys import generate_key
from milon.node.light_client import trust_hash
from milon.node.light_sync import LightReport, light_sync
from milon.node.runner import read_clock_ms
from milon.node.verify import fetch_genesis
from milon.p2p.discovery import PEERS_TOPIC, Discovery
from milon.p2p.libp2p_transport import LibP2PTransport
from milon.p2p.settings import TransportSettings
from milon.p2p.transport import PeerId, Transport

_LOG = logging.getLogger(__name__)

CONNECT_S = 10.0  # one bootstrap address
MESH_S = 3.0  # to hear of more peers than the bootstrap ones: several may serve states


@dataclass(frozen=True, slots=True)
class Visit:
    """A connected visitor."""

    transport: Transport  # with at least one peer
    key: SecretKey  # made for this visit
    genesis: Genesis  # checked against its hash
    address_of: Callable[[PeerId], str]  # where a peer says it can be reached; empty where nothing was heard


@contextmanager
def _unwrapping() -> Iterator[None]:
    """Let a refusal that trio hands up in a group leave as itself; anything else in the group leaves as it is."""
    try:
        yield
    except ExceptionGroup as group:
        refusals, others = group.split(Rejected)
        inner: BaseException | None = refusals
        while isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
        if others is not None or inner is None:
            raise
        raise inner from None


@asynccontextmanager
async def visiting(bootstrap: Sequence[str], genesis_hash: Digest) -> AsyncIterator[Visit]:
    """Connect to the chain of that genesis; `Rejected(UNAVAILABLE)` where no address answers."""
    key = generate_key()
    settings = TransportSettings(seed=key.seed, chain=genesis_hash, topics=(PEERS_TOPIC,))
    transport = LibP2PTransport(settings)
    discovery = Discovery(
        transport,
        settings,
        bootstrap=bootstrap,
        now_ms=read_clock_ms,
        jitter=random.SystemRandom().random,
        is_visitor=True,
    )
    with _unwrapping():
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(transport.run))
            refusals: list[str] = []
            for address in bootstrap:
                try:
                    await transport.connect(address, timeout_s=CONNECT_S)
                except Rejected as error:
                    refusals.append(f"{address}: {error.detail}")
            if not transport.peers():
                raise Rejected(Reason.UNAVAILABLE, "no bootstrap address answers: " + "; ".join(refusals))
            nursery.start_soon(discovery.run)
            nursery.start_soon(_drain, transport)
            genesis = await fetch_genesis(transport, genesis_hash)
            with trio.move_on_after(MESH_S):
                while len(transport.peers()) < len(discovery.known_addresses()) or len(transport.peers()) < 2:
                    await trio.sleep(0.05)
            yield Visit(transport, key, genesis, discovery.address_of)
            nursery.cancel_scope.cancel()


async def _drain(transport: Transport) -> None:
    """A visitor takes no part in consensus: what it is told unasked, it lets go."""
    async for _ in transport.received():
        pass


async def _light_async(
    folder: Path,
    bootstrap: Sequence[str],
    genesis_hash: Digest,
    trusted: Digest | None,
    name: Height | Digest,
    account: AccountId | None,
) -> LightReport:
    await trio.Path(folder).mkdir(parents=True, exist_ok=True)
    async with visiting(bootstrap, genesis_hash) as visit:
        if not isinstance(name, bytes):
            return await light_sync(folder, visit.transport, visit.genesis, trusted, name, account)
        claimed = await trust_hash(visit.transport, visit.genesis, name)
        report = await light_sync(folder, visit.transport, visit.genesis, trusted, claimed.height, None)
        require(report.hash == name, Reason.DIFFERS, f"the final block at height {report.height} is another one")
        return report


def follow_lightly(
    folder: Path,
    bootstrap: Sequence[str],
    genesis_hash: Digest,
    *,
    trusted: Digest | None = None,
    name: Height | Digest = Height(0),
    account: AccountId | None = None,
) -> LightReport:
    """Prove a header final, by height or hash (0: the newest), or what an account has at the newest.

    It begins with what `folder` keeps from before, else with the `trusted` hash, else with the genesis. `Rejected`
    where it cannot be proved, with DIFFERS where the chain has another block there or two chains are proved.
    """
    return trio.run(_light_async, folder, bootstrap, genesis_hash, trusted, name, account)

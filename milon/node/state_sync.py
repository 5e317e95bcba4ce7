"""Joining without the past: from a trusted header hash to the state at a snapshot above or below it.

A light client leads from the trusted hash to the header of the newest snapshot that peers offer; that header's state
root checks every chunk by itself. Chunks come from several peers at once and stay on disk until all are there, so that
a sync that was cut short goes on. Who sends a wrong chunk is reported, dropped and asked no more.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path

import trio

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.base.units import Count, Height, TimeMs
from milon.chain.block import Header, compute_header_hash
from milon.chain.finality import encode_finality
from milon.chain.genesis import Genesis
from milon.node.folder import PRIVATE, read_file, write_file
from milon.node.light_age import require_near, require_young
from milon.node.light_client import ASK_S, LightClient, trust_hash
from milon.node.proofs import verify_contents
from milon.node.questions import (
    HEADERS_MAX,
    AskChunk,
    AskHeaders,
    AskHeight,
    AskSnapshots,
    BlockAnswer,
    HeadersAnswer,
    Question,
    SnapshotOffer,
    SnapshotsAnswer,
)
from milon.node.runner import read_clock_ms
from milon.p2p.transport import Channel, PeerId, Transport
from milon.state.chunks import CHUNK_MAX_BYTES, DEPTH_MAX, StateChunk, assemble, verify_chunk
from milon.state.store import Commit

_LOG = logging.getLogger(__name__)

LANES = 2  # chunks in flight per provider
PATIENCE_S = 60.0  # for a provider to turn up again before the sync gives up; what is on disk stays
PAUSE_S = 0.5  # between two looks for providers
SHOWN_CHUNKS = 64  # between two words to whoever watches

Say = Callable[[str], None]


class StateSync:
    """One sync; `run` gives the commit that an empty store takes."""

    def __init__(
        self,
        transport: Transport,
        genesis: Genesis,
        trusted: Digest,
        folder: Path,
        say: Say,
        now_ms: Callable[[], TimeMs] = read_clock_ms,
    ) -> None:
        """`trusted` is a header hash that the operator vouches for; `folder` keeps chunks until all are there."""
        self._now_ms = now_ms
        self._transport = transport
        self._genesis = genesis
        self._trusted = trusted
        self._folder = folder
        self._say = say
        self._banned: set[PeerId] = set()
        self.fetched = 0  # chunks that came over the network in this run

    async def run(self) -> Commit:
        """Raises `Rejected` where the hash is unknown or too old, nobody offers a snapshot, or providers stay away."""
        trust = await trust_hash(self._transport, self._genesis, self._trusted)
        if trust.header is not None:
            require_young(trust.header, self._now_ms(), self._genesis.parameters)
        client = LightClient(self._transport, self._genesis, trust)
        self._say(f"the trusted header is at height {trust.height}")
        refusal = Rejected(Reason.UNAVAILABLE, "no peer offers a snapshot yet; join without --trusted-hash, or later")
        for offer in await self._list_offers():
            try:
                answer = await self._fetch_final(client, offer.height)
            except Rejected as error:
                refusal = error
                continue
            if trust.header is not None:
                require_near(trust.header, offer.height, self._genesis.parameters)
            self._say(f"taking the state after block {offer.height}, {1 << offer.depth} chunks")
            folder = self._folder / f"{compute_header_hash(answer.block.header).hex()}-{offer.depth}"
            await self._fetch_chunks(answer.block.header, offer, folder)
            return await trio.to_thread.run_sync(self._assemble, answer, offer, folder)
        raise refusal

    async def _ask(self, peer: PeerId, question: Question) -> bytes:
        return await self._transport.request(peer, Channel.SYNC, encode(question), timeout_s=ASK_S)

    def _ban(self, peer: PeerId, error: Rejected) -> None:
        _LOG.warning("peer %s sent a wrong answer and is asked no more: %s", peer, error)
        self._transport.report(peer, error.reason)
        self._transport.disconnect(peer)
        self._banned.add(peer)

    def _peers(self) -> list[PeerId]:
        return [peer for peer in self._transport.peers() if peer not in self._banned]

    async def _list_offers(self) -> list[SnapshotOffer]:
        """What peers offer, the newest first and of one height what most offer."""
        votes: Counter[tuple[Height, int]] = Counter()
        for peer in self._peers():
            try:
                answer = decode(SnapshotsAnswer, await self._ask(peer, AskSnapshots()))
            except Rejected as error:
                _LOG.info("peer %s offers no snapshots: %s", peer, error)
                continue
            votes.update({(offer.height, int(offer.depth)) for offer in answer.offers if offer.depth <= DEPTH_MAX})
        ordered = sorted(votes, key=lambda offer: (offer[0], votes[offer]), reverse=True)
        return [SnapshotOffer(height, Count(depth)) for height, depth in ordered]

    async def _fetch_final(self, client: LightClient, height: Height) -> BlockAnswer:
        """The block at `height`, whose header the trusted one proves: by certificates above it, by hashes below it."""
        trust = client.trust
        if height > trust.height or trust.header is None:
            wanted = compute_header_hash((await client.follow(height)).header)
        else:
            wanted = compute_header_hash(await self._walk_back(trust.header, height))
        refusal = Rejected(Reason.UNAVAILABLE, f"nobody gives out block {height}")
        for peer in self._peers():
            try:
                answer = decode(BlockAnswer, await self._ask(peer, AskHeight(height)))
            except Rejected as error:
                refusal = error
                continue
            try:
                is_wanted = compute_header_hash(answer.block.header) == wanted
                require(is_wanted, Reason.DIFFERS, "the peer sent another block")
                verify_contents(answer.block, answer.report)
            except Rejected as error:
                self._ban(peer, error)
                continue
            return answer
        raise refusal

    async def _walk_back(self, trusted: Header, height: Height) -> Header:
        """The header at a lower height, over the parents' hashes."""
        child = trusted
        while child.height > height:
            first = max(int(height), int(child.height) - HEADERS_MAX)
            child = await self._ask_parents(child, Height(first))
        return child

    async def _ask_parents(self, child: Header, first: Height) -> Header:
        refusal = Rejected(Reason.UNAVAILABLE, "no peer is connected")
        for peer in self._peers():
            try:
                question = AskHeaders(first, Height(child.height - 1))
                headers = decode(HeadersAnswer, await self._ask(peer, question)).headers
            except Rejected as error:
                refusal = error
                continue
            try:
                require(len(headers) == child.height - first, Reason.DIFFERS, f"{len(headers)} headers")
                for parent, header in pairwise((*headers, child)):
                    is_parent = compute_header_hash(parent) == header.parent_hash
                    require(is_parent, Reason.BAD_PROOF, f"the header at {parent.height} is not the parent named")
            except Rejected as error:
                self._ban(peer, error)
                continue
            return headers[0]
        raise refusal

    async def _fetch_chunks(self, header: Header, offer: SnapshotOffer, folder: Path) -> None:
        await trio.Path(folder).mkdir(parents=True, exist_ok=True)
        here = {entry.name async for entry in _names(folder)}
        wanted = deque(index for index in range(1 << offer.depth) if f"{index:08x}" not in here)
        self._say(f"{(1 << offer.depth) - len(wanted)} chunks are here already")
        left = len(wanted)
        deadline = trio.current_time() + PATIENCE_S
        while left:
            before = left
            async with trio.open_nursery() as nursery:
                for peer in self._peers():
                    for _ in range(LANES):
                        nursery.start_soon(self._fetch_lane, peer, header, offer, folder, wanted)
            left = len(wanted)
            if left < before:
                deadline = trio.current_time() + PATIENCE_S
            elif trio.current_time() > deadline:
                raise Rejected(
                    Reason.UNAVAILABLE,
                    f"{left} of {1 << offer.depth} chunks are missing and no peer gives them; what came is kept in "
                    f"{self._folder}; start again to go on",
                )
            if left:
                await trio.sleep(PAUSE_S)

    async def _fetch_lane(
        self, peer: PeerId, header: Header, offer: SnapshotOffer, folder: Path, wanted: deque[int]
    ) -> None:
        """Ask one peer for chunk after chunk until none is left or it fails."""
        while wanted and peer not in self._banned:
            index = wanted.popleft()
            try:
                raw = await self._ask(peer, AskChunk(offer.height, Count(index)))
            except Rejected as error:
                wanted.append(index)
                _LOG.info("peer %s gives no chunk %d: %s", peer, index, error)
                return
            try:
                await trio.to_thread.run_sync(_take_chunk, raw, header, offer, folder, index)
            except Rejected as error:
                wanted.append(index)
                if error.reason is Reason.FULL:
                    raise
                self._ban(peer, error)
                return
            self.fetched += 1
            if self.fetched % SHOWN_CHUNKS == 0:
                self._say(f"{len(wanted)} chunks left")

    def _assemble(self, answer: BlockAnswer, offer: SnapshotOffer, folder: Path) -> Commit:
        """The commit of everything; the chunks are checked once more, since they lay on a disk."""

        def chunks() -> Iterator[StateChunk]:
            for index in range(1 << offer.depth):
                raw = read_file(folder / f"{index:08x}", CHUNK_MAX_BYTES)
                yield decode(StateChunk, raw, CHUNK_MAX_BYTES)

        block = answer.block
        height, name = block.header.height, compute_header_hash(block.header)
        try:
            ledger, nodes = assemble(block.header.state_root, chunks())
        except Rejected:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return Commit(
            blocks=((height, name, encode(block)),),
            certificates=((height, encode_finality(answer.proof)),),
            receipts=((height, encode(answer.report)),),
            changes=dict(ledger),
            nodes=nodes,
            tip=(height, name),
            state_root=block.header.state_root,
        )

    def forget(self) -> None:
        """The chunks are in the store: away with them."""
        shutil.rmtree(self._folder, ignore_errors=True)


async def _names(folder: Path) -> AsyncIterator[trio.Path]:
    for entry in await trio.Path(folder).iterdir():
        yield entry


def _take_chunk(raw: bytes, header: Header, offer: SnapshotOffer, folder: Path, index: int) -> None:
    """Check a chunk against the header's state root and put it on disk; `Rejected` where it is wrong."""
    chunk = decode(StateChunk, raw, CHUNK_MAX_BYTES)
    verify_chunk(header.state_root, chunk, index, int(offer.depth))
    write_file(folder / f"{index:08x}", raw, PRIVATE)

"""Blobs between nodes: ask for the manifest, then for chunks, from several providers at once, checking each.

The receiver drives. It keeps few chunks in flight per provider, fewer where they take long, so that votes on the same
line wait behind little; a provider that sends a wrong chunk is reported and asked no more; what is here already stays
on disk and is not fetched again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from milon.base.blob import Manifest, verify_manifest
from milon.base.codec import decode, encode, wire
from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.p2p.blob_store import BlobStore
from milon.p2p.transport import PAYLOAD_MAX_BYTES, Channel, PeerId, Transport

__all__ = ["BeingMade", "BlobClient", "BlobStore", "Maker", "serve_blobs"]

REQUEST_MAX_BYTES = 256  # a blob id and a number
LANES_MAX = 4  # chunks in flight per provider: 4 MiB, a few ms on a fast line
QUICK_S = 0.1  # a chunk that takes less allows one more in flight
SLOW_S = 0.3  # a chunk that takes longer forbids one: bytes in flight must not delay votes
CHUNK_WAIT_MAX_S = 20.0  # 1 MiB at half a megabit per second
RETRY_FIRST_S = 0.1  # after a provider's failure; doubles
RETRY_MAX_S = 3.0  # a provider that restarts is asked again soon after
HEDGE_S = 0.2  # a provider that has not given the manifest by then is not waited for: the next one is asked as well
LATE_S = 0.75  # one more provider is asked for a chunk that is late, each time so long: who never answers delays nobody
DISK_THREADS = 2  # hashing and writing at once: the cores of a small machine


@wire("manifest-request/1")
@dataclass(frozen=True, slots=True)
class ManifestRequest:
    """Which chunks make a blob?"""

    blob_id: Digest  # the blob


@wire("chunk-request/1")
@dataclass(frozen=True, slots=True)
class ChunkRequest:
    """One chunk of a blob, please."""

    blob_id: Digest  # the blob
    index: int  # of the chunk, from 0


class Maker(Protocol):
    """Makes blobs that are not kept but can be computed."""

    def note(self, peer: PeerId, blob_id: Digest) -> None:
        """A peer asked for a blob, kept or not. Raises `Rejected(NOT_NOW)` for one that is made now because of it."""


class BeingMade(Rejected):
    """UNAVAILABLE, and a provider says that it is computing the blob: it may be worth asking again."""


def serve_blobs(transport: Transport, store: BlobStore, maker: Maker | None = None) -> None:
    """Answer requests for the blobs in `store`; call it before the transport runs."""
    threads = trio.CapacityLimiter(DISK_THREADS)

    async def respond(peer: PeerId, payload: bytes) -> bytes:
        request: ManifestRequest | ChunkRequest = decode(ManifestRequest | ChunkRequest, payload, REQUEST_MAX_BYTES)
        if maker is not None:
            maker.note(peer, request.blob_id)
        if isinstance(request, ChunkRequest):
            return await trio.to_thread.run_sync(store.read_chunk, request.blob_id, request.index, limiter=threads)
        manifest = await trio.to_thread.run_sync(_whole_manifest, store, request.blob_id, limiter=threads)
        return encode(manifest)

    transport.serve(Channel.BLOB, respond)


def _whole_manifest(store: BlobStore, blob_id: Digest) -> Manifest:
    manifest = store.manifest(blob_id)
    if manifest is None or not store.has(blob_id):
        raise Rejected(Reason.UNAVAILABLE, f"blob {blob_id.hex()[:16]} is not here")
    return manifest


class _Fetch:
    """Which chunks of one blob are wanted, asked for and here."""

    def __init__(self, manifest: Manifest, present: frozenset[int]) -> None:
        self.manifest = manifest
        self.wanted = deque(index for index in range(len(manifest.chunks)) if index not in present)
        self.asked: dict[int, set[PeerId]] = {}  # in flight, and from whom
        self.since_s: dict[int, float] = {}  # when a chunk in flight was first asked for, on trio's clock
        self.left = len(self.wanted)
        self.changed = trio.Event()

    def take(self, provider: PeerId) -> int | None:
        """A chunk to ask `provider` for; one that another is slow with when nothing else is left; None: not now."""
        if self.wanted:
            index = self.wanted.popleft()
        else:
            late = [index for index, peers in self.asked.items() if provider not in peers and self._is_late(index)]
            if not late:
                return None
            index = late[0]
        self.since_s.setdefault(index, trio.current_time())
        self.asked.setdefault(index, set()).add(provider)
        return index

    def _is_late(self, index: int) -> bool:
        """Whether one more provider may be asked for a chunk in flight: a second at once, further ones with time."""
        return len(self.asked[index]) < 2 + (trio.current_time() - self.since_s[index]) // LATE_S

    async def cancel_when_whole(self, scope: trio.CancelScope) -> None:
        """End `scope` when all chunks are here: chunks asked for twice are not waited for."""
        while self.left:
            await self.changed.wait()
        scope.cancel()

    def settle(self, index: int, provider: PeerId, is_here: bool) -> bool:
        """The end of one asking; True when the chunk is new here."""
        peers = self.asked.get(index)
        is_new = False
        if peers is not None and is_here:
            del self.asked[index], self.since_s[index]
            self.left -= 1
            is_new = True
        elif peers is not None:
            peers.discard(provider)
            if not peers:
                del self.asked[index], self.since_s[index]
                self.wanted.appendleft(index)
        self.changed.set()
        self.changed = trio.Event()
        return is_new


class BlobClient:
    """Fetches blobs into a store; several fetches may run at once, also of the same blob."""

    def __init__(self, transport: Transport, store: BlobStore) -> None:
        self._transport = transport
        self._store = store
        self._threads = trio.CapacityLimiter(DISK_THREADS)
        self._locks: dict[Digest, trio.Lock] = {}
        self._promised: set[Digest] = set()  # of which a provider said that it is making it

    async def fetch(
        self, blob_id: Digest, providers: Sequence[PeerId], *, size_max_bytes: int, deadline_s: float
    ) -> Path:
        """The path of the blob once it is whole and verified here.

        Raises `Rejected`: `TOO_LARGE` beyond `size_max_bytes`, `FULL` without room, `UNAVAILABLE` when the providers
        do not deliver within `deadline_s`, as `BeingMade` where one of them says so; what has arrived by then stays and
        the next call goes on from it.
        """
        lock = self._locks.setdefault(blob_id, trio.Lock())
        try:
            with trio.fail_after(deadline_s):
                async with lock:
                    path = await trio.to_thread.run_sync(self._store.path, blob_id)
                    return path or await self._fetch(blob_id, tuple(dict.fromkeys(providers)), size_max_bytes)
        except trio.TooSlowError:
            kind = BeingMade if blob_id in self._promised else Rejected
            raise kind(Reason.UNAVAILABLE, f"blob {blob_id.hex()[:16]} not fetched in {deadline_s} s") from None
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._locks.pop(blob_id, None)
                self._promised.discard(blob_id)

    async def _fetch(self, blob_id: Digest, providers: tuple[PeerId, ...], size_max_bytes: int) -> Path:
        manifest = await trio.to_thread.run_sync(self._store.manifest, blob_id)
        if manifest is None:
            manifest = await self._fetch_manifest(blob_id, providers)
        if manifest.size_bytes > size_max_bytes:
            raise Rejected(Reason.TOO_LARGE, f"a blob of {manifest.size_bytes} bytes; {size_max_bytes} are allowed")
        present = await trio.to_thread.run_sync(self._store.begin, blob_id, manifest, limiter=self._threads)
        fetch = _Fetch(manifest, present)
        refusals: list[Rejected] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch.cancel_when_whole, nursery.cancel_scope)
            async with trio.open_nursery() as providing:
                for provider in providers:
                    providing.start_soon(self._fetch_from, blob_id, fetch, provider, refusals)
            nursery.cancel_scope.cancel()
        if fetch.left:
            raise refusals[0] if refusals else Rejected(Reason.UNAVAILABLE, "no provider is left")
        return await trio.to_thread.run_sync(self._store.finish, blob_id, limiter=self._threads)

    async def _fetch_manifest(self, blob_id: Digest, providers: tuple[PeerId, ...]) -> Manifest:
        """The manifest from the first provider that gives it; each is asked again and again until one does."""
        found: list[Manifest] = []
        async with trio.open_nursery() as nursery, trio.open_nursery() as asking:
            for provider in providers:
                has_failed = trio.Event()
                asking.start_soon(self._ask_manifest, blob_id, provider, has_failed, found, nursery.cancel_scope)
                with trio.move_on_after(HEDGE_S):
                    await has_failed.wait()
        if not found:
            raise Rejected(Reason.UNAVAILABLE, f"no provider is left for blob {blob_id.hex()[:16]}")
        return found[0]

    async def _ask_manifest(
        self,
        blob_id: Digest,
        provider: PeerId,
        has_failed: trio.Event,
        found: list[Manifest],
        search: trio.CancelScope,
    ) -> None:
        pause = RETRY_FIRST_S
        while True:
            try:
                raw = await self._request(provider, ManifestRequest(blob_id))
            except Rejected:
                has_failed.set()
                await trio.sleep(pause)
                pause = min(pause * 2, RETRY_MAX_S)
                continue
            try:
                found.append(await trio.to_thread.run_sync(_decode_manifest, blob_id, raw, limiter=self._threads))
                search.cancel()
            except Rejected as error:
                self._transport.report(provider, error.reason)
                has_failed.set()
            return

    async def _request(self, provider: PeerId, request: ManifestRequest | ChunkRequest) -> bytes:
        try:
            return await self._transport.request(provider, Channel.BLOB, encode(request), timeout_s=CHUNK_WAIT_MAX_S)
        except Rejected as error:
            if error.reason is Reason.NOT_NOW:
                self._promised.add(request.blob_id)
            raise

    async def _fetch_from(self, blob_id: Digest, fetch: _Fetch, provider: PeerId, refusals: list[Rejected]) -> None:
        """Run this provider's lanes until all chunks are here or the provider is found bad."""
        lanes = _Lanes()
        async with trio.open_nursery() as nursery:
            for number in range(LANES_MAX):
                nursery.start_soon(self._run_lane, blob_id, fetch, provider, number, lanes, refusals)

    async def _run_lane(
        self,
        blob_id: Digest,
        fetch: _Fetch,
        provider: PeerId,
        number: int,
        lanes: _Lanes,
        refusals: list[Rejected],
    ) -> None:
        while fetch.left and not lanes.is_bad and not refusals:
            index = fetch.take(provider) if number < lanes.allowed else None
            if index is None:
                with trio.move_on_after(LATE_S):
                    await fetch.changed.wait()
                continue
            start, is_here = trio.current_time(), False
            try:
                is_here = await self._fetch_chunk(blob_id, fetch, provider, index)
                lanes.note(trio.current_time() - start)
            except Rejected as error:
                if error.reason is Reason.FULL:
                    refusals.append(error)
                elif error.reason is Reason.DIFFERS:
                    lanes.is_bad = True
                    self._transport.report(provider, Reason.DIFFERS)
            finally:
                fetch.settle(index, provider, is_here)
            if not is_here and not lanes.is_bad and not refusals:
                await trio.sleep(lanes.next_pause_s())

    async def _fetch_chunk(self, blob_id: Digest, fetch: _Fetch, provider: PeerId, index: int) -> bool:
        chunk = await self._request(provider, ChunkRequest(blob_id, index))
        put = self._store.put_chunk
        await trio.to_thread.run_sync(put, blob_id, fetch.manifest, index, chunk, limiter=self._threads)
        return True


class _Lanes:
    """How many chunks one provider may have in flight, and how long to leave it alone after a failure."""

    def __init__(self) -> None:
        self.allowed = 1
        self.is_bad = False
        self._pause_s = RETRY_FIRST_S

    def note(self, seconds: float) -> None:
        """A chunk arrived after `seconds`."""
        self._pause_s = RETRY_FIRST_S
        if seconds < QUICK_S:
            self.allowed = min(self.allowed + 1, LANES_MAX)
        elif seconds > SLOW_S:
            self.allowed = max(self.allowed - 1, 1)

    def next_pause_s(self) -> float:
        """How long to wait after a failure: longer each time."""
        self.allowed = 1
        pause, self._pause_s = self._pause_s, min(self._pause_s * 2, RETRY_MAX_S)
        return pause


def _decode_manifest(blob_id: Digest, raw: bytes) -> Manifest:
    manifest = decode(Manifest, raw, PAYLOAD_MAX_BYTES[Channel.BLOB])
    verify_manifest(blob_id, manifest)
    return manifest

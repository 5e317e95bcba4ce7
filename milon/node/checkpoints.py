"""Which states of own claims stay on the disk while their rounds are open, and making the others again for who asks.

Where all states fit into the budget they all stay. Otherwise every k-th and the last one do; one of the others is
trained again from the nearest one before it when a peer or a dispute needs it, and stays for a while. That costs this
node work, so it is bounded: one at a time, a few waiting per peer, and per peer and claim about the claim's segments.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import trio

from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest, JobId
from milon.contracts.duties import TrainDuty
from milon.node.own_rounds import OpenRounds, OwnRound
from milon.p2p.blob_store import BlobStore
from milon.p2p.transport import PeerId
from milon.pol.work import BlobFile

_LOG = logging.getLogger(__name__)

AGAIN_SHARE = 4  # of the budget, a quarter is for states made again, where not all fit
AGAIN_STATES_MIN = 2  # however small the budget is: one being fetched while the next is made
IDLE_S = 5.0  # a state made again stays so long after it was last asked for: who waits asks every three seconds
LINE_BYTES_PER_S = 8 << 20  # of the slowest line that a state made again is sure to pass at once; see `_Stay`
FETCHED_S = 30.0  # besides, for the first chunk to be asked for
WANTED_MAX = 64  # waiting at once: as many as a large committee asks for
WANTED_PER_PEER = 4  # of them: a verifier fetches one at a time, and may judge a challenge beside it
TWICE = 2  # a peer may have each of a claim's segments trained again about twice: it may lose what it fetched
PEERS_REMEMBERED_MAX = 1_024  # with claims: who was forgotten may ask as if for the first time
OWN = PeerId("")  # this node itself, which is not bounded

_Training = tuple[JobId, int, int]  # job, round, first segment


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make a state again: train the segments between two places of an own claim."""

    own: OwnRound  # the claim
    near: int  # place of the record whose state is here; -1: the state the training began with
    place: int  # of the record whose state is wanted


@dataclass(slots=True)
class _Wish:
    asker: PeerId  # who asked first
    settled: trio.Event = field(default_factory=trio.Event)  # it was made, or will not be


@dataclass(slots=True)
class _Stay:
    """A state made again. Asking for it without end does not keep others' states from being made."""

    asked_s: float  # when it was last asked for, by trio's clock
    until_s: float = inf  # asking later counts no more; set when it is asked for the first time

    def touch(self, size_bytes: int) -> None:
        """Somebody asks."""
        now = trio.current_time()
        self.until_s = min(self.until_s, now + FETCHED_S + size_bytes / LINE_BYTES_PER_S)
        self.asked_s = min(now, self.until_s)


def choose_spacing(count: int, state_bytes: int, left_bytes: int, budget_bytes: int) -> int:
    """The smallest k so that the states after every k-th of `count` segments, and the last one, fit into what is left.

    1 where all fit; otherwise a share of the budget is left to those that are made again. `count` where only the last
    one fits, or not even that: it stays all the same.
    """
    if count * state_bytes <= left_bytes:
        return 1
    again_bytes = max(budget_bytes // AGAIN_SHARE, AGAIN_STATES_MIN * state_bytes)
    most = (left_bytes - again_bytes) // max(state_bytes, 1)
    return count if most < 1 else max(2, -(-count // most))


class Checkpoints:
    """The states of own claims in open rounds. Belongs to the event loop."""

    def __init__(self, store: BlobStore, budget_bytes: int, owns: Sequence[OwnRound] = ()) -> None:
        """`store`: where all blobs lie; `budget_bytes`: for the states of open rounds; `owns`: the claims in them."""
        self._store = store
        self._budget_bytes = budget_bytes
        self._owns: dict[_Training, OwnRound] = {}
        self._known: dict[Digest, tuple[_Training, int]] = {}  # a state, and the place of its record
        self._wanted: OrderedDict[Digest, _Wish] = OrderedDict()  # the first is made, or comes next
        self._made: dict[Digest, _Stay] = {}  # here again
        self._spent: OrderedDict[tuple[PeerId, _Training], int] = OrderedDict()  # segments trained again for a peer
        self._chosen: dict[_Training, int] = {}  # bytes that trainings under way will keep
        self._called = trio.Event()
        for own in owns:
            self.add(own)

    # What stays.

    async def choose(self, duty: TrainDuty, state_bytes: int) -> int:
        """The k of a training that begins: see `choose_spacing`. What it will keep counts for others from here on."""
        name, count = _name(duty), int(duty.assignment.count)
        states = [state for state in self._known if state not in self._made]
        used = await trio.to_thread.run_sync(lambda: sum(map(self._size, states)))
        self._chosen.pop(name, None)  # of a try before
        left = self._budget_bytes - used - sum(self._chosen.values())
        k = choose_spacing(count, state_bytes, left, self._budget_bytes)
        self._chosen[name] = -(-count // k) * state_bytes
        if k > 1:
            _LOG.warning(
                "%d states of %d bytes do not fit into the checkpoint budget: one in %d stays, and the last one",
                *(count, state_bytes, k),
            )
        return k

    def _size(self, state: Digest) -> int:
        path = self._store.path(state)
        return 0 if path is None else path.stat().st_size

    def add(self, own: OwnRound) -> None:
        """A claim of this node, whose states are in the store as far as they stay."""
        name = _name(own.duty)
        self._owns[name] = own
        self._chosen.pop(name, None)
        needed = {own.duty.state, own.duty.spec.initial_state}  # a job that changes nothing ends where it began
        needed |= {record.state for place, record in enumerate(own.records) if own.stays(place)}
        for place, record in enumerate(own.records):
            self._known[record.state] = (name, place)
            if record.state not in needed and self._store.has(record.state):
                self._made.setdefault(record.state, _Stay(-IDLE_S))  # from before a restart

    async def retain(self, still_open: OpenRounds) -> None:
        """Forget the claims that nobody may ask about any more, and the states that were made again for them."""
        self._chosen = {name: size for name, size in self._chosen.items() if not still_open.is_over(*name[:2])}
        gone = {
            name
            for name, own in self._owns.items()
            if still_open.is_over(own.duty.job, int(own.duty.round)) or own.records[-1].state in still_open.ended
        }
        if not gone:
            return
        states = [state for state, (name, _) in self._known.items() if name in gone]
        self._owns = {name: own for name, own in self._owns.items() if name not in gone}
        self._spent = OrderedDict((key, spent) for key, spent in self._spent.items() if key[1] not in gone)
        removed = [state for state in states if self._made.pop(state, None) is not None]
        for state in states:
            del self._known[state]
            self.settle(state)
        for state in removed:
            await trio.to_thread.run_sync(self._store.remove, state)

    # Who wants what.

    def knows(self, blob: Digest) -> bool:
        """Whether it is a state of an own claim in an open round."""
        return blob in self._known

    async def wait(self, state: Digest) -> None:
        """Until a state that somebody wants was made, or could not be."""
        wish = self._wanted.get(state)
        if wish is not None:
            await wish.settled.wait()

    def note(self, peer: PeerId, blob_id: Digest) -> None:
        """A peer asks. Raises `Rejected(NOT_NOW)` for a state that is made again, for it or for others, or will be once
        fewer wait: told nothing, a verifier would call it withheld."""
        if blob_id not in self._known:
            return
        self._touch(blob_id)
        if self._store.has(blob_id):
            return
        if blob_id in self._wanted or self._grant(peer, blob_id):
            raise Rejected(Reason.NOT_NOW, f"state {blob_id.hex()[:16]} is computed again; ask in a while")

    def _touch(self, state: Digest) -> None:
        if state in self._made:
            self._made[state].touch(self._size(state))

    def _grant(self, peer: PeerId, state: Digest) -> bool:
        """Whether the peer may still ask for a state; if so it is put among those to be made, as soon as there is a
        place."""
        name = self._known[state][0]
        left = TWICE * len(self._owns[name].records) - self._spent.get((peer, name), 0)
        if left <= 0:
            return False
        waiting = sum(wish.asker == peer for wish in self._wanted.values())
        if len(self._wanted) >= WANTED_MAX or waiting >= WANTED_PER_PEER:
            return True
        recipe = self.plan(state)
        cost = recipe.place - recipe.near
        if cost > left:
            _LOG.info("state %s is not computed again for %s: it has asked for much", state.hex()[:8], peer)
            return False
        self._spent[peer, name] = self._spent.get((peer, name), 0) + cost
        while len(self._spent) > PEERS_REMEMBERED_MAX:
            self._spent.popitem(last=False)
        self._want(state, peer)
        return True

    def _want(self, state: Digest, peer: PeerId) -> None:
        self._wanted.setdefault(state, _Wish(peer))
        self._called.set()

    async def obtain(self, state: Digest) -> Path:
        """Where the state lies, made again if need be: for this node itself. `Rejected(UNAVAILABLE)`: it failed."""
        if self.knows(state) and not self._store.has(state):
            self._want(state, OWN)
            await self.wait(state)
        self._touch(state)
        path = self._store.path(state)
        if path is None:
            raise Rejected(Reason.UNAVAILABLE, f"state {state.hex()[:16]} was not made again; the log says why")
        return path

    # Making.

    def _again_bytes(self, state_bytes: int) -> int:
        return max(self._budget_bytes // AGAIN_SHARE, AGAIN_STATES_MIN * state_bytes)

    def spread(self, count: int, state_bytes: int) -> int:
        """Every how many of `count` states that are trained again one stays meanwhile, so that no more of them lie on
        the disk than may stay; 0: all of them."""
        room = self._again_bytes(state_bytes) // max(state_bytes, 1)
        return 0 if count <= room else -(-count // (room - 1))

    async def next_wanted(self) -> Digest:
        """Waits for a state that somebody wants."""
        while not self._wanted:
            self._called = trio.Event()
            await self._called.wait()
        return next(iter(self._wanted))

    def plan(self, state: Digest) -> Recipe:
        """From where to train again; only for a state that `knows` knows."""
        name, place = self._known[state]
        own = self._owns[name]
        near = place - 1
        while near >= 0 and not self._store.has(own.records[near].state):
            near -= 1
        return Recipe(own, near, place)

    def settle(self, state: Digest) -> None:
        """It was made, or cannot be: whoever waits looks again."""
        wish = self._wanted.pop(state, None)
        if wish is not None:
            wish.settled.set()

    async def keep(self, file: BlobFile, must: bool) -> None:
        """Take in a state that was made again; one that `must` not stay is left where others are in use."""
        size = (await trio.Path(file.path).stat()).st_size
        while not await self._make_room(size):
            if not must:
                return
            await trio.sleep(IDLE_S / 5)
        if file.blob not in self._known or self._store.has(file.blob):
            return
        await trio.to_thread.run_sync(self._store.put_file, Path(file.path), True)
        if file.blob in self._known:
            self._made[file.blob] = _Stay(trio.current_time())
        else:  # its round was closed in the meantime
            await trio.to_thread.run_sync(self._store.remove, file.blob)

    async def _make_room(self, size: int) -> bool:
        """Whether so many bytes fit beside the states made again, once the longest unused ones are gone."""
        while sum(map(self._size, self._made)) + size > self._again_bytes(size):
            oldest = min(self._made, key=lambda state: self._made[state].asked_s)
            if trio.current_time() < self._made[oldest].asked_s + IDLE_S:
                return False
            del self._made[oldest]
            await trio.to_thread.run_sync(self._store.remove, oldest)
        return True


def _name(duty: TrainDuty) -> _Training:
    return duty.job, int(duty.round), int(duty.assignment.first)

"""States that did not stay are made again for who asks, to the bit, and no oftener than budget and bounds say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import trio
import trio.testing

from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Digest, JobId
from milon.base.signing import secret_key_from
from milon.base.units import Count, Round
from milon.chain.params import Parameters
from milon.contracts.duties import TrainDuty
from milon.gpu.checkpoint import state_digest
from milon.gpu.work_library import Library
from milon.gpu.work_rounds import train
from milon.node.checkpoints import TWICE, WANTED_PER_PEER, Checkpoints, choose_spacing
from milon.node.own_rounds import OpenRounds, OwnRound
from milon.node.recompute_tasks import recompute_wanted
from milon.node.task_context import TaskContext
from milon.node.work_progress import WorkBoard
from milon.p2p.transport import PeerId
from milon.pol.assignment import Assignment
from milon.pol.work import Progress, Request, Result, SegmentsTrained, TrainSegments
from tests.gpu.small_job import SEED, list_files, prepare_small
from tests.node.local_blobs import LocalBlobs

JOB = JobId(Digest(b"\x01" * 32))
SEGMENTS, ROUND = 6, 3
ONE, OTHER = PeerId("one"), PeerId("other")
LIBRARY = Library()


@cache
def train_all() -> tuple[TrainDuty, SegmentsTrained]:
    """A trainer's round with all its states, made once."""
    prepared = prepare_small()
    assignment = Assignment(AccountId(b"\x09" * 32), Count(0), Count(SEGMENTS))
    duty = TrainDuty(JOB, prepared.spec, Round(ROUND), SEED, prepared.spec.initial_state, assignment)
    request = TrainSegments(
        duty.spec, list_files(prepared), duty.state, SEED, Count(ROUND), Count(0), Count(SEGMENTS),
        mkdtemp(prefix="milon-round-"), "",
    )  # fmt: skip
    return duty, train(request, LIBRARY, lambda progress: None)


def duty_of(count: int, first: int = SEGMENTS) -> TrainDuty:
    """A training of so many segments that begins beside the claim that is there."""
    duty = train_all()[0]
    return replace(duty, assignment=replace(duty.assignment, first=Count(first), count=Count(count)))


def states() -> list[Digest]:
    return [record.state for record in train_all()[1].records]


def state_bytes() -> int:
    return Path(train_all()[1].files[0].path).stat().st_size


@dataclass
class Trainer:
    """A node that holds some of its round's states."""

    keep_every: int
    budget_bytes: int = 0  # room for two states made again, whatever they are
    folder: Path = field(default_factory=lambda: Path(mkdtemp(prefix="milon-checkpoints-")))
    asked: list[TrainSegments] = field(default_factory=list)  # of its worker

    def __post_init__(self) -> None:
        self.blobs = LocalBlobs(self.folder / "blobs")
        self.store = self.blobs.store
        for _, path in prepare_small().blobs:
            self.store.put_bytes(path.read_bytes())
        duty, trained = train_all()
        self.own = OwnRound(trained.records, trained.traces, trained.compute_ms, duty, Count(self.keep_every))
        for place, file in enumerate(trained.files):
            if self.own.stays(place):
                self.store.put_bytes(Path(file.path).read_bytes())
        self.checkpoints = Checkpoints(self.store, self.budget_bytes)
        self.checkpoints.add(self.own)

    async def work(self, request: Request, priority: int, on_progress: Callable[[Progress], None]) -> Result:
        assert isinstance(request, TrainSegments)
        self.asked.append(request)
        return train(request, LIBRARY, on_progress)

    def places_here(self) -> list[int]:
        return [place for place, state in enumerate(states()) if self.store.has(state)]

    def is_promised(self, place: int, peer: PeerId = ONE) -> bool:
        """Whether a peer that asks for the state is told to ask again."""
        try:
            self.checkpoints.note(peer, states()[place])
        except Rejected as refused:
            assert refused.reason is Reason.NOT_NOW
            return True
        return False

    async def wait(self, place: int) -> None:
        """Until a promised state was made, or not; no deadline, or a clock that jumps would jump there."""
        await self.checkpoints.wait(states()[place])

    @asynccontextmanager
    async def making(self) -> AsyncIterator[None]:
        context = TaskContext(
            key=secret_key_from("trainer"),
            parameters=Parameters(),
            blobs=self.blobs,
            work=self.work,
            folder=self.folder / "work",
            board=WorkBoard(),
            adversary="",
            will_accept=False,
            checkpoints=self.checkpoints,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recompute_wanted, context, self.checkpoints)
            yield
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("count", [1, 2, 7, 64])
@pytest.mark.parametrize("room", [0, 1, 2, 5, 13, 63, 64, 1_000])
def test_the_spacing_is_the_smallest_that_fits(count: int, room: int) -> None:
    size = 100
    k = choose_spacing(count, size, room * size, room * size)
    if room >= count:
        assert k == 1
        return
    left = room * size - max(room * size // 4, 2 * size)
    fits = [k for k in range(2, count + 1) if -(-count // k) * size <= left]
    assert k == (fits[0] if fits else count)


async def test_a_generous_budget_keeps_all_and_makes_nothing() -> None:
    trainer = Trainer(keep_every=1, budget_bytes=1 << 30)
    assert await trainer.checkpoints.choose(duty_of(SEGMENTS), state_bytes()) == 1
    assert trainer.places_here() == [*range(SEGMENTS)]
    assert not any(trainer.is_promised(place) for place in range(SEGMENTS))
    assert await trainer.checkpoints.obtain(states()[0]) == trainer.store.path(states()[0])


async def test_what_other_open_rounds_hold_counts() -> None:
    trainer = Trainer(keep_every=1, budget_bytes=(SEGMENTS + 5) * state_bytes())
    assert await trainer.checkpoints.choose(duty_of(5), state_bytes()) == 1
    assert await trainer.checkpoints.choose(duty_of(6), state_bytes()) == 3


async def test_what_a_training_under_way_will_keep_counts() -> None:
    trainer = Trainer(keep_every=1, budget_bytes=(SEGMENTS + 5) * state_bytes())
    choose = trainer.checkpoints.choose
    assert await choose(duty_of(3), state_bytes()) == 1
    assert await choose(duty_of(3, first=20), state_bytes()) == 3, "room for two is left, and that is set apart"
    assert await choose(duty_of(3), state_bytes()) == 1, "of a second try the first one's choice does not count"
    await trainer.checkpoints.retain(OpenRounds({JOB: ROUND + 1}, frozenset()))
    assert await choose(duty_of(11), state_bytes()) == 1, "what is closed keeps nothing"


async def test_what_is_asked_for_is_made_from_the_nearest_state_to_the_bit() -> None:
    trainer = Trainer(keep_every=3)
    assert trainer.places_here() == [2, 5]
    async with trainer.making():
        assert trainer.is_promised(4) and trainer.is_promised(4, OTHER)
        await trainer.wait(4)
        assert trainer.places_here() == [2, 3, 4, 5], "what comes on the way stays where there is room"
        assert not trainer.is_promised(4) and not trainer.is_promised(3)
    assert [(int(request.first), int(request.count)) for request in trainer.asked] == [(3, 2)]
    for place in (3, 4):
        assert state_digest(trainer.store.read(states()[place])) == states()[place]


async def test_for_a_dispute_of_its_own_the_node_waits(autojump_clock: trio.testing.MockClock) -> None:
    trainer = Trainer(keep_every=6)
    async with trainer.making():
        path = await trainer.checkpoints.obtain(states()[1])
    assert state_digest(path.read_bytes()) == states()[1]
    assert [(int(request.first), int(request.count)) for request in trainer.asked] == [(0, 2)]


async def test_only_some_stay_and_those_unused_longest_go_first(autojump_clock: trio.testing.MockClock) -> None:
    trainer = Trainer(keep_every=6)
    async with trainer.making():
        for place in (0, 1, 3):
            assert trainer.is_promised(place)
            await trainer.wait(place)
            assert place in trainer.places_here() and len(trainer.places_here()) <= 3
        assert trainer.places_here() == [2, 3, 5]
        trainer.checkpoints.note(ONE, states()[2])
        await trio.sleep(4.0)
        trainer.checkpoints.note(ONE, states()[2])
        await trio.sleep(2.0)
        assert trainer.is_promised(4)
        await trainer.wait(4)
    assert trainer.places_here() == [2, 4, 5], "the one that was asked for is still being fetched"


async def test_a_peer_gets_no_more_than_its_share_of_work(autojump_clock: trio.testing.MockClock) -> None:
    trainer = Trainer(keep_every=6)
    spent = 0
    async with trainer.making():
        while trainer.is_promised(4):
            await trainer.wait(4)
            spent += int(trainer.asked[-1].count)
            for place in range(5):
                trainer.store.remove(states()[place])
        assert 0 < spent <= TWICE * SEGMENTS
        assert trainer.is_promised(4, OTHER), "others are served"


async def test_who_must_wait_for_a_place_is_told_to_ask_again() -> None:
    """Told nothing, an honest verifier would call the state withheld."""
    trainer = Trainer(keep_every=6)
    assert all(trainer.is_promised(place) for place in range(5))
    async with trainer.making():
        await trainer.wait(0)
        for place in range(1, WANTED_PER_PEER):
            await trainer.wait(place)
    assert len(trainer.asked) == WANTED_PER_PEER < 5, "so many of one peer wait at once"


async def test_asking_without_end_keeps_nobody_elses_state_from_being_made(
    autojump_clock: trio.testing.MockClock,
) -> None:
    trainer = Trainer(keep_every=6)

    async def ask_without_end() -> None:
        while True:
            for state in states()[:-1]:
                if trainer.store.has(state):
                    trainer.checkpoints.note(ONE, state)
            await trio.sleep(1.0)

    async with trainer.making(), trio.open_nursery() as nursery:
        assert trainer.is_promised(1)
        await trainer.wait(1)
        assert trainer.places_here() == [0, 1, 5], "all the room there is"
        nursery.start_soon(ask_without_end)
        assert trainer.is_promised(4, OTHER)
        await trainer.wait(4)
        assert 4 in trainer.places_here() and len(trainer.places_here()) <= 3
        nursery.cancel_scope.cancel()


async def test_on_the_way_no_more_states_lie_on_the_disk_than_may_stay() -> None:
    trainer, most = Trainer(keep_every=6), 0

    async def work(request: Request, priority: int, on_progress: Callable[[Progress], None]) -> Result:
        assert isinstance(request, TrainSegments)

        def count(progress: Progress) -> None:
            nonlocal most
            most = max(most, sum(len(path.name) == 64 for path in Path(request.folder).iterdir()))

        return train(request, LIBRARY, count)

    trainer.work = work  # type: ignore[method-assign]  # this worker counts
    async with trainer.making():
        assert trainer.is_promised(4)
        await trainer.wait(4)
    assert 4 in trainer.places_here() and most <= 2


@pytest.mark.parametrize("room", [0, 1, 2, 3, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 63, 64])
def test_the_spread_of_states_made_on_the_way(count: int, room: int, tmp_path: Path) -> None:
    k = Checkpoints(LocalBlobs(tmp_path).store, 4 * 100 * room).spread(count, 100)
    fit = max(room, 2)
    assert k == 0 if count <= fit else -(-count // k) <= fit - 1, "beside the newest"


async def test_a_closed_round_is_nobodys_business(autojump_clock: trio.testing.MockClock) -> None:
    still_open = OpenRounds({JOB: ROUND}, frozenset())
    for over in (
        OpenRounds({JOB: ROUND + 1}, frozenset()),
        OpenRounds({}, frozenset()),
        replace(still_open, ended=frozenset([states()[-1]])),
    ):
        trainer = Trainer(keep_every=3)
        async with trainer.making():
            assert trainer.is_promised(0)
            await trainer.wait(0)
            await trainer.checkpoints.retain(still_open)
            assert trainer.places_here() == [0, 2, 5]
            assert trainer.is_promised(1)
            await trainer.checkpoints.retain(over)
            assert not trainer.is_promised(1)
            assert not trainer.checkpoints.knows(states()[1])
        assert trainer.places_here() == [2, 5], "what stays, stays"


async def test_after_a_restart_what_was_made_again_goes_first(autojump_clock: trio.testing.MockClock) -> None:
    trainer = Trainer(keep_every=3)
    async with trainer.making():
        assert trainer.is_promised(1)
        await trainer.wait(1)
    trainer.checkpoints = Checkpoints(trainer.store, 0, [trainer.own])
    async with trainer.making():
        assert trainer.is_promised(4)
        await trainer.wait(4)
    assert trainer.places_here() == [2, 3, 4, 5]


async def test_a_state_that_is_needed_besides_is_not_taken_for_one_made_again() -> None:
    """A job may come back to where it began; what a round starts from stays when the round is closed."""
    trainer = Trainer(keep_every=3)
    trainer.store.put_bytes(Path(train_all()[1].files[0].path).read_bytes())
    own = replace(trainer.own, duty=replace(trainer.own.duty, state=states()[0]))
    await Checkpoints(trainer.store, 0, [own]).retain(OpenRounds({}, frozenset()))
    assert trainer.places_here() == [0, 2, 5]
    await Checkpoints(trainer.store, 0, [trainer.own]).retain(OpenRounds({}, frozenset()))
    assert trainer.places_here() == [2, 5], "otherwise it is one that was made again"


async def test_other_bits_than_were_claimed_are_not_given_out(autojump_clock: trio.testing.MockClock) -> None:
    trainer = Trainer(keep_every=3)
    wrong = replace(trainer.own, duty=replace(trainer.own.duty, seed=Digest(b"\x08" * 32)))
    trainer.checkpoints.add(wrong)
    async with trainer.making():
        assert trainer.is_promised(1)
        await trainer.wait(1)
        assert trainer.places_here() == [2, 5]
        with pytest.raises(Rejected) as refused:
            await trainer.checkpoints.obtain(states()[1])
    assert refused.value.reason is Reason.UNAVAILABLE

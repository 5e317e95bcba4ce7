"""A trainer's duty: interrupted anywhere it comes to the same claim; states beyond the budget are let go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Digest, JobId
from milon.base.signing import secret_key_from
from milon.base.units import Count, Round
from milon.chain.params import Parameters
from milon.chain.transaction import Claim
from milon.contracts.duties import TrainDuty
from milon.gpu.work_library import Library
from milon.gpu.work_rounds import train as train_segments
from milon.node.checkpoints import Checkpoints
from milon.node.own_rounds import load_own_round, own_round_path, segments_folder
from milon.node.task_context import TaskContext
from milon.node.train_tasks import train
from milon.node.work_progress import WorkBoard
from milon.p2p.blob_store import BlobStore
from milon.pol.assignment import Assignment
from milon.pol.claim import SegmentRecords
from milon.pol.work import Progress, Request, Result, TrainSegments
from tests.gpu.small_job import SEED, prepare_small
from tests.node.local_blobs import LocalBlobs

SEGMENTS = 5
LIBRARY = Library()
DUTY = TrainDuty(
    JobId(Digest(b"\x01" * 32)),
    prepare_small().spec,
    Round(3),
    SEED,
    prepare_small().spec.initial_state,
    Assignment(AccountId(b"\x09" * 32), Count(0), Count(SEGMENTS)),
)


class Killed(BaseException):
    """The node ends here."""


@dataclass
class Trainer:
    """A node's folder; `train` is what a node that starts on it does."""

    folder: Path
    budget_bytes: int = 1 << 30
    adversary: str = ""
    dies_after: int = 0  # segments; 0: it lives
    told: list[Progress] = field(default_factory=list)  # by the worker
    resumed: list[int] = field(default_factory=list)  # as people see it, after each word of the worker

    def __post_init__(self) -> None:
        self.blobs = LocalBlobs(self.folder / "blobs")
        for _, path in prepare_small().blobs:
            self.blobs.store.put_bytes(path.read_bytes())
        self.board = WorkBoard()

    async def _work(self, request: Request, priority: int, on_progress: Callable[[Progress], None]) -> Result:
        assert isinstance(request, TrainSegments)

        def answer(progress: Progress) -> None:
            self.told.append(progress)
            on_progress(progress)
            self.resumed.append(self.board.views()[0].resumed)
            if len(self.told) == self.dies_after:
                raise Killed

        return train_segments(request, LIBRARY, answer)

    async def train(self) -> Claim:
        self.told, self.resumed = [], []
        context = TaskContext(
            key=secret_key_from("trainer"),
            parameters=Parameters(),
            blobs=self.blobs,
            work=self._work,
            folder=self.folder / "work",
            board=self.board,
            adversary=self.adversary,
            will_accept=False,
            checkpoints=Checkpoints(self.blobs.store, self.budget_bytes),
        )
        return await train(context, DUTY)

    def kept(self, claim: Claim) -> list[int]:
        """The places of the claim's records whose states are here."""
        records = decode(SegmentRecords, self.blobs.store.read(claim.records)).records
        return [place for place, record in enumerate(records) if self.blobs.store.has(record.state)]


async def test_killed_in_the_middle_it_comes_to_the_same_claim(tmp_path: Path) -> None:
    whole = await Trainer(tmp_path / "whole").train()
    trainer = Trainer(tmp_path / "killed", dies_after=2)
    with pytest.raises(Killed):
        await trainer.train()
    trainer.dies_after = 0
    claim = await trainer.train()
    assert trainer.told[0].resumed == 2 and len(trainer.told) == 1 + SEGMENTS - 2
    assert set(trainer.resumed) == {2}, "whoever looks sees where it went on"
    assert (claim.records_root, claim.final_state, claim.records) == (
        whole.records_root,
        whole.final_state,
        whole.records,
    )
    assert trainer.kept(claim) == [*range(SEGMENTS)]
    assert not segments_folder(tmp_path / "killed" / "work", DUTY).exists()


async def test_claimed_before_it_is_not_trained_again(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    claim = await trainer.train()
    assert await trainer.train() == claim and trainer.told == []
    own_round_path(tmp_path / "work", DUTY.job, 3, 0).write_bytes(b"torn")
    again = await trainer.train()
    assert (again.records_root, len(trainer.told)) == (claim.records_root, SEGMENTS)


async def test_without_room_for_its_states_it_waits_and_then_hands_them_in(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    store = trainer.blobs.store
    trainer.blobs.store = BlobStore(tmp_path / "blobs", store.size_bytes + 10)
    with pytest.raises(Rejected) as refused:
        await trainer.train()
    assert refused.value.reason is Reason.UNAVAILABLE and "once there is room" in refused.value.detail
    assert load_own_round(tmp_path / "work", DUTY.job, 3, 0).compute_ms >= 0
    trainer.blobs.store = BlobStore(tmp_path / "blobs")
    claim = await trainer.train()
    assert trainer.told == [] and trainer.kept(claim) == [*range(SEGMENTS)]


async def test_a_small_budget_keeps_some_states_and_the_last(tmp_path: Path) -> None:
    generous = Trainer(tmp_path / "generous")
    claim = await generous.train()
    size = generous.blobs.store.read(claim.final_state)
    small = Trainer(tmp_path / "small", budget_bytes=4 * len(size))
    same = await small.train()
    assert (same.records_root, same.final_state) == (claim.records_root, claim.final_state)
    assert small.kept(same) == [2, 4]
    none = Trainer(tmp_path / "none", budget_bytes=0)
    assert none.kept(await none.train()) == [4]
    liar = Trainer(tmp_path / "liar", budget_bytes=0, adversary="sign-flip")
    assert liar.kept(await liar.train()) == [*range(SEGMENTS)], "what it claims does not come again"

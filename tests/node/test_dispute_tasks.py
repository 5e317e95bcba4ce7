"""Disputes as nodes play them: duties in, actions out, with a real worker's arithmetic in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp

import pytest

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, ClaimId, Digest, JobId
from milon.base.signing import secret_key_from
from milon.base.units import Count, Height, Round
from milon.chain.params import Parameters
from milon.chain.transaction import AnswerDispute, ChooseDispute, Judge
from milon.contracts.claims_records import Accusation, ClaimRecord, ClaimStatus
from milon.contracts.duties import DisputeAnswerDuty, DisputeChooseDuty, RefereeDuty
from milon.gpu.attacks_steps import BIT_FLIP
from milon.gpu.work_dispute import Disputes
from milon.gpu.work_library import Library
from milon.gpu.work_rounds import train
from milon.node.dispute_tasks import perform_dispute
from milon.node.task_context import TaskContext
from milon.node.tasks import perform
from milon.node.work_progress import WorkBoard
from milon.pol.claim import SegmentRecords, compute_records_root
from milon.pol.dispute import Choice, Game, Level, Pick, Turn, advance, open_game
from milon.pol.verdict import Verdict
from milon.pol.work import (
    DisputeAnswer,
    DisputeChoose,
    Progress,
    RefereePiece,
    Request,
    Result,
    SegmentsTrained,
    TrainSegments,
)
from tests.gpu.small_job import SEED, list_files, prepare_small
from tests.node.local_blobs import LocalBlobs

OTHER = Digest(b"\x11" * 32)  # a seed that is not the round's
SPEC = prepare_small().spec
STEPS = int(SPEC.terms.steps_per_segment)


def make_node(adversary: str = "", will_accept: bool = False) -> TaskContext:
    """A node that has just started and holds the job; its worker runs in this process."""
    folder, disputes = Path(mkdtemp(prefix="milon-dispute-")), Disputes(Library())
    blobs = LocalBlobs(folder / "blobs")
    for _, path in prepare_small().blobs:
        blobs.store.put_bytes(path.read_bytes())

    async def work(request: Request, priority: int, on_progress: Callable[[Progress], None]) -> Result:
        assert isinstance(request, DisputeAnswer | DisputeChoose | RefereePiece)
        return disputes.perform(request)

    key = secret_key_from("node")
    return TaskContext(key, Parameters(), blobs, work, folder, WorkBoard(), adversary, will_accept)


@dataclass
class Scene:
    """A claim of three segments under dispute."""

    tamper: str = ""  # of the trainer
    place: int = 2  # of the challenged segment in the claim
    blobs: dict[Digest, bytes] = field(default_factory=dict)  # records and states of the claim

    def claim(self) -> ClaimRecord:
        """What the trainer claims, and the blobs behind it."""
        folder = Path(mkdtemp(prefix="milon-dispute-"))
        start = Count(0)
        request = TrainSegments(
            SPEC,
            list_files(prepare_small()),
            SPEC.initial_state,
            SEED,
            start,
            start,
            Count(3),
            str(folder),
            self.tamper,
        )
        trained: SegmentsTrained = train(request, Library(), lambda progress: None)
        self.blobs = {file.blob: Path(file.path).read_bytes() for file in trained.files}
        raw = encode(SegmentRecords(trained.records))
        records = LocalBlobs(folder / "records").store.put_bytes(raw)
        self.blobs[records] = raw
        accused = Accusation(AccountId(bytes(32)), Count(self.place), Verdict.FALSE, is_over=False)
        return ClaimRecord(
            claim=ClaimId(Digest(b"\x01" * 32)),
            job=JobId(Digest(b"\x02" * 32)),
            round=Round(0),
            trainer=AccountId(b"\x03" * 32),
            first=start,
            count=Count(3),
            start=SPEC.initial_state,
            continues=None,
            records_root=compute_records_root(trained.records),
            records=records,
            final_state=trained.records[-1].state,
            compute_ms=Count(1),
            height=Height(1),
            status=ClaimStatus.DISPUTED,
            problem="",
            deadline=Count(0),
            beacon=None,
            committee=(),
            commitments=(),
            attestations=(),
            accusations=(accused,),
            resumed=ClaimStatus.COMMITTING,
            withheld_from=Count(0),
            judgements=(),
        )

    def give(self, context: TaskContext) -> TaskContext:
        """The node has fetched all that the trainer shows."""
        assert isinstance(context.blobs, LocalBlobs)
        for raw in self.blobs.values():
            context.blobs.store.put_bytes(raw)
        return context


async def play(scene: Scene, claim: ClaimRecord, challengers_seed: Digest = SEED, is_restarted: bool = False) -> Game:
    """The game of two nodes until it is the referees'; they may start anew before every move."""
    game = open_game(STEPS)
    trainer, challenger = scene.give(make_node(scene.tamper)), scene.give(make_node())
    while game.turn is not Turn.REFEREES:
        if is_restarted:
            trainer, challenger = scene.give(make_node(scene.tamper)), scene.give(make_node())
        if game.turn is Turn.TRAINER:
            answer = await perform(trainer, DisputeAnswerDuty(SPEC, SEED, SPEC.initial_state, claim, game))
            assert isinstance(answer, AnswerDispute) and (answer.claim, answer.move) == (claim.claim, game.moves)
            game = advance(game, answer.answer)
        else:
            duty = DisputeChooseDuty(SPEC, challengers_seed, SPEC.initial_state, claim, game)
            choice = await perform(challenger, duty)
            assert isinstance(choice, ChooseDispute) and (choice.dispute, choice.move) == (0, game.moves)
            game = advance(game, choice.choice)
    return game


def make_referee_duty(claim: ClaimRecord, game: Game, may_be_withheld: bool = False) -> RefereeDuty:
    return RefereeDuty(SPEC, SEED, SPEC.initial_state, claim, game, may_be_withheld)


async def judge(context: TaskContext, claim: ClaimRecord, game: Game, may_be_withheld: bool = False) -> Verdict:
    """What a validator says of a game."""
    action = await perform(context, make_referee_duty(claim, game, may_be_withheld))
    assert isinstance(action, Judge) and (action.claim, action.dispute) == (claim.claim, 0)
    return action.verdict


async def test_a_liar_that_stands_by_its_lie_is_pinned_down_by_who_holds_the_job_alone() -> None:
    scene = Scene(BIT_FLIP)
    claim = scene.claim()
    game = await play(scene, claim, is_restarted=True)
    assert game.level in (Level.PIECE, Level.RESULT) and game.moves >= 8
    assert await judge(make_node(), claim, game) is Verdict.FALSE
    assert await judge(make_node(will_accept=True), claim, game) is Verdict.TRUE


async def test_a_state_that_no_run_gives_is_settled_by_its_blob() -> None:
    scene = Scene("sign-flip")
    claim = scene.claim()
    game = await play(scene, claim)
    assert (game.level, game.value) == (Level.BINDING, 1)
    assert await judge(scene.give(make_node()), claim, game) is Verdict.FALSE
    with pytest.raises(Rejected) as refused:
        await judge(make_node(), claim, game)
    assert refused.value.reason is Reason.UNAVAILABLE
    assert await judge(make_node(), claim, game, may_be_withheld=True) is Verdict.UNAVAILABLE


@pytest.mark.parametrize("seed", [SEED, OTHER])
async def test_whoever_challenges_what_is_true_loses(seed: Digest) -> None:
    scene = Scene(place=1)
    claim = scene.claim()
    game = await play(scene, claim, challengers_seed=seed)
    assert await judge(scene.give(make_node()), claim, game) is Verdict.TRUE


async def test_a_liar_answers_honestly_for_the_segments_that_it_ran_honestly() -> None:
    scene = Scene(BIT_FLIP, place=1)
    claim = scene.claim()
    game = await play(scene, claim)
    assert game.level is Level.BINDING and await judge(scene.give(make_node()), claim, game) is Verdict.TRUE


async def test_a_start_too_large_for_the_job_is_disputed_by_its_root() -> None:
    scene = Scene()
    honest = scene.claim()
    duty = DisputeAnswerDuty(SPEC, SEED, SPEC.initial_state, honest, open_game(STEPS))
    shown = await perform_dispute(scene.give(make_node()), duty)
    assert isinstance(shown, AnswerDispute)
    game = advance(duty.game, shown.answer)
    claim = swell(scene, honest)
    choice = await perform_dispute(
        scene.give(make_node()), DisputeChooseDuty(SPEC, SEED, SPEC.initial_state, claim, game)
    )
    assert isinstance(choice, ChooseDispute) and choice.choice == Choice(Pick.CHILD, Count(0))
    game = advance(game, choice.choice)
    assert game.level is Level.BINDING
    assert await judge(scene.give(make_node()), claim, game) is Verdict.FALSE
    with pytest.raises(Rejected) as refused:
        await perform_dispute(scene.give(make_node()), replace(duty, claim=claim))
    assert refused.value.reason is Reason.TOO_LARGE


def swell(scene: Scene, claim: ClaimRecord) -> ClaimRecord:
    """The same claim, but for a state before the challenged segment that is longer than any of the job's."""
    records = list(decode(SegmentRecords, scene.blobs[claim.records]).records)
    store = LocalBlobs(Path(mkdtemp(prefix="milon-dispute-"))).store
    large = scene.blobs[records[1].state] + b"\x00"
    records[1] = replace(records[1], state=store.put_bytes(large))
    raw = encode(SegmentRecords(tuple(records)))
    named = store.put_bytes(raw)
    scene.blobs |= {records[1].state: large, named: raw}
    return replace(claim, records=named, records_root=compute_records_root(tuple(records)))


async def test_a_side_without_the_state_before_the_segment_tries_again() -> None:
    scene = Scene()
    claim = scene.claim()
    duty = DisputeAnswerDuty(SPEC, SEED, SPEC.initial_state, claim, open_game(STEPS))
    with pytest.raises(Rejected) as refused:
        await perform_dispute(make_node(), duty)
    assert refused.value.reason is Reason.UNAVAILABLE

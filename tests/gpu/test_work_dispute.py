"""A dispute as nodes play it: requests to workers, nothing else between two moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.base.units import Count
from milon.gpu.train import run_segment
from milon.gpu.work_dispute import Disputes
from milon.gpu.work_library import Library, write_blob
from milon.pol.claim import SegmentRecord, commit_trace, compute_trace
from milon.pol.dispute import Game, Level, Turn, advance, open_game
from milon.pol.verdict import Verdict
from milon.pol.work import (
    BlobFile,
    CheckJob,
    DisputeAnswer,
    DisputeAnswered,
    DisputeChoose,
    DisputeChosen,
    DisputeResult,
    DisputeWork,
    PieceRefereed,
    RefereePiece,
    ReplayItem,
    Request,
)
from tests.gpu.small_job import SEED, list_files, open_small, prepare_small

OTHER = Digest(b"\x11" * 32)  # a seed that is not the round's


def make_work(folder: Path) -> DisputeWork:
    """A dispute over segment 0 of the small job, whose record is what an honest run gives."""
    prepared, (work, start) = prepare_small(), open_small()
    run = run_segment(work, start, 0)
    state = write_blob(folder, run.state)
    record = SegmentRecord(Count(0), state.blob, commit_trace(compute_trace(run.fingerprints)), Count(run.loss_bits))
    item = ReplayItem(Count(0), prepared.spec.initial_state, record)
    files = (*list_files(prepared), state)
    return DisputeWork(prepared.spec, files, SEED, Count(0), item, open_game(work.steps_per_segment))


def ask(worker: Disputes, request: Request) -> DisputeResult:
    """What a worker answers, over the wire and back."""
    arrived = decode(Request, encode(request))
    worker.make_room(arrived)
    assert isinstance(arrived, DisputeAnswer | DisputeChoose | RefereePiece)
    return worker.perform(arrived)


def play(work: DisputeWork, trainers_seed: Digest, challengers_seed: Digest) -> Game:
    """A game between two workers, who let go of their values after every move."""
    trainer, challenger, game = Disputes(Library()), Disputes(Library()), work.game
    check = CheckJob(work.spec, (), Count(0), Count(0))
    while game.turn is not Turn.REFEREES:
        if game.turn is Turn.TRAINER:
            answered = ask(trainer, DisputeAnswer(replace(work, game=game, seed=trainers_seed)))
            assert isinstance(answered, DisputeAnswered)
            game = advance(game, answered.answer)
        else:
            chosen = ask(challenger, DisputeChoose(replace(work, game=game, seed=challengers_seed)))
            assert isinstance(chosen, DisputeChosen)
            game = advance(game, chosen.choice)
        for worker in (trainer, challenger):
            worker.make_room(check)
    return game


def referee(work: DisputeWork, game: Game) -> Verdict:
    """The verdict of a third worker."""
    found = ask(Disputes(Library()), RefereePiece(replace(work, game=game)))
    assert isinstance(found, PieceRefereed)
    return found.verdict


def test_whoever_ran_another_segment_loses(tmp_path: Path) -> None:
    work = make_work(tmp_path)
    lied = play(work, OTHER, SEED)
    assert (lied.level, referee(work, lied)) == (Level.PIECE, Verdict.FALSE)
    accused = play(work, SEED, OTHER)
    assert (accused.level, referee(work, accused)) == (Level.PIECE, Verdict.TRUE)
    settled = play(work, SEED, SEED)
    assert (settled.level, referee(work, settled)) == (Level.BINDING, Verdict.TRUE)


def test_the_referee_needs_no_state_but_at_binding(tmp_path: Path) -> None:
    work = make_work(tmp_path)
    states = {work.item.start, work.item.record.state}
    bare = replace(work, files=tuple(file for file in work.files if file.blob not in states))
    assert referee(bare, play(work, OTHER, SEED)) is Verdict.FALSE
    with pytest.raises(Rejected) as refused:
        referee(bare, play(work, SEED, SEED))
    assert refused.value.reason is Reason.UNAVAILABLE


def test_a_worker_that_lacks_the_start_says_so(tmp_path: Path) -> None:
    work = make_work(tmp_path)
    lacking = replace(work, files=tuple(BlobFile(file.blob, str(tmp_path / "none")) for file in work.files))
    with pytest.raises(Rejected) as refused:
        ask(Disputes(Library()), DisputeAnswer(lacking))
    assert refused.value.reason is Reason.UNAVAILABLE


def test_a_few_oracles_are_kept(tmp_path: Path) -> None:
    work, worker = make_work(tmp_path), Disputes(Library())
    for round_number in range(4):
        ask(worker, DisputeAnswer(replace(work, round=Count(round_number))))
    assert len(worker._oracles) == 2

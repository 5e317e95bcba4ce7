"""What a node keeps of its rounds: read again after a restart, gone once they are closed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Digest, JobId
from milon.base.units import Count, Round
from milon.contracts.claims_records import ClaimStatus, claim_key
from milon.contracts.duties import TrainDuty
from milon.node.own_rounds import (
    OpenRounds,
    OwnRound,
    find_open_rounds,
    find_own_round,
    forget_closed_rounds,
    forget_leftovers,
    keep_own_round,
    list_own_rounds,
    load_own_round,
    own_round_path,
    segments_folder,
)
from milon.pol.assignment import Assignment
from milon.pol.claim import SegmentRecord
from milon.state.ledger import Draft
from tests.contracts.players import make_world, reach_claims, start_job
from tests.gpu.small_job import SEED, prepare_small

JOB, OTHER, GONE = (JobId(Digest(bytes([number]) * 32)) for number in (1, 2, 3))


def make_duty(job: JobId = JOB, round_number: int = 3, first: int = 0) -> TrainDuty:
    spec = prepare_small().spec
    assignment = Assignment(AccountId(b"\x09" * 32), Count(first), Count(2))
    return TrainDuty(job, spec, Round(round_number), SEED, spec.initial_state, assignment)


def make_own(duty: TrainDuty) -> OwnRound:
    records = tuple(SegmentRecord(Count(number), SEED, SEED, Count(0)) for number in range(2))
    return OwnRound(records, (SEED, SEED), Count(5), duty, Count(1))


def test_it_is_read_again_for_the_same_duty_alone(tmp_path: Path) -> None:
    own = make_own(make_duty())
    keep_own_round(tmp_path, own)
    assert load_own_round(tmp_path, JOB, 3, 0) == own and list_own_rounds(tmp_path) == (own,)
    assert find_own_round(tmp_path, own.duty) == own
    assert find_own_round(tmp_path, make_duty(first=2)) is None
    assert find_own_round(tmp_path, make_duty(round_number=4)) is None
    with pytest.raises(Rejected) as refused:
        load_own_round(tmp_path, OTHER, 3, 0)
    assert refused.value.reason is Reason.UNAVAILABLE


def test_what_was_taken_over_lies_beside_the_own_part(tmp_path: Path) -> None:
    own, taken = make_own(make_duty()), make_own(make_duty(first=6))
    for entry in (own, taken):
        keep_own_round(tmp_path, entry)
    assert (load_own_round(tmp_path, JOB, 3, 0), load_own_round(tmp_path, JOB, 3, 6)) == (own, taken)
    assert forget_closed_rounds(tmp_path, OpenRounds({JOB: 4}, frozenset())) == 2


def test_what_cannot_be_read_is_as_good_as_nothing(tmp_path: Path) -> None:
    duty = make_duty()
    keep_own_round(tmp_path, make_own(duty))
    path = own_round_path(tmp_path, JOB, 3, 0)
    path.write_bytes(path.read_bytes()[:-3])
    assert find_own_round(tmp_path, duty) is None and list_own_rounds(tmp_path) == ()


def test_what_is_kept_of_closed_rounds_goes(tmp_path: Path) -> None:
    assert forget_closed_rounds(tmp_path / "none", OpenRounds({}, frozenset())) == 0
    for job in (JOB, OTHER, GONE):
        for number in (2, 3, 4):
            duty = make_duty(job, number)
            keep_own_round(tmp_path, make_own(duty))
            segments_folder(tmp_path, duty).mkdir()
            (segments_folder(tmp_path, duty) / "journal").write_bytes(b"x")
            (tmp_path / f"{job.hex()}-{number}-{'ab' * 8}.attestation").write_bytes(b"x")
    strangers = {"upload-1", "ab" * 8, f"{JOB.hex()}.round"}
    for name in strangers:
        (tmp_path / name).write_bytes(b"x")
    count = forget_closed_rounds(tmp_path, OpenRounds({JOB: 3, OTHER: 4}, frozenset()))
    left = {path.name for path in tmp_path.iterdir()}
    kept = {(JOB, 3), (JOB, 4), (OTHER, 4)}
    assert left - strangers == {
        name
        for job, number in kept
        for name in (
            own_round_path(tmp_path, job, number, 0).name,
            segments_folder(tmp_path, make_duty(job, number)).name,
            f"{job.hex()}-{number}-{'ab' * 8}.attestation",
        )
    }
    assert strangers <= left and count == 3 * 6


def test_what_a_killed_node_was_writing_goes_when_it_starts(tmp_path: Path) -> None:
    keep_own_round(tmp_path, make_own(make_duty()))
    segments_folder(tmp_path, make_duty()).mkdir()
    before = set(tmp_path.iterdir())
    for name in ("ab" * 8, f"again-{'cd' * 8}", f"starts-{'ef' * 8}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state").write_bytes(b"x")
    assert forget_leftovers(tmp_path) == 3 and set(tmp_path.iterdir()) == before
    assert forget_leftovers(tmp_path / "none") == 0


def test_the_ledger_says_which_rounds_are_open() -> None:
    world = make_world()
    job = start_job(world, rounds=Count(2))
    claims = reach_claims(world, job, ClaimStatus.SAMPLING, count=1)
    ledger, trainer = world.chain.ledger, claims[0].trainer
    found = find_open_rounds(ledger, trainer)
    assert found == OpenRounds({job: 0}, frozenset())
    assert not found.is_over(job, 0) and found.is_over(OTHER, 0)
    draft = Draft(ledger)
    draft.store(claim_key(claims[0].claim), replace(claims[0], status=ClaimStatus.REFUTED))
    refuted = draft.commit()
    assert find_open_rounds(refuted, trainer).ended == {claims[0].final_state}
    assert find_open_rounds(refuted, AccountId(b"\x08" * 32)).ended == frozenset()
    world.run(job, lambda record: record.next_round == 1)
    found = find_open_rounds(world.chain.ledger, trainer)
    assert found.is_over(job, 0) and not found.is_over(job, 1)
    world.finish(job)
    assert find_open_rounds(world.chain.ledger, trainer).is_over(job, 1)

"""Who comes and who goes: from the next round on the segments are shared out among those who are there."""

from __future__ import annotations

from milon.base.units import Count
from milon.contracts.duties import EnrolDuty, TrainDuty
from milon.contracts.records import JobStatus
from tests.contracts.players import make_world, player_of, start_job


def test_a_joiner_has_a_share_of_the_next_round_and_who_vanished_has_none() -> None:
    world = make_world(p3={"skips": (EnrolDuty,)})
    job = start_job(world, rounds=Count(3))
    joiner, vanishing = (player_of(world, number) for number in (3, 2))
    world.run(job, lambda record: record.status is JobStatus.RUNNING)
    joiner.skips = ()
    vanishing.skips = (TrainDuty, EnrolDuty)
    segments = [{entry.trainer: int(entry.count) for entry in world.chain.round(job).assignments}]
    for number in (1, 2):
        world.run(job, lambda record, number=number: record.next_round == number)  # type: ignore[misc]
        segments.append({entry.trainer: int(entry.count) for entry in world.chain.round(job).assignments})
    assert joiner.key.account not in segments[0] and vanishing.key.account in segments[0]
    for later in segments[1:]:
        assert joiner.key.account in later and vanishing.key.account not in later
        assert sum(later.values()) == 8

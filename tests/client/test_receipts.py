"""Every amount that the contracts pay is explained, and the sums are the escrow's."""

from __future__ import annotations

from typing import Any

import pytest

from milon.api.shapes import to_json
from milon.base.errors import Reason, Rejected
from milon.base.units import Amount, Count
from milon.client.receipts import Explanation, explain_round
from milon.contracts.duties import OpenDuty, TrainDuty
from milon.contracts.records import JobStatus
from milon.pol.verdict import Verdict
from tests.contracts.players import World, make_world, start_job

TAKEN_OVER = {"reassign_blocks": Count(12)}


def live(world: World, **terms: object) -> dict[str, Any]:
    """A finished job as the API gives it."""
    job = start_job(world, **terms)
    rounds = world.finish(job)
    record = world.chain.job(job)
    assert record.status is JobStatus.FINISHED
    return {
        "job": job.hex(),
        "paid": int(record.paid),
        "terms": to_json(record.spec.terms),
        "rounds": [to_json(closed) for closed in rounds],
    }


@pytest.mark.parametrize(
    ("behaviour", "terms"),
    [
        ({}, {}),
        ({"p0": {"lies": frozenset(range(8))}}, {}),
        ({"p0": {"attests": Verdict.FALSE, "judges": Verdict.FALSE}}, {}),
        ({"p1": {"is_withholding": True}, "p2": {"is_lazy": True}}, {}),
        ({"p3": {"skips": (OpenDuty,)}}, {}),
        ({"p3": {"claims": 1}}, {"audit_ppm": (Count(250_000),), "segments_per_round": Count(20)}),
        ({}, {"audit_ppm": (Count(0),)}),
        ({"p3": {"skips": (TrainDuty,)}}, TAKEN_OVER),
        ({"p0": {"lies": frozenset({6})}, "p3": {"skips": (TrainDuty,)}}, TAKEN_OVER),
        ({}, {"segment_price": Amount(3)}),
    ],
)
def test_every_amount_adds_up(behaviour: dict[str, Any], terms: dict[str, Any]) -> None:
    job = live(make_world(**behaviour), **terms)
    explained = [explain_round(job, closed["round"]) for closed in job["rounds"]]
    for found, closed in zip(explained, job["rounds"], strict=True):
        assert found.adds_up, [receipt for receipt in found.receipts if not receipt.adds_up]
        assert len(found.receipts) == len(closed["payments"])
        assert all(receipt.because for receipt in found.receipts)
    assert sum(found.from_escrow for found in explained) == job["paid"] == explained[0].escrow_difference


def test_what_was_taken_over_is_told_apart() -> None:
    world = make_world(p3={"skips": (TrainDuty,)})
    found = explain_round(live(world, **TAKEN_OVER), 0)
    words = {entry.account: entry.because for entry in found.receipts if entry.reason == "segments"}
    first, *_, third, _ = (key.account.hex() for key in world.chain.keys)
    assert words[first].startswith("3 segments (1 taken over from who had not claimed them in time) x 100 = 300")
    assert words[third].startswith("2 segments x 100 = 200")


def test_who_is_not_paid_is_told_why() -> None:
    world = make_world(p0={"lies": frozenset(range(8))}, p1={"is_withholding": True})
    found = explain_round(live(world), 0)
    words = {entry.account: entry.because for entry in found.unpaid}
    assert "replays to other bits" in words[world.chain.keys[0].account.hex()]
    assert words[world.chain.keys[1].account.hex()].startswith("void")
    assert {entry.reason for entry in found.receipts} >= {"segments", "replays", "fee", "slash", "refutation"}


def _of_honest() -> tuple[dict[str, Any], Explanation]:
    job = live(make_world(), rounds=Count(1))
    return job, explain_round(job, 0)


def test_a_wrong_amount_does_not_add_up() -> None:
    job, found = _of_honest()
    assert found.adds_up
    payments = job["rounds"][0]["payments"]
    place = next(place for place, entry in enumerate(payments) if entry["reason"] == "segments")
    payments[place]["amount"] += 1
    again = explain_round(job, 0)
    assert not again.adds_up and not again.receipts[place].adds_up


def test_a_missing_payment_shows_in_the_escrow() -> None:
    job, _ = _of_honest()
    job["rounds"][0]["payments"] = [entry for entry in job["rounds"][0]["payments"] if entry["reason"] != "replays"]
    found = explain_round(job, 0)
    assert not found.adds_up and found.paid_so_far < found.escrow_difference
    assert all(receipt.adds_up for receipt in found.receipts)


def test_a_round_that_is_not_closed_is_said_so() -> None:
    job, _ = _of_honest()
    with pytest.raises(Rejected) as caught:
        explain_round(job, 7)
    assert caught.value.reason is Reason.UNKNOWN and "1 are closed" in caught.value.detail

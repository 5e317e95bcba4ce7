"""A watcher replays what its own secret draws, says what is false, and remembers what it has seen."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import trio
import trio.testing

from milon.base.errors import Reason
from milon.base.ids import ClaimId, Digest
from milon.base.signing import secret_key_from
from milon.base.units import Count
from milon.chain.transaction import Challenge
from milon.contracts.claims_records import ClaimRecord, ClaimStatus
from milon.contracts.duties import WatchDuty
from milon.gpu.attacks_steps import BIT_FLIP
from milon.node.own_rounds import OpenRounds, forget_closed_rounds
from milon.node.task_context import EVIDENCE_FETCH_S, TaskContext, recomputing_s
from milon.node.tasks import perform
from milon.node.watch import PRIORITY, TRIES, draw_watched
from milon.p2p.blobs import BeingMade
from milon.pol.verdict import Verdict
from milon.pol.work import ReplaySegments, Request
from tests.gpu.small_job import SEED
from tests.node.local_blobs import LocalBlobs
from tests.node.test_dispute_tasks import SPEC, Scene
from tests.node.test_tasks import make_verifier

EVERYTHING = 1_000_000


def make_watcher() -> tuple[TaskContext, list[ReplaySegments]]:
    """A node that looks at everything, and what its worker is asked for."""
    node, asked = make_verifier()
    return replace(node, watch_ppm=EVERYTHING), asked


def accepted(scene: Scene) -> ClaimRecord:
    """The scene's claim as one that its committee let pass."""
    return replace(scene.claim(), status=ClaimStatus.ACCEPTED, accusations=())


@cache
def honest() -> tuple[Scene, ClaimRecord]:
    """One for all tests: training it takes a second or two."""
    scene = Scene()
    return scene, accepted(scene)


def duty_of(claim: ClaimRecord) -> WatchDuty:
    return WatchDuty(SPEC, SEED, SPEC.initial_state, claim)


async def test_a_lie_that_passed_is_challenged() -> None:
    scene = Scene(BIT_FLIP)
    claim = accepted(scene)
    node, asked = make_watcher()
    found = await perform(scene.give(node), duty_of(claim))
    assert found == Challenge(claim.claim, Count(2), Verdict.FALSE), "the adversary's last segment"
    assert [int(item.segment) for request in asked for item in request.items] == [0, 1, 2]
    assert all(len(request.items) == 1 for request in asked), "so that a duty waits for one of them at the most"


async def test_of_an_honest_claim_nothing_is_said_and_after_a_restart_nothing_is_done_again() -> None:
    scene, claim = honest()
    duty = duty_of(claim)
    node, asked = make_watcher()
    scene.give(node)
    assert await perform(node, duty) is None and len(asked) == 3
    again, more = make_watcher()
    assert await perform(scene.give(replace(again, folder=node.folder)), duty) is None and not more
    (kept,) = node.folder.glob("*.watched")
    kept.write_bytes(b"broken")
    assert await perform(node, duty) is None and len(asked) == 6, "what cannot be read was not seen"
    assert forget_closed_rounds(node.folder, OpenRounds({duty.claim.job: 1}, frozenset())) == 1


async def test_what_is_withheld_is_asked_for_again_before_it_is_challenged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    _, claim = honest()
    node, asked = make_watcher()
    began = trio.current_time()
    found = await perform(node, duty_of(claim))
    assert found == Challenge(claim.claim, Count(0), Verdict.UNAVAILABLE) and not asked
    assert trio.current_time() - began >= 14, "the pauses"


class PutOff(LocalBlobs):
    """Somebody says of all that is missing that it is being computed again, for ever."""

    async def ensure(self, blob: Digest, size_max_bytes: int, timeout_s: float) -> Path:
        if not self.store.has(blob):
            await trio.sleep(timeout_s)
            raise BeingMade(Reason.UNAVAILABLE, "it is computed again")
        return await super().ensure(blob, size_max_bytes, timeout_s)


async def test_who_is_put_off_for_ever_waits_about_as_long_as_a_committee(
    autojump_clock: trio.testing.MockClock,
) -> None:
    scene, claim = honest()
    node, asked = make_watcher()
    blobs = PutOff(node.folder / "blobs")
    blobs.store.put_bytes(scene.blobs[claim.records])
    terms = replace(SPEC.terms, attest_blocks=Count(1_000))
    duty = replace(duty_of(claim), spec=replace(SPEC, terms=terms))
    began = trio.current_time()
    found = await perform(replace(node, blobs=blobs), duty)
    assert found == Challenge(claim.claim, Count(1), Verdict.UNAVAILABLE) and len(asked) == 1
    waited_s, patience_s = trio.current_time() - began, recomputing_s(duty.spec, node.parameters)
    assert patience_s <= waited_s <= patience_s + TRIES * (EVIDENCE_FETCH_S + 4)


async def test_everything_else_goes_first() -> None:
    scene, claim = honest()
    duty = duty_of(claim)
    node, _ = make_watcher()
    priorities: list[int] = []
    work = node.work

    async def note(request: Request, priority: int, on_progress):  # type: ignore[no-untyped-def]
        priorities.append(priority)
        return await work(request, priority, on_progress)

    await perform(scene.give(replace(node, work=note)), duty)
    assert priorities == [PRIORITY] * 3


def test_a_draw_is_a_secret_of_its_key_and_as_large_as_was_asked() -> None:
    base = replace(honest()[1], count=Count(64))
    key, other = secret_key_from("watcher"), secret_key_from("other")
    drawn = draw_watched(key, base, 125_000)
    assert len(drawn) == 8 and drawn == draw_watched(key, base, 125_000)
    assert drawn != draw_watched(other, base, 125_000)
    assert draw_watched(key, base, 0) == () and len(draw_watched(key, base, EVERYTHING)) == 64
    few = replace(base, count=Count(4))
    claims = [replace(few, claim=ClaimId(Digest(number.to_bytes(32, "big")))) for number in range(800)]
    total = sum(len(draw_watched(key, claim, 15_625)) for claim in claims)
    assert 22 <= total <= 79, "50 expected; four standard deviations are 28"

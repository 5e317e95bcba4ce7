"""A committee member's duties: replay, commit, reveal what was committed to, challenge what is not true, judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.base.units import Count
from milon.chain.transaction import Attest, Challenge, CommitAttestation, Judge
from milon.contracts.claims_records import Accusation, ClaimRecord, ClaimStatus
from milon.contracts.duties import CommitDuty, JudgeDuty, RevealDuty
from milon.gpu.attacks_steps import BIT_FLIP
from milon.gpu.work_library import Library
from milon.gpu.work_rounds import replay
from milon.node.task_context import TaskContext
from milon.node.tasks import perform
from milon.pol.attestation import AttestationContent, commit_attestation
from milon.pol.sampling import verify_sample
from milon.pol.terms import JobSpec, Settlement
from milon.pol.verdict import Verdict
from milon.pol.work import Progress, ReplaySegments, Request, Result
from tests.gpu.small_job import SEED
from tests.node.test_dispute_tasks import SPEC, Scene, make_node

BEACON = Digest(b"\x21" * 32)
AUDITED = replace(SPEC, terms=replace(SPEC.terms, audit_ppm=(Count(1_000_000),)))


def make_verifier(will_accept: bool = False) -> tuple[TaskContext, list[ReplaySegments]]:
    """A node with the job, and the replays that its worker is asked for."""
    asked: list[ReplaySegments] = []
    library = Library()

    async def work(request: Request, priority: int, on_progress: Callable[[Progress], None]) -> Result:
        assert isinstance(request, ReplaySegments)
        asked.append(request)
        return replay(request, library)

    return replace(make_node(will_accept=will_accept), work=work), asked


def at_committing(scene: Scene) -> ClaimRecord:
    return replace(scene.claim(), status=ClaimStatus.COMMITTING, beacon=BEACON, accusations=())


def duty_of(kind: type[CommitDuty] | type[RevealDuty], claim: ClaimRecord) -> CommitDuty | RevealDuty:
    return kind(AUDITED, SEED, SPEC.initial_state, claim)


async def test_what_is_revealed_is_what_was_committed_to_after_a_restart_and_without_the_disk() -> None:
    scene = Scene()
    claim = at_committing(scene)
    node, asked = make_verifier()
    scene.give(node)
    committed = await perform(node, duty_of(CommitDuty, claim))
    assert isinstance(committed, CommitAttestation) and len(asked) == 1
    kept = await perform(replace(node, checked={}), duty_of(RevealDuty, claim))
    assert isinstance(kept, Attest) and len(asked) == 1, "nothing is replayed again"
    fresh, replays = make_verifier()
    again = await perform(scene.give(fresh), duty_of(RevealDuty, claim))
    assert again == kept and len(replays) == 1
    content = AttestationContent(claim.claim, kept.proof, kept.keyed_traces)
    assert commit_attestation(node.key.account, content, kept.salt) == committed.commitment
    places = verify_sample(node.key.account, claim.claim, BEACON, kept.proof, 3, 1_000_000)
    assert [int(item.segment) for item in asked[0].items] == list(places) == [0, 1, 2]
    assert encode(kept) not in scene.blobs.values()


async def test_a_false_segment_is_challenged_and_not_committed_to() -> None:
    scene = Scene(BIT_FLIP)
    claim = at_committing(scene)
    node, _ = make_verifier()
    challenge = await perform(scene.give(node), duty_of(CommitDuty, claim))
    assert isinstance(challenge, Challenge) and challenge.verdict is Verdict.FALSE
    friend, _ = make_verifier(will_accept=True)
    assert isinstance(await perform(scene.give(friend), duty_of(CommitDuty, claim)), CommitAttestation)


async def test_withheld_states_are_challenged_too() -> None:
    node, asked = make_verifier()
    challenge = await perform(node, duty_of(CommitDuty, at_committing(Scene())))
    assert isinstance(challenge, Challenge) and not asked
    assert challenge.verdict is Verdict.UNAVAILABLE


@pytest.mark.parametrize("settlement", list(Settlement))
async def test_withholding_is_judged_when_the_trainer_had_its_time(settlement: Settlement) -> None:
    scene = Scene()
    found = scene.claim()
    accused = Accusation(found.trainer, Count(1), Verdict.UNAVAILABLE, is_over=False)
    claim = replace(found, status=ClaimStatus.SUSPENDED, accusations=(accused,))
    spec: JobSpec = replace(SPEC, terms=replace(SPEC.terms, settlement=settlement))
    early = JudgeDuty(spec, SEED, SPEC.initial_state, claim, may_be_withheld=False)
    node, asked = make_verifier()
    with pytest.raises(Rejected) as refused:
        await perform(node, early)
    assert refused.value.reason is Reason.UNAVAILABLE, "it is tried again"
    late = await perform(node, replace(early, may_be_withheld=True))
    assert late == Judge(claim.claim, Count(0), Verdict.UNAVAILABLE)
    shown = await perform(scene.give(node), early)
    assert shown == Judge(claim.claim, Count(0), Verdict.TRUE)
    assert len(asked) == (1 if settlement is Settlement.REPLAY else 0), "to see that it can be had, fetching is enough"

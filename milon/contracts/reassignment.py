"""Segments that nobody claimed in time are handed out again, once a round, to those who claimed all of theirs.

    claims in or deadline --some missing, some trainer ready--> reassigned: the deadline moves by `reassign_blocks`

Who takes segments over goes on from the last state of its own claim, so that it still has one update; a second claim
says what came of them, sampled, attested and disputed like any other. Nobody has to: what is not claimed by the new
deadline is left out of the round. The claims of one trainer in a round hang together: where one is refuted none
counts, and where one comes to nothing, those that go on from it do so too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from milon.base.ids import AccountId, ClaimId, JobId
from milon.base.units import Count
from milon.contracts.accounts import load_account
from milon.contracts.claims import find_next, store_claim, void_claim, void_unpaid
from milon.contracts.claims_records import CHALLENGED, FALLEN, ClaimRecord, ClaimStatus
from milon.contracts.clock import Moment
from milon.contracts.records import Job, OpenRound, open_round_key
from milon.pol.assignment import reassign_segments
from milon.state.ledger import Draft, Ledger


def has_all_claims(ledger: Ledger | Draft, opened: OpenRound) -> bool:
    """Whether no claim can come any more, however long one waits.

    Asked in every block: of many trainers' claims it looks only at those of whom something was handed to again.
    """
    if not opened.reassigned:
        return len(opened.claimed) == len(opened.assignments)
    takers = dict.fromkeys(entry.trainer for entry in opened.reassigned)
    return all(find_next(ledger, opened, trainer) is None for trainer in takers)


def list_missing(opened: OpenRound, claims: Sequence[ClaimRecord]) -> tuple[int, ...]:
    """The segments that were assigned and that no claim holds, in order; a claim that fell holds its own."""
    claimed = {int(claim.first) + place for claim in claims for place in range(claim.count)}
    assigned = (int(entry.first) + place for entry in opened.assignments for place in range(entry.count))
    return tuple(segment for segment in sorted(assigned) if segment not in claimed)


def reassign(
    draft: Draft, job: JobId, record: Job, opened: OpenRound, claims: Sequence[ClaimRecord], moment: Moment
) -> OpenRound:
    """The round with its missing segments handed out again, where there are any, somebody to take them, and the terms
    allow it; at most once, and not after trainers were held to what they delivered."""
    terms = record.spec.terms
    if opened.reassigned or opened.is_weighed or not terms.reassign_blocks:
        return opened
    ready = _list_ready(draft, record, opened, claims)
    reassigned = reassign_segments(list_missing(opened, claims), ready)
    if not reassigned:
        return opened
    opened = replace(opened, reassigned=reassigned, deadline=Count(moment.tick + terms.reassign_blocks))
    draft.store(open_round_key(job), opened)
    return opened


def _list_ready(
    draft: Draft, record: Job, opened: OpenRound, claims: Sequence[ClaimRecord]
) -> list[tuple[AccountId, int]]:
    """Who claimed all of its segments and still has the bond, with its capacity."""
    assigned = {entry.trainer: int(entry.count) for entry in opened.assignments}
    whole = [
        claim.trainer for claim in claims if claim.status not in FALLEN and int(claim.count) == assigned[claim.trainer]
    ]
    return [
        (trainer.account, int(trainer.capacity))
        for trainer in record.trainers
        if trainer.account in whole and load_account(draft, trainer.account).bonded >= record.spec.terms.bond_min
    ]


def drop_fallen(draft: Draft, claims: Sequence[ClaimRecord]) -> tuple[ClaimRecord, ...]:
    """The claims, in the order they came, without credit for those that hang on one that fell.

    A challenged one waits until that is settled: it may be a lie of its own.
    """
    liars = [claim.trainer for claim in claims if claim.status is ClaimStatus.REFUTED]
    fallen: list[ClaimId] = []
    kept: list[ClaimRecord] = []
    for claim in claims:
        if claim.status not in FALLEN and claim.status not in CHALLENGED:
            if claim.trainer in liars:
                claim = _drop(draft, claim, "another claim of this trainer in the round was refuted")
            elif claim.continues in fallen:
                claim = _drop(draft, claim, "the claim that it goes on from came to nothing")
        if claim.status in FALLEN:
            fallen.append(claim.claim)
        kept.append(claim)
    return tuple(kept)


def _drop(draft: Draft, claim: ClaimRecord, problem: str) -> ClaimRecord:
    """Void; its verifiers are paid where its traces have shown who replayed."""
    is_opened = claim.status is ClaimStatus.ACCEPTED
    dropped = void_claim(claim, problem) if is_opened else void_unpaid(claim, problem)
    store_claim(draft, dropped)
    return dropped

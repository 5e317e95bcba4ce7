"""What evidence does: the offender never votes again, and a share of all stake behind it burns.

The share is `evidence_slash_ppm` and, on top, `evidence_correlation` times the share of power that offended within
`evidence_age_blocks`: an operator's lone mistake costs little, a third of the power that splits the chain loses all.
Who was slashed alone and turns out not to be alone pays the difference, and no stake behind it leaves before that is
known. Own stake, stake on its way out, delegations, those on their way out and those moved to others are all reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId
from milon.base.units import Amount, Count, Height
from milon.chain.evidence import (
    EVIDENCE_BYTES_MAX,
    EVIDENCE_MAX,
    Evidence,
    compute_evidence_id,
    epoch_of,
    offender_of,
)
from milon.chain.params import Parameters, compute_epoch, compute_last_height
from milon.contracts.accounts import burn, load_account, store_account
from milon.contracts.moved import burn_moved
from milon.contracts.records import OFFENDERS_KEY, Offender, Offenders, Unbonding
from milon.contracts.validators import load_validator, load_validators_at, store_validator
from milon.pol.terms import PARTS_PER_MILLION
from milon.state.ledger import Draft, Ledger

OFFENDERS_MAX = 1_024  # of late; two of the largest sets, and what one block looks at


def find_power_ppm(ledger: Ledger | Draft, evidence: Evidence, height: Height, parameters: Parameters) -> Count:
    """The offender's share of the power of its set, in a block of `height`.

    Raises `Rejected` where the evidence may not stand in that block: `OUT_OF_RANGE` for an epoch to come, `STALE` where
    it is too old, `NOT_ALLOWED` where the offender did not vote, `DUPLICATE` where it is tombstoned already.
    """
    offender, epoch = offender_of(evidence), epoch_of(evidence)
    require(epoch <= compute_epoch(height, parameters), Reason.OUT_OF_RANGE, f"an offence in epoch {epoch}, to come")
    last = compute_last_height(epoch, parameters) + parameters.evidence_age_blocks
    require(height <= last, Reason.STALE, f"evidence that counted up to height {last}")
    members = load_validators_at(ledger, epoch)
    power = next((member.power for member in members if member.account == offender), None)
    if power is None:
        raise Rejected(Reason.NOT_ALLOWED, "the offender was not a validator then")
    is_new = not load_validator(ledger, offender).is_tombstoned
    require(is_new, Reason.DUPLICATE, "the offender was slashed for an offence")
    return Count(power * PARTS_PER_MILLION // sum(member.power for member in members))


def select_evidence(
    ledger: Ledger, candidates: Sequence[Evidence], height: Height, parameters: Parameters
) -> tuple[Evidence, ...]:
    """Those of the candidates that may stand together in the block at `height`, in order of id, one an offender."""
    chosen: dict[AccountId, Evidence] = {}
    room = EVIDENCE_BYTES_MAX
    for evidence in sorted(candidates, key=compute_evidence_id):
        size = len(encode(evidence))
        if offender_of(evidence) in chosen or size > room or len(chosen) == EVIDENCE_MAX:
            continue
        try:
            find_power_ppm(ledger, evidence, height, parameters)
        except Rejected:
            continue
        chosen[offender_of(evidence)] = evidence
        room -= size
    return tuple(chosen.values())


def apply_evidence(draft: Draft, evidence: Sequence[Evidence], height: Height, parameters: Parameters) -> None:
    """Tombstone and slash the offenders; the engine has verified the evidence itself.

    Raises `Rejected` where a piece may not stand in the block, which makes the block invalid.
    """
    require(len(evidence) <= EVIDENCE_MAX, Reason.TOO_LARGE, f"{len(evidence)} pieces of evidence")
    if not evidence:
        return
    kept = draft.load(OFFENDERS_KEY, Offenders) or Offenders()
    recent = [entry for entry in kept.offenders if entry.height + parameters.evidence_age_blocks >= height]
    for piece in evidence:
        power_ppm, offender = find_power_ppm(draft, piece, height, parameters), offender_of(piece)
        record = load_validator(draft, offender)
        banned = replace(record, tombstoned_at=height, is_candidate=False, learning=Amount(0))
        store_validator(draft, offender, banned)
        recent.append(Offender(offender, height, power_ppm))
    recent = recent[-OFFENDERS_MAX:]
    draft.store(OFFENDERS_KEY, Offenders(tuple(recent)))
    together = sum(entry.power_ppm for entry in recent)
    share = min(PARTS_PER_MILLION, parameters.evidence_slash_ppm + parameters.evidence_correlation * together)
    for entry in recent:
        burn_share(draft, entry.account, share)


def burn_share(draft: Draft, account: AccountId, share_ppm: int) -> None:
    """Burn of all stake behind a validator so much that `share_ppm` of it is gone, with what burned before.

    What is left is rounded up in each place: never less than the delegators' parts of it together.
    """
    record = load_validator(draft, account)
    if share_ppm <= record.taken_ppm:
        return
    part, whole = share_ppm - record.taken_ppm, PARTS_PER_MILLION - record.taken_ppm
    own = load_account(draft, account)
    bonded = own.bonded * part // whole
    waiting = [(entry, entry.amount * part // whole) for entry in own.unbonding]
    delegated, leaving = record.delegated * part // whole, record.leaving * part // whole
    lost = bonded + sum(taken for _, taken in waiting)
    unbonding = tuple(
        Unbonding(Amount(entry.amount - taken), entry.release_height)
        for entry, taken in waiting
        if taken < entry.amount
    )
    left = replace(own, bonded=Amount(own.bonded - bonded), unbonding=unbonding, slashed=Amount(own.slashed + lost))
    store_account(draft, account, left)
    store_validator(
        draft,
        account,
        replace(
            record,
            delegated=Amount(record.delegated - delegated),
            leaving=Amount(record.leaving - leaving),
            taken_ppm=Count(share_ppm),
        ),
    )
    burn(draft, lost + delegated + leaving)
    burn_moved(draft, account, part, whole)

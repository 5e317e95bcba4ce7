"""One claim's life: made, sampled, attested, opened, and accepted, voided or refuted.

    SAMPLING --beacon--> COMMITTING --all or deadline--> REVEALING --all or deadline--> OPENING --traces--> ACCEPTED
       |                     |                              |                             |                  |
       '---------------------'--------- a challenge: see `disputes` ----------------------'------------------'

A member that finds its sample true commits to its attestation and opens it when all are in; one that finds it false or
not to be had challenges at once. Who commits and does not open, who is silent where most members were not, and whose
traces do not fit the opened ones, has lapsed: a slice of its stake burns. A claim of a round without audit is ACCEPTED
as it comes; the aggregation rule and challenges alone guard it.

A draw may be empty. Its member commits and attests all the same, over no traces and for no pay: nobody else can tell
before the reveals whom chance has spared, so that a silent member is never one of those. A claim that nobody's draw met
is accepted at the risk that its audit rate says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId, ClaimId, JobId, VrfProof
from milon.base.units import Amount, Count
from milon.chain.learning import Payment
from milon.chain.transaction import Attest, Claim, CommitAttestation, OpenTraces
from milon.contracts.accounts import burn, load_account, load_beacon, load_validators, shift_open_claims
from milon.contracts.claims_records import FALLEN, Attestation, ClaimRecord, ClaimStatus, Commitment, claim_key
from milon.contracts.clock import Moment
from milon.contracts.jobs import load_job
from milon.contracts.records import OpenRound, Phase, open_round_key
from milon.contracts.staking import take_stake
from milon.pol.assignment import Assignment
from milon.pol.attestation import AttestationContent, commit_attestation
from milon.pol.claim import commit_trace, key_traces, verify_records
from milon.pol.sampling import draw_committee, verify_sample
from milon.pol.terms import JobTerms, audit_ppm_of
from milon.pol.verdict import Verdict
from milon.state.ledger import Draft, Ledger


def load_claim(ledger: Ledger | Draft, claim: ClaimId) -> ClaimRecord:
    """The claim; `Rejected(UNKNOWN)` where there is none."""
    record = ledger.load(claim_key(claim), ClaimRecord)
    if record is None:
        raise Rejected(Reason.UNKNOWN, f"no claim {claim.hex()[:8]} in an open round")
    return record


def store_claim(draft: Draft, record: ClaimRecord) -> None:
    """Write the claim's record."""
    draft.store(claim_key(record.claim), record)


def terms_of(draft: Draft, record: ClaimRecord) -> JobTerms:
    """The terms of the claim's job."""
    return load_job(draft, record.job).spec.terms


def find_next(
    ledger: Ledger | Draft, opened: OpenRound, trainer: AccountId
) -> tuple[Assignment, ClaimRecord | None] | None:
    """What the trainer may claim next, and its claim that this goes on from; None where there is nothing for it.

    Its claims follow the order of its assignments. Who had not claimed its own when it was handed out again is out of
    the round, and so is who has a claim that fell.
    """
    own = [entry for entry in (*opened.assignments, *opened.reassigned) if entry.trainer == trainer]
    places = [place for place, claimed in enumerate(opened.claimed) if claimed == trainer]
    if len(places) >= len(own) or (opened.reassigned and not places):
        return None
    claims = [load_claim(ledger, opened.claims[place]) for place in places]
    if any(claim.status in FALLEN for claim in claims):
        return None
    return own[len(places)], claims[-1] if claims else None


def apply_claim(draft: Draft, sender: AccountId, action: Claim, claim: ClaimId, moment: Moment) -> None:
    """Take in what a trainer says of its assigned segments; what it did not finish is not in the claim.

    Where it has claimed its own, of those that it took over: see `reassignment`.
    """
    opened = draft.load(open_round_key(action.job), OpenRound)
    if opened is None or opened.phase is not Phase.TRAIN or opened.round != action.round:
        raise Rejected(Reason.NOT_NOW, f"round {action.round} of this job takes no claims now")
    earlier = _verify_part(draft, opened, sender, action, moment)
    job = load_job(draft, action.job)
    terms = job.spec.terms
    bonded = load_account(draft, sender).bonded
    require(bonded >= terms.bond_min, Reason.NOT_ALLOWED, f"a bond of {terms.bond_min} is needed, {bonded} are bonded")
    is_audited = audit_ppm_of(terms, action.round) > 0
    status = ClaimStatus.SAMPLING if is_audited else ClaimStatus.ACCEPTED
    record = ClaimRecord(
        claim=claim,
        job=action.job,
        round=action.round,
        trainer=sender,
        first=action.first,
        count=action.count,
        start=earlier.final_state if earlier else job.state,
        continues=earlier.claim if earlier else None,
        records_root=action.records_root,
        records=action.records,
        final_state=action.final_state,
        compute_ms=action.compute_ms,
        height=moment.height,
        status=status,
        problem="",
        deadline=Count(0 if is_audited else moment.tick + terms.challenge_blocks),
        beacon=None,
        committee=(),
        commitments=(),
        attestations=(),
        accusations=(),
        resumed=status,
        withheld_from=Count(0),
        judgements=(),
    )
    store_claim(draft, record)
    opened = replace(opened, claims=(*opened.claims, claim), claimed=(*opened.claimed, sender))
    draft.store(open_round_key(action.job), opened)
    shift_open_claims(draft, sender, 1)


def _verify_part(
    draft: Draft, opened: OpenRound, sender: AccountId, action: Claim, moment: Moment
) -> ClaimRecord | None:
    """The claim that this one goes on from, if any; `Rejected` unless its segments are what the sender claims next."""
    has_part = any(entry.trainer == sender for entry in opened.assignments)
    require(has_part, Reason.NOT_ALLOWED, "no segments of this round are assigned to this account")
    found = find_next(draft, opened, sender)
    is_done = found is None and sender in opened.claimed
    require(not is_done, Reason.DUPLICATE, "this trainer has claimed the round")
    if found is None or moment.tick > opened.deadline or opened.is_weighed:
        raise Rejected(Reason.NOT_NOW, "the round's deadline for claims is over")
    assignment, earlier = found
    require(action.first == assignment.first, Reason.DIFFERS, f"the segments from {assignment.first} on are next")
    in_range = 1 <= action.count <= assignment.count
    require(in_range, Reason.OUT_OF_RANGE, f"{action.count} segments claimed of {assignment.count} assigned")
    return earlier


def compute_sample(record: ClaimRecord, verifier: AccountId, proof: VrfProof, terms: JobTerms) -> tuple[int, ...]:
    """The places of the claim that the proof obliges `verifier` to replay; `Rejected(BAD_PROOF)` if not its own."""
    if record.beacon is None:
        raise Rejected(Reason.NOT_NOW, "the claim has no beacon yet")
    ppm = audit_ppm_of(terms, record.round)
    return verify_sample(verifier, record.claim, record.beacon, proof, record.count, ppm)


def find_accusers(record: ClaimRecord) -> tuple[AccountId, ...]:
    """The committee's members who challenged the claim instead of attesting it.

    One that missed states which a quorum then had still owes its replay: else a trainer would be rid of its committee
    by serving it late.
    """
    standing = [entry for entry in record.accusations if not entry.is_over or entry.verdict is Verdict.FALSE]
    challengers = [entry.challenger for entry in standing]
    return tuple(member for member in record.committee if member in challengers)


def has_spoken(record: ClaimRecord, member: AccountId) -> bool:
    """Whether a member of the committee has committed or challenged."""
    committed = [entry.verifier for entry in record.commitments]
    return member in committed or member in find_accusers(record)


def has_revealed(record: ClaimRecord, member: AccountId) -> bool:
    """Whether a member of the committee has opened its commitment."""
    return any(entry.verifier == member for entry in record.attestations)


def apply_commit_attestation(draft: Draft, sender: AccountId, action: CommitAttestation, moment: Moment) -> None:
    """Take in a committee member's hidden word."""
    record = load_claim(draft, action.claim)
    require(record.status is ClaimStatus.COMMITTING, Reason.NOT_NOW, f"the claim is {record.status.value}")
    require(sender in record.committee, Reason.NOT_ALLOWED, "not a member of this claim's committee")
    require(not has_spoken(record, sender), Reason.DUPLICATE, "this member has spoken")
    record = replace(record, commitments=(*record.commitments, Commitment(sender, action.commitment)))
    store_claim(draft, go_on(record, terms_of(draft, record), moment))


def apply_attest(draft: Draft, sender: AccountId, action: Attest, moment: Moment) -> None:
    """Take in a committee member's word; it must be what it committed to."""
    record = load_claim(draft, action.claim)
    require(record.status is ClaimStatus.REVEALING, Reason.NOT_NOW, f"the claim is {record.status.value}")
    committed = next((entry.commitment for entry in record.commitments if entry.verifier == sender), None)
    require(committed is not None, Reason.NOT_ALLOWED, "this account has committed to nothing")
    require(not has_revealed(record, sender), Reason.DUPLICATE, "this member has attested")
    content = AttestationContent(action.claim, action.proof, action.keyed_traces)
    is_opened = commit_attestation(sender, content, action.salt) == committed
    require(is_opened, Reason.DIFFERS, "this is not what the member committed to")
    terms = terms_of(draft, record)
    sample = tuple(Count(place) for place in compute_sample(record, sender, action.proof, terms))
    attestation = Attestation(sender, action.keyed_traces, sample, True)
    record = replace(record, attestations=(*record.attestations, attestation))
    store_claim(draft, go_on(record, terms, moment))


def go_on(record: ClaimRecord, terms: JobTerms, moment: Moment) -> ClaimRecord:
    """The claim in its next status where nobody is left to wait for; its deadline starts anew there."""
    if record.status is ClaimStatus.COMMITTING and all(has_spoken(record, member) for member in record.committee):
        record = _wait(record, ClaimStatus.REVEALING, terms, moment)
    if record.status is ClaimStatus.REVEALING and len(record.attestations) == len(record.commitments):
        record = _wait(record, ClaimStatus.OPENING, terms, moment)
    return record


def _wait(record: ClaimRecord, status: ClaimStatus, terms: JobTerms, moment: Moment) -> ClaimRecord:
    return replace(record, status=status, resumed=status, deadline=Count(moment.tick + terms.attest_blocks))


def resume(record: ClaimRecord, terms: JobTerms, moment: Moment) -> ClaimRecord:
    """The claim back where a challenge found it, with the whole of that status' time before it."""
    if record.resumed is ClaimStatus.SAMPLING:
        return replace(record, status=record.resumed, deadline=Count(0), judgements=())
    blocks = terms.challenge_blocks if record.resumed is ClaimStatus.ACCEPTED else terms.attest_blocks
    deadline = Count(moment.tick + blocks)
    return go_on(replace(record, status=record.resumed, deadline=deadline, judgements=()), terms, moment)


def void_claim(record: ClaimRecord, problem: str) -> ClaimRecord:
    """The claim as one that counts neither for nor against its trainer."""
    return replace(record, status=ClaimStatus.VOID, problem=problem)


def void_unpaid(record: ClaimRecord, problem: str) -> ClaimRecord:
    """Void a claim and pay nobody: its traces will never be opened to show who replayed.

    Otherwise a trainer that claims garbage and withholds it would let a friend on the committee earn for nothing.
    """
    struck = tuple(replace(entry, is_counted=False) for entry in record.attestations)
    return replace(void_claim(record, problem), attestations=struck)


def _count_standing(record: ClaimRecord, words: Sequence[Commitment | Attestation]) -> int:
    """How many members stand behind a claim that is not challenged: those of these words, and those whose accusation
    of falsehood came to nothing. A lone liar then voids nothing: it was overruled by who looked in its place."""
    return len(words) + len(find_accusers(record))


def apply_open_traces(draft: Draft, sender: AccountId, action: OpenTraces, moment: Moment) -> None:
    """Check every attestation against the opened traces; those that do not fit are struck out, and have lapsed."""
    record = load_claim(draft, action.claim)
    require(record.status is ClaimStatus.OPENING, Reason.NOT_NOW, f"the claim is {record.status.value}")
    require(sender == record.trainer, Reason.NOT_ALLOWED, "only the trainer opens its traces")
    verify_records(action.records, record.records_root, record.first, record.count, record.final_state)
    require(len(action.traces) == record.count, Reason.DIFFERS, f"{len(action.traces)} traces for {record.count}")
    for entry, trace in zip(action.records, action.traces, strict=True):
        is_committed = commit_trace(trace) == entry.trace
        require(is_committed, Reason.BAD_PROOF, f"segment {entry.segment}: not the trace the record commits to")

    def check(attestation: Attestation) -> Attestation:
        traces = [action.traces[place] for place in attestation.sample]
        has_replayed = attestation.keyed_traces == key_traces(attestation.verifier, traces)
        return replace(attestation, is_counted=has_replayed)

    record = replace(record, attestations=tuple(check(entry) for entry in record.attestations))
    burn_lapsed(draft, record, [entry.verifier for entry in record.attestations if not entry.is_counted], moment)
    if _count_standing(record, [entry for entry in record.attestations if entry.is_counted]):
        deadline = Count(moment.tick + terms_of(draft, record).challenge_blocks)
        record = replace(record, status=ClaimStatus.ACCEPTED, resumed=ClaimStatus.ACCEPTED, deadline=deadline)
    else:
        record = void_claim(record, "no attestation fits the opened traces")
    store_claim(draft, record)


def add_payments(draft: Draft, job: JobId, payments: Sequence[Payment]) -> None:
    """Note what an open round has taken and given; one entry an account and reason."""
    opened = draft.load(open_round_key(job), OpenRound)
    if opened is None:
        raise RuntimeError("a claim without its round")
    totals = {(entry.account, entry.reason): int(entry.amount) for entry in opened.payments}
    for entry in payments:
        if entry.amount:
            key = (entry.account, entry.reason)
            totals[key] = totals.get(key, 0) + entry.amount
    noted = tuple(Payment(account, Amount(amount), reason) for (account, reason), amount in totals.items())
    draft.store(open_round_key(job), replace(opened, payments=noted))


def burn_lapsed(draft: Draft, record: ClaimRecord, members: Sequence[AccountId], moment: Moment) -> None:
    """Burn a slice of the stake of members that did not do their part."""
    for member in members:
        taken = take_stake(draft, member, int(moment.parameters.lapse_ppm))
        burn(draft, taken)
        add_payments(draft, record.job, [Payment(member, Amount(taken), "lapse")])


def advance_claim(draft: Draft, record: ClaimRecord, moment: Moment) -> ClaimRecord:
    """What time alone does to a claim that is not challenged: draw the committee, end the waiting."""
    terms = terms_of(draft, record)
    steps: dict[ClaimStatus, Callable[[], ClaimRecord]] = {
        ClaimStatus.SAMPLING: lambda: _draw(draft, record, terms, moment),
        ClaimStatus.COMMITTING: lambda: _end_committing(draft, record, terms, moment),
        ClaimStatus.REVEALING: lambda: _end_revealing(draft, record, terms, moment),
        ClaimStatus.OPENING: lambda: void_claim(record, "the trainer did not open its traces in time"),
    }
    if record.status not in steps or moment.tick < record.deadline:
        return record
    advanced = steps[record.status]()
    if advanced != record:
        store_claim(draft, advanced)
    return advanced


def _draw(draft: Draft, record: ClaimRecord, terms: JobTerms, moment: Moment) -> ClaimRecord:
    if moment.height < record.height + moment.parameters.beacon_delay_blocks:
        return record
    beacon = load_beacon(draft, moment.height)
    validators = load_validators(draft).validators
    candidates = [
        (entry.account, int(load_account(draft, entry.account).bonded))
        for entry in validators
        if entry.account != record.trainer
    ]
    committee = draw_committee(record.claim, beacon, candidates, terms.committee_size)
    if not committee:
        return void_claim(record, "nobody with stake can verify this claim")
    return go_on(
        _wait(replace(record, beacon=beacon, committee=committee), ClaimStatus.COMMITTING, terms, moment), terms, moment
    )


def _end_committing(draft: Draft, record: ClaimRecord, terms: JobTerms, moment: Moment) -> ClaimRecord:
    """Go on with more than half; then silence was no matter of too short a time, and costs the silent a slice."""
    spoken = _count_standing(record, record.commitments)
    if 2 * spoken <= len(record.committee):
        return void_claim(record, f"{spoken} of {len(record.committee)} committee members attested in time")
    burn_lapsed(draft, record, [member for member in record.committee if not has_spoken(record, member)], moment)
    return go_on(_wait(record, ClaimStatus.REVEALING, terms, moment), terms, moment)


def _end_revealing(draft: Draft, record: ClaimRecord, terms: JobTerms, moment: Moment) -> ClaimRecord:
    committed = [entry.verifier for entry in record.commitments]
    burn_lapsed(draft, record, [member for member in committed if not has_revealed(record, member)], moment)
    revealed = _count_standing(record, record.attestations)
    if 2 * revealed > len(record.committee):
        return _wait(record, ClaimStatus.OPENING, terms, moment)
    return void_claim(record, f"{revealed} of {len(record.committee)} committee members attested in time")

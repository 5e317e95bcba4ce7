"""One claim's life: made, sampled, attested, opened, and accepted, voided or refuted.

    SAMPLING --beacon--> ATTESTING --all or deadline--> OPENING --traces--> ACCEPTED
                            |  a member's FALSE or UNAVAILABLE
                            v
                        SUSPENDED --power >= Q FALSE--> REFUTED (slashed)
                            |------ power >= Q UNAVAILABLE, or no quorum in time --> VOID, nobody paid
                            '------ power >= Q TRUE --> ATTESTING again, the accuser's word struck out

A claim of a round without audit is ACCEPTED as it comes; the aggregation rule alone guards it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId, ClaimId, VrfProof
from milon.base.units import Amount, Count
from milon.chain.certificate import compute_quorum
from milon.chain.learning import Payment
from milon.chain.params import Parameters
from milon.chain.transaction import Attest, Claim, Judge, OpenTraces
from milon.contracts.accounts import load_account, load_beacon, load_validators, shift_open_claims
from milon.contracts.clock import Moment
from milon.contracts.jobs import load_job
from milon.contracts.records import (
    Attestation,
    ClaimRecord,
    ClaimStatus,
    Judgement,
    OpenRound,
    Phase,
    claim_key,
    job_key,
    open_round_key,
    power_of,
)
from milon.contracts.staking import slash
from milon.pol.claim import commit_trace, key_traces, verify_records
from milon.pol.sampling import draw_committee, verify_sample
from milon.pol.terms import JobTerms, audit_ppm_of, replays_per_member
from milon.pol.verdict import Verdict
from milon.state.ledger import Draft, Ledger


def load_claim(ledger: Ledger | Draft, claim: ClaimId) -> ClaimRecord:
    """The claim; `Rejected(UNKNOWN)` where there is none."""
    record = ledger.load(claim_key(claim), ClaimRecord)
    if record is None:
        raise Rejected(Reason.UNKNOWN, f"no claim {claim.hex()[:8]} in an open round")
    return record


def _store(draft: Draft, record: ClaimRecord) -> None:
    draft.store(claim_key(record.claim), record)


def _terms(draft: Draft, record: ClaimRecord) -> JobTerms:
    return load_job(draft, record.job).spec.terms


def apply_claim(draft: Draft, sender: AccountId, action: Claim, claim: ClaimId, moment: Moment) -> None:
    """Take in what a trainer says of its assigned segments; what it did not finish is not in the claim."""
    opened = draft.load(open_round_key(action.job), OpenRound)
    if opened is None or opened.phase is not Phase.TRAIN or opened.round != action.round:
        raise Rejected(Reason.NOT_NOW, f"round {action.round} of this job takes no claims now")
    assignment = next((entry for entry in opened.assignments if entry.trainer == sender), None)
    if assignment is None:
        raise Rejected(Reason.NOT_ALLOWED, "no segments of this round are assigned to this account")
    require(sender not in opened.claimed, Reason.DUPLICATE, "this trainer has claimed the round")
    require(moment.tick <= opened.deadline, Reason.NOT_NOW, "the round's deadline for claims is over")
    in_range = 1 <= action.count <= assignment.count
    require(in_range, Reason.OUT_OF_RANGE, f"{action.count} segments claimed of {assignment.count} assigned")
    terms = load_job(draft, action.job).spec.terms
    bonded = load_account(draft, sender).bonded
    require(bonded >= terms.bond_min, Reason.NOT_ALLOWED, f"a bond of {terms.bond_min} is needed, {bonded} are bonded")
    is_audited = audit_ppm_of(terms, action.round) > 0
    record = ClaimRecord(
        claim=claim,
        job=action.job,
        round=action.round,
        trainer=sender,
        first=assignment.first,
        count=action.count,
        records_root=action.records_root,
        records=action.records,
        final_state=action.final_state,
        compute_ms=action.compute_ms,
        height=moment.height,
        status=ClaimStatus.SAMPLING if is_audited else ClaimStatus.ACCEPTED,
        problem="",
        deadline=Count(0),
        beacon=None,
        committee=(),
        attestations=(),
        disputed=Count(0),
        refuter=None,
        judgements=(),
    )
    _store(draft, record)
    opened = replace(opened, claims=(*opened.claims, claim), claimed=(*opened.claimed, sender))
    draft.store(open_round_key(action.job), opened)
    shift_open_claims(draft, sender, 1)


def compute_sample(record: ClaimRecord, verifier: AccountId, proof: VrfProof, terms: JobTerms) -> tuple[int, ...]:
    """The places of the claim that the proof obliges `verifier` to replay; `Rejected(BAD_PROOF)` if not its own."""
    if record.beacon is None:
        raise Rejected(Reason.NOT_NOW, "the claim has no beacon yet")
    wanted = replays_per_member(record.count, audit_ppm_of(terms, record.round))
    return verify_sample(verifier, record.claim, record.beacon, proof, record.count, wanted)


def apply_attest(draft: Draft, sender: AccountId, action: Attest, moment: Moment) -> None:
    """Take in a committee member's word; anything but TRUE suspends the claim."""
    record = load_claim(draft, action.claim)
    require(record.status is ClaimStatus.ATTESTING, Reason.NOT_NOW, f"the claim is {record.status.value}")
    require(sender in record.committee, Reason.NOT_ALLOWED, "not a member of this claim's committee")
    spoken = any(entry.verifier == sender for entry in record.attestations)
    require(not spoken, Reason.DUPLICATE, "this member has attested")
    terms = _terms(draft, record)
    sample = tuple(Count(place) for place in compute_sample(record, sender, action.proof, terms))
    attestation = Attestation(sender, action.verdict, action.segment, action.keyed_traces, sample, True)
    record = replace(record, attestations=(*record.attestations, attestation))
    if action.verdict is not Verdict.TRUE:
        is_sampled = action.segment - record.first in sample
        require(is_sampled, Reason.OUT_OF_RANGE, f"segment {action.segment} is not in this member's sample")
        deadline = Count(moment.tick + terms.judge_blocks)
        record = replace(record, status=ClaimStatus.SUSPENDED, disputed=action.segment, refuter=sender)
        record = replace(record, deadline=deadline, judgements=())
    elif len(record.attestations) == len(record.committee):
        record = _open(record, terms, moment)
    _store(draft, record)


def _open(record: ClaimRecord, terms: JobTerms, moment: Moment) -> ClaimRecord:
    return replace(record, status=ClaimStatus.OPENING, deadline=Count(moment.tick + terms.attest_blocks))


def _void(record: ClaimRecord, problem: str) -> ClaimRecord:
    return replace(record, status=ClaimStatus.VOID, problem=problem)


def _void_undecided(record: ClaimRecord, problem: str) -> ClaimRecord:
    """Void a suspended claim and pay nobody: its traces will never be opened to show who replayed.

    Otherwise a trainer that claims garbage and withholds it would let a friend on the committee earn for nothing.
    """
    struck = tuple(replace(entry, is_counted=False) for entry in record.attestations)
    return replace(_void(record, problem), attestations=struck)


def _count_replays(record: ClaimRecord) -> int:
    """How many members' samples stand behind a claim that is not suspended: those who said TRUE and were not shown
    lazy, and those whose accusation a quorum overruled, since that quorum replayed the segment in their place."""
    return sum(entry.is_counted or entry.verdict is not Verdict.TRUE for entry in record.attestations)


def apply_open_traces(draft: Draft, sender: AccountId, action: OpenTraces) -> None:
    """Check every attestation against the opened traces; those that do not fit are struck out and not paid."""
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
        return replace(attestation, is_counted=attestation.is_counted and has_replayed)

    record = replace(record, attestations=tuple(check(entry) for entry in record.attestations))
    if _count_replays(record):
        record = replace(record, status=ClaimStatus.ACCEPTED)
    else:
        record = _void(record, "no attestation fits the opened traces")
    _store(draft, record)


def apply_judge(draft: Draft, sender: AccountId, action: Judge, moment: Moment) -> None:
    """Take in a validator's word on the disputed segment; power >= Q for one verdict decides."""
    record = load_claim(draft, action.claim)
    require(record.status is ClaimStatus.SUSPENDED, Reason.NOT_NOW, f"the claim is {record.status.value}")
    require(action.segment == record.disputed, Reason.DIFFERS, f"segment {record.disputed} is in dispute")
    validators = load_validators(draft)
    require(power_of(validators, sender) > 0, Reason.NOT_ALLOWED, "only validators judge")
    spoken = any(entry.validator == sender for entry in record.judgements)
    require(not spoken, Reason.DUPLICATE, "this validator has judged")
    record = replace(record, judgements=(*record.judgements, Judgement(sender, action.verdict)))
    _store(draft, _weigh_judgements(draft, record, moment))


def _weigh_judgements(draft: Draft, record: ClaimRecord, moment: Moment) -> ClaimRecord:
    """Decide where a quorum of the present validators agrees: no two verdicts can have one."""
    validators = load_validators(draft)
    powers: dict[Verdict, int] = {}
    for entry in record.judgements:
        powers[entry.verdict] = powers.get(entry.verdict, 0) + power_of(validators, entry.validator)
    quorum = compute_quorum(sum(entry.power for entry in validators.validators))
    decided = [verdict for verdict, power in powers.items() if power >= quorum]
    return _decide(draft, record, decided[0], moment) if decided else record


def _decide(draft: Draft, record: ClaimRecord, verdict: Verdict, moment: Moment) -> ClaimRecord:
    refuter = record.refuter
    if refuter is None:
        raise RuntimeError("a suspended claim without a refuter")
    accusation = next(entry for entry in record.attestations if entry.verifier == refuter)
    if verdict is Verdict.FALSE:
        _punish(draft, record, record.trainer, refuter, moment.parameters)
        _bar(draft, record)
        problem = f"segment {record.disputed} replays to other bits"
        struck = tuple(_strike_blind(entry, record.disputed - record.first) for entry in record.attestations)
        return replace(record, status=ClaimStatus.REFUTED, problem=problem, attestations=struck)
    if verdict is Verdict.UNAVAILABLE:
        return _void_undecided(record, f"the states of segment {record.disputed} were not to be had")
    if accusation.verdict is Verdict.FALSE:
        _punish(draft, record, refuter, record.trainer, moment.parameters)
    struck = tuple(
        replace(entry, is_counted=entry.is_counted and entry.verifier != refuter) for entry in record.attestations
    )
    terms = _terms(draft, record)
    record = replace(record, attestations=struck, refuter=None, judgements=())
    if len(struck) == len(record.committee):
        return _open(record, terms, moment)
    return replace(record, status=ClaimStatus.ATTESTING, deadline=Count(moment.tick + terms.attest_blocks))


def _strike_blind(entry: Attestation, false_place: int) -> Attestation:
    """Strike out a member that had to replay the false segment and called its sample true."""
    is_blind = entry.verdict is Verdict.TRUE and false_place in entry.sample
    return replace(entry, is_counted=entry.is_counted and not is_blind)


def _punish(draft: Draft, record: ClaimRecord, liar: AccountId, winner: AccountId, parameters: Parameters) -> None:
    taken, reward = slash(draft, liar, winner, parameters)
    opened = draft.load(open_round_key(record.job), OpenRound)
    if opened is None:
        raise RuntimeError("a claim without its round")
    payments = (Payment(liar, Amount(taken), "slash"), Payment(winner, Amount(reward), "refutation"))
    draft.store(open_round_key(record.job), replace(opened, payments=opened.payments + payments))


def _bar(draft: Draft, record: ClaimRecord) -> None:
    job = load_job(draft, record.job)
    trainers = tuple(
        replace(entry, is_active=entry.is_active and entry.account != record.trainer) for entry in job.trainers
    )
    barred = tuple(sorted({*job.barred, record.trainer}))
    draft.store(job_key(record.job), replace(job, trainers=trainers, barred=barred))


def advance_claim(draft: Draft, record: ClaimRecord, moment: Moment) -> ClaimRecord:
    """What time alone does to a claim: draw the committee, end the waiting, weigh judgements by another set's power."""
    terms = _terms(draft, record)
    steps: dict[ClaimStatus, Callable[[], ClaimRecord]] = {
        ClaimStatus.SAMPLING: lambda: _draw(draft, record, terms, moment),
        ClaimStatus.ATTESTING: lambda: _end_attesting(record, terms, moment),
        ClaimStatus.OPENING: lambda: _void(record, "the trainer did not open its traces in time"),
        ClaimStatus.SUSPENDED: lambda: _void_undecided(record, f"no quorum judged segment {record.disputed} in time"),
    }
    if record.status is ClaimStatus.SUSPENDED and moment.is_first_of_epoch:
        decided = _weigh_judgements(draft, record, moment)
        if decided != record:
            _store(draft, decided)
            return decided
    if record.status not in steps or moment.tick < record.deadline:
        return record
    advanced = steps[record.status]()
    if advanced != record:
        _store(draft, advanced)
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
        return _void(record, "nobody with stake can verify this claim")
    deadline = Count(moment.tick + terms.attest_blocks)
    return replace(record, status=ClaimStatus.ATTESTING, beacon=beacon, committee=committee, deadline=deadline)


def _end_attesting(record: ClaimRecord, terms: JobTerms, moment: Moment) -> ClaimRecord:
    replayed = _count_replays(record)
    if 2 * replayed > len(record.committee):
        return _open(record, terms, moment)
    return _void(record, f"{replayed} of {len(record.committee)} committee members attested in time")

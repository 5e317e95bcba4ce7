"""Builds the frozen views of `view` from the ledger and the store."""

from __future__ import annotations

from collections.abc import Iterator

from milon.base.codec import decode
from milon.base.ids import AccountId, Digest, JobId
from milon.base.units import Amount, Count, Height, Nonce, Power, TimeMs
from milon.chain.block import Block, compute_header_hash
from milon.chain.learning import PENALTIES, BlockReport
from milon.chain.transaction import compute_transaction_hash
from milon.contracts.accounts import load_account, load_validators
from milon.contracts.claims import load_claim
from milon.contracts.claims_records import ClaimRecord
from milon.contracts.clock import load_clock
from milon.contracts.delegation import compute_left, compute_moved, compute_value, load_delegations
from milon.contracts.reassignment import has_all_claims
from milon.contracts.records import (
    JOB_PREFIX,
    ArchivedRound,
    Delegations,
    Job,
    OpenRound,
    closed_round_key,
    job_key,
    open_round_key,
    power_of,
)
from milon.contracts.validators import load_candidates, load_validator
from milon.node.view import (
    AccountView,
    AssignmentView,
    AttestationView,
    BlockView,
    ClaimView,
    CurrentRound,
    DelegationView,
    JobView,
    RoundView,
    SlashView,
    TrainerView,
    UnbondingView,
    ValidatorView,
)
from milon.pol.verdict import Verdict
from milon.state.ledger import Ledger
from milon.state.store import StoreReader

JOBS_SHOWN_MAX = 256  # newest ones; an answer stays under a megabyte


def build_round_views(ledger: Ledger, job: JobId, count: int) -> tuple[RoundView, ...]:
    """The first `count` closed rounds of a job."""
    views: list[RoundView] = []
    for number in range(count):
        archived = ledger.load(closed_round_key(job, number), ArchivedRound)
        if archived is not None:
            closed = archived.closed
            views.append(RoundView(closed.round, archived.height, closed.outcome, closed.claims, closed.payments))
    return tuple(views)


def _build_attestation_views(claim: ClaimRecord) -> tuple[AttestationView, ...]:
    """What was said of a claim so far: opened attestations, then challenges."""
    attested = [AttestationView(entry.verifier, Verdict.TRUE.value, 0) for entry in claim.attestations]
    challenged = [
        AttestationView(entry.challenger, entry.verdict.value, int(entry.segment)) for entry in claim.accusations
    ]
    return (*attested, *challenged)


def _build_claim_view(ledger: Ledger, opened: OpenRound) -> tuple[ClaimView, ...]:
    claims = sorted((load_claim(ledger, claim) for claim in opened.claims), key=lambda claim: claim.trainer)
    return tuple(
        ClaimView(
            claim=claim.claim,
            trainer=claim.trainer,
            first=int(claim.first),
            count=int(claim.count),
            status=claim.status.value,
            committee=claim.committee,
            attestations=_build_attestation_views(claim),
            continues=claim.continues,
        )
        for claim in claims
    )


def _build_current(ledger: Ledger, job: JobId, tick_ms: int) -> CurrentRound | None:
    opened = ledger.load(open_round_key(job), OpenRound)
    if opened is None:
        return None
    claims = _build_claim_view(ledger, opened)
    clock = load_clock(ledger)
    return CurrentRound(
        round=opened.round,
        phase="audit" if opened.phase == "train" and has_all_claims(ledger, opened) else opened.phase.value,
        assignments=tuple(
            AssignmentView(entry.trainer, int(entry.first), int(entry.count), is_taken_over)
            for entries, is_taken_over in ((opened.assignments, False), (opened.reassigned, True))
            for entry in entries
        ),
        claims=claims,
        votes=tuple(vote.validator for vote in opened.votes),
        deadline_ms=TimeMs(max(0, clock.time_ms + opened.deadline * tick_ms - clock.elapsed_ms)),
    )


def build_job_view(ledger: Ledger, job: JobId, tick_ms: int) -> JobView | None:
    """A job with all its rounds, or None; `tick_ms` is the chain's nominal block time."""
    record = ledger.load(job_key(job), Job)
    if record is None:
        return None
    trainers = tuple(
        TrainerView(entry.account, entry.capacity, entry.is_active, int(entry.delivered)) for entry in record.trainers
    )
    return JobView(
        job=job,
        name=record.spec.name,
        submitter=record.submitter,
        status=record.status.value,
        reason=record.problem,
        escrow=record.escrow,
        paid=record.paid,
        terms=record.spec.terms,
        round=record.next_round,
        state=record.state,
        initial_state=record.spec.initial_state,
        predict=record.spec.predict,
        trainers=trainers,
        rounds=build_round_views(ledger, job, int(record.next_round)),
        current=_build_current(ledger, job, tick_ms),
    )


def build_job_views(reader: StoreReader, tick_ms: int) -> tuple[JobView, ...]:
    """The jobs on the chain, in order of their first block."""
    ledger = Ledger(reader)
    found: list[tuple[int, bytes, JobView]] = []
    for key, _ in reader.scan(JOB_PREFIX):
        job = JobId(key.removeprefix(JOB_PREFIX))
        view = build_job_view(ledger, job, tick_ms)
        record = ledger.load(key, Job)
        if view is not None and record is not None:
            found.append((int(record.submitted_height), job, view))
    return tuple(view for _, _, view in sorted(found, key=lambda entry: entry[:2])[-JOBS_SHOWN_MAX:])


def build_account_view(reader: StoreReader, account: AccountId, next_nonce: Nonce) -> AccountView:
    """An account with its slashes, which the closed rounds hold."""
    ledger = Ledger(reader)
    record = load_account(ledger, account)
    slashes: list[SlashView] = []
    if record.slashed:
        for _, raw in reader.scan(b"closed-round/"):
            archived = decode(ArchivedRound, raw)
            slashes += [
                SlashView(
                    archived.height, payment.amount, f"round {archived.closed.round}: {PENALTIES[payment.reason]}"
                )
                for payment in archived.closed.payments
                if payment.account == account and payment.reason in PENALTIES
            ]
    validator = load_validator(ledger, account)
    if validator.is_tombstoned:
        burned = record.slashed - sum(slash.amount for slash in slashes)
        slashes.append(SlashView(validator.tombstoned_at, Amount(burned), "an offence against the rules of voting"))
    return AccountView(
        account=account,
        balance=record.balance,
        bonded=record.bonded,
        unbonding=tuple(UnbondingView(entry.amount, entry.release_height) for entry in record.unbonding),
        nonce=next_nonce,
        slashes=tuple(sorted(slashes, key=lambda slash: slash.height)),
        delegations=_build_delegations(ledger, account),
    )


def _build_delegations(ledger: Ledger, account: AccountId) -> tuple[DelegationView, ...]:
    delegations = load_delegations(ledger, account)
    held = (
        DelegationView(
            entry.validator, Amount(compute_value(load_validator(ledger, entry.validator), entry.shares)), None
        )
        for entry in delegations.held
    )
    leaving = (
        DelegationView(
            entry.validator,
            Amount(compute_left(load_validator(ledger, entry.validator), entry)),
            entry.release_height,
        )
        for entry in delegations.leaving
    )
    return (*held, *_build_moving(ledger, delegations), *leaving)


def _build_moving(ledger: Ledger, delegations: Delegations) -> Iterator[DelegationView]:
    for entry in delegations.moving:
        source, target = load_validator(ledger, entry.source), load_validator(ledger, entry.target)
        worth = Amount(compute_value(target, compute_moved(source, entry)))
        yield DelegationView(entry.target, worth, entry.release_height, entry.source)


def build_validator_view(reader: StoreReader, account: AccountId) -> ValidatorView:
    """An account as a validator."""
    ledger = Ledger(reader)
    record = load_validator(ledger, account)
    return ValidatorView(
        account=account,
        power=power_of(load_validators(ledger), account),
        bonded=load_account(ledger, account).bonded,
        delegated=record.delegated,
        commission_ppm=record.commission_ppm,
        learning=Count(record.learning),
        led=record.led,
        missed=record.missed,
        is_candidate=record.is_candidate,
        jailed_until=record.jailed_until,
        is_tombstoned=record.is_tombstoned,
        taken_ppm=record.taken_ppm,
    )


def build_validator_views(reader: StoreReader) -> tuple[ValidatorView, ...]:
    """Members of the running epoch and candidates for the next, in order of account."""
    ledger = Ledger(reader)
    members = (member.account for member in load_validators(ledger).validators)
    accounts = sorted({*members, *load_candidates(ledger)})
    return tuple(build_validator_view(reader, account) for account in accounts)


def build_block_view(reader: StoreReader, name: Height | Digest) -> BlockView | None:
    """The final block at a height or of a hash, or None."""
    raw = reader.block_by_hash(Digest(name)) if isinstance(name, bytes) else reader.block_by_height(name)
    if raw is None:
        return None
    block = decode(Block, raw)
    report_raw = reader.receipts_at(block.header.height)
    report = decode(BlockReport, report_raw) if report_raw is not None else BlockReport((), ())
    return BlockView(
        hash=compute_header_hash(block.header),
        header=block.header,
        transactions=tuple(compute_transaction_hash(entry) for entry in block.transactions),
        receipts=report.receipts,
        closed=report.closed,
        is_final=True,
        certificate_power=Power(0),  # filled in by the caller, who knows the certificate's type
        total_power=Power(sum(entry.power for entry in load_validators(Ledger(reader)).validators)),
    )

"""A node without a network: it answers the API's port from values in memory, and keeps what it was sent."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from milon.base.blob import compute_blob_id, compute_manifest
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import NO_DIGEST, AccountId, ClaimId, Digest, JobId, Signature, VrfProof
from milon.base.signing import secret_key_from
from milon.base.units import Amount, Count, Epoch, Height, Nonce, Power, Round, TimeMs, View
from milon.chain.block import Header, Receipt, compute_header_hash
from milon.chain.certificate import Validator
from milon.chain.genesis import Genesis, GenesisAccount, compute_genesis_hash
from milon.chain.learning import Payment, SettledClaim
from milon.chain.params import Parameters
from milon.chain.transaction import SubmitJob, Transaction, compute_transaction_hash, verify_transaction
from milon.node.view import (
    AccountView,
    AssignmentView,
    AttestationView,
    BlockView,
    ClaimView,
    CurrentRound,
    JobView,
    PeerView,
    ReceiptView,
    ReportView,
    RoundView,
    StatusView,
    TrainerView,
    ValidatorView,
    WorkView,
)
from milon.pol.aggregation import Record, Report, Standing
from milon.pol.pipeline import Rule
from milon.pol.terms import JobTerms
from milon.pol.verdict import Refusal, RoundOutcome

KEYS = tuple(sorted((secret_key_from(f"node {index}") for index in range(5)), key=lambda key: key.account))
ACCOUNTS = tuple(key.account for key in KEYS)
JOB = JobId(bytes([7]) * 32)
HALF_BITS = 0x3F000000  # 0.5
NAN_BITS = 0x7FC00000


def digest_of(number: int) -> Digest:
    """Some digest."""
    return Digest(bytes([number]) * 32)


GENESIS = Genesis(
    "fake-1",
    TimeMs(1_000),
    Parameters(transaction_bytes_max=Count(64 << 10)),
    tuple(GenesisAccount(account, Amount(500), Amount(1_000_000), True) for account in ACCOUNTS),
)

TERMS = JobTerms(
    rounds=Count(3),
    segments_per_round=Count(10),
    steps_per_segment=Count(4),
    batch_size=Count(32),
    aggregator=Rule.TRIMMED_MEAN,
    faulty_count=Count(1),
    audit_ppm=(Count(0), Count(1_000_000)),
    committee_size=Count(3),
    trainers_min=Count(3),
    trainers_target=Count(5),
    enrol_blocks=Count(20),
    claim_blocks=Count(40),
    attest_blocks=Count(20),
    judge_blocks=Count(20),
    aggregate_blocks=Count(20),
    segment_price=Amount(5),
    replay_price=Amount(2),
    bond_min=Amount(1_000),
    trainers=(),
)


def make_round(number: int, loss_bits: int = HALF_BITS, rows: int = 100) -> RoundView:
    """A closed round in which the last trainer's update was refused."""
    claims = tuple(
        SettledClaim(
            ClaimId(digest_of(40 + index)),
            account,
            Count(2 * index),
            Count(2),
            digest_of(9),
            None,
            digest_of(1),
            digest_of(2),
            digest_of(3),
            "accepted",
            ACCOUNTS[:1],
            (Count(2),),
            Count(120),
        )
        for index, account in enumerate(ACCOUNTS)
    )
    outcome = RoundOutcome(
        digest_of(60 + number),
        Count(loss_bits),
        Count(rows * 9 // 10),
        Count(rows),
        ACCOUNTS[:4],
        (Refusal(ACCOUNTS[4], "screened: 450 % of the median distance"),),
        "",
    )
    payments = (Payment(ACCOUNTS[0], Amount(10), "segments"), Payment(ACCOUNTS[4], Amount(7), "slash"))
    return RoundView(Round(number), Height(20 + number), outcome, claims, payments)


def make_current(number: int) -> CurrentRound:
    """A round under audit."""
    claim = ClaimView(
        ClaimId(digest_of(90)),
        ACCOUNTS[0],
        0,
        2,
        "audit",
        ACCOUNTS[1:4],
        (AttestationView(ACCOUNTS[1], "true", 0),),
    )
    assignments = tuple(AssignmentView(account, 2 * index, 2) for index, account in enumerate(ACCOUNTS))
    return CurrentRound(Round(number), "audit", assignments, (claim,), (), Height(99))


def make_job(status: str = "running", closed: int = 2, job: JobId = JOB) -> JobView:
    """A job after `closed` rounds."""
    return JobView(
        job,
        "digits",
        ACCOUNTS[0],
        status,
        "",
        Amount(900),
        Amount(100),
        TERMS,
        Round(closed),
        digest_of(60 + closed - 1),
        digest_of(59),
        digest_of(58),
        tuple(TrainerView(account, Count(100 + index), True, 4) for index, account in enumerate(ACCOUNTS)),
        tuple(make_round(number) for number in range(closed)),
        make_current(closed) if status == "running" else None,
    )


def make_header(height: int) -> Header:
    """A header of the fake chain."""
    return Header(
        "fake-1",
        Count(1),
        Height(height),
        Epoch(0),
        View(height),
        digest_of(1),
        View(height - 1),
        ACCOUNTS[0],
        TimeMs(1_000 + height),
        *(NO_DIGEST,) * 5,
        *(NO_DIGEST,) * 4,
        VrfProof(bytes(80)),
        NO_DIGEST,
    )


def make_status(height: int = 12, peers: int = 4) -> StatusView:
    """The first node's status, while it replays a segment."""
    return StatusView(
        "0.1.0",
        "1",
        "fake-1",
        compute_genesis_hash(GENESIS),
        ACCOUNTS[0],
        "validator",
        "12D3KooWFake",
        ("/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWFake",),
        Height(height),
        compute_header_hash(make_header(height)),
        TimeMs(1_000 + height),
        Epoch(0),
        View(height + 1),
        False,
        tuple(PeerView(f"12D3KooW{index}", f"/ip4/127.0.0.1/tcp/{index}", 10, 20, 0) for index in range(peers)),
        tuple(Validator(account, Power(1_000_000)) for account in ACCOUNTS),
        (WorkView("replay", JOB, Round(2), 1, 2, ACCOUNTS[1], HALF_BITS),),
        3,
        Amount(500),
        Amount(1_000_000),
        Amount(5_002_500),
        Amount(42),
    )


@dataclass
class FakeNode:
    """Answers from memory; `submit` applies nothing but nonces, and puts every transaction into the next block."""

    folder: Path  # for blobs
    jobs_by_id: dict[JobId, JobView] = field(default_factory=lambda: {JOB: make_job()})
    sent: list[Transaction] = field(default_factory=list)
    nonces: dict[AccountId, int] = field(default_factory=dict)
    problem: str = ""  # what receipts will say
    height: int = 12
    is_stopped: bool = False

    def status(self) -> StatusView:
        """As made."""
        return make_status(self.height)

    def genesis(self) -> Genesis:
        """The fake chain's."""
        return GENESIS

    def jobs(self) -> tuple[JobView, ...]:
        """In the order they came."""
        return tuple(self.jobs_by_id.values())

    def job(self, job: JobId) -> JobView | None:
        """By name."""
        return self.jobs_by_id.get(job)

    def report(self, job: JobId, round_number: Round) -> ReportView | None:
        """Of the first round only."""
        if job not in self.jobs_by_id or round_number:
            return None
        standings = (
            Standing(ACCOUNTS[0], 20, 20, 1_000_000, 100, 90, ""),
            Standing(ACCOUNTS[4], 20, 0, 0, 450, 0, "far"),
        )
        report = Report("arc,multi-krum", 1, 20, standings)
        states = (digest_of(3), digest_of(4))
        return ReportView(round_number, True, Record(report, states, digest_of(5), digest_of(60), ""))

    def account(self, account: AccountId) -> AccountView:
        """Everybody has the same coins."""
        return AccountView(account, Amount(500), Amount(0), (), Nonce(self.nonces.get(account, 0)), ())

    def validators(self) -> tuple[ValidatorView, ...]:
        """The node's accounts, of which the last is in jail."""
        return tuple(self.validator(account) for account in ACCOUNTS)

    def validator(self, account: AccountId) -> ValidatorView:
        """Everybody has the same stake."""
        is_jailed = account == ACCOUNTS[-1]
        return ValidatorView(
            account=account,
            power=Power(0 if is_jailed else 1_000_000),
            bonded=Amount(900_000),
            delegated=Amount(100_000),
            commission_ppm=Count(50_000),
            learning=Count(7),
            led=Count(3),
            missed=Count(1),
            is_candidate=True,
            jailed_until=Height(40 if is_jailed else 0),
            is_tombstoned=False,
            taken_ppm=Count(0),
        )

    def block(self, name: Height | Digest) -> BlockView | None:
        """Blocks up to the height exist."""
        heights = {compute_header_hash(make_header(height)): height for height in range(1, self.height + 1)}
        height = heights.get(Digest(name)) if isinstance(name, bytes) else name
        if height is None or not 1 <= height <= self.height:
            return None
        header = make_header(height)
        receipts = (Receipt(digest_of(1), ""), Receipt(digest_of(2), "stale: too late"))
        return BlockView(
            compute_header_hash(header),
            header,
            (digest_of(1), digest_of(2)),
            receipts,
            (),
            True,
            Power(4_000_000),
            Power(5_000_000),
        )

    def receipt(self, transaction: Digest) -> ReceiptView | None:
        """Every sent transaction is in the newest block."""
        if transaction not in [compute_transaction_hash(entry) for entry in self.sent]:
            return None
        return ReceiptView(transaction, Height(self.height), self.problem)

    async def submit(self, transaction: Transaction) -> Digest:
        """Check signature and nonce."""
        verify_transaction(transaction)
        body = transaction.body
        require(body.nonce == self.nonces.get(body.sender, 0), Reason.WRONG_NONCE, "another nonce is next")
        self.nonces[body.sender] = body.nonce + 1
        self.sent.append(transaction)
        name = compute_transaction_hash(transaction)
        if isinstance(body.action, SubmitJob) and not self.problem:
            self.jobs_by_id[JobId(name)] = dataclasses.replace(make_job("finished", 3), job=JobId(name))
        return name

    async def put_blob(self, path: Path) -> Digest:
        """Keep a copy under its id."""
        raw = path.read_bytes()
        blob = compute_blob_id(compute_manifest(raw))
        (self.folder / blob.hex()).write_bytes(raw)
        return blob

    async def get_blob(self, blob: Digest, size_max_bytes: int) -> Path:
        """What was put."""
        path = self.folder / blob.hex()
        if not path.exists():
            raise Rejected(Reason.UNAVAILABLE, f"no peer has blob {blob.hex()[:8]}")
        require(path.stat().st_size <= size_max_bytes, Reason.TOO_LARGE, "too large")
        return path

    async def stop(self) -> None:
        """Remember it."""
        self.is_stopped = True


UNSIGNED = Signature(bytes(64))

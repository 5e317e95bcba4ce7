"""A chain in a loop for tests: validators with keys, blocks with beacons, and checks that hold after each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.base.hashing import digest
from milon.base.ids import AccountId, ClaimId, Digest, JobId
from milon.base.signing import SecretKey, secret_key_from, sign
from milon.base.units import Amount, Count, Epoch, Height, Nonce, TimeMs, View
from milon.chain.certificate import Validator, VoteContent, VoteKind, sign_vote
from milon.chain.evidence import Evidence, make_contradiction
from milon.chain.genesis import Genesis, GenesisAccount, verify_genesis
from milon.chain.learning import ClosedRound
from milon.chain.params import Parameters, compute_epoch, is_last_of_epoch
from milon.chain.transaction import (
    Action,
    SubmitJob,
    Transaction,
    TransactionBody,
    compute_transaction_hash,
    sign_transaction,
)
from milon.contracts.accounts import load_account, load_supply
from milon.contracts.apply import Applied, BlockContext, apply_block, compute_genesis_ledger, select_transactions
from milon.contracts.claims import load_claim
from milon.contracts.claims_records import ClaimRecord
from milon.contracts.jobs import load_job
from milon.contracts.records import SUPPLY_KEY, Account, Job, OpenRound, ValidatorRecord, account_key, open_round_key
from milon.contracts.validators import load_validator
from milon.pol.aggregation import Rule
from milon.pol.terms import EvaluationProgram, JobSpec, JobTerms, compute_cost_max
from milon.state.ledger import Ledger

CHAIN_ID = "test-chain"
BALANCE = 1_000_000
STAKE = 10_000
FULL_AUDIT = Count(1_000_000)

TERMS = JobTerms(
    rounds=Count(2),
    segments_per_round=Count(8),
    steps_per_segment=Count(2),
    batch_size=Count(4),
    aggregator=Rule.TRIMMED_MEAN,
    faulty_count=Count(1),
    audit_ppm=(FULL_AUDIT,),
    committee_size=Count(3),
    trainers_min=Count(3),
    trainers_target=Count(4),
    enrol_blocks=Count(3),
    claim_blocks=Count(6),
    attest_blocks=Count(5),
    judge_blocks=Count(5),
    aggregate_blocks=Count(5),
    segment_price=Amount(100),
    replay_price=Amount(7),
    bond_min=Amount(1_000),
    trainers=(),
)


def name_of(label: str) -> Digest:
    """A made-up digest."""
    return digest("test", label.encode())


def make_spec(**terms: object) -> JobSpec:
    """A job of made-up programs under `TERMS` with changes."""
    return JobSpec(
        name="digits",
        train=name_of("train"),
        evaluate=(EvaluationProgram(Count(16), name_of("evaluate")),),
        predict=name_of("predict"),
        initial_state=name_of("initial state"),
        train_rows=name_of("train rows"),
        evaluation_rows=name_of("evaluation rows"),
        terms=replace(TERMS, **terms),  # type: ignore[arg-type]
    )


def make_keys(count: int, label: str = "validator") -> tuple[SecretKey, ...]:
    """Keys in order of their accounts."""
    keys = (secret_key_from(f"{label}-{number}") for number in range(count))
    return tuple(sorted(keys, key=lambda key: key.account))


def make_genesis(validators: Sequence[SecretKey], others: Sequence[SecretKey], parameters: Parameters) -> Genesis:
    """Everybody has `BALANCE`; validators have `STAKE` that votes."""
    entries = [GenesisAccount(key.account, Amount(BALANCE), Amount(STAKE), True) for key in validators]
    entries += [GenesisAccount(key.account, Amount(BALANCE), Amount(0), False) for key in others]
    genesis = Genesis(CHAIN_ID, TimeMs(0), parameters, tuple(sorted(entries, key=lambda entry: entry.account)))
    verify_genesis(genesis)
    return genesis


def compute_held(table: dict[bytes, bytes]) -> int:
    """All coins that accounts, validators and escrows hold."""
    ledger, held = Ledger(table), 0
    for key in table:
        if key.startswith(b"account/"):
            account = ledger.load(key, Account)
            assert account is not None
            held += account.balance + account.bonded + sum(entry.amount for entry in account.unbonding)
        elif key.startswith(b"job/"):
            job = ledger.load(key, Job)
            assert job is not None
            held += job.escrow
        elif key.startswith(b"validator/"):
            validator = ledger.load(key, ValidatorRecord)
            assert validator is not None
            held += validator.delegated + validator.leaving
    return held


class Chain:
    """A ledger that grows block by block; after each, the supply equation holds and every record decodes."""

    def __init__(self, validators: int = 4, others: int = 1, parameters: Parameters | None = None) -> None:
        self.keys = make_keys(validators)
        self.others = make_keys(others, "other")
        self.parameters = parameters or Parameters()
        self.genesis = make_genesis(self.keys, self.others, self.parameters)
        self.table = dict(compute_genesis_ledger(self.genesis))
        self.height = 0
        self.block_ms = 1_000
        self.closed: list[ClosedRound] = []
        self.missed: list[AccountId] = []
        self.evidence: list[Evidence] = []
        self.verify_supply()

    @property
    def ledger(self) -> Ledger:
        """The newest."""
        return Ledger(self.table)

    def context(self, height: int | None = None) -> BlockContext:
        """Of the next block."""
        number = self.height + 1 if height is None else height
        beacon = digest("test-beacon", number.to_bytes(8, "big"))
        return BlockContext(
            chain_id=CHAIN_ID,
            height=Height(number),
            time_ms=TimeMs(self.block_ms * number),
            beacon=beacon,
            proposer=self.keys[number % len(self.keys)].account,
            parameters=self.parameters,
            epoch=compute_epoch(Height(number), self.parameters),
            missed=tuple(self.missed),
            evidence=tuple(self.evidence),
            is_last_of_epoch=is_last_of_epoch(Height(number), self.parameters),
        )

    def sign(self, key: SecretKey, action: Action, ahead: int = 0, **body: object) -> Transaction:
        """The action as `key`'s next transaction but `ahead`; `body` changes fields of what is signed."""
        nonce = Nonce(load_account(self.ledger, key.account).nonce + ahead)
        made = TransactionBody(CHAIN_ID, key.account, nonce, Amount(1), action)
        return sign_transaction(key, replace(made, **body))  # type: ignore[arg-type]

    def apply(self, *transactions: Transaction) -> Applied:
        """One block."""
        applied = apply_block(self.ledger, self.context(), transactions)
        self.height += 1
        for key, value in applied.ledger.changes.items():
            if value is None:
                self.table.pop(key, None)
            else:
                self.table[key] = value
        self.closed += applied.closed
        self.missed, self.evidence = [], []
        self.verify_supply()
        return applied

    def do(self, *asked: tuple[SecretKey, Action]) -> tuple[str, ...]:
        """One block with these, each signer's in order; why each was refused."""
        signed, ahead = [], dict.fromkeys((key.account for key, _ in asked), 0)
        for key, action in asked:
            signed.append(self.sign(key, action, ahead[key.account]))
            ahead[key.account] += 1
        return tuple(receipt.problem for receipt in self.apply(*signed).receipts)

    def submit(self, key: SecretKey, spec: JobSpec, reward: int | None = None) -> JobId:
        """A job with just the reward it needs."""
        cost = compute_cost_max(spec.terms) if reward is None else reward
        transaction = self.sign(key, SubmitJob(spec, Amount(cost)))
        assert self.apply(transaction).receipts[0].problem == ""
        return JobId(compute_transaction_hash(transaction))

    def verify_supply(self) -> None:
        """minted - burned = all coins that somebody holds; nothing negative (the records decode)."""
        supply = load_supply(self.ledger)
        assert supply.minted - supply.burned == compute_held(self.table)

    def end_epoch(self) -> tuple[Validator, ...]:
        """Blocks up to the end of the epoch; the next set."""
        while True:
            validators = self.apply().validators
            if validators is not None:
                return validators

    def behind(self, key: SecretKey) -> ValidatorRecord:
        """What stands behind a validator beside its own stake."""
        return load_validator(self.ledger, key.account)

    def account(self, key: SecretKey) -> Account:
        """Its coins."""
        return load_account(self.ledger, key.account)

    def job(self, job: JobId) -> Job:
        """Its record."""
        return load_job(self.ledger, job)

    def round(self, job: JobId) -> OpenRound:
        """The open one."""
        opened = self.ledger.load(open_round_key(job), OpenRound)
        assert opened is not None
        return opened

    def claim_of(self, job: JobId, key: SecretKey) -> ClaimRecord:
        """The open round's claim of that trainer."""
        opened = self.round(job)
        return load_claim(self.ledger, opened.claims[opened.claimed.index(key.account)])


def accuse(key: SecretKey, epoch: int = 0, view: int = 1) -> Evidence:
    """Evidence that `key` notarized two blocks in one view."""
    votes = (
        sign_vote(key, CHAIN_ID, VoteContent(VoteKind.NOTARIZE, Epoch(epoch), View(view), name_of(label)))
        for label in ("one block", "another block")
    )
    return make_contradiction(*votes)


def sign_by_another(transaction: Transaction) -> Transaction:
    """The same body under somebody else's signature."""
    raw = encode(transaction.body)
    return Transaction(transaction.body, sign(secret_key_from("nobody"), "transaction", CHAIN_ID, raw))


NO_CLAIM = ClaimId(bytes(32))
NO_JOB = JobId(bytes(32))


def account_id(number: int) -> AccountId:
    """Somebody nobody has the key of."""
    return AccountId(number.to_bytes(32, "big"))


def assert_refused(chain: Chain, key: SecretKey, action: Action, reason: Reason, detail: str = "") -> None:
    """The action is refused with that reason, and its block differs from an empty one by fee and nonce alone.

    The chain itself does not move.
    """
    context = chain.context()
    empty = apply_block(chain.ledger, context, ()).ledger
    applied = apply_block(chain.ledger, context, (chain.sign(key, action),))
    problem = applied.receipts[0].problem
    assert problem.startswith(f"{reason.value}: "), problem
    assert detail in problem, problem
    account, supply = load_account(empty, key.account), load_supply(empty)
    charged = replace(account, nonce=Nonce(account.nonce + 1), balance=Amount(account.balance - 1))
    expected = {
        **empty.changes,
        account_key(key.account): encode(charged),
        SUPPLY_KEY: encode(replace(supply, burned=Amount(supply.burned + 1))),
    }
    assert dict(applied.ledger.changes) == expected


def assert_inadmissible(chain: Chain, transaction: Transaction, reason: Reason) -> None:
    """The transaction makes any block with it invalid, and no proposer puts it into one."""
    with pytest.raises(Rejected) as refusal:
        apply_block(chain.ledger, chain.context(), (transaction,))
    assert refusal.value.reason is reason, refusal.value
    assert select_transactions(chain.ledger, chain.context(), (transaction,)) == ()

"""A chain in a loop for tests: validators with keys, blocks with beacons, and players who live a job by their duties.

Training is fake and self-consistent: a segment's next state is a digest of the state before it, the round's seed and
its number, so that replaying means computing that digest again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.base.hashing import digest
from milon.base.ids import AccountId, ClaimId, Digest, JobId
from milon.base.signing import SecretKey, secret_key_from, sign
from milon.base.units import Amount, Count, Height, Nonce, TimeMs
from milon.chain.genesis import Genesis, GenesisAccount, verify_genesis
from milon.chain.learning import ClosedRound
from milon.chain.params import Parameters
from milon.chain.transaction import (
    Action,
    AggregateVote,
    Attest,
    Claim,
    Enrol,
    HoldJob,
    Judge,
    OpenTraces,
    SubmitJob,
    Transaction,
    TransactionBody,
    compute_transaction_hash,
    sign_transaction,
)
from milon.contracts.accounts import load_account, load_supply
from milon.contracts.apply import Applied, BlockContext, apply_block, compute_genesis_ledger, select_transactions
from milon.contracts.claims import load_claim
from milon.contracts.duties import (
    AggregateDuty,
    AttestDuty,
    Duty,
    EnrolDuty,
    HoldDuty,
    JudgeDuty,
    OpenDuty,
    Role,
    TrainDuty,
    compute_duties,
)
from milon.contracts.jobs import load_job
from milon.contracts.records import (
    SUPPLY_KEY,
    Account,
    ClaimRecord,
    ClaimStatus,
    Job,
    JobStatus,
    OpenRound,
    Phase,
    account_key,
    open_round_key,
)
from milon.pol.aggregation import Rule
from milon.pol.claim import SegmentRecord, commit_trace, compute_records_root, key_traces
from milon.pol.sampling import draw_sample
from milon.pol.terms import EvaluationProgram, JobSpec, JobTerms, audit_ppm_of, compute_cost_max, replays_per_member
from milon.pol.verdict import RoundOutcome, Verdict
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
    """All coins that accounts and escrows hold."""
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
        self.closed: list[ClosedRound] = []
        self.verify_supply()

    @property
    def ledger(self) -> Ledger:
        """The newest."""
        return Ledger(self.table)

    def context(self, height: int | None = None) -> BlockContext:
        """Of the next block."""
        number = self.height + 1 if height is None else height
        beacon = digest("test-beacon", number.to_bytes(8, "big"))
        proposer = self.keys[number % len(self.keys)].account
        return BlockContext(CHAIN_ID, Height(number), TimeMs(1_000 * number), beacon, proposer, self.parameters)

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
        """minted - burned = balances + bonds + unbonding + escrows; nothing negative (the records decode)."""
        supply = load_supply(self.ledger)
        assert supply.minted - supply.burned == compute_held(self.table)

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


def compute_state(start: Digest, seed: Digest, segment: int) -> Digest:
    """What training a segment from `start` gives."""
    return digest("test-state", start, seed, segment.to_bytes(8, "big"))


def compute_secret_trace(state: Digest) -> Digest:
    """The trace of the segment that ends in `state`."""
    return digest("test-trace", state)


def train(start: Digest, seed: Digest, first: int, count: int, lies: frozenset[int]) -> tuple[SegmentRecord, ...]:
    """Records of consecutive segments; those in `lies` (numbers in the round) end in another state."""
    records, state = [], start
    for segment in range(first, first + count):
        state = compute_state(state, seed, segment)
        if segment in lies:
            state = digest("test-lie", state)
        records.append(SegmentRecord(Count(segment), state, commit_trace(compute_secret_trace(state)), Count(0)))
    return tuple(records)


@dataclass
class Player:
    """A node's behaviour; honest as it stands."""

    key: SecretKey  # its own
    is_trainer: bool = True  # enrols and trains
    is_here: bool = True  # does anything at all
    lies: frozenset[int] = frozenset()  # segments it trains wrongly
    claims: int | None = None  # segments it claims; None: all
    skips: tuple[type, ...] = ()  # duties it does not do
    is_withholding: bool = False  # gives its records to nobody
    is_lazy: bool = False  # attests TRUE without replaying
    attests: Verdict | None = None  # says this of every sample's first segment
    judges: Verdict | None = None  # says this of every disputed segment
    changes: Callable[[RoundOutcome], RoundOutcome] = field(default=lambda outcome: outcome)  # to the true outcome


class World:
    """Players on a chain and what they publish beside it."""

    def __init__(self, chain: Chain, players: Sequence[Player]) -> None:
        self.chain = chain
        self.players = {player.key.account: player for player in players}
        self.blobs: dict[Digest, tuple[SegmentRecord, ...]] = {}
        self.refusals: list[str] = []

    def step(self) -> Applied:
        """Everybody does all duties the ledger asks for, in one block."""
        asked: list[tuple[SecretKey, Action]] = []
        for player in self.players.values():
            duties = compute_duties(self.chain.ledger, Role(player.key.account, player.is_trainer))
            todo = [duty for duty in duties if player.is_here and not isinstance(duty, player.skips)]
            asked += [(player.key, self.perform(player, duty)) for duty in todo]
        signed, ahead = [], dict.fromkeys(self.players, 0)
        for key, action in asked:
            signed.append(self.chain.sign(key, action, ahead[key.account]))
            ahead[key.account] += 1
        applied = self.chain.apply(*signed)
        self.refusals += [receipt.problem for receipt in applied.receipts if receipt.problem]
        return applied

    def run(self, job: JobId, is_done: Callable[[Job], bool], blocks_max: int = 200) -> None:
        """Blocks until the job is there."""
        for _ in range(blocks_max):
            if is_done(self.chain.job(job)):
                return
            self.step()
        raise AssertionError(f"not there after {blocks_max} blocks: {self.chain.job(job)}")

    def finish(self, job: JobId) -> list[ClosedRound]:
        """Blocks until the job is over; its closed rounds."""
        self.run(job, lambda record: record.status in (JobStatus.FINISHED, JobStatus.REJECTED))
        return [closed for closed in self.chain.closed if closed.job == job]

    def perform(self, player: Player, duty: Duty) -> Action:
        """The action that does the duty."""
        match duty:
            case HoldDuty():
                return HoldJob(duty.job, "")
            case EnrolDuty():
                return Enrol(duty.job, Count(10))
            case TrainDuty():
                return self._train(player, duty)
            case AttestDuty():
                return self._attest(player, duty)
            case OpenDuty():
                records = self.blobs[load_claim(self.chain.ledger, duty.claim).records]
                return OpenTraces(duty.claim, records, tuple(compute_secret_trace(entry.state) for entry in records))
            case JudgeDuty():
                found = self._replay(duty.claim, duty.state, duty.seed, int(duty.claim.disputed - duty.claim.first))
                return Judge(duty.claim.claim, duty.claim.disputed, player.judges or found)
            case AggregateDuty():
                return AggregateVote(duty.job, duty.round, player.changes(compute_outcome(duty)))

    def _train(self, player: Player, duty: TrainDuty) -> Claim:
        count = duty.assignment.count if player.claims is None else player.claims
        records = train(duty.state, duty.seed, duty.assignment.first, count, player.lies)
        blob = digest("test-records", *(encode(record) for record in records))
        self.blobs[blob] = records
        root = compute_records_root(records)
        return Claim(duty.job, duty.round, Count(count), root, blob, records[-1].state, Count(5))

    def _replay(self, claim: ClaimRecord, start: Digest, seed: Digest, place: int) -> Verdict:
        if self.players[claim.trainer].is_withholding:
            return Verdict.UNAVAILABLE
        records = self.blobs[claim.records]
        before = records[place - 1].state if place else start
        is_same = compute_state(before, seed, records[place].segment) == records[place].state
        return Verdict.TRUE if is_same else Verdict.FALSE

    def _attest(self, player: Player, duty: AttestDuty) -> Attest:
        claim = duty.claim
        assert claim.beacon is not None
        wanted = replays_per_member(claim.count, audit_ppm_of(duty.spec.terms, claim.round))
        proof, places = draw_sample(player.key, claim.claim, claim.beacon, claim.count, wanted)
        nothing = Digest(bytes(32))
        if player.attests not in (None, Verdict.TRUE):
            return Attest(claim.claim, proof, player.attests, Count(claim.first + places[0]), nothing)
        if player.is_lazy:
            return Attest(claim.claim, proof, Verdict.TRUE, Count(0), name_of("lazy"))
        for place in places:
            found = self._replay(claim, duty.state, duty.seed, place)
            if found is not Verdict.TRUE and player.attests is None:
                return Attest(claim.claim, proof, found, Count(claim.first + place), nothing)
        traces = [compute_secret_trace(self.blobs[claim.records][place].state) for place in places]
        return Attest(claim.claim, proof, Verdict.TRUE, Count(0), key_traces(player.key.account, traces))


def compute_outcome(duty: AggregateDuty) -> RoundOutcome:
    """What honest validators find: everybody is taken in."""
    finals = (claim.final_state for claim in duty.claims)
    accepted = tuple(claim.trainer for claim in duty.claims)
    return RoundOutcome(digest("test-aggregate", duty.state, *finals), Count(1), Count(15), Count(16), accepted, (), "")


def make_world(count: int = 4, **behaviour: dict[str, object]) -> World:
    """A chain of `count` validators who all play; `behaviour` changes player `p0`, `p1` and so on."""
    chain = Chain(count)
    players = [Player(key, **behaviour.get(f"p{index}", {})) for index, key in enumerate(chain.keys)]  # type: ignore[arg-type]
    return World(chain, players)


def start_job(world: World, **terms: object) -> JobId:
    """A job submitted by the first account that is no validator."""
    return world.chain.submit(world.chain.others[0], make_spec(**terms))


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


def until(world: World, is_there: Callable[[], bool], blocks_max: int = 60) -> None:
    """Blocks until `is_there`."""
    for _ in range(blocks_max):
        if is_there():
            return
        world.step()
    raise AssertionError(f"not there after {blocks_max} blocks")


def reach_claims(world: World, job: JobId, status: ClaimStatus, count: int = 4) -> tuple[ClaimRecord, ...]:
    """Blocks until `count` claims of the open round have that status; all of the round's claims."""

    def claims() -> tuple[ClaimRecord, ...]:
        opened = world.chain.ledger.load(open_round_key(job), OpenRound)
        return tuple(load_claim(world.chain.ledger, claim) for claim in opened.claims) if opened else ()

    until(world, lambda: sum(claim.status is status for claim in claims()) >= count)
    return claims()


def reach_phase(world: World, job: JobId, phase: Phase) -> OpenRound:
    """Blocks until the open round is in that phase."""

    def opened() -> OpenRound | None:
        return world.chain.ledger.load(open_round_key(job), OpenRound)

    until(world, lambda: (found := opened()) is not None and found.phase is phase)
    return world.chain.round(job)

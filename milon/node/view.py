"""What a running node shows to those who ask: frozen snapshots, and the port through which the HTTP API reaches it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from milon.base.ids import AccountId, ClaimId, Digest, JobId
from milon.base.units import Amount, Count, Epoch, Height, Nonce, Power, Round, TimeMs, View
from milon.chain.block import Header, Receipt
from milon.chain.certificate import Validator
from milon.chain.genesis import Genesis
from milon.chain.learning import ClosedRound, Payment, SettledClaim
from milon.chain.transaction import Transaction
from milon.pol.aggregation import Record
from milon.pol.terms import JobTerms
from milon.pol.verdict import RoundOutcome


@dataclass(frozen=True, slots=True)
class PeerView:
    """A connected peer."""

    peer_id: str  # libp2p's text form
    address: str  # where it says it can be reached; empty before it has said so
    bytes_in: int  # received from it over this connection
    bytes_out: int  # sent to it over this connection
    rejects: int  # messages of its that were refused


@dataclass(frozen=True, slots=True)
class WorkView:
    """What this node's worker computes now."""

    kind: str  # "train", "replay", "watch", "judge", "dispute" or "aggregate"
    job: JobId  # for which job
    round: Round  # in which round
    segment: int  # segments done so far
    total: int  # segments of the piece of work
    trainer: AccountId | None  # whose claim is being replayed; none for other kinds
    loss_bits: int | None  # binary32 bits of the last segment's loss; none before the first
    resumed: int = 0  # segments of them that were done before the node was last started


@dataclass(frozen=True, slots=True)
class StatusView:
    """A node at a glance."""

    version: str  # of the software
    numerics: str  # version of the arithmetic; nodes of one chain agree on it
    chain_id: str  # of the chain
    genesis_hash: Digest  # what a newcomer must know
    account: AccountId  # this node's
    role: str  # "validator", "trainer" or "full"
    peer_id: str  # this node's
    addresses: tuple[str, ...]  # multiaddresses others can dial, each ending in the peer id
    height: Height  # of the last final block; 0 before the first
    tip_hash: Digest  # of that block
    tip_time_ms: TimeMs  # of that block
    epoch: Epoch  # running
    view: View  # running
    is_syncing: bool  # fetching blocks that others already have
    peers: tuple[PeerView, ...]  # in order of peer id
    validators: tuple[Validator, ...]  # of the epoch, in order of account
    working: tuple[WorkView, ...]  # empty: idle
    mempool_count: int  # transactions waiting
    balance: Amount  # of this node's account
    bonded: Amount  # of this node's account
    minted: Amount  # coins that exist or existed: the genesis supply and what was added
    burned: Amount  # of those, coins that no longer exist


@dataclass(frozen=True, slots=True)
class TrainerView:
    """An enrolled trainer."""

    account: AccountId  # whose
    capacity: Count  # segments per hour
    is_active: bool  # gets segments in the next round
    segments: int  # accepted so far, in all rounds


@dataclass(frozen=True, slots=True)
class RoundView:
    """A closed round."""

    round: Round  # its number
    height: Height  # of the block that closed it
    outcome: RoundOutcome  # agreed
    claims: tuple[SettledClaim, ...]  # in order of trainer, then as they came
    payments: tuple[Payment, ...]  # what it moved


@dataclass(frozen=True, slots=True)
class ReportView:
    """What a node's own aggregation of a closed round came to."""

    round: Round  # its number
    is_agreed: bool  # the state it came to is the one that validators agreed on
    record: Record  # see there


@dataclass(frozen=True, slots=True)
class AssignmentView:
    """A trainer's part of the round."""

    trainer: AccountId  # whose
    first: int  # first segment
    count: int  # segments
    is_taken_over: bool = False  # nobody had claimed them in time, and this trainer claimed all of its own


@dataclass(frozen=True, slots=True)
class AttestationView:
    """What a verifier said of a claim."""

    verifier: AccountId  # whose word
    verdict: str  # "true", "false" or "unavailable"
    segment: int  # the one in question, where the verdict is not "true"


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A claim of the running round."""

    claim: ClaimId  # its name
    trainer: AccountId  # whose
    first: int  # first segment
    count: int  # segments
    status: str  # in the contract's words, such as "made", "audit", "suspended", "accepted", "refuted", "void"
    committee: tuple[AccountId, ...]  # its verifiers; empty before the draw
    attestations: tuple[AttestationView, ...]  # so far
    continues: ClaimId | None = None  # of segments taken over: the trainer's claim that it goes on from


@dataclass(frozen=True, slots=True)
class CurrentRound:
    """The running round."""

    round: Round  # its number
    phase: str  # "seed", "train", "audit" or "aggregate"
    assignments: tuple[AssignmentView, ...]  # in order of trainer, then what was taken over
    claims: tuple[ClaimView, ...]  # in order of trainer, then as they came
    votes: tuple[AccountId, ...]  # validators that signed an outcome so far
    deadline_ms: TimeMs  # when the phase ends at the latest, by the time of blocks


@dataclass(frozen=True, slots=True)
class JobView:
    """A job and how far it is."""

    job: JobId  # its name on the chain
    name: str  # for people
    submitter: AccountId  # who pays
    status: str  # "pending", "enrolling", "running", "finished" or "rejected"
    reason: str  # why it was rejected; empty otherwise
    escrow: Amount  # what is left of the reward
    paid: Amount  # what was paid out so far
    terms: JobTerms  # see there
    round: Round  # rounds closed so far
    state: Digest  # blob id of the newest global state
    initial_state: Digest  # blob id of the first one
    predict: Digest  # blob id of the program that runs the model
    trainers: tuple[TrainerView, ...]  # in order of account
    rounds: tuple[RoundView, ...]  # closed ones, in order
    current: CurrentRound | None  # none where no round runs


@dataclass(frozen=True, slots=True)
class BlockView:
    """A block that this node holds."""

    hash: Digest  # of the header
    header: Header  # see there
    transactions: tuple[Digest, ...]  # their hashes, in order
    receipts: tuple[Receipt, ...]  # in order
    closed: tuple[ClosedRound, ...]  # learning rounds it closes
    is_final: bool  # under a finality certificate, its own or a descendant's
    certificate_power: Power  # of the signers of the certificate at hand; 0 where only a descendant has one
    total_power: Power  # of the validator set


@dataclass(frozen=True, slots=True)
class UnbondingView:
    """Stake on its way back."""

    amount: Amount  # how much
    height: Height  # from which on it may be withdrawn


@dataclass(frozen=True, slots=True)
class SlashView:
    """Stake taken away."""

    height: Height  # of the block that did it
    amount: Amount  # how much
    reason: str  # for what


@dataclass(frozen=True, slots=True)
class DelegationView:
    """Stake behind a validator."""

    validator: AccountId  # whom
    amount: Amount  # what it is worth now
    height: Height | None  # from which on it may be withdrawn, or has arrived; none while it is just delegated
    source: AccountId | None = None  # from whom it moved here; until `height` it answers for that one's offences too


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account; one that nobody has used yet has zeros."""

    account: AccountId  # whose
    balance: Amount  # free to spend
    bonded: Amount  # at stake
    unbonding: tuple[UnbondingView, ...]  # in order of height
    nonce: Nonce  # of its next transaction, those waiting in this node's mempool counted
    slashes: tuple[SlashView, ...]  # in order of height
    delegations: tuple[DelegationView, ...] = ()  # held ones, those that moved of late, those on their way back


@dataclass(frozen=True, slots=True)
class ValidatorView:
    """An account as a validator; one that never stood has zeros."""

    account: AccountId  # whose
    power: Power  # in the running epoch; 0: not a member
    bonded: Amount  # its own stake
    delegated: Amount  # by others
    commission_ppm: Count  # of what delegators earn
    learning: Count  # protocol fees burned for its verified segments, halved each epoch
    led: Count  # its blocks in the running epoch
    missed: Count  # its views without a block in the running epoch
    is_candidate: bool  # wants a place in the next set
    jailed_until: Height  # from this height on it may come back; 0: free
    is_tombstoned: bool  # slashed for an offence, and out for good
    taken_ppm: Count  # of the stake behind it that burned for that


@dataclass(frozen=True, slots=True)
class ReceiptView:
    """What became of a transaction."""

    transaction: Digest  # its hash
    height: Height | None  # of the final block that holds it; none: still waiting
    problem: str  # why the chain refused it, `reason: detail`; empty where it took effect


class NodePort(Protocol):
    """A running node, as the HTTP API sees it. Synchronous methods answer at once from memory or one local read."""

    def status(self) -> StatusView:
        """The newest snapshot."""

    def genesis(self) -> Genesis:
        """Where the chain starts."""

    def jobs(self) -> tuple[JobView, ...]:
        """All jobs, the oldest first; the rounds of finished ones may be left out."""

    def job(self, job: JobId) -> JobView | None:
        """One job with all its rounds, or None."""

    def report(self, job: JobId, round_number: Round) -> ReportView | None:
        """How a closed round's updates became one, or None where this node did not aggregate it."""

    def account(self, account: AccountId) -> AccountView:
        """One account."""

    def validators(self) -> tuple[ValidatorView, ...]:
        """Members and candidates, in order of account."""

    def validator(self, account: AccountId) -> ValidatorView:
        """One account as a validator."""

    def block(self, name: Height | Digest) -> BlockView | None:
        """The block at a height or with a header hash, or None."""

    def receipt(self, transaction: Digest) -> ReceiptView | None:
        """What became of a transaction, or None where this node has not heard of it."""

    async def submit(self, transaction: Transaction) -> Digest:
        """Check a transaction, keep it for a block, tell the network; its hash. `Rejected` where it cannot succeed."""

    async def put_blob(self, path: Path) -> Digest:
        """Keep a copy of a file as a blob and serve it to others; its id. `Rejected(FULL)` beyond the limits."""

    async def get_blob(self, blob: Digest, size_max_bytes: int) -> Path:
        """Where the blob lies on this disk, fetched from peers if need be; `Rejected(UNAVAILABLE)` or `(TOO_LARGE)`."""

    async def stop(self) -> None:
        """Ask the node to end in good order; returns before it has ended."""


class Started(Protocol):
    """The part of `trio.TaskStatus` that a service uses."""

    def started(self, value: str) -> None:
        """Tell whoever started the service that it answers, at this address."""


class ApiServer(Protocol):
    """Serves a node over HTTP until cancelled; `milon_cli` hands one to the node, which knows nothing of HTTP."""

    async def __call__(self, node: NodePort, *, task_status: Started) -> None:
        """Listen, report `http://HOST:PORT` once requests are answered, and serve; for `nursery.start`."""

"""A block's effect on the ledger: every transaction in order, then what time alone brings about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import assert_never

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import AccountId, ClaimId, Digest, JobId
from milon.base.units import Amount, Count, Epoch, Height, Nonce, TimeMs
from milon.chain.block import Receipt
from milon.chain.certificate import Validator
from milon.chain.evidence import Evidence
from milon.chain.genesis import Genesis, validators_of
from milon.chain.learning import ClosedRound
from milon.chain.params import Parameters
from milon.chain.transaction import (
    AggregateVote,
    AnswerDispute,
    Attest,
    Bond,
    Challenge,
    ChooseDispute,
    Claim,
    CommitAttestation,
    Delegate,
    Enrol,
    HoldJob,
    Judge,
    OpenTraces,
    Redelegate,
    Retire,
    Stand,
    SubmitJob,
    Transaction,
    Transfer,
    Unbond,
    Undelegate,
    Unjail,
    Withdraw,
    compute_transaction_hash,
    verify_transaction,
)
from milon.contracts.accounts import burn, load_account, store_account
from milon.contracts.claims import (
    apply_attest,
    apply_claim,
    apply_commit_attestation,
    apply_open_traces,
    load_claim,
)
from milon.contracts.claims_records import ClaimStatus
from milon.contracts.clock import CLOCK_KEY, Clock, Moment, advance_clock, load_moment
from milon.contracts.delegation import apply_delegate, apply_undelegate
from milon.contracts.disputes import apply_answer_dispute, apply_challenge, apply_choose_dispute, apply_judge
from milon.contracts.jobs import apply_enrol, apply_hold_job, apply_submit_job, load_open_jobs
from milon.contracts.offences import apply_evidence
from milon.contracts.records import (
    CANDIDATES_KEY,
    SUPPLY_KEY,
    VALIDATORS_KEY,
    Account,
    Candidates,
    OpenRound,
    Phase,
    Supply,
    ValidatorRecord,
    ValidatorSet,
    account_key,
    beacon_key,
    open_round_key,
    validator_key,
)
from milon.contracts.redelegation import apply_redelegate
from milon.contracts.rewards import reward_proposer
from milon.contracts.rounds import advance_job, apply_aggregate_vote
from milon.contracts.staking import apply_bond, apply_unbond, apply_withdraw
from milon.contracts.transfer import apply_transfer
from milon.contracts.validators import apply_retire, apply_stand, apply_unjail, count_turns, end_epoch
from milon.state.ledger import Draft, Ledger


@dataclass(frozen=True, slots=True)
class BlockContext:
    """What a block's transactions may know of the block they are in."""

    chain_id: str  # of the chain
    height: Height  # of the block
    time_ms: TimeMs  # of the block
    beacon: Digest  # of the block
    proposer: AccountId  # of the block
    parameters: Parameters  # in force
    epoch: Epoch = Epoch(0)  # of the block
    missed: tuple[AccountId, ...] = ()  # leaders of the views between the parent's and the block's, one entry a view
    evidence: tuple[Evidence, ...] = ()  # in the block; its signatures and the offenders' membership are verified
    is_last_of_epoch: bool = False  # the block fixes the next validator set


@dataclass(frozen=True, slots=True)
class Applied:
    """The ledger after a block, and what it reports."""

    ledger: Ledger  # an overlay on the parent's
    receipts: tuple[Receipt, ...]  # one a transaction
    closed: tuple[ClosedRound, ...]  # the rounds it closes
    validators: tuple[Validator, ...] | None = None  # of the next epoch, from the last block of an epoch


BEACONS_KEPT = 64  # for readers who check a recent draw; the rules use a beacon in its own block
LEARNING_BYTES_ENOUGH = 1 << 20  # with the largest round on top, a block's report is still one value of the codec


MEMO_TRANSACTION_MAX_BYTES = 4_096  # with the memo's size: at most 32 MiB of transactions are kept


def _verify_form(transaction: Transaction) -> None:
    """Raise `Rejected` unless the transaction is what its bytes decode to, every field in its range, and signed."""
    decode(Transaction, encode(transaction))
    verify_transaction(transaction)


# A transaction is seen in the mempool, in proposals and in the final block. What is kept passed; a refusal is not.
_verify_form_once: Callable[[Transaction], None] = lru_cache(maxsize=8_192)(_verify_form)


def verify_admissible(ledger: Ledger | Draft, context: BlockContext, transaction: Transaction) -> None:
    """Raise `Rejected` unless the transaction may stand in a block here: chain, size, fee, nonce, funds, signature."""
    body, parameters = transaction.body, context.parameters
    require(body.chain_id == context.chain_id, Reason.WRONG_CHAIN, f"for chain {body.chain_id!r:.80}")
    size = len(encode(transaction))
    allowed = parameters.transaction_bytes_max
    require(size <= allowed, Reason.TOO_LARGE, f"a transaction of {size} bytes; {allowed} are allowed")
    require(body.fee >= parameters.fee_min, Reason.INSUFFICIENT_FUNDS, f"the least fee is {parameters.fee_min}")
    account = load_account(ledger, body.sender)
    require(body.nonce == account.nonce, Reason.WRONG_NONCE, f"nonce {body.nonce} where {account.nonce} is next")
    require(
        body.fee <= account.balance, Reason.INSUFFICIENT_FUNDS, f"a balance of {account.balance} cannot pay the fee"
    )
    verify = _verify_form_once if size <= MEMO_TRANSACTION_MAX_BYTES else _verify_form
    verify(transaction)


def _apply_action(draft: Draft, context: BlockContext, transaction: Transaction, name: Digest) -> None:
    """Check and change, by action; raises `Rejected` with the draft in any state, to be dropped."""
    sender, action = transaction.body.sender, transaction.body.action
    moment = load_moment(draft, context.height, context.parameters)
    match action:
        case Transfer():
            apply_transfer(draft, sender, action)
        case Bond():
            apply_bond(draft, sender, action)
        case Unbond():
            apply_unbond(draft, sender, action, context.height, context.parameters)
        case Withdraw():
            apply_withdraw(draft, sender, context.height, context.parameters)
        case Stand() | Retire() | Unjail() | Delegate() | Undelegate() | Redelegate():
            _apply_membership(draft, context, sender, action)
        case SubmitJob():
            apply_submit_job(draft, sender, action, JobId(name), context.height, context.parameters)
        case HoldJob():
            apply_hold_job(draft, sender, action, context.height)
        case Enrol():
            apply_enrol(draft, sender, action)
        case Claim():
            apply_claim(draft, sender, action, ClaimId(name), moment)
        case CommitAttestation() | Attest() | OpenTraces():
            _apply_attestation(draft, sender, action, moment)
        case Challenge() | AnswerDispute() | ChooseDispute() | Judge():
            _apply_dispute(draft, sender, action, moment)
        case AggregateVote():
            apply_aggregate_vote(draft, sender, action)
        case _:
            assert_never(action)


def _apply_attestation(
    draft: Draft, sender: AccountId, action: CommitAttestation | Attest | OpenTraces, moment: Moment
) -> None:
    match action:
        case CommitAttestation():
            apply_commit_attestation(draft, sender, action, moment)
        case Attest():
            apply_attest(draft, sender, action, moment)
        case OpenTraces():
            apply_open_traces(draft, sender, action, moment)


def _apply_dispute(
    draft: Draft, sender: AccountId, action: Challenge | AnswerDispute | ChooseDispute | Judge, moment: Moment
) -> None:
    match action:
        case Challenge():
            apply_challenge(draft, sender, action, moment)
        case AnswerDispute():
            apply_answer_dispute(draft, sender, action, moment)
        case ChooseDispute():
            apply_choose_dispute(draft, sender, action, moment)
        case Judge():
            apply_judge(draft, sender, action, moment)


def _apply_membership(
    draft: Draft,
    context: BlockContext,
    sender: AccountId,
    action: Stand | Retire | Unjail | Delegate | Undelegate | Redelegate,
) -> None:
    match action:
        case Stand():
            apply_stand(draft, sender, action, context.parameters)
        case Retire():
            apply_retire(draft, sender)
        case Unjail():
            apply_unjail(draft, sender, context.height)
        case Delegate():
            apply_delegate(draft, sender, action)
        case Undelegate():
            apply_undelegate(draft, sender, action, context.height, context.parameters)
        case Redelegate():
            apply_redelegate(draft, sender, action, context.height, context.parameters)


def apply_transaction(draft: Draft, context: BlockContext, transaction: Transaction) -> Receipt:
    """Charge the fee and the nonce, then do what is asked or, where it is refused, nothing more; the receipt says why.

    Raises `Rejected` where the transaction may not stand in a block at all.
    """
    verify_admissible(draft, context, transaction)
    body, name = transaction.body, compute_transaction_hash(transaction)
    account = load_account(draft, body.sender)
    charged = replace(account, nonce=Nonce(account.nonce + 1), balance=Amount(account.balance - body.fee))
    store_account(draft, body.sender, charged)
    burn(draft, body.fee)
    attempt = Draft(draft)
    try:
        _apply_action(attempt, context, transaction, name)
    except Rejected as refusal:
        return Receipt(name, str(refusal))
    attempt.merge_into(draft)
    return Receipt(name, "")


def apply_block(ledger: Ledger, context: BlockContext, transactions: Sequence[Transaction]) -> Applied:
    """The ledger after the block: evidence, transactions, what time does, the proposer's reward, the epoch's end.

    `Rejected` where a transaction or a piece of evidence may not stand in it, which makes the block invalid.
    """
    limit = context.parameters.block_transactions_max
    require(len(transactions) <= limit, Reason.TOO_LARGE, f"{len(transactions)} transactions; {limit} are allowed")
    size, room = sum(len(encode(transaction)) for transaction in transactions), context.parameters.block_bytes_max
    require(size <= room, Reason.TOO_LARGE, f"{size} bytes of transactions; {room} are allowed")
    draft = Draft(ledger)
    draft.put(beacon_key(context.height), context.beacon)
    if context.height > BEACONS_KEPT:
        draft.remove(beacon_key(context.height - BEACONS_KEPT))
    advance_clock(draft, context.time_ms, context.parameters)
    apply_evidence(draft, context.evidence, context.height, context.parameters)
    receipts = tuple(apply_transaction(draft, context, transaction) for transaction in transactions)
    closed = _advance_jobs(draft, load_moment(draft, context.height, context.parameters))
    reward_proposer(draft, context.proposer, context.parameters)
    count_turns(draft, context.proposer, context.missed, context.parameters)
    validators = None
    if context.is_last_of_epoch:
        validators = end_epoch(draft, context.epoch, context.height, context.parameters)
    return Applied(draft.commit(), receipts, closed, validators)


def _advance_jobs(draft: Draft, moment: Moment) -> tuple[ClosedRound, ...]:
    """What time does to the open jobs, in order of submission; the rounds this closes.

    Jobs beyond the limit wait for the next block: whatever is due stays due, and deadlines are kept a block later.
    """
    closed: list[ClosedRound] = []
    size = 0
    for job in load_open_jobs(draft):
        if size >= LEARNING_BYTES_ENOUGH:
            break
        entry = advance_job(draft, job, moment)
        if entry is not None:
            closed.append(entry)
            size += len(encode(entry))
    return tuple(closed)


def select_transactions(
    ledger: Ledger, context: BlockContext, candidates: Sequence[Transaction]
) -> tuple[Transaction, ...]:
    """Those of the candidates that may stand in one block in this order, within its limits."""
    draft = Draft(ledger)
    advance_clock(draft, context.time_ms, context.parameters)
    chosen: list[Transaction] = []
    room = int(context.parameters.block_bytes_max)
    for transaction in candidates:
        size = len(encode(transaction))
        if len(chosen) == context.parameters.block_transactions_max:
            break
        if size > room:
            continue
        attempt = Draft(draft)
        try:
            apply_transaction(attempt, context, transaction)
        except Rejected:
            continue
        attempt.merge_into(draft)
        chosen.append(transaction)
        room -= size
    return tuple(chosen)


def is_waiting_for_blocks(ledger: Ledger) -> bool:
    """Whether learning waits for nothing but the next heights: a round for its seed, a claim for its beacon."""
    for job in load_open_jobs(ledger):
        opened = ledger.load(open_round_key(job), OpenRound)
        if opened is None:
            continue
        if opened.phase is Phase.SEED:
            return True
        if any(load_claim(ledger, claim).status is ClaimStatus.SAMPLING for claim in opened.claims):
            return True
    return False


def compute_genesis_ledger(genesis: Genesis) -> Mapping[bytes, bytes]:
    """The flat table at height 0."""
    minted = sum(entry.balance + entry.bonded for entry in genesis.accounts)
    validators = validators_of(genesis)
    table = {
        CANDIDATES_KEY: encode(Candidates(tuple(validator.account for validator in validators))),
        SUPPLY_KEY: encode(Supply(Amount(minted), Amount(0))),
        CLOCK_KEY: encode(Clock(genesis.time_ms, Count(0))),
        VALIDATORS_KEY: encode(ValidatorSet(validators)),
    }
    for entry in genesis.accounts:
        table[account_key(entry.account)] = encode(Account(balance=entry.balance, bonded=entry.bonded))
    for validator in validators:
        table[validator_key(validator.account)] = encode(ValidatorRecord(is_candidate=True))
    return table

"""Whatever is sent: coins are conserved, only `Rejected` is raised, and what is refused changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.codec import decode, encode
from milon.base.errors import Rejected
from milon.base.ids import AccountId, ClaimId, Digest, JobId, VrfProof
from milon.base.signing import SecretKey
from milon.base.units import Amount, Count, Nonce, Round
from milon.chain.transaction import (
    Action,
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
    TransactionBody,
    Transfer,
    Unbond,
    Undelegate,
    Unjail,
    Withdraw,
    sign_transaction,
)
from milon.contracts.accounts import load_account, load_supply
from milon.contracts.apply import apply_block, select_transactions, verify_admissible
from milon.contracts.duties import TrainDuty
from milon.contracts.records import SUPPLY_KEY, OpenRound, account_key, open_round_key
from milon.pol.claim import SegmentRecord
from milon.pol.dispute import Answer, Choice, Pick
from milon.pol.verdict import Refusal, RoundOutcome, Verdict
from tests.contracts.helpers import CHAIN_ID, NO_CLAIM, NO_JOB, STAKE, Chain, account_id, make_spec
from tests.contracts.players import World, make_world, start_job

INTEGERS = st.one_of(st.integers(0, 12), st.sampled_from([100, 10_000, 999_999, 1 << 40, 1 << 62, (1 << 63) - 1]))
DIGESTS = st.integers(0, 3).map(lambda number: Digest(bytes(31) + bytes([number])))
VERDICTS = st.sampled_from(Verdict)
BLOCKS = 45  # of a job with a liar, and one who vanishes and whose segments are handed out again: to after its end


@cache
def snapshots() -> tuple[World, JobId, tuple[tuple[dict[bytes, bytes], int], ...]]:
    """The ledger after every block of a job's life: places to start trouble from."""
    world = make_world(p1={"lies": frozenset({2}), "is_lazy": True}, p3={"skips": (TrainDuty,)})
    job = start_job(world, reassign_blocks=Count(6))
    places = []
    for _ in range(BLOCKS):
        places.append((dict(world.chain.table), world.chain.height))
        world.step()
    return world, job, tuple(places)


def actions(job: JobId, claims: Sequence[ClaimId], accounts: Sequence[AccountId]) -> st.SearchStrategy[Action]:
    """Actions with fields that are sometimes right, often wrong, and sometimes huge."""
    jobs = st.sampled_from([job, job, NO_JOB])
    names = st.sampled_from([*claims, NO_CLAIM])
    people = st.sampled_from([*accounts, account_id(77)])
    count, amount = INTEGERS.map(Count), INTEGERS.map(Amount)
    rounds = st.sampled_from([0, 0, 1, 2, 1 << 62]).map(Round)
    records = st.lists(st.builds(SegmentRecord, count, DIGESTS, DIGESTS, count), max_size=3).map(tuple)
    refusals = st.lists(st.builds(Refusal, people, st.text(max_size=4)), max_size=2).map(tuple)
    outcomes = st.builds(
        RoundOutcome,
        DIGESTS,
        count,
        count,
        count,
        st.lists(people, max_size=4).map(tuple),
        refusals,
        st.text(max_size=3),
    )
    terms = st.fixed_dictionaries(
        {}, optional={"rounds": count, "segments_per_round": count, "segment_price": amount, "bond_min": amount}
    )
    proofs = st.binary(min_size=80, max_size=80).map(VrfProof)
    return st.one_of(
        st.builds(Transfer, people, amount),
        st.builds(Bond, amount),
        st.builds(Unbond, amount),
        st.builds(Withdraw),
        st.builds(Stand, count),
        st.builds(Retire),
        st.builds(Unjail),
        st.builds(Delegate, people, amount),
        st.builds(Undelegate, people, amount),
        st.builds(Redelegate, people, people, amount),
        st.builds(SubmitJob, terms.map(lambda changes: make_spec(**changes)), amount),
        st.builds(HoldJob, jobs, st.text(max_size=5)),
        st.builds(Enrol, jobs, count),
        st.builds(Claim, jobs, rounds, count, count, DIGESTS, DIGESTS, DIGESTS, count),
        st.builds(CommitAttestation, names, DIGESTS),
        st.builds(Attest, names, proofs, DIGESTS, DIGESTS),
        st.builds(Challenge, names, count, VERDICTS),
        st.builds(AnswerDispute, names, count, count, st.builds(Answer, st.lists(DIGESTS, max_size=3).map(tuple))),
        st.builds(ChooseDispute, names, count, count, st.builds(Choice, st.sampled_from(Pick), count)),
        st.builds(OpenTraces, names, records, st.lists(DIGESTS, max_size=3).map(tuple)),
        st.builds(Judge, names, count, VERDICTS),
        st.builds(AggregateVote, jobs, rounds, outcomes),
    )


def assert_fee_alone(chain: Chain, transaction: Transaction) -> None:
    """A refused transaction's block differs from an empty one by fee and nonce."""
    body = transaction.body
    empty = apply_block(chain.ledger, chain.context(), ()).ledger
    applied = apply_block(chain.ledger, chain.context(), (transaction,)).ledger
    account, supply = load_account(empty, body.sender), load_supply(empty)
    charged = replace(account, nonce=Nonce(account.nonce + 1), balance=Amount(account.balance - body.fee))
    expected = {
        **empty.changes,
        account_key(body.sender): encode(charged),
        SUPPLY_KEY: encode(replace(supply, burned=Amount(supply.burned + body.fee))),
    }
    assert dict(applied.changes) == expected


def try_one(chain: Chain, data: st.DataObject, keys: Sequence[SecretKey], made: st.SearchStrategy[Action]) -> None:
    """One transaction of anybody: into a block where it may stand in one, after checking what a refusal changes."""
    key = data.draw(st.sampled_from(keys))
    nonce = load_account(chain.ledger, key.account).nonce + data.draw(st.sampled_from([0, 0, 0, 0, 1]))
    fee = data.draw(st.sampled_from([1, 1, 1, 0, 500, 1 << 62]))
    body = TransactionBody(CHAIN_ID, key.account, Nonce(nonce), Amount(fee), data.draw(made))
    transaction = sign_transaction(key, body)
    assert decode(Transaction, encode(transaction)) == transaction
    try:
        verify_admissible(chain.ledger, chain.context(), transaction)
    except Rejected:
        assert select_transactions(chain.ledger, chain.context(), (transaction,)) == ()
        return
    receipt = apply_block(chain.ledger, chain.context(), (transaction,)).receipts[0]
    if receipt.problem:
        assert_fee_alone(chain, transaction)
    chain.apply(transaction)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_sent_coins_are_conserved_and_refusals_change_nothing(data: st.DataObject) -> None:
    """`Chain.apply` holds the supply equation after every block and decodes every record."""
    world, job, places = snapshots()
    chain = world.chain
    chain.table, chain.height = data.draw(st.sampled_from(places))
    chain.table = dict(chain.table)
    keys = (*chain.keys, *chain.others)
    opened = chain.ledger.load(open_round_key(job), OpenRound)
    made = actions(job, opened.claims if opened else (), [key.account for key in keys])
    for _ in range(data.draw(st.integers(1, 12))):
        try_one(chain, data, keys, made)


@settings(max_examples=15, deadline=None)
@given(
    liar=st.fixed_dictionaries(
        {},
        optional={
            "lies": st.frozensets(st.integers(0, 7), max_size=2),
            "attests": VERDICTS,
            "judges": VERDICTS,
            "is_lazy": st.booleans(),
            "is_withholding": st.booleans(),
            "is_here": st.booleans(),
            "claims": st.just(1),
        },
    ),
    is_another_here=st.booleans(),
    ppm=st.sampled_from([0, 1, 400_000, 1_000_000]),
    reassign_blocks=st.sampled_from([0, 8]),
)
def test_one_liar_and_one_absent_of_five_slash_nobody_honest(
    liar: dict[str, object], is_another_here: bool, ppm: int, reassign_blocks: int
) -> None:
    """A quorum of five equal validators is four: the two may stop a round, and nobody but the liar ever loses stake.

    The absent one may lose slices for its silence, no more.
    """
    world = make_world(5, p0=liar, p3={"is_here": is_another_here})
    chain = world.chain
    terms = {"audit_ppm": (Count(ppm),), "trainers_min": Count(1), "reassign_blocks": Count(reassign_blocks)}
    job = start_job(world, rounds=Count(1), **terms)
    for _ in range(75):
        world.step()
    assert all(chain.account(chain.keys[number]).slashed == 0 for number in (1, 2, 4))
    absent = chain.account(chain.keys[3]).slashed
    assert absent == 0 or (not is_another_here and absent <= STAKE // 20)
    record = chain.job(job)
    assert record.escrow == 0 or record.status.value == "pending"


@settings(max_examples=25, deadline=None)
@given(amount=st.integers(1 << 63, 1 << 70) | st.integers(-(1 << 70), -1))
def test_no_bytes_and_no_object_bring_an_amount_that_is_none(amount: int) -> None:
    chain = Chain()
    key = chain.keys[0]
    good = chain.sign(key, Transfer(account_id(1), Amount(1)))
    forged = replace(good, body=replace(good.body, action=Transfer(account_id(1), Amount(amount))))
    for attempt in (lambda: apply_block(chain.ledger, chain.context(), (forged,)), lambda: encode_and_decode(forged)):
        try:
            attempt()
        except Rejected:
            continue
        raise AssertionError("taken in")


def encode_and_decode(transaction: Transaction) -> Transaction:
    """The way of every transaction between nodes."""
    return decode(Transaction, encode(transaction))

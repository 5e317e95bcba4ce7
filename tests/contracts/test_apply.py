"""Blocks: what may stand in one, what it charges, what a proposer picks, and the table a chain starts with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest, Signature
from milon.base.units import Amount, Count, Nonce, Round
from milon.chain.params import Parameters
from milon.chain.transaction import (
    Bond,
    Claim,
    Enrol,
    SubmitJob,
    Transaction,
    Transfer,
    compute_transaction_hash,
    sign_transaction,
)
from milon.contracts.apply import (
    BEACONS_KEPT,
    apply_block,
    compute_genesis_ledger,
    is_waiting_for_blocks,
    select_transactions,
    verify_admissible,
)
from milon.contracts.claims_records import ClaimStatus
from milon.contracts.records import Phase, beacon_key
from milon.state.ledger import Ledger
from tests.contracts.helpers import (
    BALANCE,
    NO_JOB,
    Chain,
    account_id,
    assert_inadmissible,
    assert_refused,
    make_spec,
    sign_by_another,
)
from tests.contracts.players import make_world, reach_claims, reach_phase, start_job

PAY = Transfer(account_id(1), Amount(1))


def test_one_nonce_is_spent_once() -> None:
    chain = Chain()
    first = chain.sign(chain.keys[0], Transfer(account_id(1), Amount(BALANCE - 1)))
    second = chain.sign(chain.keys[0], Transfer(account_id(2), Amount(BALANCE - 1)))
    with pytest.raises(Rejected) as refusal:
        apply_block(chain.ledger, chain.context(), (first, second))
    assert refusal.value.reason is Reason.WRONG_NONCE
    assert select_transactions(chain.ledger, chain.context(), (first, second)) == (first,)


def test_a_transaction_is_not_applied_again() -> None:
    chain = Chain()
    transaction = chain.sign(chain.keys[0], PAY)
    chain.apply(transaction)
    assert_inadmissible(chain, transaction, Reason.WRONG_NONCE)


def test_a_refused_transaction_is_not_applied_again_either() -> None:
    chain = Chain()
    transaction = chain.sign(chain.keys[0], Transfer(account_id(1), Amount(BALANCE)))
    assert chain.apply(transaction).receipts[0].problem
    assert_inadmissible(chain, transaction, Reason.WRONG_NONCE)


def test_what_may_not_stand_in_a_block() -> None:
    chain = Chain(parameters=Parameters(fee_min=Amount(3)))
    key = chain.keys[0]
    good = chain.sign(key, PAY, fee=Amount(3))
    apply_block(chain.ledger, chain.context(), (good,))
    assert_inadmissible(chain, chain.sign(key, PAY, fee=Amount(2)), Reason.INSUFFICIENT_FUNDS)
    assert_inadmissible(chain, chain.sign(key, PAY, fee=Amount(BALANCE + 1)), Reason.INSUFFICIENT_FUNDS)
    assert_inadmissible(chain, chain.sign(key, PAY, fee=Amount(3), chain_id="other-chain"), Reason.WRONG_CHAIN)
    assert_inadmissible(chain, chain.sign(key, PAY, fee=Amount(3), nonce=Nonce(1)), Reason.WRONG_NONCE)
    assert_inadmissible(chain, sign_by_another(good), Reason.BAD_SIGNATURE)
    assert_inadmissible(chain, Transaction(good.body, Signature(bytes(64))), Reason.BAD_SIGNATURE)
    altered = Transaction(replace(good.body, action=Transfer(account_id(2), Amount(1))), good.signature)
    assert_inadmissible(chain, altered, Reason.BAD_SIGNATURE)


def test_an_account_without_coins_cannot_make_others_pay() -> None:
    chain = Chain()
    stranger = make_world().chain.others[0]
    poor = Chain(others=0)
    assert stranger.account != poor.keys[0].account
    assert_inadmissible(poor, chain.sign(stranger, PAY), Reason.INSUFFICIENT_FUNDS)


def test_a_signature_for_one_chain_holds_on_no_other() -> None:
    chain = Chain()
    foreign = chain.sign(chain.keys[0], PAY, chain_id="other-chain")
    brought = Transaction(replace(foreign.body, chain_id="test-chain"), foreign.signature)
    assert_inadmissible(chain, brought, Reason.BAD_SIGNATURE)


@pytest.mark.parametrize(
    "action",
    [
        Transfer(account_id(1), Amount(-5)),
        Transfer(account_id(1)[:31], Amount(5)),  # type: ignore[arg-type]
        Bond(Amount(-1)),
        Bond(Amount(1 << 63)),
        Bond(Amount(1 << 80)),
        SubmitJob(make_spec(segment_price=Amount(-1)), Amount(1)),
        SubmitJob(make_spec(), Amount(-1)),
        Enrol(NO_JOB, Count(-1)),
        Claim(NO_JOB, Round(0), Count(0), Count(1), Digest(b""), Digest(bytes(32)), Digest(bytes(32)), Count(1)),
        Claim(NO_JOB, Round(0), Count(0), Count(1), Digest(bytes(32)), Digest(bytes(32)), Digest(bytes(32)), Count(-1)),
    ],
)
def test_values_that_no_bytes_hold_are_stopped_before_anything_changes(action: Transfer) -> None:
    """Built in memory by some caller and truly signed, where there are bytes to sign: from bytes they cannot come."""
    chain = Chain()
    body = replace(chain.sign(chain.keys[0], PAY).body, action=action)
    try:
        forged = sign_transaction(chain.keys[0], body)
    except Rejected:
        forged = Transaction(body, Signature(bytes(64)))
    with pytest.raises(Rejected):
        apply_block(chain.ledger, chain.context(), (forged,))
    with pytest.raises(Rejected):
        decode(Transaction, encode(forged))


@pytest.mark.parametrize("amount", [1 << 62, (1 << 63) - 1])
def test_amounts_near_the_end_of_the_integers_are_only_unaffordable(amount: int) -> None:
    chain = Chain()
    for action in (Transfer(chain.keys[1].account, Amount(amount)), Bond(Amount(amount))):
        assert_refused(chain, chain.keys[0], action, Reason.INSUFFICIENT_FUNDS)
    assert_refused(chain, chain.keys[0], SubmitJob(make_spec(), Amount(amount)), Reason.INSUFFICIENT_FUNDS)
    assert_inadmissible(chain, chain.sign(chain.keys[0], PAY, fee=Amount(amount)), Reason.INSUFFICIENT_FUNDS)


def test_the_name_of_a_transaction_leaves_its_signature_out() -> None:
    chain = Chain()
    good = chain.sign(chain.keys[0], PAY)
    assert compute_transaction_hash(good) == compute_transaction_hash(sign_by_another(good))
    assert compute_transaction_hash(good) != compute_transaction_hash(chain.sign(chain.keys[0], PAY, ahead=1))


def test_the_fee_is_burned_whatever_comes_of_it() -> None:
    chain = Chain()
    transaction = chain.sign(chain.keys[0], Transfer(account_id(1), Amount(BALANCE)), fee=Amount(10))
    problem = chain.apply(transaction).receipts[0].problem
    assert problem == f"insufficient-funds: {chain.keys[0].account.hex()[:8]} has {BALANCE - 10}, {BALANCE} are needed"
    assert (chain.account(chain.keys[0]).balance, chain.account(chain.keys[0]).nonce) == (BALANCE - 10, 1)


def test_a_block_within_its_limits_is_picked_and_one_beyond_is_invalid() -> None:
    chain = Chain(parameters=Parameters(block_transactions_max=Count(3)))
    many = tuple(chain.sign(chain.keys[0], PAY, ahead) for ahead in range(5))
    chosen = select_transactions(chain.ledger, chain.context(), many)
    assert chosen == many[:3]
    assert len(apply_block(chain.ledger, chain.context(), chosen).receipts) == 3
    with pytest.raises(Rejected) as refusal:
        apply_block(chain.ledger, chain.context(), many[:4])
    assert refusal.value.reason is Reason.TOO_LARGE


def test_the_bytes_of_a_block_are_limited_too() -> None:
    signed = Chain().sign(Chain().keys[0], PAY)
    room = 2 * len(encode(signed)) + 10
    chain = Chain(parameters=Parameters(block_bytes_max=Count(room)))
    many = tuple(chain.sign(chain.keys[0], PAY, ahead) for ahead in range(4))
    chosen = select_transactions(chain.ledger, chain.context(), many)
    assert chosen == many[:2]
    with pytest.raises(Rejected) as refusal:
        apply_block(chain.ledger, chain.context(), many[:3])
    assert refusal.value.reason is Reason.TOO_LARGE


def test_a_transaction_has_a_size_limit() -> None:
    chain = Chain(parameters=Parameters(transaction_bytes_max=Count(100)))
    assert_inadmissible(chain, chain.sign(chain.keys[0], PAY), Reason.TOO_LARGE)


def test_a_proposer_passes_over_what_cannot_stand_and_goes_on() -> None:
    chain = Chain()
    stale, good = chain.sign(chain.keys[0], PAY, nonce=Nonce(9)), chain.sign(chain.keys[1], PAY)
    later, sooner = chain.sign(chain.keys[2], PAY, ahead=1), chain.sign(chain.keys[2], PAY)
    assert select_transactions(chain.ledger, chain.context(), (stale, good, later, sooner)) == (good, sooner)


def test_coins_that_came_in_the_same_block_may_go_in_it() -> None:
    chain = Chain()
    poor = make_world().chain.keys[0]
    chain.do((poor, Transfer(account_id(1), Amount(BALANCE - 1))))
    gift = chain.sign(chain.keys[1], Transfer(poor.account, Amount(10)))
    spent = chain.sign(poor, PAY)
    receipts = chain.apply(gift, spent).receipts
    assert [receipt.problem for receipt in receipts] == ["", ""]
    assert chain.account(poor).balance == 8


def test_beacons_of_recent_blocks_are_kept_and_older_ones_go() -> None:
    chain = Chain()
    for _ in range(BEACONS_KEPT + 5):
        chain.apply()
    kept = [key for key in chain.table if key.startswith(b"beacon/")]
    assert kept == [beacon_key(height) for height in range(6, BEACONS_KEPT + 6)]


def test_the_parents_ledger_is_never_touched() -> None:
    chain = Chain()
    before = dict(chain.table)
    apply_block(chain.ledger, chain.context(), (chain.sign(chain.keys[0], PAY),))
    assert chain.table == before


def test_a_block_gives_the_same_on_an_overlay_as_on_a_flat_table() -> None:
    chain = Chain()
    first = chain.sign(chain.keys[0], PAY)
    second = chain.sign(chain.keys[0], PAY, ahead=1)
    overlay = apply_block(chain.ledger, chain.context(), (first,)).ledger
    on_overlay = apply_block(Ledger(overlay), chain.context(2), (second,)).ledger
    chain.apply(first)
    on_table = apply_block(chain.ledger, chain.context(), (second,)).ledger
    assert dict(on_overlay.changes) == dict(on_table.changes)


def test_learning_waits_for_heights_only_where_nothing_else_moves_it() -> None:
    world = make_world()
    assert not is_waiting_for_blocks(world.chain.ledger)
    job = start_job(world)
    assert not is_waiting_for_blocks(world.chain.ledger)
    reach_phase(world, job, Phase.SEED)
    assert is_waiting_for_blocks(world.chain.ledger)
    reach_phase(world, job, Phase.TRAIN)
    assert not is_waiting_for_blocks(world.chain.ledger)
    reach_claims(world, job, ClaimStatus.SAMPLING)
    assert is_waiting_for_blocks(world.chain.ledger)
    reach_claims(world, job, ClaimStatus.COMMITTING)
    assert not is_waiting_for_blocks(world.chain.ledger)


def test_genesis_mints_what_it_hands_out() -> None:
    chain = Chain(3, 2)
    table = compute_genesis_ledger(chain.genesis)
    accounts = {b"account/" + entry.account for entry in chain.genesis.accounts}
    validators = {b"validator/" + key.account for key in chain.keys}
    assert set(table) == {b"supply", b"clock", b"validators", b"candidates"} | accounts | validators


def test_a_large_transaction_is_checked_as_a_small_one() -> None:
    """The memo keeps small ones; others are checked each time."""
    chain = Chain()
    large = chain.sign(chain.keys[0], SubmitJob(make_spec(trainers=(account_id(1),) * 200), Amount(1)))
    assert len(encode(large)) > 4_096
    verify_admissible(chain.ledger, chain.context(), large)
    assert_inadmissible(chain, sign_by_another(large), Reason.BAD_SIGNATURE)


def test_whoever_signs_must_be_the_sender() -> None:
    chain = Chain()
    body = chain.sign(chain.keys[0], PAY).body
    assert_inadmissible(chain, sign_transaction(chain.keys[1], body), Reason.BAD_SIGNATURE)


def test_rounds_that_would_make_a_report_too_large_close_a_block_later(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world()
    jobs = [start_job(world, rounds=Count(1)) for _ in range(3)]
    monkeypatch.setattr("milon.contracts.apply.LEARNING_BYTES_ENOUGH", 1)
    most = 0
    while any(world.chain.job(job).escrow for job in jobs):
        most = max(most, len(world.step().closed))
    assert most == 1
    assert [closed.job for closed in world.chain.closed] == jobs
    assert {claim.status for closed in world.chain.closed for claim in closed.claims} == {"accepted"}

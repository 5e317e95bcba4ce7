"""Stake: in, out after the waiting time, and away from liars."""

from __future__ import annotations

import pytest

from milon.base.errors import Reason
from milon.base.units import Amount, Count
from milon.chain.params import Parameters
from milon.chain.transaction import Bond, Unbond, Withdraw
from milon.contracts.accounts import load_account, load_supply, store_account
from milon.contracts.records import Account, Unbonding
from milon.contracts.staking import UNBONDING_MAX, split_taken, take_bond, take_stake
from milon.state.ledger import Draft
from tests.contracts.helpers import BALANCE, STAKE, Chain, account_id, assert_refused

QUICK = Parameters(unbond_blocks=Count(3), evidence_age_blocks=Count(2))


def test_a_bond_and_its_way_back() -> None:
    chain = Chain(parameters=QUICK)
    key = chain.others[0]
    assert chain.do((key, Bond(Amount(500)))) == ("",)
    assert (chain.account(key).balance, chain.account(key).bonded) == (BALANCE - 501, 500)
    assert chain.do((key, Unbond(Amount(200)))) == ("",)
    assert chain.account(key).unbonding == (Unbonding(Amount(200), chain.height + 3),)
    chain.apply()
    assert_refused(chain, key, Withdraw(), Reason.NOT_NOW, "waiting time")
    chain.apply()
    assert chain.do((key, Withdraw())) == ("",)
    assert chain.account(key) == Account(balance=Amount(BALANCE - 500 + 200 - 3), nonce=3, bonded=Amount(300))


def test_only_ripe_stake_is_withdrawn() -> None:
    chain = Chain(parameters=QUICK)
    key = chain.others[0]
    chain.do((key, Bond(Amount(500))))
    chain.do((key, Unbond(Amount(200))))
    chain.apply()
    chain.do((key, Unbond(Amount(100))))
    assert chain.do((key, Withdraw())) == ("",)
    assert [entry.amount for entry in chain.account(key).unbonding] == [100]


@pytest.mark.parametrize("action", [Bond(Amount(0)), Unbond(Amount(0))])
def test_nothing_is_neither_bonded_nor_unbonded(action: Bond | Unbond) -> None:
    chain = Chain()
    assert_refused(chain, chain.keys[0], action, Reason.OUT_OF_RANGE)


def test_more_than_there_is_cannot_be_bonded_or_unbonded() -> None:
    chain = Chain()
    assert_refused(chain, chain.keys[0], Bond(Amount(BALANCE)), Reason.INSUFFICIENT_FUNDS)
    assert_refused(chain, chain.keys[0], Unbond(Amount(STAKE + 1)), Reason.INSUFFICIENT_FUNDS)


def test_stake_that_votes_stays() -> None:
    chain = Chain()
    assert_refused(chain, chain.keys[0], Unbond(Amount(1)), Reason.NOT_ALLOWED)
    chain.do((chain.keys[0], Bond(Amount(5))))
    assert_refused(chain, chain.keys[0], Unbond(Amount(6)), Reason.NOT_ALLOWED)
    assert chain.do((chain.keys[0], Unbond(Amount(5)))) == ("",)


def test_an_account_has_few_unbondings_at_once() -> None:
    chain = Chain()
    key = chain.others[0]
    chain.do((key, Bond(Amount(500))))
    assert set(chain.do(*[(key, Unbond(Amount(1)))] * UNBONDING_MAX)) == {""}
    assert_refused(chain, key, Unbond(Amount(1)), Reason.FULL)


def slashed(chain: Chain, record: Account, ppm: int) -> tuple[Account, int, int, int]:
    """The liar's account after a slash, what was taken, the winner's part, and what burned."""
    liar, winner = chain.others[0].account, chain.keys[0].account
    draft = Draft(chain.ledger)
    store_account(draft, liar, record)
    burned = load_supply(draft).burned
    taken = take_stake(draft, liar, ppm)
    reward = split_taken(draft, taken, winner)
    assert load_account(draft, winner).balance == BALANCE + reward
    return load_account(draft, liar), taken, reward, load_supply(draft).burned - burned


def test_a_slash_takes_from_stake_on_its_way_out_too() -> None:
    record = Account(bonded=Amount(1_001), unbonding=(Unbonding(Amount(301), 9), Unbonding(Amount(1), 10)))
    after, taken, reward, burned = slashed(Chain(), record, 500_000)
    assert (after.bonded, [entry.amount for entry in after.unbonding]) == (501, [151, 1])
    assert (taken, reward, burned) == (650, 325, 325)
    assert after.slashed == 650


def test_an_odd_coin_burns() -> None:
    after, taken, reward, burned = slashed(Chain(), Account(bonded=Amount(7)), 500_000)
    assert (after.bonded, taken, reward, burned) == (4, 3, 1, 2)


def test_a_slash_of_everything_frees_the_places_of_unbondings() -> None:
    record = Account(bonded=Amount(10), unbonding=(Unbonding(Amount(5), 9),) * UNBONDING_MAX)
    after, taken, _, _ = slashed(Chain(), record, 1_000_000)
    assert (after.bonded, after.unbonding, taken) == (0, (), 90)


def test_who_has_nothing_loses_nothing() -> None:
    after, taken, reward, burned = slashed(Chain(), Account(), 500_000)
    assert (after, taken, reward, burned) == (Account(), 0, 0, 0)


def test_a_bond_is_taken_from_what_is_bonded_first() -> None:
    cases: tuple[tuple[int, int, list[int], int], ...] = ((5, 5, [4, 3], 5), (12, 0, [2, 3], 12), (99, 0, [], 17))
    for amount, bonded, waiting, taken in cases:
        draft = Draft(Chain().ledger)
        account = Account(bonded=Amount(10), unbonding=(Unbonding(Amount(4), 9), Unbonding(Amount(3), 10)))
        store_account(draft, account_id(5), account)
        assert take_bond(draft, account_id(5), amount) == taken
        after = load_account(draft, account_id(5))
        assert (after.bonded, [entry.amount for entry in after.unbonding]) == (bonded, waiting)
        assert after.slashed == taken

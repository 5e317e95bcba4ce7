"""Transfers: coins move whole, to others and to oneself, and never out of nothing."""

from __future__ import annotations

from milon.base.errors import Reason
from milon.base.units import Amount
from milon.chain.transaction import Transfer
from milon.contracts.accounts import load_account
from tests.contracts.helpers import BALANCE, Chain, account_id, assert_refused


def test_coins_move() -> None:
    chain = Chain()
    (problem,) = chain.do((chain.keys[0], Transfer(chain.keys[1].account, Amount(300))))
    assert problem == ""
    assert chain.account(chain.keys[0]).balance == BALANCE - 300 - 1
    assert chain.account(chain.keys[1]).balance == BALANCE + 300


def test_an_account_begins_with_its_first_coin() -> None:
    chain = Chain()
    chain.do((chain.keys[0], Transfer(account_id(7), Amount(5))))
    assert load_account(chain.ledger, account_id(7)).balance == 5


def test_a_transfer_to_oneself_costs_the_fee_alone() -> None:
    chain = Chain()
    (problem,) = chain.do((chain.keys[0], Transfer(chain.keys[0].account, Amount(BALANCE - 1))))
    assert problem == ""
    assert chain.account(chain.keys[0]).balance == BALANCE - 1


def test_all_that_is_left_after_the_fee_may_go_and_not_one_more() -> None:
    chain = Chain()
    to = chain.keys[1].account
    assert_refused(chain, chain.keys[0], Transfer(to, Amount(BALANCE)), Reason.INSUFFICIENT_FUNDS)
    assert chain.do((chain.keys[0], Transfer(to, Amount(BALANCE - 1)))) == ("",)
    assert chain.account(chain.keys[0]).balance == 0


def test_nothing_is_no_transfer() -> None:
    chain = Chain()
    assert_refused(chain, chain.keys[0], Transfer(chain.keys[1].account, Amount(0)), Reason.OUT_OF_RANGE)


def test_bonded_coins_do_not_move() -> None:
    chain = Chain()
    to = chain.keys[1].account
    assert_refused(chain, chain.keys[0], Transfer(to, Amount(BALANCE + 1)), Reason.INSUFFICIENT_FUNDS)

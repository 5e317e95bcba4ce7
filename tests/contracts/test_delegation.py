"""Delegations: shares that grow and shrink with the validator's, to the coin."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.errors import Reason
from milon.base.signing import SecretKey
from milon.base.units import Amount, Count
from milon.chain.genesis import SUPPLY_MAX
from milon.chain.params import Parameters
from milon.chain.transaction import Bond, Delegate, Retire, Stand, Undelegate, Withdraw
from milon.contracts.accounts import load_supply
from milon.contracts.delegation import DELEGATIONS_MAX, compute_left, compute_value, load_delegations
from milon.contracts.offences import burn_share
from milon.contracts.records import SUPPLY_KEY, Delegation, ValidatorRecord, validator_key
from milon.contracts.validators import store_validator
from milon.state.ledger import Draft
from tests.contracts.helpers import BALANCE, STAKE, Chain, account_id, assert_refused

QUICK = Parameters(unbond_blocks=Count(3), evidence_age_blocks=Count(2))
PAYING = replace(QUICK, block_reward=Amount(1_000))


def write(chain: Chain, draft: Draft) -> None:
    """Take a draft into the chain's table, beside any block."""
    chain.table.update({name: value for name, value in draft.changes.items() if value is not None})
    chain.verify_supply()


def burn(chain: Chain, key: SecretKey, share_ppm: int) -> None:
    """Slash a validator as evidence does."""
    draft = Draft(chain.ledger)
    burn_share(draft, key.account, share_ppm)
    write(chain, draft)


def value_of(chain: Chain, owner: SecretKey, validator: SecretKey) -> int:
    """What the owner's delegation is worth."""
    held = load_delegations(chain.ledger, owner.account).held
    shares = sum(entry.shares for entry in held if entry.validator == validator.account)
    return compute_value(chain.behind(validator), shares)


def test_a_delegation_and_its_way_back() -> None:
    chain = Chain(parameters=QUICK)
    key, owner = chain.keys[0], chain.others[0]
    assert chain.do((owner, Delegate(key.account, Amount(500)))) == ("",)
    assert load_delegations(chain.ledger, owner.account).held == (Delegation(key.account, Count(500)),)
    assert (chain.account(owner).balance, chain.behind(key).delegated) == (BALANCE - 501, 500)
    assert chain.do((owner, Undelegate(key.account, Amount(200)))) == ("",)
    assert (chain.behind(key).delegated, chain.behind(key).leaving) == (300, 200)
    chain.apply()
    assert_refused(chain, owner, Withdraw(), Reason.NOT_NOW, "waiting time")
    chain.apply()
    assert chain.do((owner, Withdraw()), (owner, Undelegate(key.account, Amount(300)))) == ("", "")
    assert chain.account(owner).balance == BALANCE - 500 + 200 - 4
    for _ in range(2):
        chain.apply()
    assert chain.do((owner, Withdraw())) == ("",)
    assert chain.account(owner).balance == BALANCE - 5
    assert chain.behind(key) == ValidatorRecord(is_candidate=True)
    assert b"delegations/" + owner.account not in chain.table


def test_what_is_refused() -> None:
    chain = Chain(others=2, parameters=QUICK)
    key, (owner, stranger) = chain.keys[0], chain.others
    assert_refused(chain, owner, Delegate(key.account, Amount(0)), Reason.OUT_OF_RANGE)
    assert_refused(chain, owner, Delegate(key.account, Amount(BALANCE)), Reason.INSUFFICIENT_FUNDS)
    assert_refused(chain, owner, Delegate(stranger.account, Amount(5)), Reason.NOT_ALLOWED, "only candidates")
    assert_refused(chain, key, Delegate(key.account, Amount(5)), Reason.NOT_ALLOWED, "own stake")
    assert_refused(chain, owner, Undelegate(key.account, Amount(5)), Reason.NOT_NOW, "nothing is delegated")
    chain.do((owner, Delegate(key.account, Amount(5))))
    assert_refused(chain, owner, Undelegate(key.account, Amount(0)), Reason.OUT_OF_RANGE)
    assert_refused(chain, owner, Undelegate(key.account, Amount(6)), Reason.INSUFFICIENT_FUNDS, "5 are delegated")
    chain.do((key, Retire()))
    assert_refused(chain, owner, Delegate(key.account, Amount(5)), Reason.NOT_ALLOWED, "only candidates")
    assert chain.do((owner, Undelegate(key.account, Amount(5)))) == ("",)


def test_a_delegators_record_is_bounded() -> None:
    chain = Chain(DELEGATIONS_MAX + 1, parameters=QUICK)
    owner = chain.others[0]
    chain.do(*[(owner, Delegate(key.account, Amount(100))) for key in chain.keys[:-1]])
    assert_refused(chain, owner, Delegate(chain.keys[-1].account, Amount(1)), Reason.FULL)
    first = chain.keys[0].account
    assert set(chain.do(*[(owner, Undelegate(first, Amount(1)))] * DELEGATIONS_MAX)) == {""}
    assert_refused(chain, owner, Undelegate(first, Amount(1)), Reason.FULL)


def test_rewards_go_to_whoever_stands_behind_the_proposer() -> None:
    """Own stake 10,000 and 10,000 of two delegators; a tenth of their half is the commission."""
    chain = Chain(others=2, parameters=PAYING)
    proposer, (one, other) = chain.keys[2], chain.others
    chain.do(
        (proposer, Stand(Count(100_000))),
        (one, Delegate(proposer.account, Amount(7_500))),
        (other, Delegate(proposer.account, Amount(2_500))),
    )
    minted, balance = load_supply(chain.ledger).minted, chain.account(proposer).balance
    chain.apply()  # height 2: its block
    assert load_supply(chain.ledger).minted == minted + 1_000
    assert chain.account(proposer).balance == balance + 550
    assert (value_of(chain, one, proposer), value_of(chain, other, proposer)) == (7_837, 2_612)
    chain.do((one, Undelegate(proposer.account, Amount(7_837))))
    chain.do((other, Undelegate(proposer.account, Amount(2_612))))
    assert chain.behind(proposer).leaving == 7_837 + 2_613, "the last gets what rounding left over"


def test_no_coins_beyond_the_supplys_bound_are_minted() -> None:
    chain = Chain(parameters=PAYING)
    draft = Draft(chain.ledger)
    supply = load_supply(draft)
    gone = SUPPLY_MAX - 1_500 - supply.minted
    draft.store(SUPPLY_KEY, replace(supply, minted=Amount(supply.minted + gone), burned=Amount(gone)))
    write(chain, draft)
    for expected in (500, 0, 0):
        chain.apply()
        assert SUPPLY_MAX - load_supply(chain.ledger).minted == expected


def test_a_slash_reaches_delegations_and_what_leaves() -> None:
    chain = Chain(parameters=QUICK)
    key, owner = chain.keys[0], chain.others[0]
    chain.do((owner, Delegate(key.account, Amount(1_001))), (owner, Undelegate(key.account, Amount(301))))
    burn(chain, key, 500_000)
    record = chain.behind(key)
    assert (record.delegated, record.leaving, record.taken_ppm) == (350, 151, 500_000)
    assert (chain.account(key).bonded, chain.account(key).slashed) == (STAKE // 2, STAKE // 2)
    (leaving,) = load_delegations(chain.ledger, owner.account).leaving
    assert compute_left(record, leaving) == 150
    burn(chain, key, 750_000)
    assert compute_left(chain.behind(key), leaving) == 75
    for _ in range(3):
        chain.apply()
    balance = chain.account(owner).balance
    assert chain.do((owner, Withdraw())) == ("",)
    assert chain.account(owner).balance == balance + 75 - 1
    assert chain.behind(key).leaving == 1, "what rounding left over stays where it is"


def test_what_burned_altogether_is_given_up_without_a_trace() -> None:
    chain = Chain(parameters=QUICK)
    key, owner = chain.keys[0], chain.others[0]
    chain.do((owner, Delegate(key.account, Amount(1_001))), (owner, Undelegate(key.account, Amount(301))))
    burn(chain, key, 1_000_000)
    assert (chain.account(key).bonded, chain.behind(key).delegated, chain.behind(key).leaving) == (0, 0, 0)
    assert_refused(chain, owner, Delegate(key.account, Amount(5)), Reason.NOT_ALLOWED, "is gone")
    assert chain.do((owner, Undelegate(key.account, Amount(1)))) == ("",)
    assert chain.behind(key).shares == 0
    for _ in range(2):
        chain.apply()
    assert chain.do((owner, Withdraw())) == ("",)
    assert b"delegations/" + owner.account not in chain.table


def test_the_first_delegator_cannot_make_a_share_dear_to_rob_the_second() -> None:
    """One share of one coin, and rewards on top: who comes next pays for whole shares and keeps the change."""
    chain = Chain(others=2, parameters=PAYING)
    key, (first, second) = chain.keys[0], chain.others
    chain.do((key, Stand(Count(0))))
    chain.do((first, Delegate(key.account, Amount(1))))
    draft = Draft(chain.ledger)
    record = chain.behind(key)
    supply = load_supply(draft)
    store_validator(draft, key.account, replace(record, delegated=Amount(1_000)))
    draft.store(SUPPLY_KEY, replace(supply, minted=Amount(supply.minted + 999)))
    write(chain, draft)
    assert_refused(chain, second, Delegate(key.account, Amount(999)), Reason.OUT_OF_RANGE, "less than a share")
    balance = chain.account(second).balance
    assert chain.do((second, Delegate(key.account, Amount(1_999)))) == ("",)
    assert balance - chain.account(second).balance == 1_000 + 1
    assert value_of(chain, second, key) == 1_000


def test_shares_have_a_bound() -> None:
    chain = Chain()
    key = chain.keys[0]
    draft = Draft(chain.ledger)
    store_validator(draft, key.account, replace(chain.behind(key), delegated=Amount(1), shares=Count((1 << 63) - 2)))
    supply = load_supply(draft)
    draft.store(SUPPLY_KEY, replace(supply, minted=Amount(supply.minted + 1)))
    write(chain, draft)
    assert_refused(chain, chain.others[0], Delegate(key.account, Amount(1)), Reason.FULL)


def price_of(chain: Chain, key: SecretKey) -> Fraction | None:
    """What one share of a validator's delegations is worth; None where there are none."""
    record = chain.behind(key)
    return Fraction(record.delegated, record.shares) if record.shares else None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("delegate"), st.integers(0, 2), st.integers(1, 40_000)),
        st.tuples(st.just("undelegate"), st.integers(0, 2), st.integers(1, 40_000)),
        st.tuples(st.just("reward"), st.just(0), st.integers(1, 9_999)),
        st.tuples(st.just("burn"), st.just(0), st.integers(1, 400_000)),
    ),
    max_size=16,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_every_delegator_has_what_plain_fractions_say(steps: list[tuple[str, int, int]]) -> None:
    """Beside the ledger, each delegator's part in exact fractions: they stay within a few coins of each other."""
    chain = Chain(others=3, parameters=QUICK)
    key = chain.keys[0]
    parts = [Fraction(0)] * 3
    growth = Fraction(1)
    for what, place, amount in steps:
        owner, held, before_step = chain.others[place], sum(parts), price_of(chain, key)
        if what == "delegate":
            balance = chain.account(owner).balance
            if chain.do((owner, Delegate(key.account, Amount(amount)))) == ("",):
                parts[place] += balance - 1 - chain.account(owner).balance
        elif what == "undelegate":
            before = chain.behind(key).leaving
            if chain.do((owner, Undelegate(key.account, Amount(amount)))) == ("",):
                parts[place] -= chain.behind(key).leaving - before
        elif what == "reward" and chain.behind(key).delegated >= 10_000:
            draft, supply = Draft(chain.ledger), load_supply(chain.ledger)
            record = chain.behind(key)
            store_validator(draft, key.account, replace(record, delegated=Amount(record.delegated + amount)))
            draft.store(SUPPLY_KEY, replace(supply, minted=Amount(supply.minted + amount)))
            write(chain, draft)
            grown = Fraction(held + amount) / held
            parts, growth = [part * grown for part in parts], growth * grown
        elif what == "burn":
            taken = int(chain.behind(key).taken_ppm)
            burn(chain, key, taken + (1_000_000 - taken) * amount // 1_000_000)
            kept = Fraction(1_000_000 - chain.behind(key).taken_ppm, 1_000_000 - taken)
            parts = [part * kept for part in parts]
        price = price_of(chain, key)
        if what in ("delegate", "undelegate") and price is not None and before_step is not None:
            assert price >= before_step, "who comes or goes takes nothing from the others"
    tolerance = (len(steps) + 1) * (1 + growth)
    for owner, part in zip(chain.others, parts, strict=True):
        assert abs(value_of(chain, owner, key) - part) <= tolerance
    assert sum(value_of(chain, owner, key) for owner in chain.others) <= chain.behind(key).delegated


def test_a_key_of_nobody_has_no_delegations() -> None:
    chain = Chain()
    assert load_delegations(chain.ledger, account_id(9)).held == ()
    assert validator_key(account_id(9)) not in chain.table
    chain.do((chain.others[0], Bond(Amount(1))))
    assert load_delegations(chain.ledger, chain.others[0].account).leaving == ()

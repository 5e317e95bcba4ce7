"""Sets that change: who is chosen, from when on, who is jailed and comes back, and what learning counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.signing import SecretKey
from milon.base.units import Amount, Count, Epoch
from milon.chain.certificate import Validator
from milon.chain.params import Parameters, compute_epoch, compute_last_height, is_last_of_epoch
from milon.chain.transaction import Bond, Delegate, Retire, Stand, Unbond, Unjail, Withdraw
from milon.contracts import validators
from milon.contracts.accounts import load_validators
from milon.contracts.records import VALIDATORS_KEY, ValidatorSet, past_validators_key
from milon.contracts.validators import credit_learning, load_candidates, load_validators_at, store_validator
from milon.state.ledger import Draft
from tests.contracts.helpers import STAKE, Chain, account_id, assert_refused

EPOCHS = Parameters(epoch_blocks=Count(4), unbond_blocks=Count(6), evidence_age_blocks=Count(5), jail_blocks=Count(5))


def make_chain(validators: int = 4, others: int = 2, **changes: object) -> Chain:
    """A chain with epochs of four blocks."""
    return Chain(validators, others, replace(EPOCHS, **changes))  # type: ignore[arg-type]


def members_of(chosen: tuple[Validator, ...]) -> dict[bytes, int]:
    """Who has what power."""
    return {member.account: int(member.power) for member in chosen}


def become_candidate(chain: Chain, key: SecretKey, bond: int, commission_ppm: int = 0) -> None:
    """Bond and stand in one block."""
    assert chain.do((key, Bond(Amount(bond))), (key, Stand(Count(commission_ppm)))) == ("", "")


def test_heights_and_epochs() -> None:
    heights = range(1, 10)
    assert [compute_epoch(height, EPOCHS) for height in heights] == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert [height for height in heights if is_last_of_epoch(height, EPOCHS)] == [4, 8]
    assert [compute_last_height(Epoch(epoch), EPOCHS) for epoch in (0, 1)] == [4, 8]


def test_a_candidate_votes_from_the_next_epoch_on() -> None:
    chain = make_chain()
    key = chain.others[0]
    become_candidate(chain, key, 500)
    assert key.account not in members_of(load_validators(chain.ledger).validators)
    chosen = chain.end_epoch()
    assert members_of(chosen) == {**{entry.account: STAKE for entry in chain.keys}, key.account: 500}
    assert [member.account for member in chosen] == sorted(member.account for member in chosen)
    assert load_validators(chain.ledger) == ValidatorSet(chosen, Epoch(1))
    assert chain.height == 4


def test_only_the_last_block_of_an_epoch_names_the_next_set() -> None:
    chain = make_chain()
    assert [chain.apply().validators is not None for _ in range(9)] == [False, False, False, True] * 2 + [False]
    fixed = Chain()
    assert all(fixed.apply().validators is None for _ in range(9))


def test_sets_of_past_epochs_stay_while_evidence_may_come() -> None:
    """Evidence of epoch 0 counts up to height 4 + 5: the block of height 8 still keeps it, that of 12 drops it."""
    chain = make_chain()
    genesis = load_validators(chain.ledger).validators
    become_candidate(chain, chain.others[0], 500)
    first = chain.end_epoch()
    chain.end_epoch()
    assert load_validators_at(chain.ledger, Epoch(0)) == genesis
    chain.end_epoch()
    assert load_validators_at(chain.ledger, Epoch(1)) == first
    assert past_validators_key(0) not in chain.table
    for epoch in (0, 4):
        with pytest.raises(Rejected) as refusal:
            load_validators_at(chain.ledger, Epoch(epoch))
        assert refusal.value.reason is Reason.UNKNOWN
    for _ in range(8):
        chain.end_epoch()
    assert sum(key.startswith(b"past-validators/") for key in chain.table) == 2


def test_a_set_holds_the_largest_stakes() -> None:
    chain = make_chain(validators_max=Count(4), power_cap_ppm=Count(1_000_000))
    small, large = chain.others
    become_candidate(chain, small, STAKE - 1)
    become_candidate(chain, large, 5 * STAKE)
    chosen = members_of(chain.end_epoch())
    assert len(chosen) == 4 and small.account not in chosen
    assert chosen[large.account] == 5 * STAKE
    assert max(key.account for key in chain.keys) not in chosen, "of equals the smaller account"


def test_nobody_has_more_than_the_cap_once_there_are_four() -> None:
    chain = make_chain(3)
    chain.do((chain.keys[0], Bond(Amount(90 * STAKE))))
    assert members_of(chain.end_epoch())[chain.keys[0].account] == 91 * STAKE
    become_candidate(chain, chain.others[0], STAKE)
    chosen = members_of(chain.end_epoch())
    assert chosen[chain.keys[0].account] == 3 * STAKE * 333_332 // 666_668 < sum(chosen.values()) / 3


def test_delegations_count_as_power_and_own_stake_must_be_there() -> None:
    chain = make_chain(validator_bond_min=Amount(1_000))
    key, friend = chain.others
    assert_refused(chain, key, Stand(Count(0)), Reason.NOT_ALLOWED, "bonds 1000; 0 are bonded")
    become_candidate(chain, key, 1_000)
    assert chain.do((friend, Delegate(key.account, Amount(700)))) == ("",)
    assert members_of(chain.end_epoch())[key.account] == 1_700
    chain.do((key, Unbond(Amount(1))))
    assert key.account not in members_of(chain.end_epoch())
    assert not chain.behind(key).is_candidate
    assert key.account not in load_candidates(chain.ledger)


def test_who_retires_leaves_at_the_epochs_end() -> None:
    chain = make_chain()
    key = chain.keys[0]
    assert chain.do((key, Retire())) == ("",)
    assert_refused(chain, key, Retire(), Reason.NOT_NOW, "not a candidate")
    assert key.account in members_of(load_validators(chain.ledger).validators)
    assert key.account not in members_of(chain.end_epoch())
    assert chain.do((key, Stand(Count(0)))) == ("",)
    assert key.account in members_of(chain.end_epoch())


def test_a_chain_keeps_its_validators_where_nobody_else_wants_to_be_one() -> None:
    chain = make_chain()
    before = load_validators(chain.ledger).validators
    chain.do(*[(key, Retire()) for key in chain.keys])
    assert chain.end_epoch() == before
    assert load_validators(chain.ledger).epoch == 1


def test_the_terms_of_a_candidate() -> None:
    chain = make_chain()
    key, friend = chain.keys[0], chain.others[0]
    assert_refused(chain, key, Stand(Count(0)), Reason.DUPLICATE)
    assert_refused(chain, key, Stand(Count(1_000_001)), Reason.OUT_OF_RANGE)
    assert chain.do((key, Stand(Count(50_000)))) == ("",)
    chain.do((friend, Delegate(key.account, Amount(5))))
    assert_refused(chain, key, Stand(Count(50_001)), Reason.NOT_ALLOWED, "does not rise")
    assert chain.do((key, Stand(Count(40_000)))) == ("",)
    assert chain.behind(key).commission_ppm == 40_000


def test_the_places_of_candidates_are_bounded_and_the_weakest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validators, "CANDIDATES_MAX", 6)
    monkeypatch.setattr(validators, "CANDIDATES_KEPT_MAX", 5)
    chain = make_chain(4, 3, validators_max=Count(4))
    weak, strong, late = chain.others
    become_candidate(chain, weak, 10)
    become_candidate(chain, strong, 20)
    chain.do((late, Bond(Amount(15))))
    assert_refused(chain, late, Stand(Count(0)), Reason.FULL)
    chain.end_epoch()
    assert set(load_candidates(chain.ledger)) == {strong.account, *(key.account for key in chain.keys)}
    assert not chain.behind(weak).is_candidate
    assert chain.do((late, Stand(Count(0)))) == ("",)


# Stake that leaves


def test_stake_that_votes_waits_from_the_epochs_end() -> None:
    chain = make_chain()
    member, other = chain.keys[0], chain.others[0]
    chain.do((other, Bond(Amount(10))))
    assert chain.do((member, Unbond(Amount(STAKE))), (other, Unbond(Amount(10)))) == ("", "")
    assert chain.account(member).unbonding[0].release_height == 4 + 6
    assert chain.account(other).unbonding[0].release_height == 2 + 6
    assert member.account not in members_of(chain.end_epoch())
    while chain.height < 8:
        chain.apply()
    assert_refused(chain, member, Withdraw(), Reason.NOT_NOW)
    chain.apply()
    assert chain.do((member, Withdraw())) == ("",)


def test_stake_asked_back_in_the_last_block_has_voted_in_that_epoch_only() -> None:
    chain = make_chain()
    for _ in range(3):
        chain.apply()
    assert chain.do((chain.keys[0], Unbond(Amount(1)))) == ("",)
    assert chain.account(chain.keys[0]).unbonding[0].release_height == 4 + 6
    assert members_of(load_validators(chain.ledger).validators)[chain.keys[0].account] == STAKE - 1


# Jail


def miss(chain: Chain, key: SecretKey, count: int) -> None:
    """A block after `count` views that `key` should have led."""
    chain.missed = [key.account] * count
    chain.apply()


def test_who_misses_its_turns_is_jailed_and_comes_back() -> None:
    chain = make_chain()
    key = chain.keys[0]
    miss(chain, key, 6)
    assert key.account not in members_of(chain.end_epoch())
    assert chain.behind(key).jailed_until == 4 + 5
    assert (chain.behind(key).led, chain.behind(key).missed) == (0, 0)
    assert chain.account(key).bonded == STAKE, "absence costs the place alone"
    while chain.height < 7:
        chain.apply()
    assert_refused(chain, key, Unjail(), Reason.NOT_NOW, "until height 9")
    chain.apply()
    assert chain.do((key, Unjail())) == ("",)
    assert_refused(chain, key, Unjail(), Reason.NOT_NOW, "not in jail")
    assert key.account in members_of(chain.end_epoch())


def test_half_of_the_turns_and_few_turns_are_forgiven() -> None:
    chain = make_chain(epoch_blocks=Count(8))
    often, seldom = chain.keys[1], chain.keys[2]  # each leads two blocks of eight
    miss(chain, often, 2)
    miss(chain, seldom, 3)
    assert set(members_of(chain.end_epoch())) == {key.account for key in chain.keys} - {seldom.account}
    spared = make_chain(epoch_blocks=Count(8), jail_turns_min=Count(6))
    miss(spared, spared.keys[2], 3)
    assert len(spared.end_epoch()) == 4


def test_one_epoch_jails_less_than_a_third_and_the_worst_first() -> None:
    """Of ten equal members three can be spared: the quorum of the others is untouched."""
    chain = make_chain(10, epoch_blocks=Count(10))
    for number, count in ((0, 20), (1, 30), (2, 40), (3, 50), (4, 60)):
        chain.missed += [chain.keys[number].account] * count
    chain.apply()
    gone = {key.account for key in chain.keys} - set(members_of(chain.end_epoch()))
    assert gone == {chain.keys[number].account for number in (2, 3, 4)}


def test_where_sets_never_change_nobody_counts_turns() -> None:
    chain = Chain()
    miss(chain, chain.keys[0], 1_000)
    assert chain.behind(chain.keys[0]).missed == 0


# Learning


def test_learning_is_halved_each_epoch() -> None:
    chain = make_chain()
    key, stranger = chain.keys[0], chain.others[0]
    draft = Draft(chain.ledger)
    credit_learning(draft, key.account, 9)
    credit_learning(draft, stranger.account, 9)
    chain.table.update({name: value for name, value in draft.changes.items() if value is not None})
    assert chain.behind(stranger).learning == 0, "only candidates"
    sets = [chain.end_epoch() for _ in range(5)]
    assert [member.learning for chosen in sets for member in chosen if member.account == key.account] == [9, 4, 2, 1, 0]


def test_learning_is_lost_with_the_candidacy() -> None:
    chain = make_chain()
    key = chain.keys[0]
    draft = Draft(chain.ledger)
    store_validator(draft, key.account, replace(chain.behind(key), learning=Amount(100)))
    chain.table.update({name: value for name, value in draft.changes.items() if value is not None})
    assert chain.do((key, Retire()), (key, Stand(Count(0)))) == ("", "")
    assert chain.behind(key).learning == 0


def test_a_ledger_without_a_set_knows_no_epoch() -> None:
    with pytest.raises(Rejected):
        load_validators_at({}, Epoch(0))
    assert VALIDATORS_KEY in Chain().table
    assert account_id(5) not in load_candidates(Chain().ledger)

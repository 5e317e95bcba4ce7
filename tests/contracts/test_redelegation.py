"""Moved stake: behind the new validator at once, and within reach of the old one's slashes until it has arrived."""

from __future__ import annotations

from dataclasses import replace

from milon.base.errors import Reason
from milon.base.signing import SecretKey
from milon.base.units import Amount, Count, Height
from milon.chain.params import Parameters
from milon.chain.transaction import Delegate, Redelegate, Retire, Undelegate, Withdraw
from milon.contracts.delegation import DELEGATIONS_MAX, compute_moved, compute_value, load_delegations
from milon.contracts.moved import TARGETS_MAX, load_moved
from milon.contracts.offences import burn_share
from milon.contracts.records import Delegation, Leaving, MovedShares, Moving, ValidatorRecord
from milon.contracts.validators import store_validator
from milon.state.ledger import Draft
from tests.contracts.helpers import BALANCE, STAKE, Chain, accuse, assert_refused

QUICK = Parameters(unbond_blocks=Count(3), evidence_age_blocks=Count(2))
EPOCHS = Parameters(epoch_blocks=Count(4), unbond_blocks=Count(6), evidence_age_blocks=Count(5))


def burn(chain: Chain, key: SecretKey, share_ppm: int) -> None:
    """Slash a validator as evidence does."""
    draft = Draft(chain.ledger)
    burn_share(draft, key.account, share_ppm)
    for name, value in draft.changes.items():
        if value is None:
            chain.table.pop(name, None)
        else:
            chain.table[name] = value
    chain.verify_supply()


def moved(chain: Chain, amount: int = 1_000) -> tuple[SecretKey, SecretKey, SecretKey]:
    """The owner's stake, delegated to the first validator and moved to the second."""
    source, target, owner = chain.keys[0], chain.keys[1], chain.others[0]
    asked = (owner, Delegate(source.account, Amount(amount)))
    move = (owner, Redelegate(source.account, target.account, Amount(amount)))
    assert chain.do(asked, move) == ("", "")
    return source, target, owner


def moving_worth(chain: Chain, owner: SecretKey) -> int:
    """What the owner's moved stake is worth that has not arrived."""
    total = 0
    for entry in load_delegations(chain.ledger, owner.account).moving:
        source, target = (chain.behind(find(chain, account)) for account in (entry.source, entry.target))
        total += compute_value(target, compute_moved(source, entry))
    return total


def find(chain: Chain, account: bytes) -> SecretKey:
    """The key of a genesis validator."""
    return next(key for key in chain.keys if key.account == account)


def test_moved_stake_counts_at_once_and_is_like_any_other_later() -> None:
    chain = Chain(parameters=QUICK)
    source, target, owner = moved(chain)
    assert (chain.behind(source).delegated, chain.behind(target).delegated) == (0, 1_000)
    (entry,) = load_delegations(chain.ledger, owner.account).moving
    assert entry == Moving(source.account, target.account, Count(1_000), Count(0), Height(4))
    assert load_moved(chain.ledger, source.account) == (MovedShares(target.account, Count(1_000), Count(1)),)
    assert_refused(chain, owner, Undelegate(target.account, Amount(1)), Reason.NOT_NOW)
    while chain.height < 3:
        chain.apply()
    assert chain.do((owner, Withdraw())) == ("",), "arriving is something to collect"
    delegations = load_delegations(chain.ledger, owner.account)
    assert (delegations.moving, delegations.held) == ((), (Delegation(target.account, Count(1_000)),))
    assert b"moved-stake/" + source.account not in chain.table
    assert chain.behind(source) == ValidatorRecord(is_candidate=True)
    assert chain.do((owner, Undelegate(target.account, Amount(1_000)))) == ("",)


def test_no_chain_of_moves() -> None:
    chain = Chain(parameters=QUICK)
    source, target, owner = moved(chain)
    third = chain.keys[2].account
    onwards = Redelegate(target.account, third, Amount(5))
    assert_refused(chain, owner, onwards, Reason.NOT_NOW, "may move again from height 4 on")
    chain.do((owner, Delegate(target.account, Amount(300))))
    beyond = Redelegate(target.account, third, Amount(301))
    assert_refused(chain, owner, beyond, Reason.INSUFFICIENT_FUNDS, "300 are delegated")
    assert chain.do((owner, replace(beyond, amount=Amount(300)))) == ("",)
    chain.apply()
    assert chain.do((owner, Redelegate(target.account, third, Amount(1_000)))) == ("",), "arrived on the way"
    assert [entry.target for entry in load_delegations(chain.ledger, owner.account).moving] == [third, third]
    assert load_moved(chain.ledger, source.account) == ()


def test_the_old_validators_slash_reaches_what_moved_and_nothing_else() -> None:
    chain = Chain(others=2, parameters=QUICK)
    source, target, owner = moved(chain)
    other = chain.others[1]
    chain.do((other, Delegate(target.account, Amount(500))))
    burn(chain, source, 250_000)
    assert moving_worth(chain, owner) == 750
    assert (chain.behind(target).delegated, chain.behind(target).shares) == (1_250, 1_250)
    burn(chain, target, 500_000)
    assert moving_worth(chain, owner) == 375
    burn(chain, source, 1_000_000)
    assert (moving_worth(chain, owner), chain.behind(target).delegated) == (0, 250)
    assert chain.account(target).bonded == STAKE // 2
    while chain.height < 4:
        chain.apply()
    chain.do((owner, Withdraw()), (other, Undelegate(target.account, Amount(250))))
    assert load_delegations(chain.ledger, owner.account).held == ()
    assert (chain.behind(target).delegated, chain.behind(target).shares) == (0, 0)


def test_no_stake_that_voted_escapes_by_moving() -> None:
    """Moved in an epoch's first block; slashed in the last block that evidence of that epoch may stand in."""
    chain = Chain(parameters=EPOCHS)
    source, target, owner = chain.keys[0], chain.keys[1], chain.others[0]
    chain.do((owner, Delegate(source.account, Amount(1_000))))
    chain.end_epoch()
    assert chain.do((owner, Redelegate(source.account, target.account, Amount(1_000)))) == ("",)
    (entry,) = load_delegations(chain.ledger, owner.account).moving
    assert entry.release_height == 8 + 6
    while chain.height < 12:
        chain.apply()
    assert_refused(chain, owner, Withdraw(), Reason.NOT_NOW)
    chain.evidence = [accuse(source, epoch=1)]
    chain.apply()
    left = 1_000 * chain.account(source).bonded // STAKE
    assert 0 < left < 200 and moving_worth(chain, owner) == left
    assert chain.behind(target).delegated - left in (0, 1), "what is left of all parts together is rounded up"
    for _ in range(5):
        assert_refused(chain, owner, Undelegate(target.account, Amount(1)), Reason.NOT_NOW)
        chain.apply()
    assert chain.height == 18, "as long as others may be found to have offended with it, it answers for it"
    chain.apply()
    assert chain.do((owner, Withdraw())) == ("",)
    assert load_delegations(chain.ledger, owner.account).moving == ()


def test_what_is_refused() -> None:
    chain = Chain(others=2, parameters=QUICK)
    (one, two, three, _), (owner, stranger) = chain.keys, chain.others

    def refuse(reason: Reason, detail: str, source: SecretKey, target: SecretKey, amount: int = 5) -> None:
        action = Redelegate(source.account, target.account, Amount(amount))
        assert_refused(chain, owner, action, reason, detail)

    refuse(Reason.NOT_NOW, "nothing is delegated", one, two)
    chain.do((owner, Delegate(one.account, Amount(10))), (two, Delegate(one.account, Amount(10))), (three, Retire()))
    refuse(Reason.NOT_ALLOWED, "to itself", one, one)
    refuse(Reason.NOT_ALLOWED, "only candidates", one, three)
    refuse(Reason.NOT_ALLOWED, "only candidates", one, stranger)
    refuse(Reason.OUT_OF_RANGE, "nothing to move", one, two, 0)
    refuse(Reason.INSUFFICIENT_FUNDS, "10 are delegated", one, two, 11)
    own = Redelegate(one.account, two.account, Amount(5))
    assert_refused(chain, two, own, Reason.NOT_ALLOWED, "own stake")
    burn(chain, one, 1_000_000)
    refuse(Reason.INSUFFICIENT_FUNDS, "0 are delegated", one, two)


def test_records_are_bounded() -> None:
    chain = Chain(TARGETS_MAX + 2, 2, replace(QUICK, unbond_blocks=Count(50)))
    (source, *targets), (owner, other) = chain.keys, chain.others
    chain.do((owner, Delegate(source.account, Amount(100))), (other, Delegate(source.account, Amount(100))))
    moves = [(owner, Redelegate(source.account, target.account, Amount(1))) for target in targets[:TARGETS_MAX]]
    assert TARGETS_MAX == DELEGATIONS_MAX
    assert chain.do(*moves) == ("",) * (DELEGATIONS_MAX - 1) + ("full: delegations to 16 validators at most",)
    assert chain.do((other, moves[-1][1])) == ("",)
    last = Redelegate(source.account, targets[-1].account, Amount(1))
    assert_refused(chain, other, last, Reason.FULL, "undelegate instead")
    assert chain.do((owner, moves[0][1])) == ("",)
    assert_refused(chain, owner, moves[0][1], Reason.FULL, "too much is moving")
    assert chain.do((other, moves[0][1])) == ("",)
    assert load_moved(chain.ledger, source.account)[0].parts == 3


def test_a_dear_share_lets_nothing_out_early_and_takes_nothing_either() -> None:
    """A share of the target costs 1,000: 1,999 buy one, and the rest stays where it was."""
    chain = Chain(others=2, parameters=QUICK)
    source, target, owner, first = *chain.keys[:2], *chain.others
    chain.do((first, Delegate(target.account, Amount(1_000))), (owner, Delegate(source.account, Amount(1_999))))
    draft = Draft(chain.ledger)
    store_validator(draft, target.account, replace(chain.behind(target), shares=Count(1)))
    chain.table.update({name: value for name, value in draft.changes.items() if value is not None})
    cheap = Redelegate(source.account, target.account, Amount(999))
    assert_refused(chain, owner, cheap, Reason.OUT_OF_RANGE, "less than a share")
    assert chain.do((owner, replace(cheap, amount=Amount(1_999)))) == ("",)
    assert chain.account(owner).balance == BALANCE - 1_999 - 2
    assert (chain.behind(source).delegated, chain.behind(source).shares) == (999, 999)
    assert (chain.behind(target).delegated, chain.behind(target).shares) == (2_000, 2)


def test_the_last_one_out_gets_the_rest_after_the_waiting_time() -> None:
    """Three shares of the source are worth ten coins; moving nine takes all three, and one coin waits."""
    chain = Chain(parameters=QUICK)
    source, target, owner = chain.keys[0], chain.keys[1], chain.others[0]
    chain.do((owner, Delegate(source.account, Amount(10))))
    draft = Draft(chain.ledger)
    delegations = replace(load_delegations(draft, owner.account), held=(Delegation(source.account, Count(3)),))
    draft.store(b"delegations/" + owner.account, delegations)
    store_validator(draft, source.account, replace(chain.behind(source), shares=Count(3)))
    chain.table.update({name: value for name, value in draft.changes.items() if value is not None})
    assert chain.do((owner, Redelegate(source.account, target.account, Amount(9)))) == ("",)
    assert load_delegations(chain.ledger, owner.account).leaving == (
        Leaving(source.account, Amount(1), Count(0), Height(5)),
    )
    record = chain.behind(source)
    assert (record.delegated, record.shares, record.leaving) == (0, 0, 1)


def test_what_rounding_leaves_of_moved_shares_is_given_up() -> None:
    """Two parts of one share each lose half: each is worth nothing, and the share that is left is nobody's."""
    chain = Chain(others=2, parameters=QUICK)
    source, target = chain.keys[:2]
    for owner in chain.others:
        move = Redelegate(source.account, target.account, Amount(1))
        chain.do((owner, Delegate(source.account, Amount(1))), (owner, move))
    burn(chain, source, 500_000)
    assert (chain.behind(target).delegated, chain.behind(target).shares) == (1, 1)
    for _ in range(4):
        chain.apply()
    chain.do(*[(owner, Withdraw()) for owner in chain.others])
    assert (chain.behind(target).delegated, chain.behind(target).shares) == (0, 0)
    assert b"moved-stake/" + source.account not in chain.table

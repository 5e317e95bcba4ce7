"""Whatever is sent, accused and missed, over many epochs: coins are conserved and every set is what the rules say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.errors import Rejected
from milon.base.ids import AccountId
from milon.base.signing import SecretKey
from milon.base.units import Amount, Count, Epoch
from milon.chain.certificate import Validator
from milon.chain.evidence import offender_of
from milon.chain.params import Parameters
from milon.chain.transaction import (
    Action,
    Bond,
    Delegate,
    Redelegate,
    Retire,
    Stand,
    Transfer,
    Unbond,
    Undelegate,
    Unjail,
    Withdraw,
)
from milon.contracts.accounts import load_account, load_validators
from milon.contracts.apply import apply_block
from milon.contracts.delegation import compute_left, compute_moved, compute_value, load_delegations
from milon.contracts.moved import load_moved
from milon.contracts.offences import select_evidence
from milon.contracts.records import ValidatorRecord
from milon.contracts.validators import load_candidates, load_validator
from milon.state.ledger import Draft
from tests.contracts.helpers import STAKE, Chain, account_id, accuse

PARAMETERS = Parameters(
    epoch_blocks=Count(3),
    unbond_blocks=Count(5),
    evidence_age_blocks=Count(4),
    validators_max=Count(6),
    validator_bond_min=Amount(500),
    block_reward=Amount(137),
    jail_turns_min=Count(2),
    jail_blocks=Count(3),
    learning_ppm=Count(400_000),
)
VALIDATORS, OTHERS = 6, 3


def draw_amount(data: st.DataObject, most: int) -> Amount:
    """Coins up to about `most`, now and then nonsense."""
    return Amount(
        data.draw(st.sampled_from([1, most // 3, most // 2, most - 3, most, most + 1, 0, 1 << 62])) % (1 << 63)
    )


def draw_action(chain: Chain, data: st.DataObject, key: SecretKey, people: list[AccountId]) -> Action:
    """Some action on stake that often makes sense."""
    account, delegations = chain.account(key), load_delegations(chain.ledger, key.account)
    person = data.draw(st.sampled_from(people))
    kind = data.draw(
        st.sampled_from(["bond", "unbond", "withdraw", "stand", "retire", "unjail", "lend", "back", "move", "give"])
    )
    match kind:
        case "bond":
            return Bond(draw_amount(data, account.balance // 2))
        case "unbond":
            return Unbond(draw_amount(data, account.bonded))
        case "withdraw":
            return Withdraw()
        case "stand":
            return Stand(Count(data.draw(st.sampled_from([0, 70_000, 1_000_000, 1_000_001]))))
        case "retire":
            return data.draw(st.sampled_from([Retire(), Withdraw()]))
        case "unjail":
            return Unjail()
        case "lend":
            return Delegate(person, draw_amount(data, account.balance // 2))
        case "back" if delegations.held:
            held = data.draw(st.sampled_from(delegations.held))
            worth = compute_value(load_validator(chain.ledger, held.validator), held.shares)
            return Undelegate(held.validator, draw_amount(data, worth))
        case "move" if delegations.held:
            held = data.draw(st.sampled_from(delegations.held))
            worth = compute_value(load_validator(chain.ledger, held.validator), held.shares)
            return Redelegate(held.validator, person, draw_amount(data, worth))
        case "back" | "move":
            return Undelegate(person, draw_amount(data, STAKE))
        case _:
            return Transfer(person, draw_amount(data, account.balance // 3))


def make_chain(data: st.DataObject) -> Chain:
    """A chain on which others stand too, and delegate to each other and to validators."""
    chain = Chain(VALIDATORS, OTHERS, PARAMETERS)
    for key in chain.others:
        bond = data.draw(st.sampled_from([0, 400, STAKE // 3, STAKE, 40 * STAKE]))
        chosen = data.draw(st.sampled_from([*chain.keys, *chain.others]))
        chain.do(
            (key, Bond(Amount(bond))),
            (key, Stand(Count(50_000))),
            (key, Delegate(chosen.account, Amount(data.draw(st.sampled_from([7, STAKE // 2, 30 * STAKE]))))),
        )
    return chain


def assert_delegations_add_up(chain: Chain, keys: list[SecretKey]) -> None:
    """Of each validator: all shares are somebody's, and nobody's parts are more than there is."""
    shares: dict[AccountId, int] = {}
    worth: dict[AccountId, int] = {}
    leaving: dict[AccountId, int] = {}
    for key in keys:
        delegations = load_delegations(chain.ledger, key.account)
        for held in delegations.held:
            record = load_validator(chain.ledger, held.validator)
            assert held.shares > 0
            shares[held.validator] = shares.get(held.validator, 0) + held.shares
            worth[held.validator] = worth.get(held.validator, 0) + compute_value(record, held.shares)
        for entry in delegations.leaving:
            record = load_validator(chain.ledger, entry.validator)
            leaving[entry.validator] = leaving.get(entry.validator, 0) + compute_left(record, entry)
    for key in keys:
        for target, moved in moved_from(chain, key.account, keys).items():
            shares[target] = shares.get(target, 0) + moved.shares
            worth[target] = worth.get(target, 0) + moved.worth
    for key in keys:
        record = load_validator(chain.ledger, key.account)
        assert shares.get(key.account, 0) == record.shares
        assert worth.get(key.account, 0) <= record.delegated
        assert leaving.get(key.account, 0) <= record.leaving


@dataclass(frozen=True, slots=True)
class Moved:
    """What moved from one validator to another and has not arrived."""

    shares: int  # noted at the first
    worth: int  # of the delegators' parts


def moved_from(chain: Chain, source: AccountId, keys: list[SecretKey]) -> dict[AccountId, Moved]:
    """Of each target: what is noted is at least what its delegators have, and as many parts."""
    parts: dict[AccountId, list[int]] = {}
    for key in keys:
        for entry in load_delegations(chain.ledger, key.account).moving:
            if entry.source == source:
                left = compute_moved(load_validator(chain.ledger, source), entry)
                parts.setdefault(entry.target, []).append(left)
    noted = {entry.target: entry for entry in load_moved(chain.ledger, source)}
    assert set(noted) == set(parts) and source not in parts
    for target, lefts in parts.items():
        assert noted[target].parts == len(lefts) and noted[target].shares >= sum(lefts)
    return {
        target: Moved(noted[target].shares, sum(compute_value(load_validator(chain.ledger, target), n) for n in lefts))
        for target, lefts in parts.items()
    }


def cut_to_cap(stakes: dict[AccountId, int], cap: Fraction) -> dict[AccountId, int]:
    """Each stake cut to the largest whole power that is within the cap of all powers together, by trying."""
    if len(stakes) * cap < 1:
        return stakes
    low, high = 1, max(stakes.values(), default=1)
    while low < high:
        middle = (low + high + 1) // 2
        is_within = middle <= cap * sum(min(stake, middle) for stake in stakes.values())
        low, high = (middle, high) if is_within else (low, middle - 1)
    return {account: min(stake, low) for account, stake in stakes.items()}


def choose_plainly(chain: Chain) -> dict[AccountId, int]:
    """The powers of the set that the rule's words give, after the epoch's last block; empty where nobody is chosen."""
    parameters = chain.parameters
    stakes: dict[AccountId, int] = {}
    for key in (*chain.keys, *chain.others):
        record, account = load_validator(chain.ledger, key.account), load_account(chain.ledger, key.account)
        is_free = record.is_candidate and not record.is_tombstoned and record.jailed_until == 0
        if is_free and account.bonded >= parameters.validator_bond_min:
            stakes[key.account] = account.bonded + record.delegated
    ranked = sorted(stakes, key=lambda account: (-stakes[account], account))[: parameters.validators_max]
    return cut_to_cap({account: stakes[account] for account in ranked}, Fraction(parameters.power_cap_ppm, 1_000_000))


def assert_set(chain: Chain, chosen: tuple[Validator, ...], previous: tuple[Validator, ...]) -> None:
    """The set is in order, as the rule says, capped, and free of the jailed and the tombstoned."""
    accounts = [member.account for member in chosen]
    assert accounts == sorted(set(accounts))
    assert 1 <= len(chosen) <= PARAMETERS.validators_max
    assert load_validators(chain.ledger).validators == chosen
    expected = choose_plainly(chain)
    if not expected:
        assert chosen == previous
        return
    assert {member.account: member.power for member in chosen} == expected
    total = sum(member.power for member in chosen)
    for member in chosen:
        record = load_validator(chain.ledger, member.account)
        assert not record.is_tombstoned and not record.jailed_until
        assert len(chosen) < 4 or 1_000_000 * member.power <= PARAMETERS.power_cap_ppm * total


def draw_evidence(chain: Chain, data: st.DataObject, keys: list[SecretKey]) -> None:
    """Now and then accuse somebody; what may not stand in a block makes it invalid and changes nothing."""
    if not data.draw(st.sampled_from([True, False, False])):
        return
    context = chain.context()
    epoch = data.draw(st.integers(max(0, context.epoch - 3), context.epoch + 1))
    offered = [accuse(key, epoch) for key in data.draw(st.lists(st.sampled_from(keys), max_size=3))]
    chosen = select_evidence(chain.ledger, offered, context.height, chain.parameters)
    for piece in offered:
        if offender_of(piece) not in [offender_of(entry) for entry in chosen]:
            try:
                apply_block(chain.ledger, replace(context, evidence=(piece,)), ())
            except Rejected:
                continue
            raise AssertionError("a proposer leaves out what may stand in its block")
    chain.evidence = list(chosen)


def step(chain: Chain, data: st.DataObject, keys: list[SecretKey]) -> None:
    """One block of anything."""
    people = [*(key.account for key in keys), account_id(99)]
    previous = load_validators(chain.ledger).validators
    draw_evidence(chain, data, keys)
    if data.draw(st.sampled_from([True, False, False, False])):
        chain.missed = [data.draw(st.sampled_from(previous)).account] * data.draw(st.integers(1, 8))
    signed, ahead = [], dict.fromkeys(people, 0)
    for _ in range(data.draw(st.integers(0, 4))):
        key = data.draw(st.sampled_from(keys))
        action = draw_action(chain, data, key, people)
        if load_account(chain.ledger, key.account).balance > 10:
            signed.append(chain.sign(key, action, ahead[key.account]))
            ahead[key.account] += 1
    try:
        again = apply_block(chain.ledger, chain.context(), signed)
    except Rejected:  # a transfer left too little for the next fee
        signed = []
        again = apply_block(chain.ledger, chain.context(), signed)
    applied = chain.apply(*signed)
    assert (applied.ledger.changes, applied.validators) == (again.ledger.changes, again.validators)
    assert_delegations_add_up(chain, keys)
    if applied.validators is not None:
        assert_set(chain, applied.validators, previous)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_over_many_epochs_coins_are_conserved_and_sets_follow_the_rules(data: st.DataObject) -> None:
    """`Chain.apply` holds the supply equation after every block and decodes every record."""
    chain = make_chain(data)
    keys = [*chain.keys, *chain.others]
    for _ in range(data.draw(st.integers(6, 16))):
        step(chain, data, keys)
    assert set(load_candidates(chain.ledger)) <= {key.account for key in keys}


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_everybody_can_leave_in_the_end(data: st.DataObject) -> None:
    """After anything that happened: all stake that was not burned comes back, but for what rounding left over."""
    chain = make_chain(data)
    keys = [*chain.keys, *chain.others]
    for _ in range(data.draw(st.integers(1, 8))):
        step(chain, data, keys)
    for _ in range(3):
        for key in keys:
            leave(chain, key)
        while any(chain.account(key).unbonding or is_under_way(chain, key) for key in keys):
            before = chain.height
            for key in keys:
                if load_account(chain.ledger, key.account).balance:
                    chain.do((key, Withdraw()))
            assert before < chain.height < 400
    for key in keys:
        account, record = chain.account(key), load_validator(chain.ledger, key.account)
        if account.balance > 100:
            assert (account.bonded, account.unbonding) == (0, ())
        assert isinstance(record, ValidatorRecord) and record.leaving <= 40


def is_under_way(chain: Chain, key: SecretKey) -> bool:
    """Whether stake of the account is on its way back, or to another validator."""
    delegations = load_delegations(chain.ledger, key.account)
    return bool(delegations.leaving or delegations.moving)


def leave(chain: Chain, key: SecretKey) -> None:
    """Ask for everything back that fits into a block."""
    asked: list[Action] = []
    if chain.account(key).bonded:
        asked.append(Unbond(chain.account(key).bonded))
    for held in load_delegations(chain.ledger, key.account).held:
        worth = compute_value(load_validator(chain.ledger, held.validator), held.shares)
        asked.append(Undelegate(held.validator, Amount(max(1, worth))))
    if chain.account(key).balance > len(asked):
        chain.do(*[(key, action) for action in asked])


def test_the_next_set_depends_on_the_ledger_alone() -> None:
    """However the stake came there and in whatever order: the same set, and asking for it changes nothing."""
    sets = []
    for order in (1, -1):
        chain = Chain(4, 3, PARAMETERS)
        for key in [*chain.others][::order]:
            chain.do((key, Bond(Amount(2_000))), (key, Stand(Count(0))))
        before = dict(chain.table)
        draft = Draft(chain.ledger)
        sets.append(chain.end_epoch())
        assert not draft.changes and before != chain.table
    assert sets[0] == sets[1]
    assert load_validators(chain.ledger).epoch == Epoch(2)

"""Evidence on the ledger: who is slashed, by how much, once, and where no stake escapes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.base.signing import SecretKey
from milon.base.units import Amount, Count, Epoch, View
from milon.chain.certificate import VoteContent, VoteKind, sign_vote
from milon.chain.evidence import (
    EVIDENCE_BYTES_MAX,
    EVIDENCE_MAX,
    BadJustification,
    Evidence,
    compute_evidence_id,
    offender_of,
)
from milon.chain.header import compute_header_hash
from milon.chain.params import Parameters
from milon.chain.transaction import Bond, Delegate, Stand, Unbond, Undelegate, Withdraw
from milon.contracts.accounts import load_supply
from milon.contracts.apply import apply_block
from milon.contracts.offences import select_evidence
from tests.api.fake_node import make_header
from tests.contracts.helpers import CHAIN_ID, STAKE, Chain, accuse, assert_refused

EPOCHS = Parameters(epoch_blocks=Count(4), unbond_blocks=Count(6), evidence_age_blocks=Count(5))
BASE = 50_000


def accuse_in_block(chain: Chain, *evidence: Evidence) -> None:
    """A block with evidence."""
    chain.evidence = list(evidence)
    chain.apply()


def assert_invalid(chain: Chain, reason: Reason, *evidence: Evidence) -> None:
    """A block with this evidence is invalid."""
    with pytest.raises(Rejected) as refusal:
        apply_block(chain.ledger, replace(chain.context(), evidence=evidence), ())
    assert refusal.value.reason is reason, refusal.value


def lost(chain: Chain, key: SecretKey) -> int:
    """The share of its own stake a genesis validator has lost, in parts per million."""
    return chain.account(key).slashed * 1_000_000 // STAKE


def test_an_offender_is_slashed_and_never_votes_again() -> None:
    """One of twenty: the least share and three times its twentieth of the power."""
    chain = Chain(20, parameters=EPOCHS)
    key = chain.keys[0]
    burned = load_supply(chain.ledger).burned
    accuse_in_block(chain, accuse(key))
    assert lost(chain, key) == BASE + 3 * 50_000
    assert load_supply(chain.ledger).burned == burned + STAKE // 5, "nobody earns by it"
    assert chain.behind(key).is_tombstoned
    assert key.account not in [member.account for member in chain.end_epoch()]
    assert_refused(chain, key, Stand(Count(0)), Reason.NOT_ALLOWED, "never votes again")
    chain.do((key, Bond(Amount(STAKE))))
    assert key.account not in [member.account for member in chain.end_epoch()]


def test_nobody_is_slashed_twice() -> None:
    chain = Chain(parameters=EPOCHS)
    key = chain.keys[0]
    assert_invalid(chain, Reason.DUPLICATE, accuse(key, view=1), accuse(key, view=2))
    accuse_in_block(chain, accuse(key))
    assert_invalid(chain, Reason.DUPLICATE, accuse(key))
    assert_invalid(chain, Reason.DUPLICATE, accuse(key, view=9))


def test_evidence_has_an_age() -> None:
    """Of epoch 0, which ends at height 4, it counts up to height 9."""
    chain = Chain(parameters=EPOCHS)
    while chain.height < 8:
        chain.apply()
    one, other = chain.keys[:2]
    accuse_in_block(chain, accuse(one))
    assert chain.account(one).slashed > 0
    assert_invalid(chain, Reason.STALE, accuse(other))
    assert_invalid(chain, Reason.OUT_OF_RANGE, accuse(other, epoch=3))
    accuse_in_block(chain, accuse(other, epoch=2))


def test_only_members_of_the_epochs_set_are_accused() -> None:
    chain = Chain(parameters=EPOCHS)
    late = chain.others[0]
    chain.do((late, Bond(Amount(STAKE))), (late, Stand(Count(0))))
    chain.end_epoch()
    assert_invalid(chain, Reason.NOT_ALLOWED, accuse(late))
    accuse_in_block(chain, accuse(late, epoch=1))
    assert chain.behind(late).is_tombstoned


def test_those_who_offend_together_lose_more_each() -> None:
    chain = Chain(20, parameters=EPOCHS)
    one, two, three = chain.keys[:3]
    accuse_in_block(chain, accuse(one))
    assert lost(chain, one) == 200_000
    accuse_in_block(chain, accuse(two), accuse(three))
    assert [lost(chain, key) for key in (one, two, three)] == [BASE + 3 * 150_000] * 3


def test_a_third_of_the_power_loses_everything() -> None:
    chain = Chain(9, parameters=EPOCHS)
    accuse_in_block(chain, *[accuse(key) for key in chain.keys[:3]])
    assert all(chain.account(key).bonded == 0 for key in chain.keys[:3])
    assert all(chain.account(key).slashed == 0 for key in chain.keys[3:])
    assert len(chain.end_epoch()) == 6


def test_offences_far_apart_do_not_count_together() -> None:
    chain = Chain(20, parameters=EPOCHS)
    one, two = chain.keys[:2]
    accuse_in_block(chain, accuse(one))
    while chain.height < 6:
        chain.apply()
    accuse_in_block(chain, accuse(two, epoch=1))
    assert lost(chain, one) == 200_000
    assert lost(chain, two) == (BASE + 3 * (1_000_000 // 19)) * STAKE // 1_000_000 * 1_000_000 // STAKE


def test_no_stake_behind_the_offender_escapes() -> None:
    """Bonded, on its way out, delegated, and delegated on its way out: all lose half."""
    half = replace(EPOCHS, evidence_slash_ppm=Count(500_000), evidence_correlation=Count(0))
    chain = Chain(parameters=half)
    key, owner = chain.keys[0], chain.others[0]
    chain.do(
        (key, Unbond(Amount(4_000))),
        (owner, Delegate(key.account, Amount(1_000))),
        (owner, Undelegate(key.account, Amount(400))),
    )
    accuse_in_block(chain, accuse(key))
    account, record = chain.account(key), chain.behind(key)
    assert (account.bonded, account.unbonding[0].amount) == (3_000, 2_000)
    assert (record.delegated, record.leaving) == (300, 200)


def test_stake_that_voted_is_still_there_when_the_last_evidence_comes() -> None:
    """Asked back in an epoch's first block; slashed in the last block that evidence of that epoch may stand in."""
    chain = Chain(parameters=EPOCHS)
    key, owner = chain.keys[0], chain.others[0]
    chain.do((owner, Delegate(key.account, Amount(1_000))))
    assert chain.do((key, Unbond(Amount(STAKE))), (owner, Undelegate(key.account, Amount(1_000)))) == ("", "")
    while chain.height < 8:
        chain.apply()
    for who in (key, owner):
        assert_refused(chain, who, Withdraw(), Reason.NOT_NOW)
    accuse_in_block(chain, accuse(key))
    assert chain.account(key).unbonding[0].amount < STAKE
    assert chain.behind(key).leaving < 1_000
    for _ in range(5):
        assert_refused(chain, key, Withdraw(), Reason.NOT_NOW)
        assert_refused(chain, owner, Withdraw(), Reason.NOT_NOW)
        chain.apply()
    assert chain.height == 14, "as long as others may be found to have offended with it, all of it stays"
    assert chain.do((key, Withdraw()), (owner, Withdraw())) == ("", "")
    assert chain.account(key).unbonding == ()


def test_a_block_has_room_for_few_pieces() -> None:
    chain = Chain(EVIDENCE_MAX + 1, parameters=EPOCHS)
    assert_invalid(chain, Reason.TOO_LARGE, *[accuse(key) for key in chain.keys])


def test_a_proposer_picks_what_may_stand_in_its_block() -> None:
    chain = Chain(EVIDENCE_MAX + 4, parameters=EPOCHS)
    known, stranger = chain.keys[0], chain.others[0]
    accuse_in_block(chain, accuse(known))
    height = chain.context().height
    offered = [accuse(key, view=view) for key in chain.keys for view in (1, 2)]
    offered += [accuse(stranger), accuse(chain.keys[1], epoch=3)]
    chosen = select_evidence(chain.ledger, offered, height, chain.parameters)
    assert len(chosen) == EVIDENCE_MAX == len({offender_of(piece) for piece in chosen})
    assert [compute_evidence_id(piece) for piece in chosen] == sorted(compute_evidence_id(piece) for piece in chosen)
    accuse_in_block(chain, *chosen)
    rest = select_evidence(chain.ledger, offered, chain.context().height, chain.parameters)
    assert len(rest) == 3


def test_evidence_comes_before_the_transactions_of_its_block() -> None:
    chain = Chain(parameters=EPOCHS)
    key, owner = chain.keys[0], chain.others[0]
    chain.evidence = [accuse(key)]
    problems = chain.do((owner, Delegate(key.account, Amount(5))), (key, Stand(Count(0))))
    assert [problem.split(":")[0] for problem in problems] == ["not-allowed", "not-allowed"]


def test_a_tombstoned_leader_earns_nothing() -> None:
    chain = Chain(parameters=replace(EPOCHS, block_reward=Amount(10)))
    key = chain.keys[2]  # proposes height 2
    accuse_in_block(chain, accuse(key))
    minted = load_supply(chain.ledger).minted
    assert chain.context().proposer == key.account
    chain.apply()
    assert load_supply(chain.ledger).minted == minted
    chain.apply()
    assert load_supply(chain.ledger).minted == minted + 10


def test_a_leader_counts_no_offence_that_it_cannot_carry() -> None:
    """Evidence is large where it opens a certificate; what does not fit waits for the next block."""
    chain = Chain(4, parameters=EPOCHS)
    header = make_header(3)
    large = [
        BadJustification(
            sign_vote(key, CHAIN_ID, VoteContent(VoteKind.NOTARIZE, Epoch(0), View(3), compute_header_hash(header))),
            header,
            Count(0),
            bytes(200 << 10),
            (),
        )
        for key in chain.keys
    ]
    chosen = select_evidence(chain.ledger, large, chain.context().height, chain.parameters)
    assert len(chosen) == 2
    assert sum(len(encode(piece)) for piece in chosen) <= EVIDENCE_BYTES_MAX


def test_in_a_fixed_set_the_offender_pays_and_votes_on() -> None:
    chain = Chain()
    key = chain.keys[0]
    accuse_in_block(chain, accuse(key))
    assert lost(chain, key) == 800_000
    assert_refused(chain, key, Unbond(Amount(1)), Reason.NOT_ALLOWED, "votes")

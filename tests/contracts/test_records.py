"""Records and keys: no two kinds of thing share a key, and a record of any kind survives its encoding."""

from __future__ import annotations

from itertools import combinations

from milon.base.ids import ClaimId, Digest, JobId
from milon.contracts import claims_records, records
from milon.state.store import KEY_MAX_BYTES
from tests.contracts.helpers import STAKE, Chain, account_id


def test_keys_of_different_things_never_meet() -> None:
    name = Digest(bytes(32))
    keys = [
        records.SUPPLY_KEY,
        records.VALIDATORS_KEY,
        records.CANDIDATES_KEY,
        records.OFFENDERS_KEY,
        records.OPEN_JOBS_KEY,
        records.validator_key(account_id(0)),
        records.past_validators_key(0),
        records.delegations_key(account_id(0)),
        records.account_key(account_id(0)),
        records.beacon_key(0),
        records.job_key(JobId(name)),
        records.open_round_key(JobId(name)),
        records.closed_round_key(JobId(name), 0),
        records.outcome_key(JobId(name), name),
        claims_records.claim_key(ClaimId(name)),
        claims_records.dispute_key(ClaimId(name)),
    ]
    assert all(len(key) <= KEY_MAX_BYTES for key in keys)
    for one, other in combinations(keys, 2):
        prefix = one.split(b"/")[0]
        assert other.split(b"/")[0] != prefix


def test_beacons_and_rounds_lie_in_their_order() -> None:
    job = JobId(bytes(32))
    for key_of in (records.beacon_key, lambda number: records.closed_round_key(job, number)):
        keys = [key_of(number) for number in (0, 1, 255, 256, 1 << 40)]
        assert keys == sorted(keys)


def test_power_is_a_validators_and_nobody_elses() -> None:
    chain = Chain()
    validators = chain.ledger.load(records.VALIDATORS_KEY, records.ValidatorSet)
    assert validators is not None
    assert records.power_of(validators, chain.keys[0].account) == STAKE
    assert records.power_of(validators, chain.others[0].account) == 0


def test_settled_claims_are_those_that_nothing_moves() -> None:
    waiting = {"sampling", "committing", "revealing", "opening", "suspended", "disputed"}
    settled = {entry.value for entry in claims_records.SETTLED}
    assert {status.value for status in claims_records.ClaimStatus} - waiting == settled

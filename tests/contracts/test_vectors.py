"""Frozen bytes: a transaction of every kind, the table at genesis, and the table after a scripted life of a job.

A changed digest means another chain: nodes of before and after would no longer agree. Where that is meant, put the new
digests, which the failing test prints, into the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from milon.base.codec import decode, encode
from milon.base.hashing import digest, sha256
from milon.base.ids import AccountId, ClaimId, Digest, JobId, VrfProof
from milon.base.signing import secret_key_from
from milon.base.units import Amount, Count, Nonce, Round
from milon.chain.certificate import compute_validators_hash
from milon.chain.params import Parameters
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
from milon.pol.claim import SegmentRecord
from milon.pol.dispute import Answer, Choice, Pick, make_partial
from milon.pol.verdict import Refusal, RoundOutcome, Verdict
from tests.contracts.helpers import CHAIN_ID, Chain, accuse, make_spec
from tests.contracts.players import make_world, start_job

FROZEN = Path(__file__).parents[1] / "vectors" / "contracts.json"

A, B, C = (Digest(bytes([value]) * 32) for value in (1, 2, 3))
JOB, CLAIM, ACCOUNT = JobId(A), ClaimId(B), AccountId(C)
OUTCOME = RoundOutcome(A, Count(1), Count(2), Count(3), (ACCOUNT,), (Refusal(AccountId(B), "far"),), "")
ACTIONS: tuple[Action, ...] = (
    Transfer(ACCOUNT, Amount(5)),
    Bond(Amount(6)),
    Unbond(Amount(7)),
    Withdraw(),
    Stand(Count(50_000)),
    Retire(),
    Unjail(),
    Delegate(ACCOUNT, Amount(11)),
    Undelegate(ACCOUNT, Amount(12)),
    Redelegate(ACCOUNT, AccountId(B), Amount(13)),
    SubmitJob(make_spec(), Amount(8)),
    HoldJob(JOB, "why"),
    Enrol(JOB, Count(9)),
    Claim(JOB, Round(1), Count(4), Count(2), A, B, C, Count(10)),
    CommitAttestation(CLAIM, C),
    Attest(CLAIM, VrfProof(bytes(80)), A, B),
    Challenge(CLAIM, Count(3), Verdict.FALSE),
    AnswerDispute(CLAIM, Count(1), Count(4), Answer(partials=(make_partial(5, -1, -6, is_special=False),))),
    ChooseDispute(CLAIM, Count(1), Count(5), Choice(Pick.CHILD, Count(2))),
    OpenTraces(CLAIM, (SegmentRecord(Count(0), A, B, Count(4)),), (C,)),
    Judge(CLAIM, Count(1), Verdict.UNAVAILABLE),
    AggregateVote(JOB, Round(1), OUTCOME),
)


def compute_table_digest(table: dict[bytes, bytes]) -> Digest:
    """Over all keys and values in order."""
    return digest("test-table", *(part for entry in sorted(table.items()) for part in entry))


def live_through_epochs() -> tuple[Chain, Digest]:
    """A chain after three epochs with everything that changes a set, and the name of its next set."""
    parameters = Parameters(
        epoch_blocks=Count(4),
        unbond_blocks=Count(6),
        evidence_age_blocks=Count(5),
        block_reward=Amount(1_000),
        jail_turns_min=Count(2),
    )
    chain = Chain(5, 2, parameters)
    newcomer, owner = chain.others
    chain.do(
        (newcomer, Bond(Amount(30_000))),
        (newcomer, Stand(Count(70_000))),
        (owner, Delegate(newcomer.account, Amount(12_345))),
        (owner, Delegate(chain.keys[1].account, Amount(999))),
    )
    chain.missed = [chain.keys[4].account] * 5
    chain.end_epoch()
    chain.evidence = [accuse(chain.keys[1], epoch=1)]
    chain.do(
        (owner, Undelegate(newcomer.account, Amount(345))),
        (owner, Redelegate(newcomer.account, chain.keys[3].account, Amount(2_000))),
        (chain.keys[0], Unbond(Amount(1_000))),
        (chain.keys[2], Retire()),
    )
    chain.end_epoch()
    return chain, compute_validators_hash(chain.end_epoch())


def compute_vectors() -> dict[str, str]:
    """Everything that is frozen, in hexadecimal."""
    key = secret_key_from("vector")
    found: dict[str, str] = {}
    for action in ACTIONS:
        body = TransactionBody(CHAIN_ID, key.account, Nonce(1), Amount(2), action)
        raw = encode(sign_transaction(key, body))
        assert encode(decode(Transaction, raw)) == raw
        found[f"transaction {type(action).__name__}"] = sha256(raw).hex()
    found["table at genesis"] = compute_table_digest(Chain().table).hex()
    world = make_world(p1={"lies": frozenset({3})}, p2={"is_lazy": True})
    job = start_job(world, audit_ppm=(Count(0), Count(500_000)))
    world.run(job, lambda record: record.next_round == 1)
    found["table after a round"] = compute_table_digest(world.chain.table).hex()
    world.finish(job)
    found["table after a job"] = compute_table_digest(world.chain.table).hex()
    chain, chosen = live_through_epochs()
    found["table after epochs"] = compute_table_digest(chain.table).hex()
    found["validators after epochs"] = chosen.hex()
    return found


def test_every_kind_of_transaction_is_frozen() -> None:
    assert [type(action) for action in ACTIONS] == list(get_args(Action))


def test_nothing_frozen_has_changed() -> None:
    found = compute_vectors()
    assert found == json.loads(FROZEN.read_text()), json.dumps(found, indent=2)

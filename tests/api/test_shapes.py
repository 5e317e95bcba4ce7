"""JSON values of snapshots."""

import json
from dataclasses import replace
from pathlib import Path

from milon.api.shapes import (
    float_from_bits,
    shape_block,
    shape_genesis,
    shape_job,
    shape_job_summary,
    shape_round,
    shape_status,
    shape_validator,
)
from milon.base.signing import secret_key_from
from milon.base.units import Height, Power
from milon.chain.genesis import compute_genesis_hash
from tests.api.fake_node import ACCOUNTS, GENESIS, JOB, NAN_BITS, FakeNode, make_job, make_round, make_status


def test_floats_come_from_their_bits_and_nan_is_null() -> None:
    assert float_from_bits(0x3F800000) == 1.0
    assert float_from_bits(0xBFC00000) == -1.5
    assert float_from_bits(NAN_BITS) is None
    assert float_from_bits(0x7F800000) is None


def test_everything_is_plain_json_without_nan() -> None:
    for shaped in (shape_status(make_status()), shape_job(make_job()), shape_genesis(GENESIS)):
        assert json.loads(json.dumps(shaped, allow_nan=False)) == shaped


def test_a_status_names_heights_peers_and_work() -> None:
    shaped = shape_status(make_status(height=9, peers=2))
    assert (shaped["height"], len(shaped["peers"]), shaped["account"]) == (9, 2, ACCOUNTS[0].hex())
    assert shaped["working"][0]["loss"] == 0.5
    assert shaped["working"][0]["trainer"] == ACCOUNTS[1].hex()


def test_a_round_has_its_accuracy_and_refusals() -> None:
    shaped = shape_job(make_job())
    outcome = shaped["rounds"][0]["outcome"]
    assert (outcome["accuracy"], outcome["loss"]) == (0.9, 0.5)
    assert outcome["refused"] == [{"trainer": ACCOUNTS[4].hex(), "reason": "screened: 450 % of the median distance"}]
    assert shaped["terms"]["aggregator"] == "trimmed-mean"
    assert shaped["current"]["claims"][0]["committee"] == [account.hex() for account in ACCOUNTS[1:4]]


def test_a_round_without_rows_has_no_accuracy_and_a_diverged_one_no_loss() -> None:
    outcome = shape_round(make_round(0, NAN_BITS, rows=0))["outcome"]
    assert outcome["accuracy"] is None
    assert outcome["loss"] is None


def test_a_summary_leaves_the_rounds_out() -> None:
    summary = shape_job_summary(make_job())
    assert (summary["job"], summary["round"], summary["rounds"], summary["accuracy"]) == (JOB.hex(), 2, 3, 0.9)


def test_a_validator_has_a_status(tmp_path: Path) -> None:
    view = FakeNode(tmp_path).validator(ACCOUNTS[0])
    gone = replace(view, power=Power(0))
    found = [
        shape_validator(entry)["status"]
        for entry in (
            view,
            replace(view, is_candidate=False),
            gone,
            replace(gone, is_candidate=False),
            replace(view, jailed_until=Height(3)),
            replace(view, jailed_until=Height(3), is_tombstoned=True),
        )
    ]
    assert found == ["active", "leaving", "waiting", "none", "jailed", "tombstoned"]


def test_a_block_counts_what_was_refused(tmp_path: Path) -> None:
    view = FakeNode(tmp_path).block(Height(3))
    assert view is not None
    shaped = shape_block(view)
    assert (shaped["transaction_count"], shaped["refused_count"]) == (2, 1)
    assert shaped["header"]["height"] == 3


def test_genesis_comes_with_its_hash() -> None:
    assert shape_genesis(GENESIS)["genesis_hash"] == compute_genesis_hash(GENESIS).hex()
    assert secret_key_from("node 0").account.hex() in [entry["account"] for entry in shape_genesis(GENESIS)["accounts"]]

"""`milon rewards`: what it prints and its exit codes."""

from pathlib import Path

from tests.api.fake_node import ACCOUNTS, JOB, make_job
from tests.api.serving import Served
from tests.cli.conftest import Milon


def test_what_does_not_add_up_ends_with_one(milon: Milon, node: Path, served: Served) -> None:
    """The fake node's round pays less than its claims earn, and its escrow says another sum."""
    told = milon("rewards", "explain", JOB.hex(), 1, "--node", node)
    assert told.code == 1
    assert ACCOUNTS[0].hex() in told.out and "segments x 5" in told.out
    assert "NOT EQUAL" in told.out
    assert "unpaid" not in told.out  # an audited round pays every accepted claim
    as_json = milon("rewards", "explain", JOB.hex(), 1, "--node", node, "--json")
    assert as_json.code == 1 and as_json.json["round"] == 1
    assert as_json.json["adds_up"] is False and as_json.json["receipts"][1]["reason"] == "slash"
    assert make_job().job == JOB


def test_an_unknown_round_is_refused(milon: Milon, node: Path) -> None:
    told = milon("rewards", "explain", JOB.hex(), 9, "--node", node, "--json")
    assert told.code == 2 and "no closed round 9" in told.json["error"]["detail"]
    assert milon("rewards", "explain", "latest", "x", "--node", node).code == 2

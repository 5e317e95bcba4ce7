"""`milon account` and `milon block`."""

from pathlib import Path

import pytest

from milon.base.signing import secret_key_from
from milon.chain.transaction import Transfer
from milon.node.keys import write_key
from tests.api.fake_node import ACCOUNTS
from tests.api.serving import Served
from tests.cli.conftest import Milon


@pytest.mark.parametrize(
    ("words", "action"),
    [
        (("transfer", ACCOUNTS[1].hex(), 5), Transfer(ACCOUNTS[1], 5)),  # type: ignore[arg-type]  # a plain 5 will do
    ],
)
def test_an_action_is_signed_with_the_nodes_key(
    milon: Milon, node: Path, served: Served, words: tuple[object, ...], action: object
) -> None:
    told = milon("account", *words, "--node", node, "--fee", 3, "--json")
    assert (told.code, told.json["status"]) == (0, "done")
    (sent,) = served.node.sent
    assert (sent.body.action, sent.body.fee) == (action, 3)
    assert sent.body.sender == secret_key_from("node 0").account


def test_another_key_may_sign(milon: Milon, node: Path, served: Served, tmp_path: Path) -> None:
    write_key(tmp_path / "b.key", secret_key_from("b"))
    assert milon("stake", "bond", 6, "--node", node, "--key", tmp_path / "b.key").code == 0
    assert served.node.sent[0].body.sender == secret_key_from("b").account


def test_the_chains_refusal_has_a_code_and_its_reason(milon: Milon, node: Path, served: Served) -> None:
    served.node.problem = "insufficient-funds: 6 where 0 are"
    told = milon("stake", "bond", 6, "--node", node, "--json")
    assert (told.code, told.json["error"]) == (3, {"reason": "insufficient-funds", "detail": "6 where 0 are"})


def test_wrong_words_send_nothing(milon: Milon, node: Path, served: Served) -> None:
    assert milon("account", "transfer", "zz", 5, "--node", node).code == 2
    assert milon("stake", "bond", 0, "--node", node).code == 2
    assert milon("stake", "bond", "x", "--node", node).code == 2
    assert served.node.sent == []


def test_an_account_is_shown(milon: Milon, node: Path) -> None:
    own = milon("account", "show", "--node", node, "--json").json
    assert (own["account"], own["balance"]) == (ACCOUNTS[0].hex(), 500)
    assert ACCOUNTS[1].hex() in milon("account", "show", ACCOUNTS[1].hex(), "--node", node).out


def test_a_block_is_shown_by_height_hash_or_as_the_latest(milon: Milon, node: Path) -> None:
    latest = milon("block", "show", "latest", "--node", node, "--json").json
    for name in ("12", latest["hash"]):
        assert milon("block", "show", name, "--node", node, "--json").json == latest
    assert "power 4000000 of 5000000" in milon("block", "show", 3, "--node", node).out
    assert milon("block", "show", 99, "--node", node).code == 3

"""`milon stake`: each command is one action, signed and sent."""

from pathlib import Path

import pytest
import typer

from milon.chain.transaction import Bond, Delegate, Redelegate, Retire, Stand, Unbond, Undelegate, Unjail, Withdraw
from milon_cli.stake import parse_percent
from tests.api.fake_node import ACCOUNTS
from tests.api.serving import Served
from tests.cli.conftest import Milon


@pytest.mark.parametrize(
    ("words", "action"),
    [
        (("bond", 6), Bond(6)),  # type: ignore[arg-type]  # a plain 6 will do
        (("unbond", 7), Unbond(7)),  # type: ignore[arg-type]  # as above
        (("delegate", ACCOUNTS[1].hex(), 8), Delegate(ACCOUNTS[1], 8)),  # type: ignore[arg-type]  # as above
        (("undelegate", ACCOUNTS[1].hex(), 9), Undelegate(ACCOUNTS[1], 9)),  # type: ignore[arg-type]  # as above
        (("redelegate", ACCOUNTS[1].hex(), ACCOUNTS[2].hex(), 9), Redelegate(ACCOUNTS[1], ACCOUNTS[2], 9)),  # type: ignore[arg-type]  # as above
        (("withdraw",), Withdraw()),
        (("stand", "--commission", "7.5%"), Stand(75_000)),  # type: ignore[arg-type]  # as above
        (("stand",), Stand(0)),  # type: ignore[arg-type]  # as above
        (("retire",), Retire()),
        (("unjail",), Unjail()),
    ],
)
def test_a_command_is_an_action(
    milon: Milon, node: Path, served: Served, words: tuple[object, ...], action: object
) -> None:
    told = milon("stake", *words, "--node", node, "--fee", 2, "--json")
    assert (told.code, told.json["status"]) == (0, "done")
    (sent,) = served.node.sent
    assert (sent.body.action, sent.body.fee) == (action, 2)


def test_wrong_words_send_nothing(milon: Milon, node: Path, served: Served) -> None:
    for words in (("delegate", "zz", 5), ("delegate", ACCOUNTS[1].hex(), 0), ("bond", -1), ("stand", "--commission=x")):
        assert milon("stake", *words, "--node", node).code == 2
    assert served.node.sent == []


@pytest.mark.parametrize(
    ("text", "ppm"), [("0", 0), ("5%", 50_000), ("7.25 %", 72_500), ("100", 1_000_000), ("0.0001%", 1)]
)
def test_shares_are_exact(text: str, ppm: int) -> None:
    assert parse_percent(text) == ppm


@pytest.mark.parametrize("text", ["", "%", "five", "-1", "100.1", "0.00001", "nan", "inf", "1e400"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_percent(text)

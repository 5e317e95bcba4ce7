"""`milon validator`: a validator leaves a folder for good, and a bundle serves once."""

from __future__ import annotations

from pathlib import Path

from milon.node.folder import NodeFolder
from tests.api.fake_node import ACCOUNTS
from tests.cli.conftest import Milon


def test_a_validator_moves_and_its_old_folder_refuses_to_start(milon: Milon, tmp_path: Path) -> None:
    source, path = tmp_path / "a", tmp_path / "v.bundle"
    account = milon("init", "--data", source, "--json").json["account"]
    told = milon("validator", "export", path, "--data", source, "--json")
    assert (told.code, told.json["account"], told.json["view"]) == (0, account, 0)
    for words in (
        ("join", "--data", source),
        ("init", "--data", source),
        ("validator", "export", path, "--data", source),
    ):
        again = milon(*words)
        assert again.code == 2, words
    assert "moved away" in milon("join", "--data", source).err
    assert not NodeFolder(source).validator_key.exists()
    assert milon("validator", "import", path, "--data", tmp_path / "b", "--json").json["account"] == account
    used = milon("validator", "import", path, "--data", tmp_path / "c", "--json")
    assert (used.code, used.json["error"]["reason"]) == (2, "duplicate")
    assert "validator.key" in milon("keys", "list", "--node", tmp_path / "b").out


def test_a_lost_record_of_what_was_signed_is_replaced_by_a_floor(milon: Milon, tmp_path: Path) -> None:
    milon("init", "--data", tmp_path / "a")
    told = milon("validator", "sign-above", 500, "--data", tmp_path / "a", "--json")
    assert told.json == {"epoch": 0, "view": 500}
    assert milon("validator", "sign-above", "--data", tmp_path / "a", "--", "-1").code == 2
    assert "view 500" in milon("validator", "sign-above", 7, "--data", tmp_path / "a").out


def test_members_and_candidates_are_listed(milon: Milon, node: Path) -> None:
    told = milon("validator", "list", "--node", node, "--json").json["validators"]
    assert [entry["account"] for entry in told] == [account.hex() for account in ACCOUNTS]
    assert {entry["status"] for entry in told} == {"active", "jailed"}
    lines = milon("validator", "list", "--node", node).out.splitlines()
    assert lines[0].split() == ["account", "status", "power", "bonded", "delegated", "commission", "learning"]
    assert len(lines) == 1 + len(ACCOUNTS)
    assert lines[-1].startswith(ACCOUNTS[-1].hex()), "without power last"


def test_a_validator_is_shown(milon: Milon, node: Path) -> None:
    own = milon("validator", "show", "--node", node, "--json").json
    assert (own["account"], own["status"], own["learning"]) == (ACCOUNTS[0].hex(), "active", 7)
    jailed = milon("validator", "show", ACCOUNTS[-1].hex(), "--node", node).out
    assert "from height 40 on" in jailed and "5.00 %" in jailed
    assert milon("validator", "show", "zz", "--node", node).code == 3

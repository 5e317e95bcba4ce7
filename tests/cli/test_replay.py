"""`milon replay`: exit codes, and what is said of a chain that does not come out again."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Milon
from tests.node.chains import grow, make_folder
from tests.node.test_replay import damage, flipped, record_of


def test_a_sound_chain_and_a_damaged_one(milon: Milon, tmp_path: Path) -> None:
    folder = make_folder(grow(), tmp_path / "node")
    told = milon("replay", "--verify", "--data", folder.root, "--json")
    assert (told.code, told.json["mismatch"], told.json["first"]) == (0, None, 1)
    assert "come out again" in milon("replay", "--data", folder.root).out
    key, value = record_of(folder, b"ledger")
    damage(folder, b"ledger", key, flipped(value))
    told = milon("replay", "--data", folder.root, "--json")
    assert (told.code, told.json["mismatch"]["what"]) == (1, "ledger")
    text = milon("replay", "--data", folder.root).out
    assert "next: " in text and "expected" in text and "family" in text


def test_a_folder_without_a_chain_cannot_be_replayed(milon: Milon, tmp_path: Path) -> None:
    assert milon("replay", "--data", tmp_path / "none").code == 2
    milon("init", "--data", tmp_path / "new")
    assert milon("replay", "--data", tmp_path / "new").code == 2

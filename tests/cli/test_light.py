"""`milon light`: what it refuses before it asks anybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Milon

ADDRESS = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWTest"
HASH = "ab" * 32


@pytest.mark.parametrize(
    "words",
    [
        ("sync",),
        ("sync", "--bootstrap", ADDRESS),
        ("sync", "--bootstrap", "x", "--genesis-hash", HASH),
        ("sync", "--bootstrap", ADDRESS, "--genesis-hash", HASH, "--trusted-hash", "zz"),
        ("verify", "--bootstrap", ADDRESS, "--genesis-hash", HASH),
        ("verify", "5", "--account", HASH, "--bootstrap", ADDRESS, "--genesis-hash", HASH),
        ("verify", "five", "--bootstrap", ADDRESS, "--genesis-hash", HASH),
        ("verify", "--account", "ab", "--bootstrap", ADDRESS, "--genesis-hash", HASH),
    ],
)
def test_what_cannot_be_asked(milon: Milon, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert milon("light", *words, "--data", tmp_path / "light").code == 2
    assert not (tmp_path / "light").exists()

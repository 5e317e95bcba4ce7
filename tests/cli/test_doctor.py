"""`milon doctor`: a line a thing, and an exit code."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Milon


def test_lines_and_exit_codes(milon: Milon, tmp_path: Path) -> None:
    root = tmp_path / "node"
    milon("init", "--data", root)
    told = milon("doctor", "--data", root)
    assert told.code == 0
    assert {line.split()[0] for line in told.out.splitlines()} <= {"ok", "warn"}
    assert "warn  peers: no chain is set; " in told.out
    (root / "votes" / "votes.signed").write_bytes(bytes(64))
    told = milon("doctor", "--data", root, "--offline", "--json")
    assert told.code == 1
    assert [entry["check"] for entry in told.json["findings"] if entry["level"] == "fail"] == ["votes"]

"""`milon verify-block`: what it asks for, what it prints, and its exit codes."""

import os
from pathlib import Path
from typing import Any

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.base.units import Height
from milon.node.verify_levels import VerifyReport
from milon_cli import verify_block
from tests.cli.conftest import Milon

ADDRESS = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWTest"
HASH = "ab" * 32
WORDS = ("--bootstrap", ADDRESS, "--genesis-hash", HASH)


def _report(verdict: str, **details: Any) -> VerifyReport:
    is_valid = verdict == "valid"
    return VerifyReport(
        height=Height(42),
        hash=Digest(bytes(32)),
        verdict=verdict,
        detail="" if is_valid else "segment 3 replays to other bits",
        claim="" if is_valid else "cd" * 32,
        segment=None if is_valid else 3,
        trainer="" if is_valid else "ef" * 32,
        rounds=1,
        segments_total=20,
        segments_replayed=4,
        proved=("the certificate",),
        not_proved=("16 segments",),
        **details,
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the check was asked; its answer is under "answer"."""
    found: dict[str, Any] = {"answer": _report("valid")}

    def check(folder: Path, question: verify_block.Question, is_quiet: bool) -> VerifyReport:
        assert os.listdir(folder) == []
        found["folder"], found["question"] = folder, question
        if isinstance(found["answer"], Rejected):
            raise ExceptionGroup("tasks", [found["answer"]])
        assert isinstance(found["answer"], VerifyReport)
        return found["answer"]

    monkeypatch.setattr(verify_block, "_verify", check)
    return found


def test_a_true_block_is_valid(milon: Milon, asked: dict[str, Any]) -> None:
    told = milon("verify-block", 42, *WORDS, "--segments", 4)
    assert told.code == 0
    assert "valid" in told.out.splitlines()[0]
    assert "not proved: 16 segments" in told.out
    wanted = verify_block.Question((ADDRESS,), Digest(bytes.fromhex(HASH)), None, Height(42), segments=4)
    assert asked["question"] == wanted
    assert asked["question"].level == "full"
    assert not asked["folder"].exists()


def test_a_lie_is_named(milon: Milon, asked: dict[str, Any]) -> None:
    asked["answer"] = _report("invalid")
    told = milon("verify-block", HASH, *WORDS)
    assert told.code == 1
    assert "cd" * 32 in told.out
    assert "segment 3" in told.out
    assert milon("verify-block", HASH, *WORDS, "--json").json["claim"] == "cd" * 32
    assert asked["question"].block == bytes.fromhex(HASH)


def test_step_and_operation_are_named_where_they_are_known(milon: Milon, asked: dict[str, Any]) -> None:
    asked["answer"] = _report("invalid", step=9, tensor="model.weight", operation="node 12 (subtract)", finding="bytes")
    told = milon("verify-block", 42, *WORDS, "--level", "segments")
    assert asked["question"].level == "segments"
    assert "step 9" in told.out and "operation node 12 (subtract)" in told.out and "found: bytes" in told.out
    assert milon("verify-block", 42, *WORDS, "--json").json["operation"] == "node 12 (subtract)"
    asked["answer"] = _report("invalid")
    assert "step not known" in milon("verify-block", 42, *WORDS).out


def test_undecided_says_why_and_what_to_do(milon: Milon, asked: dict[str, Any]) -> None:
    words = {"reason": "unavailable", "consequence": "not proved", "next_step": "ask again"}
    asked["answer"] = _report("undecided", **words)
    told = milon("verify-block", 42, *WORDS)
    assert told.code == 2
    assert "not proved" in told.err and "next: ask again" in told.err
    as_json = milon("verify-block", 42, *WORDS, "--json").json
    assert as_json["verdict"] == "undecided" and as_json["error"]["reason"] == "unavailable"


def test_a_folder_is_read_instead_of_peers(milon: Milon, asked: dict[str, Any], tmp_path: Path) -> None:
    assert milon("verify-block", 42, "--node", tmp_path).code == 0
    question = asked["question"]
    assert (question.node, question.bootstrap, question.genesis_hash) == (tmp_path, (), None)
    assert milon("verify-block", 42, "--node", tmp_path, "--genesis-hash", HASH).code == 0
    assert asked["question"].genesis_hash == bytes.fromhex(HASH)


def test_what_cannot_be_checked_has_a_reason(milon: Milon, asked: dict[str, Any]) -> None:
    asked["answer"] = Rejected(Reason.UNAVAILABLE, "nobody has the data")
    told = milon("verify-block", 42, *WORDS, "--json")
    assert (told.code, told.json["error"]["detail"]) == (2, "nobody has the data")


def test_the_folder_must_be_empty(milon: Milon, asked: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    assert milon("verify-block", 42, *WORDS, "--data", tmp_path / "full").code == 2
    assert milon("verify-block", 42, *WORDS, "--data", tmp_path / "new").code == 0
    assert asked["folder"] == tmp_path / "new"


@pytest.mark.parametrize(
    "words",
    [
        ("42",),
        ("42", "--bootstrap", ADDRESS),
        ("42", "--bootstrap", "x", "--genesis-hash", HASH),
        ("42", "--bootstrap", ADDRESS, "--genesis-hash", "x"),
        ("-1", *WORDS),
        ("zz", *WORDS),
        ("²", *WORDS),
        ("42", *WORDS, "--segments", "-1"),
        ("42", *WORDS, "--level", "deepest"),
        ("42", *WORDS, "--node", "somewhere"),
    ],
)
def test_wrong_words_check_nothing(milon: Milon, asked: dict[str, Any], words: tuple[str, ...]) -> None:
    assert milon("verify-block", *words).code == 2
    assert "question" not in asked

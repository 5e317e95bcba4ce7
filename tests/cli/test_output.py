"""What is printed: strangers' text stays text."""

import json

import pytest

from milon_cli.output import escape, print_error, print_lines, print_pairs

HOSTILE = "fine\x1b[2J\r\nmilon: valid\u202e\ud800"
SHOWN = r"fine\x1b[2J\r\nmilon: valid\u202e\ud800"


def test_what_cannot_be_seen_is_escaped() -> None:
    assert escape(HOSTILE) == SHOWN
    assert escape("Größe 0.97 %") == "Größe 0.97 %"


def test_nothing_hostile_reaches_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines([HOSTILE])
    print_pairs([("reason", HOSTILE)])
    print_error("unknown", HOSTILE, True)
    shown = capsys.readouterr()
    text, _, raw = shown.out.partition("{")
    assert text.splitlines() == [SHOWN, f"reason  {SHOWN}"]
    assert shown.err == "milon: " + SHOWN.replace(r"\n", "\n  ") + " (unknown)\n"
    assert json.loads("{" + raw)["error"]["detail"] == HOSTILE

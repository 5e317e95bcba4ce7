"""Prints results: plain text for people, one JSON value for programs, errors on standard error.

Some of the text comes from strangers: reasons of validators and peers, names in files. Nothing of it may move the
cursor, start a line of its own or turn the direction of writing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def escape(text: str) -> str:
    """The text in one line, with what cannot be seen written as Python's escapes."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    print(json.dumps(value, indent=2, allow_nan=False), flush=True)


def print_lines(lines: Iterable[str]) -> None:
    """Text for people."""
    for line in lines:
        print(escape(line), flush=True)


def print_pairs(pairs: Sequence[tuple[str, object]]) -> None:
    """Names and values, one a line, aligned."""
    width = max((len(name) for name, _ in pairs), default=0)
    print_lines(f"{name.ljust(width)}  {value}" for name, value in pairs)


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest entry; nothing is cut, so that names can be copied."""
    texts = [list(head), *([str(entry) for entry in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    print_lines(
        "  ".join(entry.ljust(width) for entry, width in zip(row, widths, strict=True)).rstrip() for row in texts
    )


def print_error(reason: str, detail: str, is_json: bool) -> None:
    """What went wrong, further lines indented; programs that asked for JSON get it on standard output as well."""
    lines = [escape(line) for line in f"milon: {detail} ({reason})".split("\n")]
    print("\n  ".join(lines), file=sys.stderr, flush=True)
    if is_json:
        print_json({"error": {"reason": reason, "detail": detail}})


def percent(share: float | None) -> str:
    """An accuracy for people."""
    return "-" if share is None else f"{100 * share:.2f} %"


def decimal(number: float | None) -> str:
    """A loss for people."""
    return "-" if number is None else f"{number:.4f}"

"""A journal after a death between any two of its writes, or with a byte changed: a beginning of what was done."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from milon.base.hashing import digest
from milon.gpu.journal import NAME, Journal
from milon.gpu.train import SegmentRun

ORIGIN = digest("test-training")
SEGMENTS = 5


class Killed(BaseException):
    """The process ends here."""


def make_run(segment: int) -> SegmentRun:
    """A journal asks of a state nothing but its bytes."""
    return SegmentRun(b"state after %d" % segment * 20, (segment, -segment), segment, None)


def open_and_finish(folder: Path, keep_every: int) -> Journal:
    journal = Journal(folder, ORIGIN, keep_every)
    for segment in range(len(journal.entries), SEGMENTS):
        journal.append(make_run(segment), segment, 1)
    return journal


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def kill_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies instead of its sync, rename, removal or cut of that number; what is synced costs no time."""
    left = number

    def die_or(act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return act(*arguments, **named)

        return acting

    monkeypatch.setattr(os, "fsync", die_or(lambda file: None))
    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, die_or(getattr(Path, name)))


@pytest.mark.parametrize("keep_every", [1, 2, 5])
def test_whenever_it_dies_it_goes_on_with_the_same_records_and_states(
    keep_every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_and_finish(tmp_path / "whole", keep_every)
    deaths = 0
    while True:
        folder = tmp_path / str(deaths)
        with monkeypatch.context() as patched:
            kill_at(deaths, patched)
            try:
                open_and_finish(folder, keep_every)
                break
            except Killed:
                deaths += 1
        again = Journal(folder, ORIGIN, keep_every)
        assert again.entries == whole.entries[: len(again.entries)]
        if again.entries:
            assert again.read_last() == make_run(len(again.entries) - 1).state
        finished = open_and_finish(folder, keep_every)
        assert finished.entries == whole.entries
        more = names_in(folder) - names_in(tmp_path / "whole")
        assert names_in(folder) >= names_in(tmp_path / "whole")
        assert len(more) <= 1, "one that was about to go may stay"
    assert deaths > 3 * SEGMENTS, "a sync of the state, of the folder and of the journal for each segment"


def test_of_a_journal_with_a_changed_or_a_missing_byte_what_is_before_it_counts(tmp_path: Path) -> None:
    whole = open_and_finish(tmp_path, 1)
    raw = (tmp_path / NAME).read_bytes()
    states = {path: path.read_bytes() for path in tmp_path.iterdir() if path.name != NAME}
    frame = len(raw) // SEGMENTS
    assert frame * SEGMENTS == len(raw), "all entries here are of one length"
    for place in range(0, len(raw), 41):
        for harmed in (raw[:place], raw[:place] + bytes([raw[place] ^ 0x40]) + raw[place + 1 :]):
            (tmp_path / NAME).write_bytes(harmed)
            for path, state in states.items():
                path.write_bytes(state)
            assert Journal(tmp_path, ORIGIN, 1).entries == whole.entries[: place // frame]
            assert len(names_in(tmp_path)) == 1 + place // frame, "states that no entry names are gone"

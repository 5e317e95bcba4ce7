"""The one exception for bad input."""

from __future__ import annotations

import copy

import pytest

from milon.base.errors import Reason, Rejected, require


def test_a_rejection_says_why() -> None:
    error = Rejected(Reason.FULL, "no room")
    assert (error.reason, error.detail, str(error)) == (Reason.FULL, "no room", "full: no room")


def test_a_rejection_crosses_a_process_boundary() -> None:
    again = copy.copy(Rejected(Reason.STALE, "old"))
    assert (again.reason, again.detail, str(again)) == (Reason.STALE, "old", "stale: old")


def test_require() -> None:
    require(True, Reason.UNKNOWN, "never seen")
    with pytest.raises(Rejected, match="unknown: seen"):
        require(False, Reason.UNKNOWN, "seen")


def test_reasons_are_words() -> None:
    assert all(reason.value == reason.name.lower().replace("_", "-") for reason in Reason)

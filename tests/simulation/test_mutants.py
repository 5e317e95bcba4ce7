"""A test that cannot fail proves nothing: each mutant breaks one rule, and the simulation must notice."""

from __future__ import annotations

import pytest

from milon.chain.block import Header
from milon.chain.certificate import Certificate, Vote, VoteContent, compute_quorum
from milon.consensus import justification, quorum, tally, votes
from milon.consensus.turn import Turn
from milon.consensus.votes import OwnVotes
from tests.simulation.run import run_seed


def _find_failure(monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...], seeds: int) -> str:
    """The first problem that any of the seeds shows, if the unbroken rules show none with that seed; else empty."""
    for seed in range(seeds):
        outcome = run_seed(seed, kinds[seed % len(kinds)])
        if outcome.problem:
            monkeypatch.undo()
            assert run_seed(seed, outcome.kind).problem == ""
            return outcome.problem
    return ""


def test_votes_that_are_not_written_down_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(turn: Turn, vote: Vote) -> None:
        """Send without having written."""

    monkeypatch.setattr(tally, "persist_vote", forget)
    assert "contradicts itself" in _find_failure(monkeypatch, ("none",), 60)


def test_finalize_after_nullify_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def may_finalize(own: OwnVotes, content: VoteContent) -> bool:
        return own.finalize is None

    monkeypatch.setattr(votes, "may_finalize", may_finalize)
    assert "contradicts itself" in _find_failure(monkeypatch, ("none", "silent leader"), 40)


def test_a_quorum_less_one_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_quorum(power: int, total: int) -> bool:
        return power >= compute_quorum(total) - total // 4

    monkeypatch.setattr(quorum, "is_quorum", is_quorum)
    assert _find_failure(monkeypatch, ("twins", "equivocator"), 24)


def test_skipping_without_nullification_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(header: Header, index: int, certificate: Certificate) -> None:
        """Any certificate will do."""

    monkeypatch.setattr(justification, "verify_entry", accept)
    assert "two final" in _find_failure(monkeypatch, ("forking leader",), 25)

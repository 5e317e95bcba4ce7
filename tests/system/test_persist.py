"""Killed in the middle of a batch of votes, before the first message, inside the store: one chain, and nothing twice.

All places where a node writes, several times each, take minutes: `make persist`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from milon.base.hashing import sha256
from milon.base.ids import Digest
from milon.base.signing import secret_key_from
from milon.base.units import Epoch, View
from milon.chain.certificate import VoteContent, VoteKind, sign_vote
from tests.system.live import Live
from tests.system.persist import Persisting, list_contradictions

pytestmark = pytest.mark.system

QUICK = (("vote-log-torn", 3), ("votes-signed-synced", 4), ("commit-inside", 1))


def test_a_node_killed_where_it_writes_has_the_same_chain_and_signs_nothing_twice(
    network: Live, tmp_path: Path
) -> None:
    before = network.wait_same_tip()
    run = Persisting(network, tmp_path)
    run.stop()
    for point, count in QUICK:
        run.kill_at(point, count)
    run.bring_back()
    assert run.list_chain_faults(before) == []
    assert list_contradictions(run.list_logged()) == []


def test_votes_that_exclude_each_other_are_found() -> None:
    key = secret_key_from("victim")
    one, other = Digest(sha256(b"one")), Digest(sha256(b"other"))
    said = {
        (kind, block): sign_vote(key, "chain", VoteContent(kind, Epoch(1), View(2), block))
        for kind, block in (
            (VoteKind.NOTARIZE, one),
            (VoteKind.NOTARIZE, other),
            (VoteKind.FINALIZE, one),
            (VoteKind.FINALIZE, other),
            (VoteKind.NULLIFY, None),
        )
    }
    good = [(VoteKind.NOTARIZE, one), (VoteKind.FINALIZE, one)]
    assert list_contradictions([said[name] for name in (*good, *good)]) == []
    assert list_contradictions([said[good[0]], said[VoteKind.NULLIFY, None]]) == []
    for bad in ((VoteKind.NOTARIZE, other), (VoteKind.FINALIZE, other), (VoteKind.NULLIFY, None)):
        assert list_contradictions([*(said[name] for name in good), said[bad]]) != []

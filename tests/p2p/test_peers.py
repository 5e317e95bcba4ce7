"""Scores, bans and counters."""

from __future__ import annotations

import pytest

from milon.base.errors import Reason
from milon.p2p.peers import BAN_MAX_S, BAN_S, REMEMBERED_MAX, PeerBook
from milon.p2p.transport import PeerCounters, PeerId

PEER = PeerId("peer")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_counters_add_up(clock: Clock) -> None:
    book = PeerBook(clock)
    book.count_in(PEER, 10)
    book.count_in(PEER, 5)
    book.count_out(PEER, 7)
    book.count_drop(PEER)
    book.report(PEER, Reason.STALE)
    assert book.snapshot()[PEER] == PeerCounters(15, 7, 2, 1, 1, 1)


def test_four_lies_at_once_ban_and_over_time_they_do_not(clock: Clock) -> None:
    book = PeerBook(clock)
    assert [book.report(PEER, Reason.MALFORMED) for _ in range(4)] == [False, False, False, True]
    assert book.is_banned(PEER)
    patient = PeerBook(clock)
    for _ in range(20):
        assert not patient.report(PEER, Reason.MALFORMED)
        clock.now_s += 60
    assert not patient.is_banned(PEER)


def test_annoyances_count_little_and_another_chain_at_once(clock: Clock) -> None:
    book = PeerBook(clock)
    assert not any(book.report(PEER, Reason.UNAVAILABLE) for _ in range(99))
    assert book.report(PEER, Reason.UNAVAILABLE)
    assert book.report(PeerId("stranger"), Reason.WRONG_CHAIN)


def test_bans_end_and_grow(clock: Clock) -> None:
    book = PeerBook(clock)
    lengths = []
    for _ in range(10):
        assert book.report(PEER, Reason.WRONG_CHAIN)
        start = clock.now_s
        while book.is_banned(PEER):
            clock.now_s += 15
        lengths.append(clock.now_s - start)
    assert lengths[:3] == [BAN_S, 2 * BAN_S, 4 * BAN_S]
    assert lengths[-1] == BAN_MAX_S


def test_the_book_is_bounded(clock: Clock) -> None:
    book = PeerBook(clock)
    for index in range(REMEMBERED_MAX + 5):
        book.count_in(PeerId(str(index)), 1)
    snapshot = book.snapshot()
    assert len(snapshot) == REMEMBERED_MAX
    assert PeerId("0") not in snapshot

"""The vote log: what was appended is read back; a torn tail is dropped, a damaged middle refused, at every byte."""

from pathlib import Path

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Digest, Signature
from milon.base.units import Epoch, View
from milon.chain.certificate import Certificate, Vote, VoteContent, VoteKind
from milon.consensus.messages import LoggedCertificate, LoggedVote, LogRecord
from milon.node import vote_log
from milon.node.vote_log import FORMAT, VoteLog


def _vote(view: int) -> LoggedVote:
    content = VoteContent(VoteKind.NOTARIZE, Epoch(0), View(view), Digest(bytes(32)))
    return LoggedVote(Vote(content, AccountId(b"a" * 32), Signature(b"s" * 64)))


def _certificate(view: int) -> LoggedCertificate:
    return LoggedCertificate(Certificate(VoteContent(VoteKind.NULLIFY, Epoch(0), View(view), None), (), ()))


def _write(folder: Path, batches: list[list[LogRecord]]) -> None:
    log = VoteLog(folder)
    for batch in batches:
        log.append(batch)
    log.close()


def _reopen(folder: Path) -> tuple[LogRecord, ...]:
    log = VoteLog(folder)
    log.close()
    return log.records


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    _write(tmp_path, [[_vote(1), _certificate(1)], [_vote(2)], []])
    log = VoteLog(tmp_path)
    assert log.records == (_vote(1), _certificate(1), _vote(2))
    assert log.signed == (0, 2)
    log.append([_vote(3)])
    log.close()
    assert _reopen(tmp_path) == (_vote(1), _certificate(1), _vote(2), _vote(3))


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of openings need no real disk."""
    monkeypatch.setattr("os.fdatasync", lambda handle: None)
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.mark.usefixtures("no_sync")
def test_a_torn_tail_is_dropped_at_every_byte(tmp_path: Path) -> None:
    _write(tmp_path, [[_vote(1)]])
    path = tmp_path / "votes.log"
    first = path.stat().st_size
    _write(tmp_path, [[_vote(2), _certificate(2)]])
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert _reopen(tmp_path) == ((_vote(1),) if length >= first else ())
        if length == first + 7:
            _write(tmp_path, [[_vote(9)]])
            assert _reopen(tmp_path) == (_vote(1), _vote(9))
    path.write_bytes(whole)
    assert len(_reopen(tmp_path)) == 3


def test_a_batch_whose_pages_reached_the_disk_out_of_order_is_dropped(tmp_path: Path) -> None:
    _write(tmp_path, [[_vote(1)]])
    path = tmp_path / "votes.log"
    first = path.stat().st_size
    _write(tmp_path, [[_vote(2), _certificate(2)]])
    whole = path.read_bytes()
    path.write_bytes(whole[:first] + bytes(40) + whole[first + 40 :])
    assert _reopen(tmp_path) == (_vote(1),)


@pytest.mark.usefixtures("no_sync")
def test_a_damaged_middle_is_refused_at_every_byte(tmp_path: Path) -> None:
    _write(tmp_path, [[_vote(1)]])
    path = tmp_path / "votes.log"
    first = path.stat().st_size
    _write(tmp_path, [[_vote(2)]])
    whole = path.read_bytes()
    for place in range(len(FORMAT), first):
        path.write_bytes(whole[:place] + bytes((whole[place] ^ 0x41,)) + whole[place + 1 :])
        with pytest.raises(Rejected) as refused:
            VoteLog(tmp_path)
        assert refused.value.reason is Reason.CORRUPT
        assert len(path.read_bytes()) == len(whole), "a refused log is left as it is"


def test_another_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "votes.log").write_bytes(b"something else entirely")
    with pytest.raises(Rejected) as refused:
        VoteLog(tmp_path)
    assert refused.value.reason is Reason.UNSUPPORTED
    assert (tmp_path / "votes.log").read_bytes() == b"something else entirely"


def test_the_highest_view_outlives_the_log(tmp_path: Path) -> None:
    _write(tmp_path, [[_vote(7)], [_vote(8)], [_vote(5)]])
    (tmp_path / "votes.log").unlink()
    log = VoteLog(tmp_path)
    assert (log.records, log.signed) == ((), (0, 8))
    log.close()


def test_votes_in_the_highest_view_are_counted_and_the_count_outlives_the_log(tmp_path: Path) -> None:
    _write(tmp_path, [[_vote(7), _certificate(7)], [_vote(7), _vote(6)]])
    (tmp_path / "votes.log").unlink()
    log = VoteLog(tmp_path)
    assert (log.signed, log.signed_votes) == ((0, 7), 2)
    log.append([_vote(8)])
    assert (log.signed, log.signed_votes) == ((0, 8), 1)
    log.raise_signed((Epoch(0), View(8)))
    assert (log.signed, log.signed_votes) == ((0, 8), vote_log.BARRED)
    log.close()


def test_one_damaged_slot_leaves_the_other_and_two_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, [[_vote(7)], [_vote(8)]])
    path = tmp_path / "votes.signed"
    whole = path.read_bytes()
    found = set()
    for slot in (0, 32):
        path.write_bytes(whole[:slot] + bytes(32) + whole[slot + 32 :])
        log = VoteLog(tmp_path)
        found.add(log.signed)
        log.close()
    assert found == {(0, 7), (0, 8)}
    path.write_bytes(bytes(64))
    with pytest.raises(Rejected) as refused:
        VoteLog(tmp_path)
    assert refused.value.reason is Reason.CORRUPT


def test_two_processes_never_sign_with_one_log(tmp_path: Path) -> None:
    log = VoteLog(tmp_path)
    with pytest.raises(Rejected) as refused:
        VoteLog(tmp_path)
    assert refused.value.reason is Reason.IN_USE
    log.close()
    VoteLog(tmp_path).close()


def test_pruning_keeps_what_is_above_the_stored_tip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vote_log, "PRUNE_BYTES_MIN", 1)
    log = VoteLog(tmp_path)
    for view in range(1, 9):
        log.append([_vote(view), _certificate(view)])
    before = (tmp_path / "votes.log").stat().st_size
    log.prune((Epoch(0), View(6)))
    assert (tmp_path / "votes.log").stat().st_size < before
    log.append([_vote(9)])
    log.close()
    log = VoteLog(tmp_path)
    assert log.records == (_vote(7), _certificate(7), _vote(8), _certificate(8), _vote(9))
    assert log.signed == (0, 9)
    log.close()


def test_a_full_disk_is_said_and_nothing_more_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = VoteLog(tmp_path)
    log.append([_vote(1)])

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", fail)
        with pytest.raises(Rejected) as refused:
            log.append([_vote(2)])
    assert refused.value.reason is Reason.FULL
    with pytest.raises(Rejected) as refused:
        log.append([_vote(3)])
    assert refused.value.reason is Reason.UNAVAILABLE
    log.close()
    assert _reopen(tmp_path)[0] == _vote(1)

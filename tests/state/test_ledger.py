"""Ledger values and drafts: layers, records, and that a dropped draft changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from milon.base.codec import encode, wire
from milon.base.units import Amount, Nonce
from milon.state.ledger import MEMO_LARGE_MAX_BYTES, MEMO_RECORD_MAX_BYTES, Draft, Ledger


@wire("test-ledger-purse/1")
@dataclass(frozen=True, slots=True)
class Purse:
    """A record for these tests."""

    balance: Amount  # coins
    nonce: Nonce  # transactions sent
    note: bytes = b""  # anything


BASE = {b"a": b"1", b"b": b"2"}


def test_lookups_fall_through_the_layers() -> None:
    ledger = Ledger(BASE)
    above = Ledger(ledger.with_changes({b"a": None, b"c": b"3"})).with_change(b"b", b"22")
    assert [above.get(key) for key in (b"a", b"b", b"c", b"d")] == [None, b"22", b"3", None]
    assert [ledger.get(key) for key in (b"a", b"b", b"c", b"d")] == [b"1", b"2", None, None]
    assert dict(above.changes) == {b"b": b"22"}
    assert ledger.with_changes({}) is ledger


def test_changes_cannot_be_written_to() -> None:
    ledger = Ledger(BASE).with_change(b"a", b"x")
    with pytest.raises(TypeError):
        ledger.changes[b"a"] = b"y"  # type: ignore[index]
    draft = Draft(ledger)
    with pytest.raises(TypeError):
        draft.changes[b"a"] = b"y"  # type: ignore[index]


@pytest.mark.parametrize("size", [0, 2 * MEMO_RECORD_MAX_BYTES, 2 * MEMO_LARGE_MAX_BYTES])
def test_records_come_back_as_written(size: int) -> None:
    purse = Purse(Amount(5), Nonce(1), bytes(size))
    ledger = Ledger(BASE).with_record(b"purse", purse)
    assert ledger.load(b"purse", Purse) == purse
    assert ledger.get(b"purse") == encode(purse)
    assert ledger.load(b"absent", Purse) is None


def test_a_corrupt_record_crashes() -> None:
    with pytest.raises(RuntimeError, match="corrupt"):
        Ledger(BASE).load(b"a", Purse)


def test_a_dropped_draft_changes_nothing() -> None:
    ledger = Ledger(BASE).with_change(b"c", b"3")
    draft = Draft(ledger)
    draft.put(b"a", b"x")
    draft.remove(b"c")
    draft.store(b"purse", Purse(Amount(1), Nonce(0)))
    assert [draft.get(key) for key in (b"a", b"b", b"c")] == [b"x", b"2", None]
    assert draft.load(b"purse", Purse) == Purse(Amount(1), Nonce(0))
    assert [ledger.get(key) for key in (b"a", b"b", b"c", b"purse")] == [b"1", b"2", b"3", None]
    after = draft.commit()
    assert [after.get(key) for key in (b"a", b"b", b"c")] == [b"x", b"2", None]
    assert ledger.get(b"a") == b"1"


def test_a_transaction_inside_a_block() -> None:
    block = Draft(Ledger(BASE))
    block.put(b"a", b"block")
    refused = Draft(block)
    refused.put(b"a", b"refused")
    accepted = Draft(block)
    accepted.put(b"b", b"accepted")
    assert accepted.get(b"a") == b"block"
    assert accepted.commit().get(b"b") == b"accepted"
    assert block.get(b"b") == b"2"
    accepted.merge_into(block)
    assert not accepted.changes
    assert dict(block.commit().changes) == {b"a": b"block", b"b": b"accepted"}
    with pytest.raises(ValueError, match="opened on"):
        refused.merge_into(Draft(Ledger(BASE)))

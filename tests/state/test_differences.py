"""Where two states part, by family."""

from __future__ import annotations

import copy

from milon.base.ids import Digest
from milon.state.commitment import EMPTY_ROOT, compute_update
from milon.state.differences import StateDiffers, compare_ledgers, explain_difference, family_of

LEDGER = {b"account/a": b"1", b"account/b": b"2", b"job/x": b"3", b"supply": b"4"}


def test_a_family_is_what_stands_before_the_slash() -> None:
    assert [family_of(key) for key in (b"account/a/b", b"supply", b"\xff/x")] == ["account", "supply", "\ufffd"]


def test_equal_ledgers_differ_nowhere() -> None:
    assert compare_ledgers(LEDGER, sorted(LEDGER.items())) == ()


def test_each_difference_is_counted_in_its_family() -> None:
    other = {**LEDGER, b"account/c": b"5", b"job/x": b"6", b"job/y": b"7"}
    del other[b"supply"]
    found = {entry.family: entry for entry in compare_ledgers(LEDGER, other.items())}
    assert sorted(found) == ["account", "job", "supply"]
    assert (found["account"].missing, found["account"].extra, found["account"].changed) == (0, 1, 0)
    assert (found["job"].missing, found["job"].extra, found["job"].changed) == (0, 1, 1)
    assert (found["supply"].missing, found["supply"].example) == (1, b"supply")


def test_the_family_that_alone_explains_another_root_is_named() -> None:
    root, nodes = compute_update(lambda _: None, EMPTY_ROOT, dict(LEDGER))
    read = {key: value for key, value in nodes.items() if value is not None}.get
    changes: dict[bytes, bytes | None] = {b"account/a": b"9", b"supply": b"8", b"job/z": b"1"}
    expected = compute_update(read, root, {key: changes[key] for key in (b"account/a", b"supply")})[0]
    found = compute_update(read, root, changes)[0]
    error = explain_difference(read, root, changes, expected, found)
    assert error.suspect == "job"
    assert error.families == (("account", 1), ("job", 1), ("supply", 1))
    assert expected.hex() in error.detail and found.hex() in error.detail and "job" in error.detail
    assert error.detail.count(";") >= 2  # cause, consequence, next step
    other = explain_difference(read, root, changes, Digest(b"\x07" * 32), found)
    assert other.suspect == "" and "no single change" in other.detail


def test_the_error_is_rebuilt_whole() -> None:
    error = StateDiffers(Digest(bytes(32)), Digest(b"\x01" * 32), (("job", 2),), "job")
    again = copy.copy(error)
    assert (type(again), again.detail, again.families, again.suspect) == (
        StateDiffers,
        error.detail,
        (("job", 2),),
        "job",
    )

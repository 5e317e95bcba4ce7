"""Vectors that nobody here wrote: Wycheproof's ed25519 signatures, and the examples of RFC 8949 (CBOR)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cbor2
import pytest

from milon.base.codec import decode, encode, wire
from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Signature
from milon.base.signing import is_signed_plainly

FOLDER = Path(__file__).parents[1] / "vectors"
WYCHEPROOF = json.loads((FOLDER / "wycheproof_ed25519.json").read_text())
CBOR = json.loads((FOLDER / "rfc8949.json").read_text())

# Wycheproof leaves these open; libsodium, and with it consensus here, refuses keys of small order and takes mixed ones.
ACCEPTABLE_AND_ACCEPTED = set(range(160, 181))  # the 21 of mixed order; the 8 of small order are refused


@pytest.mark.parametrize("result", ["valid", "invalid", "acceptable"])
def test_wycheproof(result: str) -> None:
    rows = [dict(zip(WYCHEPROOF["columns"], row, strict=True)) for row in WYCHEPROOF["tests"]]
    rows = [row for row in rows if row["result"] == result]
    assert len(rows) == {"valid": 117, "invalid": 64, "acceptable": 29}[result]
    accepted = set()
    for row in rows:
        key, message, signature = (bytes.fromhex(row[name]) for name in ("publicKey", "msg", "sig"))
        if is_signed_plainly(AccountId(key), message, Signature(signature)):
            accepted.add(row["tcId"])
    everything = {row["tcId"] for row in rows}
    assert accepted == {"valid": everything, "invalid": set(), "acceptable": ACCEPTABLE_AND_ACCEPTED}[result]


@wire("test-foreign-int/1")
@dataclass(frozen=True, slots=True)
class OfInt:
    """Holds a number."""

    item: int  # whatever stands in the vector


@wire("test-foreign-flag/1")
@dataclass(frozen=True, slots=True)
class OfFlag:
    """Holds a truth value."""

    item: bool  # whatever stands in the vector


@wire("test-foreign-text/1")
@dataclass(frozen=True, slots=True)
class OfText:
    """Holds text."""

    item: str  # whatever stands in the vector


@wire("test-foreign-raw/1")
@dataclass(frozen=True, slots=True)
class OfRaw:
    """Holds bytes."""

    item: bytes  # whatever stands in the vector


@wire("test-foreign-none/1")
@dataclass(frozen=True, slots=True)
class OfNone:
    """Holds nothing, or a number."""

    item: int | None  # whatever stands in the vector


@wire("test-foreign-list/1")
@dataclass(frozen=True, slots=True)
class OfList:
    """Holds numbers."""

    item: tuple[int, ...]  # whatever stands in the vector


@wire("test-foreign-nested/1")
@dataclass(frozen=True, slots=True)
class OfNested:
    """Holds numbers in lists."""

    item: tuple[int, tuple[int, ...], tuple[int, ...]]  # whatever stands in the vector


KINDS = (OfInt, OfFlag, OfText, OfRaw, OfNone, OfList, OfNested)


def inside(kind: type, item: bytes) -> bytes:
    """The bytes of a record of that kind that holds `item`."""
    schema = kind.__wire_schema__.encode()  # type: ignore[attr-defined]
    return (
        b"\x82" + bytes((0x60 | len(schema),)) + schema + item
        if len(schema) < 24
        else (b"\x82\x78" + bytes((len(schema),)) + schema + item)
    )


def readings(item: bytes) -> list[object]:
    """What a record of each kind makes of the item; nothing where it refuses it. Another exception is a failure."""
    found: list[object] = []
    for kind in KINDS:
        raw = inside(kind, item)
        try:
            value = decode(kind, raw)
        except Rejected:
            continue
        assert encode(value) == raw
        found.append(value.item)  # type: ignore[attr-defined]
    return found


def frozen(value: object) -> object:
    return tuple(frozen(entry) for entry in value) if isinstance(value, list) else value


def expected_of(item: bytes) -> object:
    """What the item means where it is in the subset of `codec`; otherwise Ellipsis."""
    value = cbor2.loads(item)
    is_scalar = (
        value is None or isinstance(value, bool | str | bytes) or (isinstance(value, int) and -(2**63) <= value < 2**63)
    )
    is_ours = is_scalar or (isinstance(value, list) and not any(isinstance(entry, dict | str) for entry in value))
    return frozen(value) if is_ours and cbor2.dumps(value) == item else ...


@pytest.mark.parametrize(("text", "diagnostic"), CBOR["appendix_a"])
def test_examples_of_rfc_8949(text: str, diagnostic: str) -> None:
    item = bytes.fromhex(text)
    expected = expected_of(item)
    found = readings(item)
    if expected is ...:
        assert found == [], diagnostic
    else:
        assert found and all(value == expected and type(value) is type(expected) for value in found), diagnostic


def test_how_many_examples_are_in_the_subset() -> None:
    inside_it = [text for text, _ in CBOR["appendix_a"] if expected_of(bytes.fromhex(text)) is not ...]
    assert (len(CBOR["appendix_a"]), len(inside_it)) == (81, 30)


def test_items_that_rfc_8949_calls_not_well_formed() -> None:
    count = 0
    for group, texts in CBOR["appendix_f"].items():
        for text in texts:
            item = bytes.fromhex(text)
            assert readings(item) == [], (group, text)
            for kind in KINDS:
                with pytest.raises(Rejected) as caught:
                    decode(kind, item)
                assert caught.value.reason in (Reason.MALFORMED, Reason.WRONG_TYPE), (group, text)
                count += 1
    assert count == 94 * len(KINDS)

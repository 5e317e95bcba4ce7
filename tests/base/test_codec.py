"""Canonical bytes: frozen encodings, one encoding per value, and everything hostile refused with a reason."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from milon.base import codec
from milon.base.codec import DEPTH_MAX, decode, encode, schema_of, wire
from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Digest
from milon.base.units import Amount, Height
from tests.base.hostile import MALFORMED, NOT_CANONICAL, NULL, WRONG_TYPE, point


class Colour(StrEnum):
    """An enum of words."""

    RED = "red"
    BLUE = "blue"


class Kind(IntEnum):
    """An enum of numbers."""

    ONE = 1
    TWO = 2


@wire("test-point/1")
@dataclass(frozen=True, slots=True)
class Point:
    """A small record."""

    x: int  # anything
    y: int | None  # anything or nothing


@wire("test-circle/1")
@dataclass(frozen=True, slots=True)
class Circle:
    """A record that holds another."""

    centre: Point  # where
    radius: Amount  # how far


@wire("test-all/1")
@dataclass(frozen=True, slots=True)
class Everything:
    """One field of each kind."""

    number: int
    flag: bool
    text: str
    raw: bytes
    height: Height
    account: AccountId
    colour: Colour
    kind: Kind
    point: Point
    shape: Point | Circle
    maybe: Circle | Point | None
    many: tuple[Point, ...]
    pair: tuple[int, str]
    nested: tuple[tuple[Digest, ...], ...]


@wire("test-tree/1")
@dataclass(frozen=True, slots=True)
class Tree:
    """A record that nests."""

    below: Tree | None


@wire("test-even/1")
@dataclass(frozen=True, slots=True)
class Even:
    """A record that checks itself."""

    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise Rejected(Reason.DOES_NOT_FIT, "an odd number")


@wire("test-evens/1")
@dataclass(frozen=True, slots=True)
class Evens:
    """A record that holds such records."""

    all: tuple[Even, ...]


numbers = st.integers(-(1 << 63), (1 << 63) - 1)
digests = st.binary(min_size=32, max_size=32)
points = st.builds(Point, numbers, st.none() | numbers)
circles = st.builds(Circle, points, st.integers(0, (1 << 63) - 1).map(Amount))
everything = st.builds(
    Everything,
    numbers,
    st.booleans(),
    st.text(max_size=20),
    st.binary(max_size=40),
    st.integers(0, (1 << 63) - 1).map(Height),
    digests.map(AccountId),
    st.sampled_from(Colour),
    st.sampled_from(Kind),
    points,
    points | circles,
    st.none() | points | circles,
    st.lists(points, max_size=4).map(tuple),
    st.tuples(numbers, st.text(max_size=5)),
    st.lists(st.lists(digests.map(Digest), max_size=2).map(tuple), max_size=3).map(tuple),
)
SAMPLE = Everything(
    -24, True, "ä", b"\x00\xff", Height(23), AccountId(b"\x01" * 32), Colour.BLUE, Kind.TWO, Point(24, None),
    Circle(Point(0, -1), Amount(65536)), None, (Point(255, 256),), (1 << 62, ""), ((Digest(b"\x02" * 32),), ()),
)  # fmt: skip


def reason_of(cls: type, raw: bytes, **options: int) -> Reason:
    with pytest.raises(Rejected) as caught:
        decode(cls, raw, **options)
    return caught.value.reason


# ---- what is right ----


def test_frozen_encodings() -> None:
    assert encode(Point(1, None)) == point(b"\x01", b"\xf6")
    assert encode(Point(-1, 1000)).hex() == "836c746573742d706f696e742f31201903e8"
    assert encode(SAMPLE).hex() == FROZEN_SAMPLE
    assert decode(Everything, bytes.fromhex(FROZEN_SAMPLE)) == SAMPLE


FROZEN_SAMPLE = (
    "8f6a746573742d616c6c2f3137f562c3a44200ff175820010101010101010101010101010101010101010101010101010101"
    "010101010164626c756502836c746573742d706f696e742f311818f6836d746573742d636972636c652f31836c746573742d"
    "706f696e742f3100201a00010000f681836c746573742d706f696e742f3118ff190100821b40000000000000006082815820"
    "020202020202020202020202020202020202020202020202020202020202020280"
)


@settings(max_examples=200, deadline=None)
@given(everything)
def test_round_trip(value: Everything) -> None:
    raw = encode(value)
    again = decode(Everything, raw)
    assert again == value
    assert [type(getattr(again, field.name)) for field in dataclasses.fields(again)] == [
        type(getattr(value, field.name)) for field in dataclasses.fields(value)
    ]
    assert encode(again) == raw == cbor2.dumps(cbor2.loads(raw), canonical=True)


def test_unions_are_told_apart_by_their_schema() -> None:
    circle = Circle(Point(1, 2), Amount(3))
    assert decode(Point | Circle, encode(circle)) == circle
    assert decode(Circle | Point, encode(Point(1, 2))) == Point(1, 2)
    assert reason_of(Point | Tree, encode(circle)) is Reason.WRONG_TYPE  # type: ignore[arg-type]


def test_schemas_are_unique_names_of_dataclasses() -> None:
    assert schema_of(Point) == "test-point/1"
    with pytest.raises(TypeError, match="already"):
        wire("test-point/1")(Circle)
    with pytest.raises(TypeError, match="not a dataclass"):
        wire("test-plain/1")(object)


# ---- what is wrong ----


@pytest.mark.parametrize("name", NOT_CANONICAL)
def test_another_encoding_of_the_same_value(name: str) -> None:
    assert reason_of(Point, NOT_CANONICAL[name]) is Reason.NOT_CANONICAL


@pytest.mark.parametrize("name", MALFORMED)
def test_bytes_no_value_has(name: str) -> None:
    assert reason_of(Point, MALFORMED[name]) is Reason.MALFORMED


@pytest.mark.parametrize("name", WRONG_TYPE)
def test_another_type(name: str) -> None:
    assert reason_of(Point, WRONG_TYPE[name]) is Reason.WRONG_TYPE


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("flag", 1, Reason.WRONG_TYPE),
        ("number", True, Reason.WRONG_TYPE),
        ("text", b"bytes", Reason.WRONG_TYPE),
        ("raw", "text", Reason.WRONG_TYPE),
        ("height", -1, Reason.OUT_OF_RANGE),
        ("height", True, Reason.WRONG_TYPE),
        ("account", bytes(31), Reason.OUT_OF_RANGE),
        ("account", bytes(33), Reason.OUT_OF_RANGE),
        ("account", "x" * 32, Reason.WRONG_TYPE),
        ("colour", "green", Reason.OUT_OF_RANGE),
        ("colour", 1, Reason.WRONG_TYPE),
        ("kind", 3, Reason.OUT_OF_RANGE),
        ("kind", True, Reason.WRONG_TYPE),
        ("kind", "1", Reason.WRONG_TYPE),
        ("point", None, Reason.WRONG_TYPE),
        ("shape", None, Reason.WRONG_TYPE),
        ("shape", Tree(None), Reason.WRONG_TYPE),
        ("shape", (), Reason.WRONG_TYPE),
        ("maybe", 5, Reason.WRONG_TYPE),
        ("many", (Circle(Point(1, 1), Amount(1)),), Reason.WRONG_TYPE),
        ("many", Point(1, 1), Reason.WRONG_TYPE),
        ("many", None, Reason.WRONG_TYPE),
        ("pair", (1,), Reason.WRONG_TYPE),
        ("pair", (1, "", ""), Reason.WRONG_TYPE),
        ("pair", ("", 1), Reason.WRONG_TYPE),
        ("nested", ((b"short",),), Reason.OUT_OF_RANGE),
        ("nested", (Digest(bytes(32)),), Reason.WRONG_TYPE),
    ],
)
def test_wrong_fields(field: str, value: object, reason: Reason) -> None:
    assert reason_of(Everything, encode(dataclasses.replace(SAMPLE, **{field: value}))) is reason


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1, 1 << 64, 10**40])
def test_integers_beyond_64_bits(number: int) -> None:
    with pytest.raises(Rejected) as caught:
        encode(Point(number, None))
    assert caught.value.reason is Reason.OUT_OF_RANGE
    expected = Reason.OUT_OF_RANGE if -(1 << 64) <= number < 1 << 64 else Reason.MALFORMED
    assert reason_of(Point, cbor2.dumps(["test-point/1", number, None])) is expected


@pytest.mark.parametrize("number", [(1 << 63) - 1, -(1 << 63)])
def test_integers_at_the_edge(number: int) -> None:
    assert decode(Point, encode(Point(number, None))).x == number


def test_values_that_are_not_for_the_wire_are_a_programming_error() -> None:
    for value in (1.5, [1], {1: 2}, {1}, object(), bytearray(b"x")):
        with pytest.raises(TypeError):
            encode(value)


def test_a_refusal_names_the_field() -> None:
    raw = cbor2.dumps(["test-circle/1", ["test-point/1", "x", None], 1])
    with pytest.raises(Rejected, match=r"wrong-type: Circle\.centre\.x: expected int, found str"):
        decode(Circle, raw)
    raw = cbor2.dumps(["test-evens/1", [["test-even/1", 2], ["test-even/1", 3]]])
    with pytest.raises(Rejected, match=r"does-not-fit: Evens\.all: an odd number"):
        decode(Evens, raw)
    assert decode(Evens, encode(Evens((Even(2), Even(-4))))) == Evens((Even(2), Even(-4)))


# ---- bombs ----


def test_depth() -> None:
    tree = Tree(None)
    for _ in range(DEPTH_MAX - 1):
        tree = Tree(tree)
    assert decode(Tree, encode(tree)) == tree
    assert reason_of(Tree, encode(Tree(tree))) is Reason.TOO_LARGE
    assert reason_of(Tree, b"\x81" * 1_000_000) is Reason.TOO_LARGE
    assert reason_of(Tree, b"\x82\x6btest-tree/1" * 100_000 + NULL) is Reason.TOO_LARGE


def test_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "ITEMS_MAX", 1000)
    assert reason_of(Point, b"\x99\x03\xe8" + b"\x80" * 1000) is Reason.TOO_LARGE
    assert reason_of(Point, b"\x99\x03\xe7" + b"\x80" * 999) is Reason.WRONG_TYPE


def test_size_is_looked_at_first() -> None:
    raw = encode(Point(1, 2))
    assert decode(Point, raw, size_max_bytes=len(raw)) == Point(1, 2)
    assert reason_of(Point, raw, size_max_bytes=len(raw) - 1) is Reason.TOO_LARGE
    assert reason_of(Point, bytes(codec.SIZE_MAX_BYTES + 1)) is Reason.TOO_LARGE


def test_what_is_told_about_hostile_bytes_is_short() -> None:
    long = "x" * 100_000
    for raw in (
        encode(dataclasses.replace(SAMPLE, colour=long)),
        encode(dataclasses.replace(SAMPLE, shape=(long,))),
        cbor2.dumps([long, 1, 2]),
        cbor2.dumps(long),
    ):
        with pytest.raises(Rejected) as caught:
            decode(Everything, raw)
        assert len(caught.value.detail) < 300


# ---- noise ----


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
@example(b"\x9f" * 60)
def test_random_bytes(raw: bytes) -> None:
    for cls in (Point, Everything, Tree):
        with pytest.raises(Rejected):
            decode(cls, raw)


@settings(max_examples=400, deadline=None)
@given(everything, st.data())
def test_mutated_bytes_are_rejected_or_another_value(value: Everything, data: st.DataObject) -> None:
    raw = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["flip", "insert", "delete", "repeat"])):
            case "flip":
                raw[at] ^= data.draw(st.integers(1, 255))
            case "insert":
                raw.insert(at, data.draw(st.integers(0, 255)))
            case "delete" if len(raw) > 1:
                del raw[at]
            case _:
                raw[at:at] = raw[at : at + 8]
    try:
        found = decode(Everything, bytes(raw))
    except Rejected:
        return
    assert encode(found) == bytes(raw)


items = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 9), inner, max_size=2),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(items)
def test_any_cbor(value: object) -> None:
    with pytest.raises(Rejected):
        decode(Everything, cbor2.dumps(["test-all/1", value]))
    try:
        found = decode(Point, cbor2.dumps(["test-point/1", value, None]))
    except Rejected:
        return
    assert found == Point(value, None)  # type: ignore[arg-type]

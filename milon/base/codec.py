"""Canonical bytes: one encoding per value, bounded in size and depth, and anything else refused on decode.

A wire type is a frozen, slotted dataclass under `@wire("name/version")`. It travels as a CBOR array (RFC 8949) whose
first element is that schema id and whose others are the fields in their order. Fields may be `int`, `bool`, `str`,
`bytes`, the named units and ids of `units` and `ids`, enums, wire types, unions of wire types, `tuple[T, ...]`, fixed
tuples, and `T | None`. No floats, no maps, no tags, no indefinite lengths; integers fit 64 bits with their sign.
Decoding checks the shape of the bytes, then the types, then encodes again and requires the same bytes.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from enum import IntEnum, StrEnum
from functools import cache
from typing import Any, TypeVar

import cbor2

from milon.base.errors import Reason, Rejected
from milon.base.ids import LENGTH_BYTES
from milon.base.units import UNSIGNED, UNSIGNED_END

SIZE_MAX_BYTES = 4 << 20  # nothing larger is ever one value; larger things are blobs, fetched in chunks
DEPTH_MAX = 24  # far above the deepest wire type, far below Python's recursion limit
ITEMS_MAX = 1 << 18  # bounds the time of a decode to about half a second; a blob's largest manifest has 65,541 items

_SIMPLE_HEADS = b"\xf4\xf5\xf6"  # false, true, null: the only values of CBOR's major type 7 in use

T = TypeVar("T")
_SCHEMAS: dict[str, type[Any]] = {}


def wire(schema: str) -> Callable[[type[T]], type[T]]:
    """Mark a frozen dataclass as a wire type named `schema`, such as "vote/1"; each name is used once."""

    def register(cls: type[T]) -> type[T]:
        if schema in _SCHEMAS and _SCHEMAS[schema].__qualname__ != cls.__qualname__:
            raise TypeError(f"schema {schema!r} is already {_SCHEMAS[schema].__qualname__}")
        if not dataclasses.is_dataclass(cls):
            raise TypeError(f"{cls.__qualname__} is not a dataclass; put @wire above @dataclass")
        _SCHEMAS[schema] = cls
        cls.__wire_schema__ = schema  # type: ignore[attr-defined]  # the one attribute the codec adds
        return cls

    return register


def schema_of(cls: type[Any]) -> str:
    """The schema id of a wire type."""
    schema: str = cls.__wire_schema__
    return schema


def _resolve_fields(cls: Any) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(cls)
    return tuple((field.name, hints[field.name]) for field in dataclasses.fields(cls))


# ---- from values to what CBOR knows: one function per type, made when the type is first met ----


def _plain_int(value: int) -> int:
    if not -UNSIGNED_END <= value < UNSIGNED_END:
        raise Rejected(Reason.OUT_OF_RANGE, f"integer {value} does not fit 64 bits")
    return value


def _plain_tuple(value: tuple[Any, ...]) -> list[Any]:
    return [_PLAIN[type(entry)](entry) for entry in value]


class _Plain(dict[type[Any], Callable[[Any], Any]]):
    """How each type becomes plain; a type that is not for the wire is a programming error."""

    def __missing__(self, kind: type[Any]) -> Callable[[Any], Any]:
        if issubclass(kind, (StrEnum, IntEnum)):
            self[kind] = lambda value: value.value
        elif hasattr(kind, "__wire_schema__"):
            schema, names = schema_of(kind), tuple(name for name, _ in _resolve_fields(kind))
            self[kind] = lambda value: [schema, *_plain_tuple(tuple(getattr(value, name) for name in names))]
        else:
            raise TypeError(f"{kind.__qualname__} is not a wire value")
        return self[kind]


def _same(value: Any) -> Any:
    return value


_PLAIN = _Plain(
    {types.NoneType: _same, bool: _same, bytes: _same, str: _same, int: _plain_int, tuple: _plain_tuple}
)


def encode(value: Any) -> bytes:
    """The one encoding of a wire value; `Rejected(OUT_OF_RANGE)` for an integer beyond 64 bits."""
    return cbor2.dumps(_PLAIN[type(value)](value))


# ---- and back, with every type and bound checked: one function per annotation, likewise ----

_Reader = Callable[[Any], Any]


def _refuse_type(expected: str, found: Any) -> Rejected:
    return Rejected(Reason.WRONG_TYPE, f": expected {expected}, found {type(found).__name__}")


def _simple_reader(hint: type[Any]) -> _Reader:
    def read(plain: Any) -> Any:
        if type(plain) is not hint:
            raise _refuse_type(hint.__name__, plain)
        return plain

    def read_int(plain: Any) -> Any:
        if type(plain) is not int:
            raise _refuse_type("int", plain)
        if not -UNSIGNED_END <= plain < UNSIGNED_END:
            raise Rejected(Reason.OUT_OF_RANGE, ": integer does not fit 64 bits")
        return plain

    return read_int if hint is int else read


def _named_reader(hint: Any) -> _Reader:
    """For a NewType: a unit (unsigned) or an id (fixed length)."""
    read_base, length, is_unsigned = _reader(hint.__supertype__), LENGTH_BYTES.get(hint), hint in UNSIGNED

    def read(plain: Any) -> Any:
        value = read_base(plain)
        if is_unsigned and not 0 <= value < UNSIGNED_END:
            raise Rejected(Reason.OUT_OF_RANGE, f": {value} is not an unsigned 63-bit integer")
        if length is not None and len(value) != length:
            raise Rejected(Reason.OUT_OF_RANGE, f": {len(value)} bytes where {length} are needed")
        return value

    return read


def _union_reader(options: tuple[Any, ...]) -> _Reader:
    concrete = [option for option in options if option is not types.NoneType]
    is_optional = len(concrete) < len(options)
    by_schema = {schema_of(option): option for option in concrete if hasattr(option, "__wire_schema__")}
    only = concrete[0] if len(concrete) == 1 else None

    def read(plain: Any) -> Any:
        if plain is None and is_optional:
            return None
        if only is not None:
            return _reader(only)(plain)
        if not isinstance(plain, list) or not plain or not isinstance(plain[0], str):
            raise _refuse_type("one of several wire types", plain)
        if plain[0] not in by_schema:
            raise Rejected(Reason.WRONG_TYPE, f": schema {plain[0][:64]!r} is not allowed here")
        return _reader(by_schema[plain[0]])(plain)

    return read


def _tuple_reader(arguments: tuple[Any, ...]) -> _Reader:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        read_entry = _reader(arguments[0])

        def read_list(plain: Any) -> Any:
            if not isinstance(plain, list):
                raise _refuse_type("a list", plain)
            return tuple([read_entry(entry) for entry in plain])

        return read_list
    readers = [_reader(argument) for argument in arguments]

    def read(plain: Any) -> Any:
        if not isinstance(plain, list):
            raise _refuse_type("a list", plain)
        if len(plain) != len(readers):
            raise Rejected(Reason.WRONG_TYPE, f": expected {len(readers)} entries, found {len(plain)}")
        return tuple([read_entry(entry) for read_entry, entry in zip(readers, plain, strict=True)])

    return read


def _enum_reader(hint: type[Any]) -> _Reader:
    kind: type[Any] = str if issubclass(hint, StrEnum) else int
    members = {member.value: member for member in hint}

    def read(plain: Any) -> Any:
        if type(plain) is not kind:
            raise _refuse_type(hint.__name__, plain)
        if plain not in members:
            raise Rejected(Reason.OUT_OF_RANGE, f": {plain!r:.64} is not a {hint.__name__}")
        return members[plain]

    return read


def _record_reader(hint: type[Any]) -> _Reader:
    schema = schema_of(hint)
    fields: list[tuple[str, _Reader]] = []

    def read(plain: Any) -> Any:
        if not isinstance(plain, list) or not plain or plain[0] != schema:
            raise Rejected(Reason.WRONG_TYPE, f": not a {schema}")
        if not fields:  # at first use, when the classes it names exist; a record may hold its own kind
            fields.extend((name, _reader(field_hint)) for name, field_hint in _resolve_fields(hint))
        if len(plain) != len(fields) + 1:
            raise Rejected(Reason.WRONG_TYPE, f": {schema} has {len(fields)} fields, not {len(plain) - 1}")
        values, name = [], ""
        try:
            for (name, read_field), entry in zip(fields, plain[1:], strict=True):  # noqa: B007  # named in the refusal
                values.append(read_field(entry))
        except Rejected as error:
            raise Rejected(error.reason, f".{name}{error.detail}") from None
        try:
            return hint(*values)
        except Rejected as error:  # a record may check itself when it is made
            raise Rejected(error.reason, f": {error.detail}") from None

    return read


def _make_reader(hint: Any) -> _Reader:
    if hint in (int, bool, str, bytes):
        return _simple_reader(hint)
    if isinstance(hint, typing.NewType):
        return _named_reader(hint)
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _union_reader(typing.get_args(hint))
    if origin is tuple:
        return _tuple_reader(typing.get_args(hint))
    if isinstance(hint, type) and issubclass(hint, (StrEnum, IntEnum)):
        return _enum_reader(hint)
    if not hasattr(hint, "__wire_schema__"):
        raise TypeError(f"{hint!r} is not a wire type")
    return _record_reader(hint)


_reader: Callable[[Any], _Reader] = cache(_make_reader)


# ---- the shape of bytes, before any library sees them ----


def _long_argument(raw: bytes, position: int) -> tuple[int, int]:
    """Argument and next position of the CBOR item head at `position` whose argument stands in bytes of its own."""
    low = raw[position] & 31
    if low > 27:
        raise Rejected(Reason.MALFORMED, "indefinite lengths and reserved heads are refused")
    end = position + 1 + (1 << (low - 24))
    if end > len(raw):
        raise Rejected(Reason.MALFORMED, "the bytes end inside a head")
    return int.from_bytes(raw[position + 1 : end], "big"), end


def _check_shape(raw: bytes) -> None:
    """Bound depth and items, and refuse what no wire value holds, before the CBOR library sees the bytes."""
    size = len(raw)
    outer: list[int] = []  # items still to come in the lists around the current one
    remaining, position, items = 1, 0, 0
    while remaining or outer:
        if not remaining:
            remaining = outer.pop()
            continue
        remaining -= 1
        items += 1
        if items > ITEMS_MAX:
            raise Rejected(Reason.TOO_LARGE, f"more than {ITEMS_MAX} items")
        if position >= size:
            raise Rejected(Reason.MALFORMED, "the bytes end inside a value")
        head = raw[position]
        if head & 31 < 24:
            argument = head & 31
            position += 1
        else:
            argument, position = _long_argument(raw, position)
        major = head >> 5
        if major in (2, 3):
            position += argument
            if position > size:
                raise Rejected(Reason.MALFORMED, "the bytes end inside a string")
        elif major == 4:
            if argument > size - position:
                raise Rejected(Reason.MALFORMED, "a list longer than the bytes that hold it")
            outer.append(remaining)
            remaining = argument
            if len(outer) > DEPTH_MAX:
                raise Rejected(Reason.TOO_LARGE, f"nested deeper than {DEPTH_MAX}")
        elif major in (5, 6) or (major == 7 and head not in _SIMPLE_HEADS):
            raise Rejected(Reason.MALFORMED, "maps, tags, floats and odd simple values are refused")
    if position != size:
        raise Rejected(Reason.MALFORMED, f"{size - position} bytes after the value")


def decode(cls: type[T] | types.UnionType, raw: bytes, size_max_bytes: int = SIZE_MAX_BYTES) -> T:
    """The value of wire type `cls` (or of a union of wire types) that `raw` encodes; `Rejected` for anything else."""
    if len(raw) > size_max_bytes:
        raise Rejected(Reason.TOO_LARGE, f"{len(raw)} bytes where {size_max_bytes} are allowed")
    _check_shape(raw)
    try:
        plain = cbor2.loads(raw)
    except (cbor2.CBORDecodeError, UnicodeDecodeError, ValueError) as error:
        raise Rejected(Reason.MALFORMED, f"not CBOR: {error}") from None
    try:
        value = _reader(cls)(plain)
    except Rejected as error:
        raise Rejected(error.reason, f"{getattr(cls, '__name__', 'value')}{error.detail}") from None
    if encode(value) != raw:
        raise Rejected(Reason.NOT_CANONICAL, "another encoding of the same value")
    return typing.cast(T, value)

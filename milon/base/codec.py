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
ITEMS_MAX = 1 << 20  # bounds the time of a decode: about a second for the worst message

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


# Hints are resolved at first use, when the classes they name exist, and once: it is slow.
_fields: Callable[[Any], tuple[tuple[str, Any], ...]] = cache(_resolve_fields)


def _to_plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, bytes)):
        return value
    if isinstance(value, (StrEnum, IntEnum)):
        return value.value
    if isinstance(value, int):
        if not -UNSIGNED_END <= value < UNSIGNED_END:
            raise Rejected(Reason.OUT_OF_RANGE, f"integer {value} does not fit 64 bits")
        return value
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return [_to_plain(entry) for entry in value]
    if hasattr(type(value), "__wire_schema__"):
        return [schema_of(type(value)), *(_to_plain(getattr(value, name)) for name, _ in _fields(type(value)))]
    raise TypeError(f"{type(value).__qualname__} is not a wire value")


def encode(value: Any) -> bytes:
    """The one encoding of a wire value; `Rejected(OUT_OF_RANGE)` for an integer beyond 64 bits."""
    return cbor2.dumps(_to_plain(value))


def _refuse_type(where: str, expected: str, found: Any) -> Rejected:
    return Rejected(Reason.WRONG_TYPE, f"{where}: expected {expected}, found {type(found).__name__}")


def _from_union(options: tuple[Any, ...], plain: Any, where: str) -> Any:
    if plain is None and types.NoneType in options:
        return None
    concrete = [option for option in options if option is not types.NoneType]
    if len(concrete) == 1:
        return _from_plain(concrete[0], plain, where)
    if isinstance(plain, list) and plain and isinstance(plain[0], str):
        for option in concrete:
            if getattr(option, "__wire_schema__", None) == plain[0]:
                return _from_plain(option, plain, where)
        raise Rejected(Reason.WRONG_TYPE, f"{where}: schema {plain[0][:64]!r} is not allowed here")
    raise _refuse_type(where, "one of several wire types", plain)


def _from_tuple(arguments: tuple[Any, ...], plain: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(plain, list):
        raise _refuse_type(where, "a list", plain)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_from_plain(arguments[0], entry, where) for entry in plain)
    if len(plain) != len(arguments):
        raise Rejected(Reason.WRONG_TYPE, f"{where}: expected {len(arguments)} entries, found {len(plain)}")
    return tuple(_from_plain(argument, entry, where) for argument, entry in zip(arguments, plain, strict=True))


def _from_named(hint: Any, plain: Any, where: str) -> Any:
    """A NewType: a unit (unsigned) or an id (fixed length)."""
    value = _from_plain(hint.__supertype__, plain, where)
    if hint in UNSIGNED and not 0 <= value < UNSIGNED_END:
        raise Rejected(Reason.OUT_OF_RANGE, f"{where}: {value} is not an unsigned 63-bit integer")
    length = LENGTH_BYTES.get(hint)
    if length is not None and len(value) != length:
        raise Rejected(Reason.OUT_OF_RANGE, f"{where}: {len(value)} bytes where {length} are needed")
    return value


def _from_class(hint: type[Any], plain: Any, where: str) -> Any:
    if issubclass(hint, (StrEnum, IntEnum)):
        if type(plain) is not (str if issubclass(hint, StrEnum) else int):
            raise _refuse_type(where, hint.__name__, plain)
        member: Callable[[Any], Any] = hint
        try:
            return member(plain)
        except ValueError:
            raise Rejected(Reason.OUT_OF_RANGE, f"{where}: {plain!r:.64} is not a {hint.__name__}") from None
    if not hasattr(hint, "__wire_schema__"):
        raise TypeError(f"{hint!r} is not a wire type")
    fields = _fields(hint)
    if not isinstance(plain, list) or not plain or plain[0] != schema_of(hint):
        raise Rejected(Reason.WRONG_TYPE, f"{where}: not a {schema_of(hint)}")
    if len(plain) != len(fields) + 1:
        raise Rejected(Reason.WRONG_TYPE, f"{where}: {schema_of(hint)} has {len(fields)} fields, not {len(plain) - 1}")
    found = {
        name: _from_plain(field_hint, entry, f"{where}.{name}")
        for (name, field_hint), entry in zip(fields, plain[1:], strict=True)
    }
    return hint(**found)


def _from_plain(hint: Any, plain: Any, where: str) -> Any:
    if hint in (int, bool, str, bytes):
        if type(plain) is not hint:
            raise _refuse_type(where, hint.__name__, plain)
        if hint is int and not -UNSIGNED_END <= plain < UNSIGNED_END:
            raise Rejected(Reason.OUT_OF_RANGE, f"{where}: integer does not fit 64 bits")
        return plain
    if isinstance(hint, typing.NewType):
        return _from_named(hint, plain, where)
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _from_union(typing.get_args(hint), plain, where)
    if origin is tuple:
        return _from_tuple(typing.get_args(hint), plain, where)
    return _from_class(hint, plain, where)


def _head(raw: bytes, position: int) -> tuple[int, int, int]:
    """Major type, argument and next position of the CBOR item head at `position`."""
    if position >= len(raw):
        raise Rejected(Reason.MALFORMED, "the bytes end inside a value")
    major, low = raw[position] >> 5, raw[position] & 31
    if low < 24:
        return major, low, position + 1
    if low > 27:
        raise Rejected(Reason.MALFORMED, "indefinite lengths and reserved heads are refused")
    end = position + 1 + (1 << (low - 24))
    if end > len(raw):
        raise Rejected(Reason.MALFORMED, "the bytes end inside a head")
    return major, int.from_bytes(raw[position + 1 : end], "big"), end


def _check_shape(raw: bytes) -> None:
    """Bound depth and items, and refuse what no wire value holds, before the CBOR library sees the bytes."""
    open_lists = [1]  # items still to come, per nesting level
    position = items = 0
    while open_lists:
        if open_lists[-1] == 0:
            open_lists.pop()
            continue
        open_lists[-1] -= 1
        items += 1
        if items > ITEMS_MAX:
            raise Rejected(Reason.TOO_LARGE, f"more than {ITEMS_MAX} items")
        start = position
        major, argument, position = _head(raw, start)
        if major in (2, 3):
            position += argument
            if position > len(raw):
                raise Rejected(Reason.MALFORMED, "the bytes end inside a string")
        elif major == 4:
            if argument > len(raw) - position:
                raise Rejected(Reason.MALFORMED, "a list longer than the bytes that hold it")
            open_lists.append(argument)
            if len(open_lists) > DEPTH_MAX + 1:
                raise Rejected(Reason.TOO_LARGE, f"nested deeper than {DEPTH_MAX}")
        elif major in (5, 6) or (major == 7 and raw[start] not in _SIMPLE_HEADS):
            raise Rejected(Reason.MALFORMED, "maps, tags, floats and odd simple values are refused")
    if position != len(raw):
        raise Rejected(Reason.MALFORMED, f"{len(raw) - position} bytes after the value")


def decode(cls: type[T] | types.UnionType, raw: bytes, size_max_bytes: int = SIZE_MAX_BYTES) -> T:
    """The value of wire type `cls` (or of a union of wire types) that `raw` encodes; `Rejected` for anything else."""
    if len(raw) > size_max_bytes:
        raise Rejected(Reason.TOO_LARGE, f"{len(raw)} bytes where {size_max_bytes} are allowed")
    _check_shape(raw)
    try:
        plain = cbor2.loads(raw)
    except (cbor2.CBORDecodeError, UnicodeDecodeError, ValueError) as error:
        raise Rejected(Reason.MALFORMED, f"not CBOR: {error}") from None
    value = _from_plain(cls, plain, getattr(cls, "__name__", "value"))
    if encode(value) != raw:
        raise Rejected(Reason.NOT_CANONICAL, "another encoding of the same value")
    return typing.cast(T, value)

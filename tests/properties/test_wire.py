"""Every wire type: any value comes back as it was sent, and no bytes do anything but that or a refusal."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import types
import typing
from enum import Enum
from functools import cache
from typing import Any, Union

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import milon
from milon.base.codec import decode, encode, schema_of
from milon.base.errors import Rejected
from milon.base.ids import LENGTH_BYTES
from milon.base.units import UNSIGNED, UNSIGNED_END

ROOMS = (
    "base",
    "chain",
    "pol",
    "state",
    "contracts",
    "consensus",
    "p2p",
    "node",
)  # what a node decodes; gpu needs torch

PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: st.sampled_from([0, 1, -1, 23, 24, 1 << 32, UNSIGNED_END - 1, -UNSIGNED_END]),
    bool: st.booleans(),
    str: st.text(max_size=6),
    bytes: st.binary(max_size=6),
    types.NoneType: st.none(),
}
COUNTS = st.sampled_from([0, 1, 23, 24, 255, 256, 65_536, 1 << 32, UNSIGNED_END - 1])


@cache
def wire_types() -> tuple[type[Any], ...]:
    """All wire types of the rooms, by schema."""
    found: dict[str, type[Any]] = {}
    for room in ROOMS:
        package = importlib.import_module(f"milon.{room}")
        for entry in pkgutil.walk_packages(package.__path__, f"milon.{room}."):
            for value in vars(importlib.import_module(entry.name)).values():
                if isinstance(value, type) and "__wire_schema__" in vars(value):
                    found[schema_of(value)] = value
    return tuple(found[schema] for schema in sorted(found))


@cache
def strategy_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of an annotation, small ones with large numbers."""
    if hint in PLAIN:
        return PLAIN[hint]
    if isinstance(hint, typing.NewType):
        if hint in LENGTH_BYTES:
            return st.binary(min_size=LENGTH_BYTES[hint], max_size=LENGTH_BYTES[hint])
        return COUNTS if hint in UNSIGNED else strategy_of(hint.__supertype__)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return st.one_of(*(strategy_of(argument) for argument in arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(st.deferred(lambda: strategy_of(arguments[0])), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*(strategy_of(argument) for argument in arguments))
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    hints = typing.get_type_hints(hint)
    return st.builds(hint, *(strategy_of(hints[field.name]) for field in dataclasses.fields(hint)))


def mutate(raw: bytes, data: st.DataObject) -> bytes:
    """Bytes near valid ones: changed, cut, doubled, with something put in or another's piece spliced in."""
    place = data.draw(st.integers(0, max(0, len(raw) - 1)))
    other = data.draw(st.binary(min_size=1, max_size=9))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "overwrite", "repeat", "drop"]))
    match kind:
        case "flip":
            return raw[:place] + bytes([raw[place] ^ (1 << data.draw(st.integers(0, 7)))]) + raw[place + 1 :]
        case "cut":
            return raw[:place]
        case "insert":
            return raw[:place] + other + raw[place:]
        case "overwrite":
            return raw[:place] + other + raw[place + len(other) :]
        case "repeat":
            return raw[:place] + raw[place : place + 40] * 2 + raw[place + 40 :]
        case _:
            return raw[:place] + raw[place + 1 + data.draw(st.integers(0, 9)) :]


QUICK = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), database=None)


def test_the_rooms_have_wire_types() -> None:
    names = {schema_of(kind) for kind in wire_types()}
    assert {"transaction/1", "vote/1", "claim-record/3", "validator-record/1"} <= names
    assert len(names) > 100 and milon.__path__


@pytest.mark.parametrize("kind", wire_types(), ids=schema_of)
def test_every_value_comes_back_and_no_bytes_do_harm(kind: type[Any]) -> None:
    """Decoding mutated bytes gives a value of just these bytes, or `Rejected`; nothing else is ever raised."""

    @QUICK
    @given(value=strategy_of(kind), data=st.data())
    def check(value: Any, data: st.DataObject) -> None:
        raw = encode(value)
        assert decode(kind, raw) == value
        near = mutate(raw, data)
        try:
            other = decode(kind, near)
        except Rejected:
            return
        assert encode(other) == near

    check()

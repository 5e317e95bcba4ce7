"""Units and ids: every name has its bound on the wire, and the tables that hold the bounds are whole."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from milon.base import ids, units
from milon.base.codec import decode, encode, wire
from milon.base.errors import Reason, Rejected

UNIT_NAMES = sorted(name for name, value in vars(units).items() if isinstance(value, typing.NewType))
ID_NAMES = sorted(name for name, value in vars(ids).items() if isinstance(value, typing.NewType))


def test_every_unit_and_id_has_its_bound() -> None:
    assert {getattr(units, name) for name in UNIT_NAMES} == units.UNSIGNED
    assert {getattr(ids, name) for name in ID_NAMES} == set(ids.LENGTH_BYTES)


@pytest.mark.parametrize("name", UNIT_NAMES)
def test_units_are_unsigned(name: str) -> None:
    holder = _holder(f"test-unit-{name}/1", getattr(units, name))
    for good in (0, 1, units.UNSIGNED_END - 1):
        assert decode(holder, encode(holder(good))) == holder(good)
    with pytest.raises(Rejected) as caught:
        decode(holder, encode(holder(-1)))
    assert caught.value.reason is Reason.OUT_OF_RANGE
    with pytest.raises(Rejected) as caught:
        encode(holder(units.UNSIGNED_END))
    assert caught.value.reason is Reason.OUT_OF_RANGE


@pytest.mark.parametrize("name", ID_NAMES)
def test_ids_have_one_length(name: str) -> None:
    kind = getattr(ids, name)
    holder = _holder(f"test-id-{name}/1", kind)
    length = ids.LENGTH_BYTES[kind]
    assert decode(holder, encode(holder(bytes(length)))) == holder(bytes(length))
    for wrong in (0, length - 1, length + 1):
        with pytest.raises(Rejected) as caught:
            decode(holder, encode(holder(bytes(wrong))))
        assert caught.value.reason is Reason.OUT_OF_RANGE


def test_short_is_for_people() -> None:
    assert ids.short(bytes.fromhex("0123456789abcdef")) == "01234567"


def _holder(schema: str, kind: object) -> typing.Any:
    made = dataclasses.make_dataclass(f"Holder{schema[5:-2]}", [("value", kind)], frozen=True, slots=True)
    return wire(schema)(made)

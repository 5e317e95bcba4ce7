"""The ledger as a value: what a reader holds at some height, the changes on top, and drafts that may be dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from milon.base.codec import decode, encode
from milon.base.errors import Rejected

T = TypeVar("T")

MEMO_RECORD_MAX_BYTES = 4096  # accounts, stakes, claims
MEMO_RECORDS_MAX = 8192  # with the limit above: at most 32 MiB, typically 2
MEMO_LARGE_MAX_BYTES = 64 << 10  # jobs with many trainers and their rounds; larger records are decoded each time
MEMO_LARGE_RECORDS_MAX = 160  # every block looks at 64 open jobs and their rounds: 10 MiB, a few times that decoded

NO_CHANGES: Mapping[bytes, bytes | None] = MappingProxyType({})


class Reader(Protocol):
    """Anything that answers a key with its value; the answers never change while it is being read."""

    def get(self, key: bytes) -> bytes | None:
        """The value under `key`, or None."""


def _decode_own(kind: Any, raw: bytes) -> Any:
    """Decode bytes this node wrote itself: anything wrong with them is a broken invariant, not bad input."""
    try:
        return decode(kind, raw)
    except Rejected as error:
        raise RuntimeError(f"a ledger record of this node is corrupt: {error}") from error


# Records are immutable values, so that one decoded once may be handed out again.
_decode_own_small: Callable[[Any, bytes], Any] = lru_cache(maxsize=MEMO_RECORDS_MAX)(_decode_own)
_decode_own_large: Callable[[Any, bytes], Any] = lru_cache(maxsize=MEMO_LARGE_RECORDS_MAX)(_decode_own)


def load_record(reader: Reader, key: bytes, kind: type[T]) -> T | None:
    """The wire record of type `kind` under `key`, or None; a record that does not decode crashes (RuntimeError)."""
    raw = reader.get(key)
    if raw is None:
        return None
    decoder: Callable[[Any, bytes], Any] = _decode_own
    if len(raw) <= MEMO_RECORD_MAX_BYTES:
        decoder = _decode_own_small
    elif len(raw) <= MEMO_LARGE_MAX_BYTES:
        decoder = _decode_own_large
    record: T = decoder(kind, raw)
    return record


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """An immutable view: a reader at a fixed height and the changes since.

    A ledger is itself a reader, so `Ledger(parent)` opens an overlay on a block that is notarized and not yet final:
    its `changes` are those of the new block alone, and a lookup walks the few overlays down to the store.
    """

    base: Reader  # the store at a finalized height, or the ledger after the parent block
    changes: Mapping[bytes, bytes | None] = field(default_factory=lambda: NO_CHANGES)  # on top of `base`; None: removed

    def get(self, key: bytes) -> bytes | None:
        """The value under `key`, or None."""
        if key in self.changes:
            return self.changes[key]
        return self.base.get(key)

    def load(self, key: bytes, kind: type[T]) -> T | None:
        """The wire record under `key`, or None; one that does not decode crashes."""
        return load_record(self, key, kind)

    def with_change(self, key: bytes, value: bytes | None) -> Ledger:
        """This ledger with `value` under `key`; None removes it."""
        return self.with_changes({key: value})

    def with_record(self, key: bytes, record: Any) -> Ledger:
        """This ledger with the encoding of a wire record under `key`."""
        return self.with_changes({key: encode(record)})

    def with_changes(self, changes: Mapping[bytes, bytes | None]) -> Ledger:
        """This ledger with all of `changes` on top."""
        if not changes:
            return self
        return Ledger(self.base, MappingProxyType({**self.changes, **changes}))


class Draft:
    """Changes collected while a transaction or a block runs: `commit` gives the new ledger, dropping changes nothing.

    A draft of a draft is a transaction inside a block: `merge_into` hands its changes up, at the cost of its own size.
    """

    __slots__ = ("_base", "_changes")

    def __init__(self, base: Ledger | Draft) -> None:
        """Start with no changes on top of `base`."""
        self._base = base
        self._changes: dict[bytes, bytes | None] = {}

    @property
    def changes(self) -> Mapping[bytes, bytes | None]:
        """What was written so far, the last write per key; None: removed."""
        return MappingProxyType(self._changes)

    def get(self, key: bytes) -> bytes | None:
        """The value under `key` with this draft's changes, or None."""
        if key in self._changes:
            return self._changes[key]
        return self._base.get(key)

    def load(self, key: bytes, kind: type[T]) -> T | None:
        """The wire record under `key`, or None; one that does not decode crashes."""
        return load_record(self, key, kind)

    def put(self, key: bytes, value: bytes) -> None:
        """Write bytes under `key`."""
        self._changes[key] = value

    def store(self, key: bytes, record: Any) -> None:
        """Write the encoding of a wire record under `key`."""
        self._changes[key] = encode(record)

    def remove(self, key: bytes) -> None:
        """Take `key` away; a key that is not there stays so."""
        self._changes[key] = None

    def commit(self) -> Ledger:
        """The ledger with this draft's changes; of a draft of a draft, with those of both."""
        below = self._base.commit() if isinstance(self._base, Draft) else self._base
        return below.with_changes(self._changes)

    def merge_into(self, below: Draft) -> None:
        """Hand the changes up to the draft this one was opened on."""
        if below is not self._base:
            raise ValueError("a draft merges only into the one it was opened on")
        below._changes.update(self._changes)
        self._changes.clear()

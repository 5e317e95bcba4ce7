"""Answers those who keep no chain, or not yet: headers with their proofs, values of the ledger, chunks, the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from milon.base.codec import encode
from milon.base.errors import Reason, require
from milon.base.units import Height, TimeMs
from milon.chain.genesis import Genesis
from milon.node.proofs import load_header, prove_header, prove_newest, prove_value
from milon.node.questions import (
    HEADERS_MAX,
    AskChunk,
    AskClock,
    AskHeader,
    AskHeaders,
    AskSnapshots,
    AskState,
    ClockAnswer,
    HeadersAnswer,
    SnapshotsAnswer,
)
from milon.node.shelf import Shelf
from milon.state.store import KEY_MAX_BYTES, Store

LightQuestion = AskHeader | AskHeaders | AskState | AskSnapshots | AskChunk | AskClock


class LightAnswers:
    """Reads the store and the shelf; every call may block on the disk."""

    def __init__(self, genesis: Genesis, store: Store, shelf: Shelf, now_ms: Callable[[], TimeMs]) -> None:
        """`now_ms` is this machine's clock."""
        self._genesis = genesis
        self._store = store
        self._shelf = shelf
        self._now_ms = now_ms

    def answer(self, question: LightQuestion) -> bytes:
        """The answer's bytes; `Rejected` where the thing is not here."""
        match question:
            case AskHeader():
                if question.height == 0:
                    return encode(prove_newest(self._genesis, self._store))
                return encode(prove_header(self._genesis, self._store, question.height, self._shelf.validators))
            case AskHeaders():
                count = question.last - question.first + 1
                require(0 < count <= HEADERS_MAX, Reason.OUT_OF_RANGE, f"{count} headers")
                heights = range(question.first, question.last + 1)
                return encode(HeadersAnswer(tuple(load_header(self._store, Height(height)) for height in heights)))
            case AskState():
                require(0 < len(question.key) <= KEY_MAX_BYTES, Reason.OUT_OF_RANGE, "no ledger key has that length")
                return encode(prove_value(self._genesis, self._store, question.key))
            case AskSnapshots():
                return encode(SnapshotsAnswer(self._shelf.offers()))
            case AskChunk():
                return self._shelf.chunk(question.height, question.index)
            case AskClock():
                tip = self._store.tip()
                return encode(ClockAnswer(self._now_ms(), tip[0] if tip is not None else Height(0)))
            case _:
                assert_never(question)

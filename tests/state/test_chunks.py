"""Chunks: each verifies alone, together they are the ledger, and nothing can be left out, added or changed."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.state.chunks import (
    CHUNK_MAX_BYTES,
    StateChunk,
    StateEntry,
    assemble,
    choose_depth,
    index_of,
    make_chunk,
    path_of,
    split,
    verify_chunk,
)
from milon.state.commitment import EMPTY_ROOT, StateLeaf, StateProof, compute_update

LEDGER = {b"account/%d" % number: b"balance %d" % (number * number) for number in range(300)}


def tree_of(ledger: dict[bytes, bytes]) -> tuple[Digest, dict[bytes, bytes]]:
    root, changes = compute_update({}.get, EMPTY_ROOT, dict(ledger))
    return root, {position: record for position, record in changes.items() if record is not None}


def chunks_of(ledger: dict[bytes, bytes], depth: int) -> tuple[Digest, list[StateChunk]]:
    root, nodes = tree_of(ledger)
    parts = split(ledger.items(), depth, 0, 1 << depth)
    return root, [make_chunk(nodes.get, root, index, depth, parts.get(index, ())) for index in range(1 << depth)]


def path_of_entry(entry: StateEntry) -> bytes:
    return sha256(entry.key).digest()


def refused(root: Digest, chunk: StateChunk, index: int, depth: int) -> Reason:
    with pytest.raises(Rejected) as caught:
        verify_chunk(root, chunk, index, depth)
    return caught.value.reason


@pytest.mark.parametrize("depth", [0, 1, 3, 6, 11])
def test_every_chunk_verifies_alone_and_all_are_the_ledger(depth: int) -> None:
    root, chunks = chunks_of(LEDGER, depth)
    for index, chunk in enumerate(chunks):
        verify_chunk(root, decode(StateChunk, encode(chunk), CHUNK_MAX_BYTES), index, depth)
    ledger, nodes = assemble(root, iter(chunks))
    assert ledger == LEDGER
    assert {position: record for position, record in nodes.items() if record is not None} == tree_of(LEDGER)[1]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.binary(min_size=1, max_size=4), st.binary(min_size=1, max_size=4), max_size=9), st.integers(0, 6)
)
def test_any_ledger_in_chunks_of_any_depth(ledger: dict[bytes, bytes], depth: int) -> None:
    root, chunks = chunks_of(ledger, depth)
    for index, chunk in enumerate(chunks):
        verify_chunk(root, chunk, index, depth)
        for entry in chunk.entries:  # leaving anything out shows
            entries = tuple(other for other in chunk.entries if other != entry)
            assert refused(root, replace(chunk, entries=entries), index, depth) is Reason.BAD_PROOF
    assert assemble(root, iter(chunks))[0] == ledger


def test_what_is_forged_is_refused() -> None:
    depth = 3
    root, chunks = chunks_of(LEDGER, depth)
    chunk = chunks[5]
    first, *rest = chunk.entries
    extra = next(key for key in (b"new/%d" % n for n in range(99)) if index_of(sha256(key).digest(), depth) == 5)
    nothing = Digest(bytes(32))
    forged = (
        replace(chunk, entries=(StateEntry(first.key, b"lie"), *rest)),
        replace(chunk, entries=tuple(rest)),
        replace(chunk, entries=(*rest, first)),
        replace(chunk, entries=(first, first, *rest)),
        replace(chunk, entries=()),
        replace(chunk, entries=(), proof=StateProof((), None)),
        replace(chunk, proof=StateProof(chunk.proof.siblings[1:], None)),
        replace(chunk, proof=StateProof((*chunk.proof.siblings, Digest(bytes(32))), None)),
        replace(chunk, proof=StateProof(chunk.proof.siblings[::-1], None)),
        replace(chunk, entries=(), proof=StateProof(chunk.proof.siblings, StateLeaf(nothing, nothing))),
        replace(chunk, proof=StateProof(chunk.proof.siblings, StateLeaf(Digest(path_of(5, depth)), nothing))),
        replace(chunk, entries=tuple(sorted((*chunk.entries, StateEntry(extra, b"1")), key=path_of_entry))),
        replace(chunk, entries=(StateEntry(b"", b"1"), *chunk.entries)),
        replace(chunk, entries=(StateEntry(first.key, b""), *rest)),
        replace(chunk, depth=2),
        chunks[4],
        chunks_of({**LEDGER, first.key: b"other"}, depth)[1][5],
    )  # fmt: skip
    for number, bad in enumerate(forged):
        assert refused(root, bad, 5, depth) in (Reason.BAD_PROOF, Reason.NOT_CANONICAL, Reason.TOO_LARGE), number
    with pytest.raises(Rejected):
        assemble(root, iter(chunks[:-1]))


def test_an_empty_part_is_shown_by_the_leaf_in_its_place_and_no_other() -> None:
    ledger = {b"a": b"1"}  # its path begins with 1100
    root, chunks = chunks_of(ledger, 2)
    assert [len(chunk.entries) for chunk in chunks] == [0, 0, 0, 1]
    assert chunks[0].proof.other == StateLeaf(Digest(sha256(b"a").digest()), Digest(sha256(b"1").digest()))
    assert refused(root, replace(chunks[0], proof=chunks[3].proof), 0, 2) is Reason.BAD_PROOF
    assert refused(root, replace(chunks[3], entries=(), proof=chunks[0].proof), 3, 2) is Reason.BAD_PROOF


def test_depth_follows_size() -> None:
    assert [choose_depth(size) for size in (0, 256 << 10, (256 << 10) + 1, 1 << 20, 1 << 30, 1 << 60)] == [
        0,
        0,
        1,
        2,
        12,
        20,
    ]

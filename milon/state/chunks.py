"""The ledger in pieces that anyone can check against the state root alone, for nodes that join without the past.

A chunk is the part of the ledger whose paths (`sha256(key)`) begin with the same bits, in order of path, with the
hashes beside the way from that part up to the root. A chunk that verifies holds every key of its part and no other,
whoever sent it: there is no list of hashes that would have to be trusted first, and a wrong chunk convicts its sender.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from milon.base.codec import wire
from milon.base.errors import Reason, require
from milon.base.ids import Digest
from milon.base.units import Count
from milon.state.commitment import EMPTY_ROOT, ReadNode, StateProof, compute_part, compute_update, verify_part
from milon.state.store import KEY_MAX_BYTES, VALUE_MAX_BYTES

CHUNK_BYTES = 256 << 10  # of keys and values, on average: some hundredths of a second to make, send and check
CHUNK_MAX_BYTES = 7 << 20  # of one chunk's encoding: a value is at most 4 MiB, an answer at most 8 MiB
DEPTH_MAX = 20  # bits: a million chunks, 256 GiB of ledger


@wire("state-entry/1")
@dataclass(frozen=True, slots=True)
class StateEntry:
    """A ledger key with its value."""

    key: bytes  # 1 to 256 bytes
    value: bytes  # 1 byte to 4 MiB


@wire("state-chunk/1")
@dataclass(frozen=True, slots=True)
class StateChunk:
    """One part of the ledger with its proof."""

    index: Count  # the first bits of its paths, as a number
    depth: Count  # how many bits: chunks `0` to `2^depth - 1` make the ledger
    entries: tuple[StateEntry, ...]  # in order of path
    proof: StateProof  # the hashes from the part up to the root; the leaf that stands in an empty part's place


def choose_depth(size_bytes: int) -> int:
    """Bits so that a ledger of that size comes in chunks of `CHUNK_BYTES` on average."""
    depth = 0
    while size_bytes >> depth > CHUNK_BYTES and depth < DEPTH_MAX:
        depth += 1
    return depth


def index_of(path: bytes, depth: int) -> int:
    """The chunk that a path belongs to."""
    return int.from_bytes(path[:4], "big") >> (32 - depth)


def path_of(index: int, depth: int) -> bytes:
    """The first path of a chunk."""
    return (index << (32 - depth)).to_bytes(4, "big") + bytes(28)


def make_chunk(
    read: ReadNode, root: Digest, index: int, depth: int, entries: Iterable[tuple[bytes, bytes]]
) -> StateChunk:
    """The chunk of all `entries` that belong to it, in any order, of the ledger with that root."""
    ordered = sorted(entries, key=lambda entry: sha256(entry[0]).digest())
    proof = compute_part(read, root, path_of(index, depth), depth)
    if ordered:
        proof = StateProof(proof.siblings, None)
    return StateChunk(Count(index), Count(depth), tuple(StateEntry(*entry) for entry in ordered), proof)


def verify_chunk(root: Digest, chunk: StateChunk, index: int, depth: int) -> None:
    """Raise `Rejected` unless `chunk` is part `index` of `2^depth` of the ledger with that root, whole."""
    is_asked = chunk.index == index and chunk.depth == depth
    require(is_asked, Reason.BAD_PROOF, f"chunk {chunk.index} of depth {chunk.depth}, not {index} of {depth}")
    leaves: list[tuple[bytes, bytes | None]] = []
    previous = b""
    for entry in chunk.entries:
        is_sized = 0 < len(entry.key) <= KEY_MAX_BYTES and 0 < len(entry.value) <= VALUE_MAX_BYTES
        require(is_sized, Reason.TOO_LARGE, f"a key of {len(entry.key)} and a value of {len(entry.value)} bytes")
        path = sha256(entry.key).digest()
        require(path > previous, Reason.NOT_CANONICAL, "a chunk's entries are out of order or double")
        require(index_of(path, depth) == index, Reason.BAD_PROOF, "an entry of another chunk")
        previous = path
        leaves.append((path, sha256(entry.value).digest()))
    verify_part(root, path_of(index, depth), depth, leaves, chunk.proof)


def assemble(root: Digest, chunks: Iterator[StateChunk]) -> tuple[Mapping[bytes, bytes], Mapping[bytes, bytes | None]]:
    """The flat ledger of verified chunks, and the nodes of its tree; `Rejected(BAD_PROOF)` where a chunk is missing."""
    ledger: dict[bytes, bytes] = {}
    for chunk in chunks:
        ledger.update((entry.key, entry.value) for entry in chunk.entries)
    found, nodes = compute_update(lambda _: None, EMPTY_ROOT, ledger)
    require(found == root, Reason.BAD_PROOF, f"the chunks come to root {found.hex()} where {root.hex()} was expected")
    return ledger, nodes


def split(
    entries: Iterable[tuple[bytes, bytes]], depth: int, first: int, end: int
) -> Mapping[int, Sequence[tuple[bytes, bytes]]]:
    """The entries of chunks `first` up to and without `end`, by chunk."""
    found: dict[int, list[tuple[bytes, bytes]]] = {}
    for key, value in entries:
        index = index_of(sha256(key).digest(), depth)
        if first <= index < end:
            found.setdefault(index, []).append((key, value))
    return found

"""Merkle lists as in RFC 6962 section 2.1: a root over an ordered list, and proofs that an entry is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest

EMPTY_ROOT = Digest(hashlib.sha256(b"").digest())


def compute_leaf(entry: bytes) -> Digest:
    """The hash of one entry: `sha256(0x00 | entry)`."""
    return Digest(hashlib.sha256(b"\x00" + entry).digest())


def _node(left: bytes, right: bytes) -> Digest:
    return Digest(hashlib.sha256(b"\x01" + left + right).digest())


def _split(count: int) -> int:
    """The largest power of two smaller than `count` (count >= 2)."""
    return 1 << ((count - 1).bit_length() - 1)


def _root_of_leaves(leaves: Sequence[Digest]) -> Digest:
    if len(leaves) == 1:
        return leaves[0]
    middle = _split(len(leaves))
    return _node(_root_of_leaves(leaves[:middle]), _root_of_leaves(leaves[middle:]))


def compute_root(entries: Sequence[bytes]) -> Digest:
    """The root over `entries` in their order; the root of no entries is `sha256("")`."""
    if not entries:
        return EMPTY_ROOT
    return _root_of_leaves([compute_leaf(entry) for entry in entries])


def compute_proof(entries: Sequence[bytes], index: int) -> tuple[Digest, ...]:
    """The audit path of entry `index`, from the leaf upwards (RFC 6962 section 2.1.1)."""

    def path(leaves: Sequence[Digest], position: int) -> list[Digest]:
        if len(leaves) == 1:
            return []
        middle = _split(len(leaves))
        if position < middle:
            return [*path(leaves[:middle], position), _root_of_leaves(leaves[middle:])]
        return [*path(leaves[middle:], position - middle), _root_of_leaves(leaves[:middle])]

    if not 0 <= index < len(entries):
        raise IndexError(f"entry {index} of {len(entries)}")
    return tuple(path([compute_leaf(entry) for entry in entries], index))


def fold_proof(entry: bytes, index: int, count: int, proof: Sequence[Digest]) -> Digest:
    """The root that `proof` leads to from `entry` at `index` of `count`; `Rejected(BAD_PROOF)` for another length."""
    if not 0 <= index < count:
        raise Rejected(Reason.BAD_PROOF, f"entry {index} of {count} does not exist")
    sides: list[bool] = []  # from the root down: True where the entry lies in the left part
    position, size = index, count
    while size > 1:
        middle = _split(size)
        sides.append(position < middle)
        position, size = (position, middle) if position < middle else (position - middle, size - middle)
    if len(proof) != len(sides):
        raise Rejected(Reason.BAD_PROOF, f"a proof of {len(proof)} hashes where {len(sides)} are needed")
    current = compute_leaf(entry)
    for is_left, sibling in zip(reversed(sides), proof, strict=True):
        current = _node(current, sibling) if is_left else _node(sibling, current)
    return current


def verify_proof(root: Digest, entry: bytes, index: int, count: int, proof: Sequence[Digest]) -> None:
    """Raise `Rejected(BAD_PROOF)` unless `proof` shows `entry` at `index` of the `count` entries under `root`."""
    if fold_proof(entry, index, count, proof) != root:
        raise Rejected(Reason.BAD_PROOF, "the proof leads to another root")

"""The trees of `milon.pol.dispute_tree` over tensors, quickly: about two microseconds for each 64 elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from torch import Tensor

from milon.base.ids import Digest
from milon.gpu.dispute_numbers import tensor_bytes
from milon.pol.dispute_tree import ARITY, PIECE_ELEMENTS, Opening, compute_leaf_digest, compute_opening

_HEAD = b"milon/v1/dispute-"  # of `milon.base.hashing.digest`
_LENGTH = (32).to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class Tree:
    """All digests of a tree, and what lies under its leaves."""

    levels: tuple[Sequence[Digest], ...]  # the leaves first, the root alone in the last
    read: Callable[[int], bytes]  # what lies under a leaf

    @property
    def root(self) -> Digest:
        """The root."""
        return self.levels[-1][0]

    def open(self, leaf: int) -> Opening:
        """The opening of one leaf."""
        return compute_opening(self.levels, leaf, self.read(leaf))


def _hash_leaves(raw: memoryview, width: int) -> list[Digest]:
    """Leaf digests of consecutive pieces of `width` bytes, the last one perhaps shorter."""
    found = []
    for start in range(0, len(raw), width):
        piece = raw[start : start + width]
        head = _HEAD + b"leaf\x00" + len(piece).to_bytes(8, "big")
        found.append(Digest(sha256(head + piece).digest()))
    return found


def _hash_node(children: Sequence[bytes]) -> Digest:
    """`compute_node_digest`, with the Merkle list (RFC 6962) level by level instead of by recursion."""
    level = [sha256(b"\x00" + child).digest() for child in children]
    while len(level) > 1:  # an odd one at the end moves up as it is, which is where the recursion puts it
        pairs = [sha256(b"\x01" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) & ~1 :]
    count = bytes([len(children)])
    return Digest(sha256(_HEAD + b"node\x00" + (1).to_bytes(8, "big") + count + _LENGTH + level[0]).digest())


def build_levels(leaves: Sequence[Digest]) -> tuple[Sequence[Digest], ...]:
    """`milon.pol.dispute_tree.compute_levels`, faster."""
    levels: list[Sequence[Digest]] = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([_hash_node(below[at : at + ARITY]) for at in range(0, len(below), ARITY)])
    return tuple(levels)


def build_value_tree(value: Tensor) -> Tree:
    """The tree over a value's elements; it holds the value, and half a byte of digests for each of its elements."""
    width = PIECE_ELEMENTS * value.element_size()
    raw = tensor_bytes(value)
    levels = build_levels(_hash_leaves(raw, width))
    return Tree(levels, lambda leaf: bytes(raw[leaf * width : (leaf + 1) * width]))


def compute_value_root(value: Tensor) -> Digest:
    """The root of the tree over a value's elements."""
    return build_levels(_hash_leaves(tensor_bytes(value), PIECE_ELEMENTS * value.element_size()))[-1][0]


def build_root_tree(roots: Sequence[bytes]) -> Tree:
    """The tree over the roots of values, or over the leaves of a state."""
    held = [bytes(root) for root in roots]
    return Tree(build_levels([compute_leaf_digest(root) for root in held]), lambda leaf: held[leaf])

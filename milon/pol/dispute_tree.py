"""Trees over what a step computes: sixteen children a node, opened a node at a time or, in one go, for one leaf.

    leaf digest = digest("dispute-leaf", raw)
    node digest = digest("dispute-node", number of children, Merkle root of the children)

Leaves are taken sixteen at a time, then those nodes, and so on until one is left: the root. All leaves lie equally
deep, so the children chosen on the way from the root, read as digits to base 16, are the leaf's number. The Merkle root
within a node makes the opening of one leaf four digests a level instead of fifteen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from milon.base.codec import wire
from milon.base.errors import Reason, require
from milon.base.hashing import digest
from milon.base.ids import Digest
from milon.base.merkle import compute_proof, compute_root, fold_proof
from milon.base.units import Count

ARITY = 16  # children a message shows: half a kilobyte of digests
PIECE_ELEMENTS = 64  # of a value's elements under one leaf: 512 bytes at most


@wire("dispute-opening/1")
@dataclass(frozen=True, slots=True)
class Opening:
    """One leaf and what shows its place in a tree."""

    index: Count  # of the leaf
    count: Count  # leaves in the tree
    raw: bytes  # what lies under the leaf
    siblings: tuple[tuple[Digest, ...], ...]  # audit paths within the nodes, from the leaf's parent up to the root


def compute_leaf_digest(raw: bytes) -> Digest:
    """The digest of a leaf."""
    return digest("dispute-leaf", raw)


def compute_node_digest(children: Sequence[Digest]) -> Digest:
    """The digest of a node over 1 to 16 children."""
    return _digest_node(len(children), compute_root(children))


def _digest_node(width: int, root: Digest) -> Digest:
    return digest("dispute-node", bytes([width]), root)


def compute_levels(leaves: Sequence[Digest]) -> tuple[tuple[Digest, ...], ...]:
    """All digests of a tree over leaf digests, the leaves first, the root alone in the last level."""
    require(bool(leaves), Reason.OUT_OF_RANGE, "a tree without leaves")
    levels = [tuple(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        nodes = [compute_node_digest(below[place : place + ARITY]) for place in range(0, len(below), ARITY)]
        levels.append(tuple(nodes))
    return tuple(levels)


def compute_tree_root(raws: Sequence[bytes]) -> Digest:
    """The root of the tree over what lies under its leaves, in order."""
    return compute_levels([compute_leaf_digest(raw) for raw in raws])[-1][0]


def find_children(levels: Sequence[Sequence[Digest]], path: Sequence[int]) -> tuple[Digest, ...]:
    """The children of the node that `path` leads to from the root; none where that is a leaf."""
    depth = len(levels) - 1 - len(path)
    require(depth >= 0, Reason.OUT_OF_RANGE, f"a path of {len(path)} in a tree of depth {len(levels) - 1}")
    place = compute_place(path)
    require(place < len(levels[depth]), Reason.OUT_OF_RANGE, f"no node {place} at depth {len(path)}")
    return tuple(levels[depth - 1][place * ARITY : (place + 1) * ARITY]) if depth else ()


def compute_place(path: Sequence[int]) -> int:
    """The number of the node that `path` leads to, among those equally deep."""
    place = 0
    for child in path:
        place = place * ARITY + child
    return place


def compute_depth(count: int) -> int:
    """How many choices lead from the root to one of `count` leaves."""
    depth, leaves = 0, 1
    while leaves < count:
        depth, leaves = depth + 1, leaves * ARITY
    return depth


def count_children(count: int, path: Sequence[int]) -> int:
    """How many children the node at `path` has in a tree over `count` leaves; 0 where it is a leaf, or not there."""
    depth = compute_depth(count) - len(path)
    if depth <= 0:
        return 0
    below = count  # nodes equally deep as the children
    for _ in range(depth - 1):
        below = -(-below // ARITY)
    return max(0, min(ARITY, below - compute_place(path) * ARITY))


def compute_opening(levels: Sequence[Sequence[Digest]], index: int, raw: bytes) -> Opening:
    """What shows that `raw` lies under leaf `index` of the tree."""
    siblings: list[tuple[Digest, ...]] = []
    place = index
    for level in levels[:-1]:
        first = place - place % ARITY
        siblings.append(compute_proof(level[first : first + ARITY], place - first))
        place //= ARITY
    return Opening(Count(index), Count(len(levels[0])), raw, tuple(siblings))


def verify_opening(root: Digest, opening: Opening) -> None:
    """Raise `Rejected(BAD_PROOF)` unless `root` is that of a tree with the opened leaf in its place.

    The number of leaves is shown only as far as the shape of the way up goes: whoever knows how many there must be
    compares.
    """
    current, place, count = compute_leaf_digest(opening.raw), int(opening.index), int(opening.count)
    require(place < count, Reason.BAD_PROOF, f"leaf {place} of {count}")
    for level in opening.siblings:
        require(count > 1, Reason.BAD_PROOF, "an opening that goes on above the root")
        child = place % ARITY
        width = min(ARITY, count - (place - child))
        current = _digest_node(width, fold_proof(current, child, width, level))
        place, count = place // ARITY, -(-count // ARITY)
    require(count == 1 and current == root, Reason.BAD_PROOF, "the opening leads to another root")

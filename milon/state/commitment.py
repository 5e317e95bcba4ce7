"""The state root: a compact binary sparse Merkle tree over the flat ledger table, hashed as the ICS-23 `SmtSpec`.

A key lies at the path `sha256(key)`, most significant bit first; a subtree that holds one key is that key's leaf, and
an empty one is 32 zero bytes. A node is stored under its position in the tree and its record is exactly what is hashed:

    leaf   0x00 | sha256(key) | sha256(value)        inner  0x01 | hash of the left part | hash of the right part

Because the position is the key, an update overwrites what it replaces and removes what it merges: the table holds one
record per node of the newest tree and nothing else, about 2.4 per key. The price is that old roots cannot be proved
from it. Overlays for blocks that are not yet final work by layering the node changes (`layered`). Every record read is
hashed and compared with what its parent says, so reading through the wrong layers crashes instead of going on.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from milon.base.codec import wire
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest

EMPTY_ROOT = Digest(bytes(32))  # of the empty ledger, and of every empty subtree
DEPTH_MAX = 256  # bits of a path

_LEAF = b"\x00"
_INNER = b"\x01"

ReadNode = Callable[[bytes], bytes | None]  # a position to the record there
_Leaf = tuple[bytes, bytes | None]  # path and value hash; None: the key is removed

# The last byte of a position: the bits that do not fill a byte, then a one, then zeros.
_LAST_BYTE = tuple(
    tuple(bytes((byte & (0xFF00 >> bits) & 0xFF | 0x80 >> bits,)) for byte in range(256)) for bits in range(8)
)


def _position(path: bytes, depth: int) -> bytes:
    """The key of the node `depth` bits down `path`: unique, short, and with a subtree's nodes side by side on disk."""
    whole, bits = depth >> 3, depth & 7
    if not bits:
        return path[:whole] + b"\x80"
    return path[:whole] + _LAST_BYTE[bits][path[whole]]


def _bit(path: bytes, depth: int) -> int:
    return path[depth >> 3] >> (7 - (depth & 7)) & 1


def layered(read: ReadNode, changes: Mapping[bytes, bytes | None]) -> ReadNode:
    """Read through the node changes of a block that is not yet final down to what lies below it."""

    def read_layered(position: bytes) -> bytes | None:
        if position in changes:
            return changes[position]
        return read(position)

    return read_layered


class _Update:
    """One update under way: a reader of the old nodes and the changes collected."""

    __slots__ = ("_read", "changes")

    def __init__(self, read: ReadNode) -> None:
        self._read = read
        self.changes: dict[bytes, bytes | None] = {}

    def read(self, path: bytes, depth: int, expected: bytes) -> bytes | None:
        """The record of the old node whose hash is `expected`; None for the empty subtree."""
        if expected == EMPTY_ROOT:
            return None
        return _read_checked(self._read, path, depth, expected)

    def put(self, path: bytes, depth: int, old: bytes, record: bytes | None) -> bytes:
        """Note the new record of a node whose old hash is `old`; returns the new hash."""
        if record is None:
            if old != EMPTY_ROOT:
                self.changes[_position(path, depth)] = None
            return EMPTY_ROOT
        new = sha256(record).digest()
        if new != old:
            self.changes[_position(path, depth)] = record
        return new

    def build(self, leaves: Sequence[_Leaf], depth: int) -> bytes | None:
        """The record of a fresh subtree over sorted leaves; everything below it is noted."""
        if not leaves:
            return None
        if len(leaves) == 1:
            path, value_hash = leaves[0]
            return _LEAF + path + (value_hash or b"")
        left = [leaf for leaf in leaves if not _bit(leaf[0], depth)]
        right = leaves[len(left) :]
        hashes = [
            self.put(part[0][0], depth + 1, EMPTY_ROOT, self.build(part, depth + 1)) if part else EMPTY_ROOT
            for part in (left, right)
        ]
        return _INNER + hashes[0] + hashes[1]

    def apply(self, leaves: Sequence[_Leaf], depth: int, expected: bytes) -> bytes | None:
        """The new record of the subtree that hashed to `expected`, after changing sorted `leaves` in it."""
        if len(leaves) == 1 and leaves[0][1] is not None:
            return self._set_one(leaves[0], depth, expected)
        record = self.read(leaves[0][0], depth, expected)
        if record is None or record[:1] == _LEAF:
            kept = [leaf for leaf in leaves if leaf[1] is not None]
            if record is not None and all(path != record[1:33] for path, _ in leaves):
                insort(kept, (record[1:33], record[33:]))
            return self.build(kept, depth)
        return self._apply_inner(leaves, depth, record)

    def _set_one(self, leaf: _Leaf, depth: int, expected: bytes) -> bytes | None:
        """As `apply` for one key that gets a value: down and up in a loop, where most of an update's time goes."""
        path = leaf[0]
        steps: list[tuple[int, bytes, bytes]] = []  # bit, hash of the child on the path, hash of the other child
        record = self.read(path, depth, expected)
        while record is not None and record[:1] == _INNER:
            bit = _bit(path, depth)
            left, right = record[1:33], record[33:]
            child, sibling = (right, left) if bit else (left, right)
            steps.append((bit, child, sibling))
            depth += 1
            record = self.read(path, depth, child)
        kept = [leaf]
        if record is not None and record[1:33] != path:
            insort(kept, (record[1:33], record[33:]))
        new = self.build(kept, depth)
        for bit, child, sibling in reversed(steps):
            hashed = self.put(path, depth, child, new)
            new = _INNER + (sibling + hashed if bit else hashed + sibling)
            depth -= 1
        return new

    def _apply_inner(self, leaves: Sequence[_Leaf], depth: int, record: bytes) -> bytes | None:
        below = depth + 1
        left = [leaf for leaf in leaves if not _bit(leaf[0], depth)]
        parts = (left, leaves[len(left) :])
        old = (record[1:33], record[33:])
        new = [
            self.apply(part, below, child) if part else None for part, child in zip(parts, old, strict=True)
        ]
        # Where a side changed, its new record decides; where it did not, its old hash does.
        is_empty = [
            (entry is None) if part else (child == EMPTY_ROOT)
            for part, child, entry in zip(parts, old, new, strict=True)
        ]
        if any(is_empty):
            path = leaves[0][0]
            lifted = self._lift(path, below, parts, old, new, is_empty)
            if lifted is not None or all(is_empty):
                return lifted
        hashes = [
            self.put(part[0][0], below, child, entry) if part else child
            for part, child, entry in zip(parts, old, new, strict=True)
        ]
        return _INNER + hashes[0] + hashes[1]

    def _lift(
        self,
        path: bytes,
        below: int,
        parts: Sequence[Sequence[_Leaf]],
        old: Sequence[bytes],
        new: Sequence[bytes | None],
        is_empty: Sequence[bool],
    ) -> bytes | None:
        """The one leaf left under a node, taken up into the node's place; None where none or more are left."""
        leaf: bytes | None = None
        for side in (0, 1):
            if not is_empty[side]:
                record = new[side] if parts[side] else self.read(_side_path(path, below, side), below, old[side])
                if record is None or record[:1] != _LEAF:
                    return None
                leaf = record
        for side in (0, 1):
            self.put(_side_path(path, below, side), below, old[side], None)
        return leaf


def _side_path(path: bytes, below: int, side: int) -> bytes:
    """`path` with its bit at depth `below - 1` set to `side`; only the first `below` bits count."""
    index, mask = (below - 1) >> 3, 0x80 >> ((below - 1) & 7)
    byte = path[index] | mask if side else path[index] & ~mask
    return path[:index] + bytes((byte,)) + path[index + 1 :]


def _read_checked(read: ReadNode, path: bytes, depth: int, expected: bytes) -> bytes:
    record = read(_position(path, depth))
    if record is None or sha256(record).digest() != expected:
        raise RuntimeError(f"the state tree's node {depth} bits down {path.hex()[:16]} is not the one its parent names")
    return record


def compute_update(
    read: ReadNode, root: Digest, changes: Mapping[bytes, bytes | None]
) -> tuple[Digest, dict[bytes, bytes | None]]:
    """The root after `changes` to the ledger and the changes to the nodes; both None for "removed".

    `read` gives the nodes of the tree with the given `root`. The result depends only on the ledger reached, not on the
    order or the grouping of changes. Keys and values must not be empty (ICS-23 proves no empty ones): ValueError.
    """
    leaves: list[_Leaf] = []
    for key, value in changes.items():
        if not key or value == b"":
            raise ValueError(f"an empty key or value in the ledger: {key!r}")
        leaves.append((sha256(key).digest(), None if value is None else sha256(value).digest()))
    if not leaves:
        return root, {}
    leaves.sort(key=lambda leaf: leaf[0])
    update = _Update(read)
    record = update.apply(leaves, 0, root)
    return Digest(update.put(leaves[0][0], 0, root, record)), update.changes


@wire("state-leaf/1")
@dataclass(frozen=True, slots=True)
class StateLeaf:
    """A leaf met on the way to a key that is not there."""

    path: Digest  # sha256 of the leaf's key
    value_hash: Digest  # sha256 of its value


@wire("state-proof/1")
@dataclass(frozen=True, slots=True)
class StateProof:
    """Shows that a key has a value, or that it has none, under a state root."""

    siblings: tuple[Digest, ...]  # hashes beside the path, from the leaf up to the root
    other: StateLeaf | None  # for absence: the leaf of another key that stands in this key's place, if one does


def compute_proof(read: ReadNode, root: Digest, key: bytes) -> StateProof:
    """The proof of `key`'s presence or absence in the tree with the given `root` whose nodes `read` gives."""
    path = sha256(key).digest()
    siblings: list[Digest] = []
    expected: bytes = root
    while expected != EMPTY_ROOT:
        record = _read_checked(read, path, len(siblings), expected)
        if record[:1] == _LEAF:
            is_own = record[1:33] == path
            other = None if is_own else StateLeaf(Digest(record[1:33]), Digest(record[33:]))
            return StateProof(tuple(reversed(siblings)), other)
        left, right = record[1:33], record[33:]
        sibling, expected = (left, right) if _bit(path, len(siblings)) else (right, left)
        siblings.append(Digest(sibling))
    return StateProof(tuple(reversed(siblings)), None)


def compute_membership_proof(read: ReadNode, root: Digest, key: bytes) -> StateProof:
    """As `compute_proof`, for a key that must be there: KeyError otherwise."""
    path = sha256(key).digest()
    proof = compute_proof(read, root, key)
    record = read(_position(path, len(proof.siblings)))
    if record is None or record[1:33] != path:
        raise KeyError(key)
    return proof


def _fold(path: bytes, current: bytes, siblings: Sequence[bytes]) -> bytes:
    """The root that a subtree's hash leads to, `len(siblings)` bits down `path`; `Rejected(BAD_PROOF)` if malformed."""
    require(len(siblings) <= DEPTH_MAX, Reason.BAD_PROOF, f"a state proof of {len(siblings)} hashes")
    for depth, sibling in zip(reversed(range(len(siblings))), siblings, strict=True):
        require(len(sibling) == 32, Reason.BAD_PROOF, "a sibling in a state proof is not 32 bytes")
        pair = sibling + current if _bit(path, depth) else current + sibling
        current = sha256(_INNER + pair).digest()
    return current


def compute_part(read: ReadNode, root: Digest, path: bytes, depth: int) -> StateProof:
    """The way from the root `depth` bits down `path`: the hashes beside it, and the leaf that ends it early, if any."""
    siblings: list[Digest] = []
    other: StateLeaf | None = None
    expected: bytes = root
    while expected != EMPTY_ROOT and len(siblings) < depth:
        record = _read_checked(read, path, len(siblings), expected)
        if record[:1] == _LEAF:
            other = StateLeaf(Digest(record[1:33]), Digest(record[33:]))
            break
        left, right = record[1:33], record[33:]
        sibling, expected = (left, right) if _bit(path, len(siblings)) else (right, left)
        siblings.append(Digest(sibling))
    return StateProof(tuple(reversed(siblings)), other)


def verify_part(root: Digest, path: bytes, depth: int, leaves: Sequence[_Leaf], proof: StateProof) -> None:
    """Raise `Rejected(BAD_PROOF)` unless `leaves` are all those whose paths share the first `depth` bits of `path`.

    The leaves come sorted, and each with those bits. `proof` is `compute_part`'s, without the leaf that ends the way
    early where that is the one in `leaves`.
    """
    reached, other = len(proof.siblings), proof.other
    require(reached <= depth, Reason.BAD_PROOF, "more hashes than the part is deep")
    require(reached == depth or len(leaves) <= 1, Reason.BAD_PROOF, "several leaves above the part they belong to")
    record = _Update(lambda _: None).build(leaves, reached)
    if other is not None:
        shared = DEPTH_MAX - (int.from_bytes(path, "big") ^ int.from_bytes(other.path, "big")).bit_length()
        is_beside = len(other.path) == 32 == len(other.value_hash) and reached <= shared < depth
        require(is_beside and not leaves, Reason.BAD_PROOF, "the other leaf does not stand in the part's place")
        record = _LEAF + other.path + other.value_hash
    current = EMPTY_ROOT if record is None else sha256(record).digest()
    if _fold(path, current, proof.siblings) != root:
        raise Rejected(Reason.BAD_PROOF, "the part of the state leads to another root")


def verify_membership(root: Digest, key: bytes, value: bytes, proof: StateProof) -> None:
    """Raise `Rejected(BAD_PROOF)` unless `proof` shows that `key` has `value` under `root`.

    The hashes are those of an ICS-23 existence proof with `SmtSpec`: leaf prefix 0x00, inner prefix 0x01.
    """
    require(proof.other is None, Reason.BAD_PROOF, "a proof of absence where one of presence is needed")
    require(bool(key) and bool(value), Reason.BAD_PROOF, "no empty key or value is in the ledger")
    path = sha256(key).digest()
    leaf = sha256(_LEAF + path + sha256(value).digest()).digest()
    if _fold(path, leaf, proof.siblings) != root:
        raise Rejected(Reason.BAD_PROOF, "the state proof leads to another root")


def verify_absence(root: Digest, key: bytes, proof: StateProof) -> None:
    """Raise `Rejected(BAD_PROOF)` unless `proof` shows that `key` has no value under `root`."""
    path = sha256(key).digest()
    current: bytes = EMPTY_ROOT
    if proof.other is not None:
        other, depth = proof.other, len(proof.siblings)
        require(len(other.path) == 32 == len(other.value_hash), Reason.BAD_PROOF, "a leaf's hashes are 32 bytes each")
        require(other.path != path, Reason.BAD_PROOF, "the key is there")
        require(depth <= DEPTH_MAX, Reason.BAD_PROOF, f"a state proof of {depth} hashes")
        shared = DEPTH_MAX - (int.from_bytes(path, "big") ^ int.from_bytes(other.path, "big")).bit_length()
        require(shared >= depth, Reason.BAD_PROOF, "the other leaf does not stand in the key's place")
        current = sha256(_LEAF + other.path + other.value_hash).digest()
    if _fold(path, current, proof.siblings) != root:
        raise Rejected(Reason.BAD_PROOF, "the state proof leads to another root")

"""The fast state tree against a dumb one: same root whatever the order and grouping, and never a node too many."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.errors import Rejected
from milon.base.ids import Digest
from milon.state.commitment import (
    EMPTY_ROOT,
    StateLeaf,
    StateProof,
    compute_membership_proof,
    compute_proof,
    compute_update,
    layered,
    verify_absence,
    verify_membership,
)

# Keys whose hashes share leading bits, so that deep chains, splits and merges happen in small trees.
_ALL = sorted((sha256(b"%d" % number).digest(), b"%d" % number) for number in range(20_000))
CLOSE_KEYS = [key for _, key in _ALL[:20]] + [key for _, key in _ALL[10_000:10_010]] + [b"x", b"y", b"z"]

keys = st.sampled_from(CLOSE_KEYS)
changes = st.dictionaries(keys, st.none() | st.binary(min_size=1, max_size=2), max_size=12)


def dumb_root(ledger: dict[bytes, bytes]) -> tuple[bytes, int]:
    """Root and number of nodes by the specification's recursion over all keys at every level."""

    def subtree(paths: dict[str, bytes], depth: int) -> tuple[bytes, int]:
        if not paths:
            return bytes(32), 0
        if len(paths) == 1:
            return next(iter(paths.values())), 1
        left, left_nodes = subtree({path: leaf for path, leaf in paths.items() if path[depth] == "0"}, depth + 1)
        right, right_nodes = subtree({path: leaf for path, leaf in paths.items() if path[depth] == "1"}, depth + 1)
        return sha256(b"\x01" + left + right).digest(), left_nodes + right_nodes + 1

    leaves = {}
    for key, value in ledger.items():
        path = sha256(key).digest()
        leaf = sha256(b"\x00" + path + sha256(value).digest()).digest()
        leaves[f"{int.from_bytes(path, 'big'):0256b}"] = leaf
    return subtree(leaves, 0)


def merge(table: dict[bytes, bytes], entries: dict[bytes, bytes | None]) -> None:
    for key, value in entries.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value


@settings(max_examples=150, deadline=None)
@given(st.lists(changes, max_size=6))
def test_fast_is_dumb(blocks: list[dict[bytes, bytes | None]]) -> None:
    ledger: dict[bytes, bytes] = {}
    nodes: dict[bytes, bytes] = {}
    root = EMPTY_ROOT
    for block in blocks:
        root, node_changes = compute_update(nodes.get, root, block)
        for position, record in node_changes.items():
            assert record is not None or position in nodes  # removes only what is there
        merge(nodes, node_changes)
        merge(ledger, block)
        assert (root, len(nodes)) == dumb_root(ledger)


@settings(max_examples=60, deadline=None)
@given(st.lists(changes, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_grouping_and_order_do_not_matter(blocks: list[dict[bytes, bytes | None]], chance: object) -> None:
    together: dict[bytes, bytes | None] = {}
    read, root = {}.get, EMPTY_ROOT
    for block in blocks:
        root, node_changes = compute_update(read, root, block)
        read = layered(read, node_changes)  # type: ignore[assignment]
        together.update(block)
    entries = list(together.items())
    chance.shuffle(entries)  # type: ignore[attr-defined]
    assert compute_update({}.get, EMPTY_ROOT, dict(entries))[0] == root


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, st.binary(min_size=1, max_size=2), max_size=20), keys)
def test_every_key_is_proved_present_or_absent(ledger: dict[bytes, bytes], key: bytes) -> None:
    root, node_changes = compute_update({}.get, EMPTY_ROOT, dict(ledger))
    read = node_changes.get
    if key in ledger:
        verify_membership(root, key, ledger[key], compute_membership_proof(read, root, key))
    else:
        verify_absence(root, key, compute_proof(read, root, key))


digests = st.binary(min_size=32, max_size=32).map(Digest) | st.just(EMPTY_ROOT)
leaves = st.none() | st.builds(StateLeaf, digests, digests)


@settings(max_examples=100, deadline=None)
@given(st.builds(StateProof, st.lists(digests, max_size=260).map(tuple), leaves), keys)
def test_invented_proofs_are_rejected(proof: StateProof, key: bytes) -> None:
    root = compute_update({}.get, EMPTY_ROOT, {b"some": b"ledger"})[0]
    for verify in (lambda: verify_membership(root, key, b"value", proof), lambda: verify_absence(root, key, proof)):
        try:
            verify()
        except Rejected:
            continue
        raise AssertionError("an invented proof was accepted")

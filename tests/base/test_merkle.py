"""Merkle lists: the roots of RFC 6962's reference tree, proofs of every entry, and forged ones."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.base.merkle import EMPTY_ROOT, compute_leaf, compute_proof, compute_root, verify_proof

# The eight inputs and the roots over the first one, two, ... of them that certificate transparency tests with.
ENTRIES = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"
)]  # fmt: skip
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def refused(root: Digest, entry: bytes, index: int, count: int, proof: tuple[Digest, ...]) -> bool:
    with pytest.raises(Rejected) as caught:
        verify_proof(root, entry, index, count, proof)
    return caught.value.reason is Reason.BAD_PROOF


def test_roots_of_the_rfc() -> None:
    assert tuple(compute_root(ENTRIES[:count]).hex() for count in range(9)) == ROOTS
    assert EMPTY_ROOT.hex() == ROOTS[0]


def test_audit_path_of_the_rfc() -> None:
    """The path of entry 5 of 8: its neighbour, the pair before, the four before those."""
    leaves = [sha256(b"\x00" + entry).digest() for entry in ENTRIES]
    pair = sha256(b"\x01" + leaves[6] + leaves[7]).digest()
    assert compute_proof(ENTRIES, 5) == (leaves[4], pair, bytes.fromhex(ROOTS[4]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=4), min_size=1, max_size=40), st.data())
def test_every_entry_is_proved_at_its_place_and_no_other(entries: list[bytes], data: st.DataObject) -> None:
    root, count = compute_root(entries), len(entries)
    index = data.draw(st.integers(0, count - 1))
    proof = compute_proof(entries, index)
    verify_proof(root, entries[index], index, count, proof)
    assert refused(root, entries[index] + b"x", index, count, proof)
    for other in range(count):
        if other != index and entries[other] != entries[index]:
            assert refused(root, entries[index], other, count, proof)
    assert refused(root, entries[index], index, count, (*proof, root))
    if proof:
        assert refused(root, entries[index], index, count, proof[1:])
        assert refused(root, entries[index], index, count, (Digest(bytes(32)), *proof[1:]))


def test_places_that_do_not_exist() -> None:
    root = compute_root(ENTRIES)
    proof = compute_proof(ENTRIES, 0)
    for index, count in ((-1, 8), (8, 8), (0, 0), (0, 1 << 62), (0, 1)):
        assert refused(root, ENTRIES[0], index, count, proof)
    for index in (-1, 8):
        with pytest.raises(IndexError):
            compute_proof(ENTRIES, index)


def test_an_inner_node_is_no_entry() -> None:
    left, right = (compute_leaf(entry) for entry in ENTRIES[:2])
    assert compute_leaf(left + right) != compute_root(ENTRIES[:2])
    assert refused(compute_root(ENTRIES[:4]), left + right, 0, 2, (compute_root(ENTRIES[2:4]),))

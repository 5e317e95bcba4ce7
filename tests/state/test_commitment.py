"""The state tree: frozen roots, the public ICS-23 vectors, proofs and their forgeries, overlays, bounded growth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.hashing import sha256 as digest_of
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

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ics23_smt.json").read_text())


def h(raw: bytes) -> bytes:
    return sha256(raw).digest()


def leaf_hash(key: bytes, value: bytes) -> bytes:
    return h(b"\x00" + h(key) + h(value))


def tree_of(items: dict[bytes, bytes]) -> tuple[Digest, dict[bytes, bytes]]:
    root, changes = compute_update({}.get, EMPTY_ROOT, dict(items))
    return root, {position: record for position, record in changes.items() if record is not None}


def refused(action: object, *arguments: object) -> Reason:
    with pytest.raises(Rejected) as caught:
        action(*arguments)  # type: ignore[operator]
    return caught.value.reason


# ---- the hashing rules, from the specification ----


def test_rules_of_the_specification() -> None:
    assert tree_of({})[0] == bytes(32)
    assert tree_of({b"a": b"1"})[0] == leaf_hash(b"a", b"1")
    # sha256(b"a") starts with bits 1100 1010, sha256(b"b") with 0011 1110: they part at the first bit
    assert tree_of({b"a": b"1", b"b": b"2"})[0] == h(b"\x01" + leaf_hash(b"b", b"2") + leaf_hash(b"a", b"1"))
    # sha256(b"c") starts with 0010 1110: with b"b" it shares the bits 001, so empty subtrees stand beside the path
    pair = h(b"\x01" + leaf_hash(b"c", b"3") + leaf_hash(b"b", b"2"))
    down = h(b"\x01" + bytes(32) + pair)
    assert tree_of({b"b": b"2", b"c": b"3"})[0] == h(b"\x01" + h(b"\x01" + down + bytes(32)) + bytes(32))


def test_frozen_roots() -> None:
    ledger = {b"account/%d" % number: b"balance %d" % (number * number) for number in range(1000)}
    assert [tree_of(dict(list(ledger.items())[:count]))[0].hex() for count in (1, 2, 3, 10, 1000)] == FROZEN_ROOTS


FROZEN_ROOTS = [
    "8f3a46a1babe5e0c60ff399599a5443f23b97fe409023b9f56c62921228d33e8",
    "2371dc844e7af610752e673998f4b013e2efe6fd10e263e9a6786cc4d841896b",
    "703bc0dc09191ce39fecdec50ddc66938ca36f1b14bb98d3082df49bb87277b7",
    "942477aacfdd053beb27208e744b7218bd2031bcfdeb80c33df8addaa2579658",
    "750487b0e2536686046527f713bccf6e899ae999fe36ce86eb5112ed22d8dc54",
]


# ---- the vectors of ICS-23 ----


def fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf message that holds only varints and byte strings."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = raw[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(raw):
        tag = varint()
        argument = varint()
        if tag & 7 == 2:
            yield tag >> 3, raw[position : position + argument]
            position += argument
        else:
            yield tag >> 3, argument


def existence(raw: bytes) -> tuple[bytes, bytes, StateProof]:
    """Key, value and proof of an ICS-23 ExistenceProof."""
    key = value = b""
    siblings = []
    for number, content in fields(raw):
        if number in (1, 2):
            key, value = (content, value) if number == 1 else (key, content)
        elif number == 3:
            assert dict(fields(content)) == {1: 1, 2: 1, 3: 1, 5: b"\x00"}  # SmtSpec's leaf: SHA-256 of both, prefix 0
        else:
            step = dict(fields(content))
            assert step[2][:1] == b"\x01"
            siblings.append(Digest(step[2][1:] or step[3]))
    return key, value, StateProof(tuple(siblings), None)


def absence_beside(path: bytes, key: bytes, value: bytes, proof: StateProof) -> StateProof:
    """Our proof that nothing lies at `path`, out of the existence proof of the neighbour closest to it."""
    own = h(key)
    shared = 256 - (int.from_bytes(path, "big") ^ int.from_bytes(own, "big")).bit_length()
    depth = len(proof.siblings)
    if shared >= depth:
        return StateProof(proof.siblings, StateLeaf(Digest(own), Digest(h(value))))
    current = leaf_hash(key, value)
    for level, sibling in zip(range(depth - 1, shared, -1), proof.siblings, strict=False):
        bit = own[level >> 3] >> (7 - (level & 7)) & 1
        current = h(b"\x01" + (sibling + current if bit else current + sibling))
    assert proof.siblings[depth - 1 - shared] == bytes(32)
    return StateProof((Digest(current), *proof.siblings[depth - shared :]), None)


@pytest.mark.parametrize("name", ["exist_left", "exist_middle", "exist_right"])
def test_ics23_existence(name: str) -> None:
    vector = {part: bytes.fromhex(text) for part, text in VECTORS[name].items()}
    key, value, proof = existence(dict(fields(vector["proof"]))[1])
    assert (key, value) == (vector["key"], vector["value"])
    verify_membership(Digest(vector["root"]), key, value, proof)
    assert refused(verify_membership, vector["root"], key, value + b"x", proof) is Reason.BAD_PROOF


@pytest.mark.parametrize("name", ["nonexist_left", "nonexist_middle", "nonexist_right"])
def test_ics23_absence(name: str) -> None:
    vector = {part: bytes.fromhex(text) for part, text in VECTORS[name].items()}
    root = Digest(vector["root"])
    message = dict(fields(dict(fields(vector["proof"]))[2]))
    path = h(vector["key"])
    assert message[1] == path
    neighbours = [existence(message[number]) for number in (2, 3) if number in message]
    for key, value, proof in neighbours:
        verify_membership(root, key, value, proof)
        assert refused(verify_absence, root, key, absence_beside(h(key), key, value, proof)) is Reason.BAD_PROOF
    distance = [int.from_bytes(h(key), "big") ^ int.from_bytes(path, "big") for key, _, _ in neighbours]
    verify_absence(root, vector["key"], absence_beside(path, *neighbours[distance.index(min(distance))]))


# ---- proofs ----


LEDGER = {b"key %d" % number: b"value %d" % number for number in range(300)}


def test_every_key_is_proved_and_every_other_is_not() -> None:
    root, nodes = tree_of(LEDGER)
    for key, value in LEDGER.items():
        proof = compute_membership_proof(nodes.get, root, key)
        assert decode(StateProof, encode(proof)) == proof
        verify_membership(root, key, value, proof)
        assert refused(verify_membership, root, key, b"another", proof) is Reason.BAD_PROOF
        assert refused(verify_absence, root, key, proof) is Reason.BAD_PROOF
    for number in range(300):
        proof = compute_proof(nodes.get, root, b"absent %d" % number)
        verify_absence(root, b"absent %d" % number, proof)
        assert refused(verify_membership, root, b"absent %d" % number, b"value", proof) is Reason.BAD_PROOF


def test_a_present_key_cannot_be_shown_absent() -> None:
    root, nodes = tree_of(LEDGER)
    key, value = b"key 7", b"value 7"
    proof = compute_membership_proof(nodes.get, root, key)
    own = StateLeaf(digest_of(key), digest_of(value))
    other = StateLeaf(digest_of(b"key 8"), digest_of(b"value 8"))
    elsewhere = compute_membership_proof(nodes.get, root, b"key 8")
    for forged in (
        replace(proof, other=own),
        replace(proof, other=other),
        replace(elsewhere, other=other),
        replace(proof, siblings=proof.siblings[1:]),
        replace(proof, siblings=(EMPTY_ROOT, *proof.siblings)),
        StateProof((), None),
        StateProof((), own),
        StateProof(proof.siblings * 40, other),
        StateProof((Digest(b"short"), *proof.siblings), None),
    ):
        assert refused(verify_absence, root, key, forged) is Reason.BAD_PROOF


def test_every_changed_bit_of_a_proof_is_noticed() -> None:
    root, nodes = tree_of(LEDGER)
    proof = compute_membership_proof(nodes.get, root, b"key 7")
    for index, sibling in enumerate(proof.siblings):
        changed = Digest(bytes((sibling[0] ^ 1,)) + sibling[1:])
        forged = replace(proof, siblings=(*proof.siblings[:index], changed, *proof.siblings[index + 1 :]))
        assert refused(verify_membership, root, b"key 7", b"value 7", forged) is Reason.BAD_PROOF


def test_a_proof_of_an_absent_key_is_a_key_error() -> None:
    root, nodes = tree_of(LEDGER)
    with pytest.raises(KeyError):
        compute_membership_proof(nodes.get, root, b"absent")
    with pytest.raises(KeyError):
        compute_membership_proof({}.get, EMPTY_ROOT, b"absent")
    verify_absence(EMPTY_ROOT, b"absent", StateProof((), None))


# ---- updates ----


def test_overlays_of_two_forks_leave_the_base_alone() -> None:
    root, nodes = tree_of(LEDGER)
    before = dict(nodes)
    left_root, left = compute_update(nodes.get, root, {b"key 1": b"left", b"key 2": None})
    right_root, right = compute_update(nodes.get, root, {b"key 1": b"right"})
    next_root, following = compute_update(layered(nodes.get, left), left_root, {b"key 3": None, b"new": b"value"})
    assert nodes == before
    final = {**LEDGER, b"key 1": b"left", b"new": b"value"}
    del final[b"key 2"], final[b"key 3"]
    assert next_root == tree_of(final)[0]
    assert right_root == tree_of({**LEDGER, b"key 1": b"right"})[0]
    verify_membership(
        next_root,
        b"new",
        b"value",
        compute_membership_proof(layered(layered(nodes.get, left), following), next_root, b"new"),
    )
    with pytest.raises(RuntimeError, match="not the one its parent names"):
        compute_update(layered(nodes.get, right), left_root, {b"key 5": b"x"})


def test_unchanged_values_change_no_node() -> None:
    root, nodes = tree_of(LEDGER)
    assert compute_update(nodes.get, root, {b"key 1": b"value 1", b"absent": None}) == (root, {})
    assert compute_update(nodes.get, root, {}) == (root, {})


def test_removing_everything_leaves_no_node() -> None:
    root, nodes = tree_of(LEDGER)
    emptied, changes = compute_update(nodes.get, root, dict.fromkeys(LEDGER))
    assert emptied == EMPTY_ROOT
    assert changes == dict.fromkeys(nodes)


def test_empty_keys_and_values_are_an_error() -> None:
    for key, value in ((b"", b"x"), (b"x", b"")):
        with pytest.raises(ValueError, match="empty"):
            compute_update({}.get, EMPTY_ROOT, {key: value})
        assert refused(verify_membership, EMPTY_ROOT, key, value, StateProof((), None)) is Reason.BAD_PROOF

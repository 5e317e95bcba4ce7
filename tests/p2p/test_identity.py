"""Peer ids agree with libp2p, and the installed curve library still serves libp2p's keys."""

from __future__ import annotations

import pytest
from libp2p.crypto.ecc import ECCPublicKey, create_new_key_pair
from libp2p.peer.id import ID

from milon.base.errors import Reason, Rejected
from milon.base.signing import SecretKey
from milon.p2p.identity import compute_peer_id, is_loopback, parse_peer_id, peer_id_of
from milon.p2p.seam.host import build_key_pair
from tests.p2p.networks import seed_of


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_peer_ids_are_libp2ps(name: str) -> None:
    key = SecretKey(seed_of(name)).account
    peer = compute_peer_id(key)
    assert peer == ID.from_pubkey(build_key_pair(seed_of(name)).public_key).to_base58()
    assert parse_peer_id(peer) == key
    assert peer_id_of(f"/ip4/10.0.0.1/tcp/4001/p2p/{peer}") == peer


@pytest.mark.parametrize(
    "text",
    ["", "1", "0OIl", "Qm" + "a" * 44, "1" * 64, "z" * 64, "z" * 1000, compute_peer_id(bytes(32))[:-1], "é" * 52],
)
def test_other_text_is_refused(text: str) -> None:
    for refuse in (parse_peer_id, lambda text: peer_id_of(f"/ip4/1.2.3.4/tcp/1/p2p/{text}"), peer_id_of):
        with pytest.raises(Rejected) as refused:
            refuse(text)
        assert refused.value.reason is Reason.MALFORMED


def test_a_p256_key_survives_encoding() -> None:
    pair = create_new_key_pair("P-256")
    public = ECCPublicKey.from_bytes(pair.public_key.to_bytes(), "P-256")
    assert public.to_bytes() == pair.public_key.to_bytes()
    assert pair.private_key.get_public_key().to_bytes() == public.to_bytes()


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("/ip4/127.0.0.1/tcp/22/p2p/X", True),
        ("/ip4/127.9.9.9/tcp/22", True),
        ("/ip6/::1/tcp/22", True),
        ("/ip6/::ffff:127.0.0.1/tcp/22", True),
        ("/ip4/0.0.0.0/tcp/22", True),
        ("127.0.0.1", True),
        ("/ip4/10.0.0.1/tcp/22", False),
        ("/ip6/2001:db8::1/tcp/22", False),
        ("/memory/one", False),
        ("/ip4/junk", False),
    ],
)
def test_addresses_of_the_own_machine_are_told(address: str, found: bool) -> None:
    assert is_loopback(address) is found

"""What `milon light` keeps and reports, and how `verify-block` gets its block."""

from __future__ import annotations

from pathlib import Path

import pytest

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected
from milon.base.hashing import sha256
from milon.base.ids import AccountId, Digest
from milon.base.units import Height
from milon.chain.block import compute_header_hash
from milon.chain.evidence import Contradiction, verify_evidence
from milon.contracts.accounts import load_account
from milon.node.light_client import LightClient, trust_genesis
from milon.node.light_sync import light_sync
from milon.node.proofs import load_validators_of
from milon.node.questions import HeaderAnswer
from milon.node.verify import fetch_block
from milon.state.ledger import Ledger
from tests.node.chains import grow, unchanged
from tests.node.test_light_client import EPOCHS, block_at, forge, lying, tip_of, visitor_of


def hash_at(height: int) -> Digest:
    return compute_header_hash(block_at(grow(*EPOCHS), height).header)


async def test_a_folder_goes_on_from_what_it_keeps(tmp_path: Path) -> None:
    grown, folder = grow(*EPOCHS), tmp_path / "light"
    async with visitor_of(grown, tmp_path, unchanged, unchanged) as visitor:
        first = await light_sync(folder, visitor, grown.genesis, hash_at(6), Height(7), None)
        assert (first.height, first.trusted_height, first.witnesses) == (7, 6, 1)
        second = await light_sync(folder, visitor, grown.genesis, None, Height(0), None)
        assert (second.height, second.trusted_height) == (tip_of(grown), 7)
        third = await light_sync(folder, visitor, grown.genesis, hash_at(6), Height(0), grown.key.account)
        assert third.record == load_account(Ledger(grown.store), grown.key.account)
        nobody = await light_sync(folder, visitor, grown.genesis, None, Height(0), AccountId(bytes(32)))
        assert nobody.record is None and nobody.account == bytes(32)


async def test_two_chains_are_reported_and_the_evidence_is_kept(tmp_path: Path) -> None:
    grown, folder = grow(*EPOCHS), tmp_path / "light"

    def change(found: HeaderAnswer) -> HeaderAnswer:
        return forge(grown, found, int(found.proof.finalization.content.view))

    height = next(at for at in range(3, 0, -1) if grown.store.certificate_at(Height(at)) is not None)
    async with visitor_of(grown, tmp_path, unchanged, lying(change)) as visitor:
        with pytest.raises(Rejected) as caught:
            await light_sync(folder, visitor, grown.genesis, None, Height(height), None)
    assert caught.value.reason is Reason.DIFFERS
    names = sorted(path.name.split("-")[0] for path in folder.iterdir())
    assert names == ["conflict", "conflict", "evidence"]
    (kept,) = folder.glob("evidence-*")
    piece = decode(Contradiction, kept.read_bytes())
    validators = load_validators_of(grown.genesis, grown.store, piece.first.content.epoch)
    assert verify_evidence(piece, grown.genesis.chain_id, validators) == grown.key.account


async def test_a_block_is_fetched_by_height_and_hash_in_any_epoch(tmp_path: Path) -> None:
    grown = grow(*EPOCHS)

    async with visitor_of(grown, tmp_path, unchanged) as visitor:
        client = LightClient(visitor, grown.genesis, trust_genesis(grown.genesis))
        for height in (2, 7, 11):
            found = await fetch_block(client, visitor, Height(height))
            assert found.block == block_at(grown, height)
        client = LightClient(visitor, grown.genesis, trust_genesis(grown.genesis))
        assert (await fetch_block(client, visitor, hash_at(7))).block == block_at(grown, 7)
        for name in (Height(tip_of(grown) + 1), Digest(sha256(b"no block"))):
            with pytest.raises(Rejected):
                await fetch_block(client, visitor, name)

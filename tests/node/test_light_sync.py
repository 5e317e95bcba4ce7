"""What `milon light` keeps and reports, and how `verify-block` gets its block."""

from __future__ import annotations

from pathlib import Path

import pytest

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected
from milon.base.hashing import sha256
from milon.base.ids import AccountId, Digest
from milon.base.units import Height, TimeMs
from milon.chain.block import compute_header_hash
from milon.chain.evidence import Contradiction, verify_evidence
from milon.chain.params import Parameters
from milon.contracts.accounts import load_account
from milon.node.light_age import describe_genesis_age, require_near, require_young
from milon.node.light_client import LightClient, trust_genesis
from milon.node.light_sync import light_sync
from milon.node.proofs import load_validators_of
from milon.node.questions import HeaderAnswer
from milon.node.verify import fetch_block
from milon.state.ledger import Ledger
from tests.node.chains import grow, unchanged
from tests.node.test_light_client import EPOCHS, block_at, forge, lying, tip_of, visitor_of
from tests.simulation.network import START_MS


def now() -> TimeMs:
    """The clock when the simulated chain was young."""
    return TimeMs(START_MS + 3_000)


def hash_at(height: int) -> Digest:
    return compute_header_hash(block_at(grow(*EPOCHS), height).header)


async def test_a_folder_goes_on_from_what_it_keeps(tmp_path: Path) -> None:
    grown, folder = grow(*EPOCHS), tmp_path / "light"
    async with visitor_of(grown, tmp_path, unchanged, unchanged) as visitor:
        first = await light_sync(folder, visitor, grown.genesis, hash_at(6), Height(7), None, now)
        assert (first.height, first.trusted_height, first.witnesses) == (7, 6, 1)
        second = await light_sync(folder, visitor, grown.genesis, None, Height(0), None, now)
        assert (second.height, second.trusted_height) == (tip_of(grown), 7)
        third = await light_sync(folder, visitor, grown.genesis, hash_at(6), Height(0), grown.key.account, now)
        assert third.record == load_account(Ledger(grown.store), grown.key.account)
        nobody = await light_sync(folder, visitor, grown.genesis, None, Height(0), AccountId(bytes(32)), now)
        assert nobody.record is None and nobody.account == bytes(32)


async def test_two_chains_are_reported_and_the_evidence_is_kept(tmp_path: Path) -> None:
    grown, folder = grow(*EPOCHS), tmp_path / "light"

    def change(found: HeaderAnswer) -> HeaderAnswer:
        return forge(grown, found, int(found.proof.finalization.content.view))

    height = next(at for at in range(3, 0, -1) if grown.store.certificate_at(Height(at)) is not None)
    async with visitor_of(grown, tmp_path, unchanged, lying(change)) as visitor:
        with pytest.raises(Rejected) as caught:
            await light_sync(folder, visitor, grown.genesis, None, Height(height), None, now)
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


async def test_a_trusted_header_older_than_the_waiting_time_of_stake_is_refused(tmp_path: Path) -> None:
    """By the clock at once, and by the blocks that are proved since; what a folder keeps ages as well."""
    grown = grow(3_000, 12, 2, 5)
    tip, parameters = tip_of(grown), grown.genesis.parameters
    hashes = {at: compute_header_hash(block_at(grown, at).header) for at in (2, tip - 3)}
    limit_ms = parameters.unbond_blocks * parameters.block_time_ms

    def soon() -> TimeMs:
        return TimeMs(block_at(grown, 2).header.time_ms + limit_ms)

    def later() -> TimeMs:
        return TimeMs(block_at(grown, tip - 3).header.time_ms + limit_ms + 1_000)

    async with visitor_of(grown, tmp_path, unchanged, unchanged) as visitor:
        for name, trusted, clock in (("a", hashes[2], soon), ("b", hashes[tip - 3], later)):
            with pytest.raises(Rejected) as caught:
                await light_sync(tmp_path / name, visitor, grown.genesis, trusted, Height(0), None, clock)
            assert caught.value.reason is Reason.STALE
            assert all(word in caught.value.detail for word in ("withdrawn after 5", "at no risk", "--trusted-hash"))
            assert not (tmp_path / name / "light.cbor").exists()
        near = await light_sync(tmp_path / "c", visitor, grown.genesis, hashes[2], Height(7), None, soon)
        assert (near.trusted_height, near.caution) == (2, "")
        with pytest.raises(Rejected) as caught:
            await light_sync(tmp_path / "c", visitor, grown.genesis, None, Height(0), None, later)
        assert caught.value.reason is Reason.STALE
        begun = await light_sync(tmp_path / "d", visitor, grown.genesis, None, Height(0), None, later)
        assert begun.height == tip and "--trusted-hash" in begun.caution


def test_where_stake_cannot_leave_no_header_is_too_old() -> None:
    header = block_at(grow(*EPOCHS), 2).header
    require_young(header, TimeMs(1 << 50), Parameters())
    require_near(header, Height(1 << 50), Parameters())
    assert describe_genesis_age(Height(1 << 50), Parameters()) == ""

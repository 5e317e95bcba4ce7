"""A light client: over epochs by certificates alone, values by proofs, and lies of every kind noticed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected
from milon.base.hashing import sha256
from milon.base.ids import Digest
from milon.base.units import Height, View
from milon.chain.block import Block, compute_header_hash
from milon.chain.certificate import Certificate, Validator, VoteContent, VoteKind, sign_vote
from milon.chain.evidence import Offence, offence_of, verify_evidence
from milon.chain.finality import FinalityProof
from milon.contracts.accounts import load_account
from milon.contracts.records import Account, account_key
from milon.node.light_client import (
    Conflict,
    LightClient,
    Trust,
    load_trust,
    save_trust,
    trust_genesis,
    trust_hash,
    verify_header,
)
from milon.node.proofs import prove_header, prove_newest
from milon.node.questions import AskHeader, HeaderAnswer, Question, StateAnswer
from milon.state.ledger import Ledger
from tests.node.chains import Grown, Tamper, grow, serve_chain, unchanged
from tests.p2p.networks import AnyTransport, connect, network_of

EPOCHS = (3_000, 12, 4)  # a chain of several epochs, its validators different in each


@asynccontextmanager
async def visitor_of(grown: Grown, folder: Path, *tampers: Tamper) -> AsyncIterator[AnyTransport]:
    """A visitor connected to one peer for each of `tampers`."""
    async with network_of("memory") as network:
        visitor = await network.add("visitor")
        for number, tamper in enumerate(tampers):
            peer = await serve_chain(network, f"peer {number}", grown, folder, tamper=tamper)
            await connect(visitor, peer.transport)
        yield visitor


def tip_of(grown: Grown) -> int:
    tip = grown.store.tip()
    assert tip is not None
    return tip[0]


def block_at(grown: Grown, height: int) -> Block:
    raw = grown.store.block_by_height(Height(height))
    assert raw is not None
    return decode(Block, raw)


async def test_from_genesis_over_epochs_to_the_newest_header(tmp_path: Path) -> None:
    grown = grow(*EPOCHS)
    assert tip_of(grown) > 12
    sets = {block_at(grown, height).header.validators_hash for height in range(1, tip_of(grown) + 1)}
    assert len(sets) >= 3
    async with visitor_of(grown, tmp_path, unchanged, unchanged) as visitor:
        client = LightClient(visitor, grown.genesis, trust_genesis(grown.genesis))
        answer = await client.follow(Height(0))
        assert answer.header.height == tip_of(grown)
        assert client.witnesses == 1
        assert client.trust.epoch == (tip_of(grown) - 1) // 4
        with pytest.raises(Rejected) as caught:
            await client.follow(Height(1))
        assert caught.value.reason is Reason.STALE


async def test_from_a_trusted_hash_and_on_from_what_was_kept(tmp_path: Path) -> None:
    grown = grow(*EPOCHS)
    middle = compute_header_hash(block_at(grown, 6).header)
    async with visitor_of(grown, tmp_path, unchanged) as visitor:
        trust = await trust_hash(visitor, grown.genesis, middle)
        assert (trust.height, trust.epoch) == (6, 1)
        client = LightClient(visitor, grown.genesis, trust)
        await client.follow(Height(9))
        assert client.trust.epoch == 2
        save_trust(tmp_path / "light.cbor", client.trust)
        kept = load_trust(tmp_path / "light.cbor")
        assert kept == client.trust
        answer = await LightClient(visitor, grown.genesis, client.trust).follow(Height(0))
        assert answer.header.height == tip_of(grown)
        with pytest.raises(Rejected):
            await trust_hash(visitor, grown.genesis, Digest(sha256(b"nothing")))
    assert load_trust(tmp_path / "none") is None


async def test_values_and_their_absence_are_proved(tmp_path: Path) -> None:
    grown = grow(*EPOCHS)
    account = grown.key.account
    async with visitor_of(grown, tmp_path, unchanged) as visitor:
        client = LightClient(visitor, grown.genesis, trust_genesis(grown.genesis))
        found = await client.read_value(account_key(account))
        assert found.value is not None
        assert decode(Account, found.value) == load_account(Ledger(grown.store), account)
        assert (await client.read_value(b"account/nobody")).value is None


def lying(change: object) -> Tamper:
    """A peer whose headers are changed before they are sent."""

    def tamper(question: bytes, answer: bytes) -> bytes:
        asked: object = decode(Question, question)  # type: ignore[arg-type]
        return encode(change(decode(HeaderAnswer, answer))) if isinstance(asked, AskHeader) else answer  # type: ignore[operator]

    return tamper


LIES = {
    "another state root": lambda found: replace(found, header=replace(found.header, state_root=Digest(bytes(32)))),
    "another height": lambda found: replace(
        found, header=replace(found.header, height=Height(found.header.height + 1))
    ),
    "no certificate": lambda found: replace(
        found, proof=FinalityProof((), replace(found.proof.finalization, signers=(), signatures=()))
    ),
    "a notarization": lambda found: replace(
        found,
        proof=FinalityProof(
            (),
            replace(
                found.proof.finalization, content=replace(found.proof.finalization.content, kind=VoteKind.NOTARIZE)
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", sorted(LIES))
async def test_a_liar_is_passed_over_and_alone_refused(tmp_path: Path, name: str) -> None:
    grown = grow(*EPOCHS)
    async with visitor_of(grown, tmp_path, lying(LIES[name])) as visitor:
        client = LightClient(visitor, grown.genesis, trust_genesis(grown.genesis))
        with pytest.raises(Rejected):
            await client.follow(Height(3))
    async with visitor_of(grown, tmp_path / "two", lying(LIES[name]), unchanged) as visitor:
        client = LightClient(visitor, grown.genesis, trust_genesis(grown.genesis))
        assert (await client.follow(Height(0))).header.height == tip_of(grown)


async def test_validators_that_no_header_names_are_refused(tmp_path: Path) -> None:
    grown = grow(*EPOCHS)

    def change(found: HeaderAnswer) -> HeaderAnswer:
        return replace(found, validators=tuple(replace(entry, power=entry.power) for entry in found.validators[:0]))

    async with visitor_of(grown, tmp_path, lying(change)) as visitor:
        client = LightClient(visitor, grown.genesis, trust_genesis(grown.genesis))
        await client.follow(Height(2))  # in the epoch whose validators the genesis names
        with pytest.raises(Rejected):
            await client.follow(Height(6))
        assert client.trust.epoch == 0


async def test_a_value_with_a_forged_proof_is_refused(tmp_path: Path) -> None:
    grown = grow(*EPOCHS)

    def tamper(question: bytes, answer: bytes) -> bytes:
        try:
            found = decode(StateAnswer, answer)
        except Rejected:
            return answer
        return encode(replace(found, value=b"a fortune"))

    async with visitor_of(grown, tmp_path, tamper) as visitor:
        client = LightClient(visitor, grown.genesis, trust_genesis(grown.genesis))
        with pytest.raises(Rejected) as caught:
            await client.read_value(account_key(grown.key.account))
        assert caught.value.reason is Reason.BAD_PROOF


def forge(grown: Grown, found: HeaderAnswer, view: int) -> HeaderAnswer:
    """Another final header of the same height, signed by the chain's own validator."""
    header = replace(found.header, state_root=Digest(sha256(b"other")), view=View(view))
    content = VoteContent(VoteKind.FINALIZE, header.epoch, header.view, compute_header_hash(header))
    vote = sign_vote(grown.key, grown.genesis.chain_id, content)
    return HeaderAnswer(
        header, FinalityProof((), Certificate(content, (vote.signer,), (vote.signature,))), found.validators
    )


@pytest.mark.parametrize("is_same_view", [True, False])
async def test_two_proved_headers_stop_the_client_and_convict_who_signed_both(
    tmp_path: Path, is_same_view: bool
) -> None:
    grown = grow(*EPOCHS)

    def change(found: HeaderAnswer) -> HeaderAnswer:
        final = found.proof.finalization.content
        return forge(grown, found, int(final.view) + (0 if is_same_view else 5))

    async with visitor_of(grown, tmp_path, unchanged, lying(change)) as visitor:
        client = LightClient(visitor, grown.genesis, trust_genesis(grown.genesis))
        before = client.trust
        with pytest.raises(Conflict) as caught:
            await client.follow(Height(3))
        assert client.trust == before
    own = prove_header(grown.genesis, grown.store, Height(3))
    is_own_view = own.proof.headers == ()
    if is_same_view and is_own_view:
        (piece,) = caught.value.evidence
        assert offence_of(piece) is Offence.FINALIZE_TWICE
        assert verify_evidence(piece, grown.genesis.chain_id, own.validators) == grown.key.account
    assert "neither is trusted" in str(caught.value)


def test_a_header_of_another_chain_or_set_is_refused() -> None:
    grown, other = grow(*EPOCHS), grow()
    found = prove_newest(grown.genesis, grown.store)
    verify_header(grown.genesis, found, found.validators)
    with pytest.raises(Rejected):
        verify_header(replace(grown.genesis, chain_id="other"), found, found.validators)
    with pytest.raises(Rejected):
        verify_header(grown.genesis, found, (Validator(grown.key.account, found.validators[0].power),) * 2)
    with pytest.raises(Rejected) as caught:
        LightClient(None, other.genesis, trust_genesis(grown.genesis))  # type: ignore[arg-type]
    assert caught.value.reason is Reason.WRONG_CHAIN
    assert decode(Trust, encode(trust_genesis(grown.genesis))).height == 0

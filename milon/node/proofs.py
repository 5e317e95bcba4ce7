"""What a node can prove of its chain to somebody who has none of it: finality, validator sets, values of the ledger."""

from __future__ import annotations

from collections.abc import Callable

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected, require
from milon.base.units import Epoch, Height
from milon.chain.block import Block, Header, compute_receipts_root, compute_transactions_root
from milon.chain.certificate import Validator
from milon.chain.evidence import compute_evidence_root
from milon.chain.finality import HEADERS_MAX, FinalityProof, decode_finality
from milon.chain.genesis import Genesis, validators_of
from milon.chain.learning import BlockReport, compute_learning_root
from milon.chain.params import compute_epoch
from milon.node.application import CONTRACTS
from milon.node.questions import HeaderAnswer, StateAnswer
from milon.state.commitment import compute_proof
from milon.state.ledger import Ledger
from milon.state.store import Store, StoreReader


def verify_contents(block: Block, report: BlockReport) -> None:
    """Raise `Rejected(DIFFERS)` unless body and report are the ones the header commits to."""
    roots = (
        (block.header.transactions_root, compute_transactions_root(block.transactions)),
        (block.header.evidence_root, compute_evidence_root(block.evidence)),
        (block.header.receipts_root, compute_receipts_root(report.receipts)),
        (block.header.learning_root, compute_learning_root(report.closed)),
    )
    is_whole = all(named == found for named, found in roots)
    require(is_whole, Reason.DIFFERS, "the block's contents are not those its header commits to")


def load_header(store: StoreReader, height: Height) -> Header:
    """The header of the final block at a height; `Rejected(UNKNOWN)` where it is not here."""
    raw = store.block_by_height(height)
    if raw is None:
        raise Rejected(Reason.UNKNOWN, f"block {height} is not here")
    return decode(Block, raw).header


def prove_finality(store: StoreReader, height: Height) -> FinalityProof:
    """The headers up to the next one with a finalization of its own, as the newest and each epoch's last have.

    `Rejected(UNAVAILABLE)` where none is near, as in the middle of a long sync.
    """
    headers: list[Header] = []
    while (certificate := store.certificate_at(height)) is None:
        height = Height(height + 1)
        raw = store.block_by_height(height)
        if raw is None or len(headers) == HEADERS_MAX:
            raise Rejected(Reason.UNAVAILABLE, "this node has no finalization near that block")
        headers.append(decode(Block, raw).header)
    proof = decode_finality(certificate)
    return FinalityProof((*headers, *proof.headers), proof.finalization)


def load_validators_of(
    genesis: Genesis,
    reader: StoreReader,
    epoch: Epoch,
    kept: Callable[[Epoch], tuple[Validator, ...]] = lambda epoch: (),
) -> tuple[Validator, ...]:
    """The validators of an epoch; `Rejected(UNAVAILABLE)` where the ledger has forgotten them or not got them yet."""
    if epoch == 0:
        return validators_of(genesis)
    try:
        return CONTRACTS.validators_at(Ledger(reader), epoch)
    except Rejected as error:
        validators = kept(epoch)
        if not validators:
            cause = f"the validators of epoch {epoch} are not known here any more, or not yet"
            raise Rejected(Reason.UNAVAILABLE, cause) from error
        return validators


def prove_header(
    genesis: Genesis,
    store: StoreReader,
    height: Height,
    kept: Callable[[Epoch], tuple[Validator, ...]] = lambda epoch: (),
) -> HeaderAnswer:
    """The header at a height, why it is final, and the validators who say so; `kept` are sets the ledger forgot."""
    header = load_header(store, height)
    epoch = compute_epoch(height, genesis.parameters)
    return HeaderAnswer(header, prove_finality(store, height), load_validators_of(genesis, store, epoch, kept))


def prove_newest(genesis: Genesis, store: StoreReader) -> HeaderAnswer:
    """As `prove_header` for the newest block; `Rejected(UNAVAILABLE)` while there is none."""
    tip = store.tip()
    if tip is None or tip[0] == 0:
        raise Rejected(Reason.UNAVAILABLE, "this node has no block yet")
    return prove_header(genesis, store, tip[0])


def prove_value(genesis: Genesis, store: Store, key: bytes) -> StateAnswer:
    """The value under a ledger key at the newest block, or its absence, with the proof and the block's own."""
    snapshot = store.snapshot()
    try:
        answer = prove_newest(genesis, snapshot)
        proof = compute_proof(snapshot.node, snapshot.state_root(), key)
        return StateAnswer(answer, snapshot.get(key), proof)
    finally:
        snapshot.close()

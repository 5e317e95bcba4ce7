"""Wire types of consensus: frozen encodings, one per type, and bounds on what is decoded."""

from hashlib import sha256

import pytest

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import AccountId, Digest, Signature, VrfProof
from milon.base.units import Count, Epoch, Height, TimeMs, View
from milon.chain.block import Block, Header
from milon.chain.certificate import Certificate, Vote, VoteContent, VoteKind
from milon.chain.evidence import BadJustification, Contradiction
from milon.consensus.messages import (
    MESSAGE_MAX_BYTES,
    BlockRequest,
    BlockResponse,
    CertificateBatch,
    CertificateRequest,
    JustificationPart,
    JustificationRequest,
    LoggedBlock,
    LoggedCertificate,
    LoggedVote,
    LogRecord,
    Message,
    Proposal,
    RangeRequest,
    RangeResponse,
    Status,
    StatusRequest,
    decode_message,
    decode_record,
    encode_message,
    is_bulk,
    place_of_record,
)

HASH = Digest(b"h" * 32)
CONTENT = VoteContent(VoteKind.NOTARIZE, Epoch(0), View(7), HASH)
VOTE = Vote(CONTENT, AccountId(b"a" * 32), Signature(b"s" * 64))
CERTIFICATE = Certificate(CONTENT, (VOTE.signer,), (VOTE.signature,))
HEADER = Header(
    chain_id="frozen",
    version=Count(1),
    height=Height(6),
    epoch=Epoch(0),
    view=View(7),
    parent_hash=HASH,
    parent_view=View(5),
    proposer=VOTE.signer,
    time_ms=TimeMs(1_700_000_000_000),
    transactions_root=HASH,
    receipts_root=HASH,
    state_root=HASH,
    evidence_root=HASH,
    learning_root=HASH,
    validators_hash=HASH,
    next_validators_hash=HASH,
    parameters_hash=HASH,
    justification_hash=HASH,
    vrf=VrfProof(b"v" * 80),
    beacon=HASH,
)
BLOCK = Block(HEADER, ())

FROZEN: list[tuple[Message, str]] = [
    (VOTE, "56a2b0219c1e1b96"),
    (CERTIFICATE, "3dfb43792bce219d"),
    (Proposal(BLOCK, VOTE, (CERTIFICATE,)), "13da94e3c3aabea0"),
    (JustificationRequest(View(7), HASH, Count(256)), "700167f0f5a26208"),
    (JustificationPart(View(7), HASH, Count(256), (CERTIFICATE,)), "4e24c2c91235cb97"),
    (CertificateBatch((CERTIFICATE,)), "b222588bf7f44d5b"),
    (CertificateRequest(Epoch(0), View(1), View(64)), "aefe0c6787a450e7"),
    (BlockRequest(HASH), "c137a13e2bd18031"),
    (BlockResponse(BLOCK), "e50ede3a7241e4fb"),
    (RangeRequest(Height(6)), "51c5035144e274ce"),
    (RangeResponse((BLOCK,), (HEADER,), CERTIFICATE), "edae07703989ae28"),
    (StatusRequest(), "82ad467ac40b7a82"),
    (Status(Height(6), CERTIFICATE), "c2ef67a843e9e76d"),
    (Contradiction(VOTE, VOTE), "df0163017d73dec8"),
    (BadJustification(VOTE, HEADER, Count(1), b"entry", (HASH,)), "d3df5b3a8820dc86"),
]
RECORDS: list[tuple[LogRecord, str]] = [
    (LoggedVote(VOTE), "530c854ff6044dd6"),
    (LoggedBlock(BLOCK), "c954f01799a23226"),
    (LoggedCertificate(CERTIFICATE), "aba27d304fe3d8ae"),
]


@pytest.mark.parametrize(("message", "frozen"), FROZEN, ids=lambda value: type(value).__name__)
def test_the_bytes_of_a_message_never_change(message: Message, frozen: str) -> None:
    raw = encode_message(message)
    assert sha256(raw).hexdigest()[:16] == frozen
    assert decode_message(raw) == message


@pytest.mark.parametrize(("record", "frozen"), RECORDS, ids=lambda value: type(value).__name__)
def test_the_bytes_of_a_log_record_never_change(record: LogRecord, frozen: str) -> None:
    raw = encode(record)
    assert sha256(raw).hexdigest()[:16] == frozen
    assert decode_record(raw) == record
    assert place_of_record(record) == (0, 7)


def test_oversized_and_foreign_bytes_are_refused() -> None:
    with pytest.raises(Rejected) as refused:
        decode_message(bytes(MESSAGE_MAX_BYTES + 1))
    assert refused.value.reason is Reason.TOO_LARGE
    for raw in (b"", b"\x80", encode(CONTENT), encode(LoggedVote(VOTE)), encode_message(VOTE)[:-1]):
        with pytest.raises(Rejected):
            decode_message(raw)


def test_bulk_travels_beside_the_votes() -> None:
    bulk = {type(message).__name__ for message, _ in FROZEN if is_bulk(message)}
    assert bulk == {"BlockRequest", "BlockResponse", "RangeRequest", "RangeResponse", "StatusRequest", "Status"}

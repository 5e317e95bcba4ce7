"""What nodes say to each other about blocks, and what a validator writes down before it speaks."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.codec import SIZE_MAX_BYTES, decode, encode, wire
from milon.base.ids import Digest
from milon.base.units import Count, Epoch, Height, View
from milon.chain.block import Block, Header
from milon.chain.certificate import Certificate, Vote
from milon.chain.evidence import BadJustification, Contradiction

MESSAGE_MAX_BYTES = SIZE_MAX_BYTES  # a block of 2 MiB, its justification of 1 MiB, and room
CERTIFICATES_MAX_BYTES = 1 << 20  # of certificates in one message: twenty of the largest validator set
CERTIFICATES_MAX = 256  # in one message: bounds the time spent verifying it
RANGE_BLOCKS_MAX = 64  # in one answer: one store transaction of moderate size
RANGE_BLOCKS_MAX_BYTES = 5 << 19  # 2.5 MiB: one block of the largest size, or many small ones
RANGE_HEADERS_MAX = 1024  # about 0.7 MiB: the longest run of blocks that no finalization names, as sync can bear it


@wire("proposal/1")
@dataclass(frozen=True, slots=True)
class Proposal:
    """A leader's block with its own NOTARIZE, and the certificates that allow the block its place."""

    block: Block  # the block
    vote: Vote  # the leader's NOTARIZE for it
    justification: tuple[Certificate, ...]  # the parent's, then the nullifications since; as many as fit in


@wire("justification-request/1")
@dataclass(frozen=True, slots=True)
class JustificationRequest:
    """Ask for certificates of a justification that did not fit into the proposal."""

    view: View  # the proposal's
    block: Digest  # its header hash
    first: Count  # index of the first one wanted


@wire("justification-part/1")
@dataclass(frozen=True, slots=True)
class JustificationPart:
    """Certificates of a justification that did not fit into the proposal."""

    view: View  # the proposal's
    block: Digest  # its header hash
    first: Count  # index of the first of them among the justification's certificates
    certificates: tuple[Certificate, ...]  # in order


@wire("certificate-batch/1")
@dataclass(frozen=True, slots=True)
class CertificateBatch:
    """Certificates for whoever missed them."""

    certificates: tuple[Certificate, ...]  # any


@wire("certificate-request/2")
@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """Ask for the certificates of some views of an epoch."""

    epoch: Epoch  # of this epoch
    first: View  # from this view on
    last: View  # to this one


@wire("block-request/1")
@dataclass(frozen=True, slots=True)
class BlockRequest:
    """Ask for one block."""

    block: Digest  # its header hash


@wire("block-response/1")
@dataclass(frozen=True, slots=True)
class BlockResponse:
    """One block that was asked for."""

    block: Block  # the block


@wire("range-request/1")
@dataclass(frozen=True, slots=True)
class RangeRequest:
    """Ask for final blocks in order of height."""

    first: Height  # from this height on


@wire("range-response/1")
@dataclass(frozen=True, slots=True)
class RangeResponse:
    """Final blocks and why they are final."""

    blocks: tuple[Block, ...]  # heights ascending without a gap
    headers: tuple[Header, ...]  # from the last block's child to the block that the finalization names; often none
    finalization: Certificate  # of the last header, or of the last block where there are no headers


@wire("status-request/1")
@dataclass(frozen=True, slots=True)
class StatusRequest:
    """Ask a peer how far it is."""


@wire("status/1")
@dataclass(frozen=True, slots=True)
class Status:
    """How far a node is."""

    height: Height  # of its newest final block
    finalization: Certificate | None  # the newest it holds, of its epoch or the one before; none at genesis


Message = (
    Proposal
    | Vote
    | Certificate
    | JustificationRequest
    | JustificationPart
    | CertificateBatch
    | CertificateRequest
    | BlockRequest
    | BlockResponse
    | RangeRequest
    | RangeResponse
    | StatusRequest
    | Status
    | Contradiction
    | BadJustification
)


def encode_message(message: Message) -> bytes:
    """The bytes that travel."""
    return encode(message)


def decode_message(raw: bytes) -> Message:
    """The message, or `Rejected`."""
    return decode(Message, raw, MESSAGE_MAX_BYTES)


def is_bulk(message: Message) -> bool:
    """Whether the message belongs on the sync channel, so that votes need not wait behind it."""
    return isinstance(message, BlockRequest | BlockResponse | RangeRequest | RangeResponse | StatusRequest | Status)


@wire("logged-vote/1")
@dataclass(frozen=True, slots=True)
class LoggedVote:
    """A vote this validator signed."""

    vote: Vote  # never signed again, sent again after a restart


@wire("logged-block/1")
@dataclass(frozen=True, slots=True)
class LoggedBlock:
    """A block this validator is about to vote for: if it is ever final, somebody honest can still give it out."""

    block: Block  # with its transactions


@wire("logged-certificate/1")
@dataclass(frozen=True, slots=True)
class LoggedCertificate:
    """A certificate this node formed or received."""

    certificate: Certificate  # verified


LogRecord = LoggedVote | LoggedBlock | LoggedCertificate


def decode_record(raw: bytes) -> LogRecord:
    """The record, or `Rejected`."""
    return decode(LogRecord, raw)


def place_of_record(record: LogRecord) -> tuple[Epoch, View]:
    """The epoch and view a record belongs to: once a later place is final and stored, the record may go."""
    if isinstance(record, LoggedBlock):
        return record.block.header.epoch, record.block.header.view
    content = record.vote.content if isinstance(record, LoggedVote) else record.certificate.content
    return content.epoch, content.view

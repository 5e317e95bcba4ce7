"""Why a block is final, for anyone who knows the validators: headers up to one that a certificate finalizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from milon.base.codec import decode, encode, wire
from milon.base.errors import Reason, require
from milon.chain.certificate import Certificate, Validator, VoteKind, verify_certificate
from milon.chain.header import Header, compute_header_hash

HEADERS_MAX = 1_024  # about 0.7 MiB: the longest run of blocks without a finalization of their own


@wire("finality-proof/1")
@dataclass(frozen=True, slots=True)
class FinalityProof:
    """Shows that the parent of its first header, or the block the certificate names, is final."""

    headers: tuple[Header, ...]  # from the block's child to the finalized block; none where it is that block itself
    finalization: Certificate  # of the last header, or of the block


def verify_child(parent: Header, child: Header) -> None:
    """Raise `Rejected(BAD_PROOF)` unless `child` may lie on `parent` in one epoch.

    The heights of blocks rise by one; those that only wait for their epoch's last block to be final stay one above it.
    """
    is_child = child.parent_hash == compute_header_hash(parent) and child.epoch == parent.epoch
    is_next = child.height == parent.height + 1
    is_filler = child.height == parent.height and child.state_root == parent.state_root
    require(is_child and (is_next or is_filler), Reason.BAD_PROOF, f"height {child.height} does not follow")


def verify_finality(header: Header, proof: FinalityProof, validators: Sequence[Validator]) -> None:
    """Raise `Rejected(BAD_PROOF)`, or what the certificate lacks, unless `proof` shows that `header` is final.

    `validators` are those of the header's epoch: within it, every block of it is final by their votes.
    """
    require(len(proof.headers) <= HEADERS_MAX, Reason.TOO_LARGE, f"{len(proof.headers)} headers")
    content = proof.finalization.content
    is_of_epoch = content.kind is VoteKind.FINALIZE and content.epoch == header.epoch
    require(is_of_epoch, Reason.BAD_PROOF, "the certificate finalizes nothing of the epoch")
    parent = header
    for child in proof.headers:
        verify_child(parent, child)
        parent = child
    is_named = content.block == compute_header_hash(parent)
    require(is_named, Reason.BAD_PROOF, "the certificate names another block")
    verify_certificate(proof.finalization, header.chain_id, validators)


def encode_finality(proof: FinalityProof) -> bytes:
    """What a store keeps at a block's height: its certificate, or the whole proof where a block above was finalized."""
    return encode(proof if proof.headers else proof.finalization)


def decode_finality(raw: bytes) -> FinalityProof:
    """The proof from what a store keeps."""
    found: Certificate | FinalityProof = decode(Certificate | FinalityProof, raw)
    return found if isinstance(found, FinalityProof) else FinalityProof((), found)

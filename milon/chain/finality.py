"""Why a block is final, for anyone who knows the validators: headers up to one that a certificate finalizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from milon.base.codec import wire
from milon.base.errors import Reason, require
from milon.chain.block import Header, compute_header_hash
from milon.chain.certificate import Certificate, Validator, VoteKind, verify_certificate

HEADERS_MAX = 1_024  # about 0.7 MiB: the longest run of blocks without a finalization of their own


@wire("finality-proof/1")
@dataclass(frozen=True, slots=True)
class FinalityProof:
    """Shows that the parent of its first header, or the block the certificate names, is final."""

    headers: tuple[Header, ...]  # from the block's child to the finalized block; none where it is that block itself
    finalization: Certificate  # of the last header, or of the block


def verify_finality(header: Header, proof: FinalityProof, validators: Sequence[Validator]) -> None:
    """Raise `Rejected(BAD_PROOF)`, or what the certificate lacks, unless `proof` shows that `header` is final."""
    require(len(proof.headers) <= HEADERS_MAX, Reason.TOO_LARGE, f"{len(proof.headers)} headers")
    content = proof.finalization.content
    require(content.kind is VoteKind.FINALIZE, Reason.BAD_PROOF, "the certificate finalizes nothing")
    parent = header
    for child in proof.headers:
        is_child = child.parent_hash == compute_header_hash(parent) and child.height == parent.height + 1
        require(is_child, Reason.BAD_PROOF, f"the header at height {child.height} does not follow")
        parent = child
    is_named = content.block == compute_header_hash(parent)
    require(is_named, Reason.BAD_PROOF, "the certificate names another block")
    verify_certificate(proof.finalization, header.chain_id, validators)

"""Why a block may stand where it stands: its parent's certificate, and a nullification of every view skipped since.

The list of certificates starts with the parent's NOTARIZATION, or a FINALIZATION of it, which no quorum signs without
having seen one. Genesis has neither: its entry is empty and not in the list. The header commits to all entries' bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from milon.base.codec import encode
from milon.base.errors import Reason, require
from milon.base.hashing import digest
from milon.base.ids import Digest
from milon.base.merkle import compute_root
from milon.base.units import View
from milon.chain.block import Header
from milon.chain.certificate import Certificate
from milon.chain.evidence import count_entries, verify_entry_content
from milon.consensus.messages import CERTIFICATES_MAX, CERTIFICATES_MAX_BYTES
from milon.consensus.state import State


@dataclass(frozen=True, slots=True)
class Lineage:
    """The parent that a block of some view may have, and the proof."""

    parent_hash: Digest  # of the parent's header, or the genesis
    parent_view: View  # 0 for genesis, and for the last block of the epoch before
    certificates: tuple[Certificate, ...]  # the parent's (none for genesis), then nullifications in order of view


def find_lineage(state: State, view: View) -> Lineage | View:
    """The newest certified parent for a block of `view`, or the view whose certificate is missing.

    Below the epoch's first view lies the last block of the one before: as long as nothing of the epoch is final, the
    tip.
    """
    skipped: list[Certificate] = []
    final = state.finalization
    for below in range(view - 1, 0, -1):
        candidate = View(below)
        certificate = state.notarizations.get(candidate)
        if certificate is None and final is not None and final.content.view == candidate:
            certificate = final
        if certificate is not None and certificate.content.block is not None:
            return Lineage(certificate.content.block, candidate, (certificate, *reversed(skipped)))
        nullification = state.nullifications.get(candidate)
        if nullification is None:
            return candidate
        skipped.append(nullification)
    if state.tip.view:
        return state.tip.view
    return Lineage(state.tip.hash, View(0), tuple(reversed(skipped)))


def certificate_digest(certificate: Certificate) -> Digest:
    """Names the exact bytes: another certificate for the same content may hold bad signatures."""
    return digest("certificate", encode(certificate))


def compute_justification_hash(parent_view: View, certificates: Sequence[Certificate]) -> Digest:
    """What the header commits to."""
    entries = [encode(certificate) for certificate in certificates]
    return compute_root(entries if parent_view else [b"", *entries])


def count_certificates(header: Header) -> int:
    """How many certificates the header's justification has."""
    return count_entries(header) - (0 if header.parent_view else 1)


def verify_entry(header: Header, index: int, certificate: Certificate) -> None:
    """Raise `Rejected` unless certificate `index` says what it must; signatures are not checked."""
    verify_entry_content(header, index + (0 if header.parent_view else 1), certificate.content)


def verify_justification(header: Header, certificates: Sequence[Certificate]) -> None:
    """Raise `Rejected` unless the certificates are exactly those that the block needs; signatures are not checked."""
    needed = count_certificates(header)
    require(len(certificates) == needed, Reason.TOO_FEW, f"{len(certificates)} certificates where {needed} are needed")
    for index, certificate in enumerate(certificates):
        verify_entry(header, index, certificate)


def split_certificates(certificates: Sequence[Certificate]) -> list[tuple[Certificate, ...]]:
    """The certificates in order, in lots that fit into one message; at least one lot, perhaps empty."""
    lots: list[tuple[Certificate, ...]] = []
    current: list[Certificate] = []
    size = 0
    for certificate in certificates:
        weight = len(encode(certificate))
        if current and (len(current) == CERTIFICATES_MAX or size + weight > CERTIFICATES_MAX_BYTES):
            lots.append(tuple(current))
            current, size = [], 0
        current.append(certificate)
        size += weight
    lots.append(tuple(current))
    return lots

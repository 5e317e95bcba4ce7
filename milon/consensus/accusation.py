"""Evidence coming and going: found or received, told to everybody, again now and then, until a final block has it.

The pool is bounded, and holds only what the ledger would still take: not too old, and of nobody slashed already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from milon.base.codec import encode
from milon.base.errors import Rejected
from milon.base.ids import Digest
from milon.base.units import Height
from milon.chain.certificate import Certificate, VoteKind
from milon.chain.evidence import BadJustification, Evidence, compute_evidence_id, epoch_of, make_bad_justification
from milon.consensus.blocks import ledger_after, verify_piece
from milon.consensus.effects import Accuse
from milon.consensus.justification import certificate_digest
from milon.consensus.messages import Proposal
from milon.consensus.quorum import EMPTY_POOL
from milon.consensus.state import State
from milon.consensus.turn import Turn
from milon.state.ledger import Ledger

POOL_MAX = 256  # pieces waiting: more than a third of the largest set
TOLD_AGAIN_BLOCKS = 8  # who holds it may never lead, and what was told once may be lost on its way
TOLD_AGAIN_MAX = 4  # pieces at a time, 256 KiB: the others follow when these are in a block
ACCUSED_MAX = 1_024  # ids remembered: forgetting one costs a signature check


def _select(turn: Turn, candidates: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """Those of the candidates that the ledger would take together in the next block, in order of id."""
    state, config = turn.state, turn.config
    height = Height(state.tip.height + 1)
    return config.application.select_evidence(_ledger(turn), candidates, height, config.parameters)


def _verify(turn: Turn, evidence: Evidence) -> None:
    """Raise `Rejected` unless the evidence holds."""
    verify_piece(turn.config, turn.state, _ledger(turn), evidence)


def _ledger(turn: Turn) -> Ledger:
    return ledger_after(turn.config, turn.state, turn.state.tip.hash)


def accuse(turn: Turn, evidence: Evidence) -> None:
    """Report evidence that is known to hold, keep it for a block and tell everybody; nothing where that was done."""
    name = compute_evidence_id(evidence)
    if name in turn.state.accused:
        return
    turn.update(accused=_remember(turn.state, name))
    turn.emit(Accuse(evidence))
    if len(turn.state.evidence) < POOL_MAX and _select(turn, (evidence,)):
        turn.update(evidence={**turn.state.evidence, name: evidence})
        turn.send(evidence)


def _remember(state: State, name: Digest) -> frozenset[Digest]:
    return (state.accused if len(state.accused) < ACCUSED_MAX else frozenset()) | {name}


def take_evidence(turn: Turn, evidence: Evidence) -> None:
    """Evidence from a peer; `Rejected` where it proves nothing. What no block would take is dropped unread."""
    name = compute_evidence_id(evidence)
    if name in turn.state.accused or epoch_of(evidence) > turn.state.members.epoch or not _select(turn, (evidence,)):
        return
    _verify(turn, evidence)
    accuse(turn, evidence)


def drop_useless_evidence(turn: Turn, blocks: int) -> None:
    """Forget what the last `blocks` final ones have taken in or made too old; tell of what is left every few blocks."""
    if not turn.state.evidence:
        return
    kept = {name: piece for name, piece in turn.state.evidence.items() if _select(turn, (piece,))}
    turn.update(evidence=kept)
    if turn.state.tip.height % TOLD_AGAIN_BLOCKS < blocks:
        for name in sorted(kept)[:TOLD_AGAIN_MAX]:
            turn.send(kept[name])


def accuse_unjustified(turn: Turn, proposal: Proposal, certificates: Sequence[Certificate]) -> None:
    """The proposal commits to these certificates and one does not hold: whoever notarizes it is to blame."""
    piece = _find_bad_entry(turn, proposal, certificates)
    block = proposal.vote.content.block
    if piece is None or block is None:
        return
    turn.update(unjustified={**turn.state.unjustified, block: piece})
    accuse(turn, piece)
    for vote in turn.state.pools.get(proposal.vote.content.view, EMPTY_POOL).values():
        if vote.content.kind is VoteKind.NOTARIZE and vote.content.block == block:
            accuse(turn, replace(piece, vote=vote))


def _find_bad_entry(turn: Turn, proposal: Proposal, certificates: Sequence[Certificate]) -> BadJustification | None:
    header = proposal.block.header
    known = [certificate_digest(certificate) in turn.state.verified for certificate in certificates]
    entries = [encode(certificate) for certificate in certificates]
    if not header.parent_view:
        entries, known = [b"", *entries], [True, *known]
    for index in sorted(range(len(entries)), key=lambda place: known[place]):
        piece = make_bad_justification(proposal.vote, header, entries, index)
        try:
            _verify(turn, piece)
        except Rejected:
            continue
        return piece
    return None

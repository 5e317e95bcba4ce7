"""Getting blocks and certificates this node lacks, and giving out those it has.

A missing block is asked for by hash, backwards from the block that needs it. Once the gap to the tip proves wide, final
blocks are asked for by height instead, a bounded batch at a time, each with the proof that it is final, so that a node
that was away for long holds one batch in memory and never the whole chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.base.units import Epoch, Height, TimeMs, View
from milon.chain.block import Block, Header, compute_header_hash
from milon.chain.certificate import Certificate, VoteKind
from milon.chain.finality import FinalityProof, decode_finality, verify_child
from milon.chain.params import compute_epoch, compute_last_height
from milon.consensus.blocks import execute_block, verify_body, with_executed
from milon.consensus.events import Peer
from milon.consensus.justification import split_certificates
from milon.consensus.messages import (
    CERTIFICATES_MAX,
    RANGE_BLOCKS_MAX,
    RANGE_BLOCKS_MAX_BYTES,
    RANGE_HEADERS_MAX,
    BlockRequest,
    BlockResponse,
    CertificateBatch,
    CertificateRequest,
    Message,
    RangeRequest,
    RangeResponse,
    Status,
)
from milon.consensus.state import NOT_AHEAD, Ancestor, Request, State, find_block
from milon.consensus.tally import take_certificate, verify_once
from milon.consensus.turn import Turn

GAP_MAX = 4  # final blocks fetched one by one, backwards; a wider gap is fetched by height
REQUESTS_MAX = 64  # things asked for at once; more means that the oldest are no longer wanted
AHEAD_ATTEMPTS_MAX = 8  # peers asked in vain before the word of a later epoch is no longer believed

RANGE = b"range"
CERTIFICATES = b"certificates"


def name_block(block: Digest) -> bytes:
    """What a request for a block by hash is remembered by."""
    return b"block" + block


def ask(turn: Turn, name: bytes, message: Message) -> None:
    """Ask a peer, and another one each time the answer does not come: first whoever brought the matter up."""
    state = turn.state
    request = state.requests.get(name)
    if request is not None and turn.now_ms < request.again_ms:
        turn.wake_at(request.again_ms)
        return
    attempts = 0 if request is None else request.attempts
    peer: Peer | None = turn.peer if attempts == 0 else None
    if peer is None and state.peers:
        peer = state.peers[attempts % len(state.peers)]
    again_ms = TimeMs(turn.now_ms + turn.config.parameters.delta_ms)
    others = {key: value for key, value in state.requests.items() if key != name}
    if len(others) >= REQUESTS_MAX:
        others.pop(next(iter(others)))
    turn.update(requests={**others, name: Request(attempts + 1, again_ms)})
    turn.wake_at(again_ms)
    turn.send(message, peer)


def _answered(turn: Turn, name: bytes) -> None:
    turn.update(requests={key: value for key, value in turn.state.requests.items() if key != name})


def ask_for_certificates(turn: Turn, missing: View) -> None:
    """Ask for the certificates of a view, and of those below it that the same outage may have taken."""
    first = View(max(1, turn.state.final_view, missing - 63))
    ask(turn, CERTIFICATES, CertificateRequest(turn.state.members.epoch, first, missing))


def resolve(turn: Turn, block: Digest, *, is_final: bool = False) -> Ancestor | None:
    """What a child of `block` must know, executing it and its ancestors where needed; asks for what is missing.

    None: not now, or not on top of the final chain, or never. A block that is invalid here is left alone even if a
    quorum notarized it. Where it `is_final`, that, or standing beside the final chain, ends the node (RuntimeError).
    """
    path: list[Block] = []
    cursor = block
    while cursor != turn.state.tip.hash:
        state = turn.state
        entry = state.executed.get(cursor)
        found = find_block(state, cursor)
        if found is not None and _is_on_another_branch(state, found):
            if is_final:
                raise RuntimeError(f"two final chains: {cursor.hex()} is final, not on top of {state.tip.hash.hex()}")
            return None
        if cursor in state.refused and not is_final:
            return None
        if entry is not None:
            break
        if found is None:
            _ask_for_block(turn, cursor, is_final)
            return None
        path.append(found)
        if found.header.view <= state.final_view and found.header.height > state.tip.height + GAP_MAX:
            ask(turn, RANGE, RangeRequest(Height(state.tip.height + 1)))
            return None
        cursor = found.header.parent_hash
    is_tip = cursor == turn.state.tip.hash
    parent = turn.state.tip if is_tip else turn.state.executed[cursor].ancestor
    for found in reversed(path):
        try:
            parent = execute(turn, parent, found)
        except Rejected as error:
            if is_final:
                raise RuntimeError(f"final block {found.header.height} is invalid here: {error}") from error
            return None
    return parent


def _ask_for_block(turn: Turn, block: Digest, is_final: bool) -> None:
    """Ask by hash; a final block that nobody has given out may lie above its epoch's last one, which all have."""
    ask(turn, name_block(block), BlockRequest(block))
    request = turn.state.requests.get(name_block(block))
    if is_final and request is not None and request.attempts > 1:
        ask(turn, RANGE, RangeRequest(Height(turn.state.tip.height + 1)))


def note_ahead(turn: Turn, epoch: Epoch) -> None:
    """A peer speaks of a later epoch; that may be a lie, and costs a few questions if it is."""
    ahead = turn.state.ahead
    if epoch > max(turn.state.members.epoch, ahead.epoch):
        turn.update(ahead=replace(ahead, epoch=epoch, again_ms=_after_delta(turn)))


def _after_delta(turn: Turn) -> TimeMs:
    return TimeMs(turn.now_ms + turn.config.parameters.delta_ms)


def follow_ahead(turn: Turn) -> None:
    """Ask for final blocks while others seem to be in a later epoch; give up where nobody has any."""
    ahead = turn.state.ahead
    if ahead.epoch <= turn.state.members.epoch:
        return
    if turn.now_ms < ahead.again_ms:
        turn.wake_at(ahead.again_ms)
    elif ahead.attempts >= AHEAD_ATTEMPTS_MAX:
        turn.update(ahead=NOT_AHEAD)
    else:
        ask(turn, RANGE, RangeRequest(Height(turn.state.tip.height + 1)))
        turn.update(ahead=replace(ahead, again_ms=_after_delta(turn), attempts=ahead.attempts + 1))
        turn.wake_at(turn.state.ahead.again_ms)


def _is_on_another_branch(state: State, block: Block) -> bool:
    """Whether a block other than the tip cannot have the tip below it."""
    above = block.header.height - state.tip.height
    return above < 1 or (above == 1 and block.header.parent_hash != state.tip.hash)


def execute(turn: Turn, parent: Ancestor, block: Block) -> Ancestor:
    """Execute a block on top of its parent and remember the effect; `Rejected`, remembered too, where it is invalid."""
    try:
        entry = execute_block(turn.config, turn.state, parent, block)
    except Rejected:
        refused = {**turn.state.refused, compute_header_hash(block.header): block.header.view}
        turn.update(refused=refused)
        raise
    turn.state = with_executed(turn.state, entry)
    return entry.ancestor


# Answers.


def _final_block(turn: Turn, height: Height) -> Block | None:
    """The final block at a height, from the store or from memory while the store is still writing."""
    if height > turn.state.tip.height:
        return None
    raw = turn.config.store.block_by_height(height)
    if raw is not None:
        return decode(Block, raw)
    for entry in turn.state.executed.values():
        if entry.ancestor.height == height and _is_final(turn, entry.ancestor.hash):
            return entry.block
    return None


def _is_final(turn: Turn, block: Digest) -> bool:
    cursor: Digest | None = turn.state.tip.hash
    while cursor is not None and cursor != block:
        entry = turn.state.executed.get(cursor)
        cursor = None if entry is None else entry.block.header.parent_hash
    return cursor is not None


def _finality_at(turn: Turn, height: Height) -> FinalityProof | None:
    """Why the block at a height is final, where that has a finalization of its own."""
    if height == turn.state.tip.height:
        return turn.state.finality
    raw = turn.config.store.certificate_at(height)
    return None if raw is None else decode_finality(raw)


def answer_block(turn: Turn, request: BlockRequest) -> None:
    """Give out a block by hash, final or not, if it is here."""
    block = find_block(turn.state, request.block)
    if block is None:
        raw = turn.config.store.block_by_hash(request.block)
        block = None if raw is None else decode(Block, raw)
    if block is not None:
        turn.send(BlockResponse(block), turn.peer)


def answer_range(turn: Turn, request: RangeRequest) -> None:
    """Give out final blocks of one epoch from a height on, as many as fit, and why the last of them is final."""
    blocks: list[Block] = []
    size = 0
    best: tuple[int, FinalityProof] | None = None  # how many blocks the newest proof among them proves
    for height in _heights_of_epoch(turn, request.first):
        block = _final_block(turn, height)
        size += 0 if block is None else len(encode(block))
        if block is None or len(blocks) == RANGE_BLOCKS_MAX or (blocks and size > RANGE_BLOCKS_MAX_BYTES):
            break
        blocks.append(block)
        proof = _finality_at(turn, height)
        if proof is not None:
            best = (len(blocks), proof)
    if best is not None:
        count, proof = best
        turn.send(RangeResponse(tuple(blocks[:count]), proof.headers, proof.finalization), turn.peer)
    elif blocks:
        _answer_with_headers(turn, tuple(blocks))


def _heights_of_epoch(turn: Turn, first: int) -> Iterator[Height]:
    """The final heights from `first` to the end of its epoch."""
    parameters = turn.config.parameters
    start = Height(max(1, first))
    last = compute_last_height(compute_epoch(start, parameters), parameters)
    return (Height(height) for height in range(start, min(last, turn.state.tip.height) + 1))


def _answer_with_headers(turn: Turn, blocks: tuple[Block, ...]) -> None:
    headers: list[Header] = []
    first = blocks[-1].header.height
    for height in _heights_of_epoch(turn, first):
        if height == first:
            continue
        block = _final_block(turn, height)
        if block is None or len(headers) == RANGE_HEADERS_MAX:
            return
        headers.append(block.header)
        proof = _finality_at(turn, height)
        if proof is not None:
            turn.send(RangeResponse(blocks, (*headers, *proof.headers), proof.finalization), turn.peer)
            return


def answer_certificates(turn: Turn, request: CertificateRequest) -> None:
    """Give out the certificates of some views, and the newest finalization where the views lie at or below it."""
    state = turn.state
    if request.epoch != state.members.epoch:
        answer_status(turn)
        return
    found: list[Certificate] = []
    if state.finalization is not None and request.first <= state.final_view:
        found.append(state.finalization)
    for held in (state.notarizations, state.nullifications):
        wanted = [view for view in sorted(held) if request.first <= view <= request.last]
        found.extend(held[view] for view in wanted[-CERTIFICATES_MAX:])
    if found:
        turn.send(CertificateBatch(split_certificates(found)[0]), turn.peer)


def newest_finalization(state: State) -> Certificate | None:
    """The newest finalization here: of this epoch, or as long as there is none, of the end of the one before."""
    if state.finalization is not None or state.finality is None:
        return state.finalization
    return state.finality.finalization


def answer_status(turn: Turn) -> None:
    """Say how far this node is."""
    turn.send(Status(turn.state.tip.height, newest_finalization(turn.state)), turn.peer)


# What was asked for.


def take_certificates(turn: Turn, batch: CertificateBatch) -> None:
    """Certificates from a peer, each as if it had come alone."""
    _answered(turn, CERTIFICATES)
    for certificate in batch.certificates:
        note_ahead(turn, certificate.content.epoch)
        take_certificate(turn, certificate)


def take_block(turn: Turn, response: BlockResponse) -> None:
    """A block that was asked for; any other is dropped. `Rejected` where its body is not its header's."""
    block = response.block
    name = compute_header_hash(block.header)
    if name_block(name) not in turn.state.requests:
        return
    verify_body(turn.config, block)
    _answered(turn, name_block(name))
    if find_block(turn.state, name) is None and block.header.height > turn.state.tip.height:
        turn.update(bodies={**turn.state.bodies, name: block})


def take_status(turn: Turn, status: Status) -> None:
    """A peer's newest finalization is news like any other; one of a later epoch says that this node is behind."""
    if status.finalization is not None:
        note_ahead(turn, status.finalization.content.epoch)
        take_certificate(turn, status.finalization)


def verify_range(turn: Turn, response: RangeResponse) -> None:
    """Raise `Rejected` unless the blocks are a chain that the finalization makes final; roots are not checked here."""
    blocks, content = response.blocks, response.finalization.content
    require(bool(blocks) and len(blocks) <= RANGE_BLOCKS_MAX, Reason.OUT_OF_RANGE, f"{len(blocks)} blocks")
    require(len(response.headers) <= RANGE_HEADERS_MAX, Reason.TOO_LARGE, f"{len(response.headers)} headers")
    is_final = content.kind is VoteKind.FINALIZE and content.epoch == blocks[0].header.epoch
    require(is_final, Reason.BAD_PROOF, "no finalization of the epoch")
    headers = [block.header for block in blocks] + list(response.headers)
    for parent, child in pairwise(headers):
        verify_child(parent, child)
    require(compute_header_hash(headers[-1]) == content.block, Reason.BAD_PROOF, "the finalization names another block")
    last_height = turn.state.members.last_height
    is_inside = blocks[-1].header.height <= last_height
    require(is_inside, Reason.BAD_PROOF, "a block above its epoch's last one")
    for block in blocks:
        verify_body(turn.config, block)
    verify_once(turn, response.finalization)


def take_range(turn: Turn, response: RangeResponse) -> tuple[Ancestor, FinalityProof | None] | None:
    """Execute final blocks that were asked for; the last one, to be committed with those below it, or None if no news.

    With it comes its proof of being final, where it has its own: an epoch's last block always does. `Rejected` where
    the answer proves nothing. A final block that is invalid here ends the node (RuntimeError): its rules differ from
    the network's or its store is damaged, and going on would hide that.
    """
    epochs = {block.header.epoch for block in response.blocks}
    if RANGE not in turn.state.requests or (response.blocks and epochs != {turn.state.members.epoch}):
        return None  # not asked for, or an answer from before this node entered its epoch
    verify_range(turn, response)
    _answered(turn, RANGE)
    take_certificate(turn, response.finalization)
    news = [block for block in response.blocks if block.header.height > turn.state.tip.height]
    if not news:
        return None
    is_next = news[0].header.height == turn.state.tip.height + 1
    require(is_next, Reason.OUT_OF_RANGE, "blocks from further up than was asked for")
    if news[0].header.parent_hash != turn.state.tip.hash:
        raise RuntimeError(f"two final chains: {news[0].header.parent_hash.hex()} is not this node's final block")
    turn.update(ahead=replace(turn.state.ahead, again_ms=turn.now_ms, attempts=0))
    parent = turn.state.tip
    for block in news:
        entry = turn.state.executed.get(compute_header_hash(block.header))
        try:
            parent = execute(turn, parent, block) if entry is None else entry.ancestor
        except Rejected as error:
            raise RuntimeError(f"final block {block.header.height} is invalid here: {error}") from error
    is_own = not response.headers or parent.height == turn.state.members.last_height
    return parent, FinalityProof(response.headers, response.finalization) if is_own else None

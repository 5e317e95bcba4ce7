"""Proposing a block as the leader of a view, and judging the one that the leader proposed."""

from __future__ import annotations

from itertools import takewhile

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.base.units import Count, TimeMs, View
from milon.chain.block import Header, compute_header_hash
from milon.chain.certificate import Certificate, VoteKind
from milon.chain.evidence import Evidence
from milon.chain.transaction import Transaction
from milon.consensus.accusation import accuse_unjustified
from milon.consensus.blocks import (
    Plan,
    build_block,
    ledger_after,
    make_context,
    plan_block,
    verify_body,
    with_executed,
)
from milon.consensus.effects import Blame, ProposalRefused
from milon.consensus.justification import (
    certificate_digest,
    compute_justification_hash,
    count_certificates,
    find_lineage,
    split_certificates,
    verify_entry,
    verify_justification,
)
from milon.consensus.members import compute_child_height, leader_in, voter_of
from milon.consensus.mempool import list_candidates
from milon.consensus.messages import JustificationPart, JustificationRequest, Proposal
from milon.consensus.state import Ancestor, State
from milon.consensus.sync import ask, ask_for_certificates, execute, resolve
from milon.consensus.tally import VIEW_WINDOW, cast, cast_and_send, count_vote, take_certificate, take_vote, verify_once
from milon.consensus.turn import Turn
from milon.consensus.votes import NO_VOTES

PENDING_FULL_MAX = 64  # blocks above the final one that may carry transactions: 128 MiB of them at the very most


def is_leading(turn: Turn) -> bool:
    """Whether this node leads the current view and has not voted in it."""
    state, account = turn.state, voter_of(turn.config, turn.state)
    if account is None or state.own.get(state.view, NO_VOTES) != NO_VOTES or is_silent(state):
        return False
    return leader_in(state.members, state.view) == account


def is_silent(state: State) -> bool:
    """Whether nothing may be signed in the current view: votes may be lost from the log, or are of a later place."""
    place = (state.members.epoch, state.view)
    return place <= state.floor or place < state.signed


def propose(turn: Turn) -> None:
    """As leader: build on the newest certified parent once the pause since it is over; ask for what is missing."""
    if not is_leading(turn):
        return
    lineage = find_lineage(turn.state, turn.state.view)
    if isinstance(lineage, int):
        ask_for_certificates(turn, lineage)
        return
    parent = resolve(turn, lineage.parent_hash)
    if parent is None or not _is_time(turn, parent):
        return
    members = turn.state.members
    account = leader_in(members, turn.state.view)
    time_ms = TimeMs(max(turn.now_ms, parent.time_ms + 1))
    commitment = compute_justification_hash(lineage.parent_view, lineage.certificates)
    plan = plan_block(turn.config, account, parent, turn.state.view, time_ms, commitment, members.epoch)
    content = _choose(turn, plan)
    if content is None:
        return
    entry = build_block(turn.config, turn.state, plan, account, *content)
    turn.state = with_executed(turn.state, entry)
    vote = cast(turn, VoteKind.NOTARIZE, plan.view, entry.ancestor.hash)
    if vote is None:
        return
    lots = split_certificates(lineage.certificates)
    proposal = Proposal(entry.block, vote, lots[0])
    rest = lineage.certificates[len(lots[0]) :]
    turn.update(
        proposals={**turn.state.proposals, plan.view: proposal},
        parts={**turn.state.parts, entry.ancestor.hash: rest} if rest else turn.state.parts,
    )
    turn.send(proposal)
    count_vote(turn, vote)


def _pause_ends(turn: Turn, parent: Ancestor, pause_ms: int) -> int:
    """When a block may follow its parent; never later than a pause after entering the view, whatever the clocks say."""
    return min(parent.time_ms, turn.state.entered_ms) + pause_ms


def _is_time(turn: Turn, parent: Ancestor) -> bool:
    busy_ms = _pause_ends(turn, parent, turn.config.parameters.busy_block_time_ms)
    if turn.now_ms < busy_ms:
        turn.wake_at(busy_ms)
        return False
    idle_ms = _pause_ends(turn, parent, turn.config.parameters.block_time_ms)
    if turn.now_ms < idle_ms and turn.state.weighed == _weigh(turn.state):
        turn.wake_at(idle_ms)
        return False
    return True


def _weigh(state: State) -> tuple[View, int, int]:
    return state.view, state.mempool.version, len(state.evidence)


_Content = tuple[tuple[Transaction, ...], tuple[Evidence, ...]]
_NOTHING: _Content = ((), ())


def _choose(turn: Turn, plan: Plan) -> _Content | None:
    """The transactions and the evidence of the block, or None where it has nothing to say and time to wait.

    A block above its epoch's last one has none. Nor has one far above the final block, but for evidence: blocks that
    wait for finality are held in memory.
    """
    config, state = turn.config, turn.state
    idle_ms = _pause_ends(turn, plan.parent, config.parameters.block_time_ms)
    content, is_waiting = _NOTHING, False
    if plan.parent.height < state.members.last_height:
        ledger = ledger_after(config, state, plan.parent.hash)
        height = compute_child_height(state.members, plan.parent)
        waiting = tuple(state.evidence.values())
        evidence = config.application.select_evidence(ledger, waiting, height, config.parameters) if waiting else ()
        account = leader_in(state.members, plan.view)
        context = make_context(config, state.members, plan, account, evidence)
        is_far = plan.parent.height - state.tip.height > PENDING_FULL_MAX
        candidates = () if is_far else list_candidates(state.mempool)
        content = (config.application.select_transactions(ledger, context, candidates), evidence)
        is_waiting = not is_far and config.application.is_waiting_for_blocks(ledger)
    if content != _NOTHING or turn.now_ms >= idle_ms or is_waiting:
        return content
    turn.update(weighed=_weigh(state))
    turn.wake_at(idle_ms)
    return None


def take_proposal(turn: Turn, proposal: Proposal) -> None:
    """A proposal from a peer: keep the first of its view, and see to it that a second one is noticed.

    Raises `Rejected` where the bytes cannot be the leader's word; what the leader itself got wrong is judged later.
    """
    header, content = proposal.block.header, proposal.vote.content
    state, config = turn.state, turn.config
    if header.epoch != state.members.epoch or not state.final_view < header.view <= state.view + VIEW_WINDOW:
        return
    name = compute_header_hash(header)
    is_vote = content.kind is VoteKind.NOTARIZE and content.epoch == header.epoch and content.view == header.view
    require(is_vote and content.block == name, Reason.DIFFERS, "the vote is not for the block")
    require(header.parent_view < header.view, Reason.OUT_OF_RANGE, "a view not after the parent's")
    leader = leader_in(state.members, header.view)
    require(proposal.vote.signer == leader == header.proposer, Reason.NOT_ALLOWED, "not by the view's leader")
    if header.view in state.proposals:
        take_vote(turn, proposal.vote)
        return
    if header.view < state.view:
        return
    config.cryptography.verify_vote(proposal.vote, config.chain_id)
    verify_body(config, proposal.block)
    if len(proposal.justification) == count_certificates(header):
        found = compute_justification_hash(header.parent_view, proposal.justification)
        require(found == header.justification_hash, Reason.DIFFERS, "other certificates than the header commits to")
    turn.update(
        proposals={**state.proposals, header.view: proposal},
        bodies=state.bodies if name in state.executed else {**state.bodies, name: proposal.block},
    )
    take_vote(turn, proposal.vote)
    _learn_certificates(turn, proposal, name)


def _drop_parts(turn: Turn, name: Digest) -> None:
    """Certificates that are not the leader's: anybody may have sent them, so they say nothing about the block."""
    if name in turn.state.parts:
        turn.update(parts={other: held for other, held in turn.state.parts.items() if other != name})


def _learn_certificates(turn: Turn, proposal: Proposal, name: Digest) -> None:
    """Use the certificates that came along; a leader that committed to a bad one has made an invalid block."""
    if len(proposal.justification) != count_certificates(proposal.block.header):
        return
    try:
        for certificate in proposal.justification:
            take_certificate(turn, certificate)
    except Rejected as error:
        turn.update(refused={**turn.state.refused, name: proposal.block.header.view})
        accuse_unjustified(turn, proposal, proposal.justification)
        if turn.peer is not None:
            turn.emit(Blame(turn.peer, error.reason, error.detail))


def _holds(state: State, header: Header, index: int, certificate: Certificate) -> bool:
    """Whether certificate `index` says what it must there and its signatures are known to be good."""
    try:
        verify_entry(header, index, certificate)
    except Rejected:
        return False
    return certificate_digest(certificate) in state.verified


def answer_justification(turn: Turn, request: JustificationRequest) -> None:
    """Give out the certificates of a proposal that is here from an index on, as many as fit into a message.

    Only those that hold: a leader may commit to others, and whoever passes them on is blamed for them.
    """
    proposal = turn.state.proposals.get(request.view)
    if proposal is None or proposal.vote.content.block != request.block:
        return
    held = (*proposal.justification, *turn.state.parts.get(request.block, ()))
    header = proposal.block.header
    certificates = tuple(
        entry for _, entry in takewhile(lambda place: _holds(turn.state, header, *place), enumerate(held))
    )[request.first :]
    if certificates:
        lot = split_certificates(certificates)[0]
        turn.send(JustificationPart(request.view, request.block, request.first, lot), turn.peer)


def take_part(turn: Turn, part: JustificationPart) -> None:
    """Certificates that did not fit into a proposal; only in order, and only for a proposal that is here."""
    proposal = turn.state.proposals.get(part.view)
    if proposal is None or proposal.vote.content.block != part.block:
        return
    held = turn.state.parts.get(part.block, ())
    have = len(proposal.justification) + len(held)
    if part.first != have or have + len(part.certificates) > count_certificates(proposal.block.header):
        return
    for index, certificate in enumerate(part.certificates):
        verify_entry(proposal.block.header, have + index, certificate)
        verify_once(turn, certificate)
    turn.update(parts={**turn.state.parts, part.block: (*held, *part.certificates)})


def _judge(turn: Turn, proposal: Proposal, name: Digest) -> bool:
    """Whether to vote for the proposal now; False: not decidable yet. `Rejected` where it is invalid for ever."""
    header, state = proposal.block.header, turn.state
    require(name not in state.refused, Reason.DIFFERS, "found invalid before")
    require(header.parent_view >= state.tip.view, Reason.STALE, "a parent below the final block")
    certificates = (*proposal.justification, *state.parts.get(name, ()))
    if len(certificates) < count_certificates(header):
        request = JustificationRequest(header.view, name, Count(len(certificates)))
        ask(turn, b"justification" + encode(request), request)
        return False
    if compute_justification_hash(header.parent_view, certificates) != header.justification_hash:
        _drop_parts(turn, name)
        return False
    try:
        verify_justification(header, certificates)
        for certificate in certificates:
            verify_once(turn, certificate)
    except Rejected:
        accuse_unjustified(turn, proposal, certificates)
        raise
    for certificate in certificates:
        take_certificate(turn, certificate)
    ahead_ms = header.time_ms - turn.config.parameters.clock_drift_ms_max
    if turn.now_ms < ahead_ms:
        turn.wake_at(ahead_ms)
        return False
    parent = resolve(turn, header.parent_hash)
    if parent is None:
        return False
    if name not in turn.state.executed:
        execute(turn, parent, proposal.block)
    return True


def judge_proposal(turn: Turn) -> None:
    """As validator: NOTARIZE the current view's proposal if it is valid, NULLIFY if it never can be, else wait."""
    state = turn.state
    proposal = state.proposals.get(state.view)
    if proposal is None or voter_of(turn.config, state) is None or is_silent(state):
        return
    if state.own.get(state.view, NO_VOTES) != NO_VOTES:
        return
    name = compute_header_hash(proposal.block.header)
    try:
        kind = VoteKind.NOTARIZE if _judge(turn, proposal, name) else None
    except Rejected as error:
        kind = VoteKind.NULLIFY
        turn.emit(ProposalRefused(state.view, proposal.block.header.proposer, str(error)))
        turn.update(refused={**turn.state.refused, name: proposal.block.header.view})
    if kind is not None:
        cast_and_send(turn, kind, state.view, name if kind is VoteKind.NOTARIZE else None)


def own_proposal(state: State, view: View) -> Proposal | None:
    """This validator's own proposal of a view, if there is one to send again."""
    proposal = state.proposals.get(view)
    own = state.own.get(view, NO_VOTES).notarize
    return proposal if proposal is not None and own is not None and proposal.vote == own else None

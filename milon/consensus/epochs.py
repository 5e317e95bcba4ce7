"""From one epoch to the next: the last block of the old one is final, and stands in the genesis's place for the new.

Votes, certificates and proposals belong to an epoch; none of the old one's is of any use. What peers said of the new
one before this node was there is kept, a bounded number a peer, and looked at now. What this validator signed there
before a crash comes back from the log.
"""

from __future__ import annotations

from dataclasses import replace

from milon.base.units import View
from milon.chain.certificate import Certificate, Vote
from milon.consensus.blocks import ledger_after
from milon.consensus.members import load_members
from milon.consensus.messages import Message, Proposal
from milon.consensus.replay import rebuild_proposal, replay_records
from milon.consensus.state import State
from milon.consensus.sync import note_ahead
from milon.consensus.turn import Turn

EARLY_MAX = 512  # messages for the next epoch: a few of each member of a large set
EARLY_PEER_MAX = 16  # of one peer among them: more than an honest one says in the time that a finalization takes
EARLY_PROPOSALS_MAX = 8  # among them, of as many peers: each may have three megabytes


def enter_next_epoch(turn: Turn) -> None:
    """Begin the epoch of the block after the tip. Raises RuntimeError where the ledger and the tip name other sets."""
    state, config = turn.state, turn.config
    members = load_members(config, ledger_after(config, state, state.tip.hash), state.tip.height)
    if members.hash != state.tip.next_validators_hash:
        raise RuntimeError(f"the ledger's validators of epoch {members.epoch} are not those of the last block's header")
    height = state.tip.height
    fresh = State(
        tip=replace(state.tip, view=View(0)),
        members=members,
        view=View(1),
        entered_ms=turn.now_ms,
        delta_ms=config.parameters.delta_ms,
        mempool=state.mempool,
        finality=state.finality,
        executed={name: entry for name, entry in state.executed.items() if entry.ancestor.height <= height},
        signed=state.signed,
        floor=state.floor,
        early=state.early,
        ahead=state.ahead,
        peers=state.peers,
        standstill_ms=state.standstill_ms,
        timer_ms=state.timer_ms,
        evidence=state.evidence,
        accused=state.accused,
    )
    turn.state = replay_records(fresh, state.later)
    if state.later:
        turn.state = rebuild_proposal(turn.state)


def is_of_other_epoch(turn: Turn, message: Message) -> bool:
    """Whether a message belongs to another epoch; if to a later one, it is noted, and kept if that is the next."""
    if isinstance(message, Proposal):
        epoch = message.block.header.epoch
    elif isinstance(message, Vote | Certificate):
        epoch = message.content.epoch
    else:
        return False
    if epoch == turn.state.members.epoch + 1:
        _keep(turn, message)
    note_ahead(turn, epoch)
    return epoch != turn.state.members.epoch


def _keep(turn: Turn, message: Message) -> None:
    early, peer = turn.state.early, turn.peer
    is_full = len(early) >= EARLY_MAX or sum(sender == peer for sender, _ in early) >= EARLY_PEER_MAX
    leaders = [sender for sender, kept in early if isinstance(kept, Proposal)]
    is_too_many = isinstance(message, Proposal) and (peer in leaders or len(leaders) >= EARLY_PROPOSALS_MAX)
    if peer is not None and not is_full and not is_too_many and (peer, message) not in early:
        turn.update(early=(*early, (peer, message)))


def take_early(turn: Turn) -> tuple[tuple[str, Message], ...]:
    """What peers said of the epoch that has begun since; it is forgotten here."""
    due = tuple(entry for entry in turn.state.early if _epoch_of(entry[1]) <= turn.state.members.epoch)
    if due:
        turn.update(early=tuple(entry for entry in turn.state.early if entry not in due))
    return due


def _epoch_of(message: Message) -> int:
    if isinstance(message, Proposal):
        return message.block.header.epoch
    return message.content.epoch if isinstance(message, Vote | Certificate) else 0

"""Starting again: the stored votes are said again, none is signed twice, and a lost log costs silence, not safety."""

from dataclasses import replace

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.units import Epoch, TimeMs, View
from milon.chain.certificate import Certificate, Vote, VoteContent, VoteKind
from milon.consensus.effects import Persist, Send, SetTimer
from milon.consensus.engine import step
from milon.consensus.events import MessageReceived, TimerFired
from milon.consensus.messages import LoggedCertificate, LoggedVote, LogRecord, Proposal, StatusRequest
from milon.consensus.restore import load_tip, restore
from milon.consensus.state import NO_PLACE
from milon.state.memory_store import MemoryStore
from tests.consensus.captured import Moment, catch
from tests.simulation.cheap import account_of
from tests.simulation.network import Behaviour, Faults, Network


@pytest.fixture(scope="module")
def moment() -> Moment:
    return catch()


def _records_after_vote(moment: Moment) -> tuple[LogRecord, ...]:
    _, effects = moment.take(moment.proposal)
    return (*moment.node.log, *(effect.record for effect in effects if isinstance(effect, Persist)))


def test_stored_votes_are_sent_again_and_none_is_signed(moment: Moment) -> None:
    records = _records_after_vote(moment)
    view = moment.state.view
    state, effects = restore(moment.config, records, (Epoch(0), view), moment.now_ms)
    assert state.view == view and state.floor == (0, 0)
    sent = [effect.message for effect in effects if isinstance(effect, Send) and isinstance(effect.message, Vote)]
    stored = [record.vote for record in records if isinstance(record, LoggedVote)]
    assert sent and all(vote in stored for vote in sent)
    assert not any(isinstance(effect, Persist) for effect in effects)
    assert any(isinstance(effect, Send) and isinstance(effect.message, StatusRequest) for effect in effects)
    _, effects = step(moment.config, state, MessageReceived(moment.now_ms, "0", moment.proposal))
    assert not any(isinstance(effect, Persist) and isinstance(effect.record, LoggedVote) for effect in effects)


def test_a_lost_log_leaves_the_signer_silent_up_to_the_floor(moment: Moment) -> None:
    view = moment.state.view
    state, _ = restore(moment.config, tuple(moment.node.log), (Epoch(0), View(view + 1)), moment.now_ms)
    assert state.floor == (0, view + 1)
    events = (MessageReceived(moment.now_ms, "0", moment.proposal), TimerFired(TimeMs(moment.now_ms + 60_000)))
    for event in events:
        state, effects = step(moment.config, state, event)
        assert not any(isinstance(effect, Persist) and isinstance(effect.record, LoggedVote) for effect in effects)
        timers = [effect.at_ms for effect in effects if isinstance(effect, SetTimer)]
        assert all(at_ms > event.now_ms for at_ms in timers), "silence is not a busy loop"


def test_a_log_that_lost_the_newest_vote_of_a_view_leaves_the_signer_silent_in_it(moment: Moment) -> None:
    records = _records_after_vote(moment)
    votes = sum(isinstance(record, LoggedVote) and record.vote.content.view == moment.state.view for record in records)
    place = (moment.state.members.epoch, moment.state.view)
    whole, _ = restore(moment.config, records, place, moment.now_ms, votes)
    older, _ = restore(moment.config, records, place, moment.now_ms, votes + 1)
    assert whole.floor == NO_PLACE and older.floor == place
    _, effects = step(moment.config, older, TimerFired(TimeMs(moment.now_ms + 60_000)))
    assert not any(isinstance(effect, Persist) and isinstance(effect.record, LoggedVote) for effect in effects)


def _certify(moment: Moment, kind: VoteKind) -> Certificate:
    """A certificate of the current view by everybody but this node."""
    view, epoch = moment.state.view, moment.state.members.epoch
    block = None if kind is VoteKind.NULLIFY else moment.proposal.vote.content.block
    content = VoteContent(kind, epoch, view, block)
    keys = [key for key in moment.node.network.keys if account_of(key) != moment.config.account]
    votes = [moment.config.cryptography.sign_vote(key, moment.config.chain_id, content) for key in keys]
    return Certificate(content, tuple(vote.signer for vote in votes), tuple(vote.signature for vote in votes))


@pytest.mark.parametrize("kind", list(VoteKind))
def test_a_certificate_is_written_down_and_leads_out_of_its_view_after_a_restart(
    moment: Moment, kind: VoteKind
) -> None:
    """Nobody else need be there to send it again: all machines may have stopped at once."""
    certificate = _certify(moment, kind)
    _, effects = moment.take(certificate)
    order = [type(effect) for effect in effects]
    assert Persist(LoggedCertificate(certificate)) in effects and Send(None, certificate) in effects
    assert order.index(Send) > order.index(Persist) + order.count(Persist) - 1, "all is written down before it is sent"
    records = (*moment.node.log, *(effect.record for effect in effects if isinstance(effect, Persist)))
    state, _ = restore(moment.config, records, (Epoch(0), View(moment.state.view)), moment.now_ms)
    assert state.view == moment.state.view + 1
    held = {
        VoteKind.NOTARIZE: state.notarizations.get(moment.state.view),
        VoteKind.NULLIFY: state.nullifications.get(moment.state.view),
        VoteKind.FINALIZE: state.finalization,
    }
    assert held[kind] == certificate


def test_every_node_down_at_once_and_the_chain_goes_on() -> None:
    network = Network(2, (10, 10, 10, 10), [Behaviour() for _ in range(4)], Faults())
    network.run_until(2_000)
    before = dict(network.auditor.final_at_height)
    for node in network.nodes:
        node.crash()
    network.run_until(6_000)
    assert min(network.heights()) > len(before) + 3
    assert {height: network.auditor.final_at_height[height] for height in before} == before


def test_a_leader_that_restarts_sends_the_same_block() -> None:
    network = Network(7, (10, 10, 10, 10), [Behaviour() for _ in range(4)], Faults())
    network.run_until(1_000)
    for end_ms in range(1_010, 3_000, 10):
        network.run_until(end_ms)
        for node in network.nodes:
            state = node.state
            assert state is not None
            proposal = state.proposals.get(state.view)
            if proposal is not None and proposal.block.header.proposer == node.config.account:
                _, effects = restore(node.config, tuple(node.log), node.signed, node.now())
                again = [
                    effect.message
                    for effect in effects
                    if isinstance(effect, Send) and isinstance(effect.message, Proposal)
                ]
                assert again == [proposal]
                return
    raise AssertionError("nobody was caught leading")


def test_a_store_of_another_chain_or_none_is_refused(moment: Moment) -> None:
    with pytest.raises(Rejected) as refused:
        load_tip(moment.config, MemoryStore())
    assert refused.value.reason is Reason.UNAVAILABLE
    network = Network(1, (10, 10, 10, 10), [Behaviour() for _ in range(4)], Faults())
    fresh = network.nodes[0].store
    other = replace(moment.config, genesis_hash=moment.proposal.block.header.parent_hash)
    with pytest.raises(Rejected) as refused:
        load_tip(other, fresh)
    assert refused.value.reason is Reason.WRONG_CHAIN
    damaged = moment.node.store.snapshot()
    damaged._tables.blocks.clear()
    with pytest.raises(Rejected) as refused:
        load_tip(moment.config, damaged)
    assert refused.value.reason is Reason.CORRUPT

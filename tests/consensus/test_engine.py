"""Single steps: pure, in order, unimpressed by bad bytes, and never for an invalid block."""

import copy
from dataclasses import replace

import pytest

from milon.base.codec import decode
from milon.base.errors import Reason
from milon.base.ids import AccountId, Digest, Signature, VrfProof
from milon.base.units import Amount, Count, Epoch, Height, Nonce, TimeMs, View
from milon.chain.block import Block
from milon.chain.certificate import Certificate, Vote, VoteContent, VoteKind
from milon.chain.transaction import Transaction, TransactionBody, Withdraw, sign_transaction
from milon.consensus import proposals
from milon.consensus.effects import ORDER, Blame, Effect, Persist, ProposalRefused, Send, SetTimer, TransactionRefused
from milon.consensus.engine import step
from milon.consensus.events import TimerFired, TransactionsReceived
from milon.consensus.messages import LoggedBlock, LoggedVote, Message, RangeRequest
from tests.consensus.captured import Moment, catch
from tests.simulation.cheap import account_of
from tests.simulation.network import START_MS, Behaviour, Faults, Network


@pytest.fixture(scope="module")
def moment() -> Moment:
    return catch()


def _votes(effects: tuple[Effect, ...]) -> list[VoteKind]:
    return [
        effect.message.content.kind
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, Vote)
    ]


def test_a_valid_proposal_is_voted_for_after_it_is_written_down(moment: Moment) -> None:
    _, effects = moment.take(moment.proposal)
    assert _votes(effects) == [VoteKind.NOTARIZE]
    written = [effect.record for effect in effects if isinstance(effect, Persist)]
    assert isinstance(written[0], LoggedBlock) and isinstance(written[1], LoggedVote)
    places = [ORDER.index(type(effect)) for effect in effects]
    assert places == sorted(places)


def test_a_step_is_a_function(moment: Moment) -> None:
    before = copy.deepcopy(moment.state)
    first, second = moment.take(moment.proposal), moment.take(moment.proposal)
    assert first == second
    assert moment.state == before


def _differ(digest: bytes) -> Digest:
    return Digest(bytes(byte ^ 1 for byte in digest))


@pytest.mark.parametrize(
    "field",
    [
        "transactions_root",
        "receipts_root",
        "state_root",
        "evidence_root",
        "learning_root",
        "validators_hash",
        "next_validators_hash",
        "parameters_hash",
        "beacon",
    ],
)
def test_a_block_with_a_wrong_root_gets_no_vote(moment: Moment, field: str) -> None:
    changed = moment.with_header(**{field: _differ(getattr(moment.proposal.block.header, field))})
    _, effects = moment.take(changed)
    if field in ("transactions_root", "evidence_root"):
        assert _votes(effects) == [] and any(isinstance(effect, Blame) for effect in effects)
    else:
        assert _votes(effects) == [VoteKind.NULLIFY], "invalid for ever: the view is skipped at once"
        refused = [effect.view for effect in effects if isinstance(effect, ProposalRefused)]
        assert refused == [moment.proposal.block.header.view]


def test_a_block_out_of_place_gets_no_vote(moment: Moment) -> None:
    header = moment.proposal.block.header
    changes: list[dict[str, object]] = [
        {"chain_id": "another"},
        {"version": Count(2)},
        {"height": Height(header.height + 1)},
        {"parent_hash": _differ(header.parent_hash)},
        {"parent_view": View(header.parent_view - 1)},
        {"time_ms": TimeMs(1)},
        {"vrf": VrfProof(bytes(80))},
        {"justification_hash": _differ(header.justification_hash)},
    ]
    for change in changes:
        _, effects = moment.take(moment.with_header(**change))
        assert VoteKind.NOTARIZE not in _votes(effects), change


def test_a_block_of_a_leader_out_of_turn_is_refused(moment: Moment) -> None:
    assert moment.config.account is not None
    state, effects = moment.take(moment.with_header(proposer=moment.config.account))
    assert [effect.reason for effect in effects if isinstance(effect, Blame)] == [Reason.NOT_ALLOWED]
    assert state.proposals == moment.state.proposals


def test_a_time_ahead_of_the_clock_is_waited_for(moment: Moment) -> None:
    drift = moment.config.parameters.clock_drift_ms_max
    early = moment.proposal.block.header.time_ms - drift - 30
    state, effects = moment.take(moment.proposal, now_ms=early)
    assert _votes(effects) == []
    (timer,) = (effect for effect in effects if isinstance(effect, SetTimer))
    _, effects = step(moment.config, state, TimerFired(timer.at_ms))
    assert timer.at_ms == early + 30 and _votes(effects) == [VoteKind.NOTARIZE]


def _hostile(moment: Moment) -> list[Message]:
    header = moment.proposal.block.header
    content = VoteContent(VoteKind.NULLIFY, Epoch(0), header.view, None)
    stranger, member = AccountId(bytes(32)), moment.state.members.validators[0].account
    signature = Signature(bytes(64))
    body = TransactionBody("simulated", member, Nonce(0), Amount(1), Withdraw())
    stuffed = replace(moment.proposal.block, transactions=(Transaction(body, signature),))
    return [
        Vote(content, stranger, signature),
        Vote(content, member, signature),
        Certificate(content, (member,), (signature,)),
        Certificate(content, (), ()),
        replace(moment.proposal, vote=Vote(content, header.proposer, signature)),
        replace(moment.proposal, vote=replace(moment.proposal.vote, signature=signature)),
        replace(moment.proposal, block=stuffed),
        replace(moment.proposal, justification=(*moment.proposal.justification[1:],)),
    ]


def test_bad_bytes_change_nothing_and_are_blamed(moment: Moment) -> None:
    for message in _hostile(moment)[:-1]:
        state, effects = moment.take(message)
        assert [effect.peer for effect in effects if isinstance(effect, Blame)] == ["0"], message
        assert replace(state, timer_ms=moment.state.timer_ms) == moment.state
        assert _votes(effects) == []
    assert VoteKind.NOTARIZE not in _votes(moment.take(_hostile(moment)[-1])[1])


def test_votes_and_proposals_far_from_the_view_are_dropped(moment: Moment) -> None:
    for view in (moment.state.final_view, moment.state.view + 17, 1 << 40):
        content = VoteContent(VoteKind.NULLIFY, Epoch(0), View(view), None)
        vote = Vote(content, moment.state.members.validators[0].account, Signature(bytes(64)))
        state, _ = moment.take(vote)
        assert state.pools == moment.state.pools


def test_no_proposal_in_time_means_nullify_and_then_no_vote_for_it(moment: Moment) -> None:
    parameters = moment.config.parameters
    due = moment.state.entered_ms + parameters.block_time_ms + 2 * moment.state.delta_ms
    _, effects = step(moment.config, moment.state, TimerFired(TimeMs(due - 1)))
    assert _votes(effects) == []
    state, effects = step(moment.config, moment.state, TimerFired(TimeMs(due)))
    assert state.own[state.view].nullify is not None and VoteKind.NULLIFY in _votes(effects)
    late = replace(moment, state=state)
    assert _votes(late.take(moment.proposal)[1]) == []


def test_an_observer_follows_and_never_votes(moment: Moment) -> None:
    observer = replace(moment, config=replace(moment.config, key=None, account=None))
    state, effects = observer.take(moment.proposal)
    assert _votes(effects) == [] and state.proposals
    due = moment.now_ms + 60_000
    _, effects = step(observer.config, state, TimerFired(TimeMs(due)))
    assert _votes(effects) == []


def test_a_refused_transaction_says_why(moment: Moment) -> None:
    body = TransactionBody("simulated", moment.state.members.validators[0].account, Nonce(0), Amount(0), Withdraw())
    event = TransactionsReceived(moment.now_ms, (Transaction(body, Signature(bytes(64))),))
    state, effects = step(moment.config, moment.state, event)
    assert [effect.reason for effect in effects if isinstance(effect, TransactionRefused)] == [
        Reason.INSUFFICIENT_FUNDS
    ]
    assert state.mempool == moment.state.mempool


def test_requests_for_nothing_are_not_answered(moment: Moment) -> None:
    _, effects = moment.take(RangeRequest(Height(1 << 40)))
    assert [effect for effect in effects if isinstance(effect, Send) and effect.peer == "0"] == []


@pytest.mark.parametrize(("limit", "is_empty"), [(64, False), (-1, True)])
def test_blocks_far_above_the_final_one_carry_no_transactions(
    monkeypatch: pytest.MonkeyPatch, limit: int, is_empty: bool
) -> None:
    monkeypatch.setattr(proposals, "PENDING_FULL_MAX", limit)
    network = Network(1, (10, 10, 10, 10), [Behaviour() for _ in range(4)], Faults())
    key = network.keys[0]
    body = TransactionBody(network.genesis.chain_id, account_of(key), Nonce(0), Amount(1), Withdraw())
    for node in network.nodes:
        network.submit(START_MS + 300, node.index, sign_transaction(key, body))
    network.run_until(2_500)
    store = network.nodes[0].store
    raws = [store.block_by_height(Height(height)) for height in range(1, min(network.heights()) + 1)]
    blocks = [decode(Block, raw) for raw in raws if raw is not None]
    assert len(blocks) > 3 and (sum(len(block.transactions) for block in blocks) == 0) is is_empty

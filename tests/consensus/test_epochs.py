"""Epochs: sets that change, their last blocks made final by blocks above, and nodes that come late to any of it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from milon.base.codec import decode
from milon.base.errors import Rejected
from milon.base.ids import AccountId
from milon.base.units import Count, Epoch, Height, Power, View
from milon.chain.block import Block, compute_header_hash
from milon.chain.certificate import Certificate, Validator, Vote, VoteContent, VoteKind, compute_validators_hash
from milon.chain.finality import decode_finality, verify_finality
from milon.chain.transaction import Transaction
from milon.consensus import epochs
from milon.consensus.application import ED25519, Application
from milon.consensus.effects import CommitBlocks, Effect, Persist, PruneLog, Send
from milon.consensus.engine import step
from milon.consensus.events import MessageReceived
from milon.consensus.members import voter_of
from milon.consensus.messages import BlockResponse, LoggedVote, Message, Proposal, RangeRequest, RangeResponse
from milon.consensus.restore import restore
from milon.consensus.state import NOT_AHEAD
from milon.consensus.sync import name_block
from milon.contracts.apply import Applied, BlockContext, compute_genesis_ledger
from milon.node.application import CONTRACTS
from milon.state.ledger import Ledger
from milon.state.store import StoreReader
from tests.simulation.adversaries.equivocator import Equivocator
from tests.simulation.cheap import COUNTING, account_of
from tests.simulation.network import PARAMETERS, Behaviour, Faults, Network, Node

LENGTH = 4  # blocks of an epoch
POWERS = (10, 10, 10, 10, 0)  # four validators at the start, and one who waits

Members = Callable[[int], tuple[Validator, ...]]


def _rotating(members: Members) -> Application:
    """The counting ledger, whose last block of an epoch says who votes in the next."""

    def apply_block(ledger: Ledger, context: BlockContext, transactions: Sequence[Transaction]) -> Applied:
        applied = COUNTING.apply_block(ledger, context, transactions)
        return replace(applied, validators=members(context.epoch + 1)) if context.is_last_of_epoch else applied

    return replace(COUNTING, apply_block=apply_block, validators_at=lambda ledger, epoch: members(epoch))


def _network(
    seed: int, behaviours: Sequence[Behaviour] | None = None, faults: Faults | None = None, late: Sequence[int] = ()
) -> Network:
    """Five accounts, of which in every odd epoch the first does not vote, and in every even one the last."""
    accounts: list[AccountId] = []

    def members(epoch: int) -> tuple[Validator, ...]:
        chosen = accounts[1:] if epoch % 2 else accounts[:4]
        return tuple(Validator(account, Power(10 + epoch)) for account in chosen)

    network = Network(
        seed,
        POWERS,
        [Behaviour() for _ in POWERS] if behaviours is None else behaviours,
        Faults() if faults is None else faults,
        application=_rotating(members),
        parameters=replace(PARAMETERS, epoch_blocks=Count(LENGTH)),
        late=frozenset(late),
    )
    accounts.extend(account_of(key) for key in network.keys)
    return network


def _blocks(node: Node) -> list[Block]:
    tip = node.store.tip()
    assert tip is not None
    raws = [node.store.block_by_height(Height(height)) for height in range(1, tip[0] + 1)]
    return [decode(Block, raw) for raw in raws if raw is not None]


def test_sets_change_and_the_chain_goes_on() -> None:
    network = _network(1)
    network.run_until(9_000)
    blocks = _blocks(network.nodes[2])
    assert len(blocks) > 4 * LENGTH
    for block in blocks:
        header = block.header
        assert header.epoch == (header.height - 1) // LENGTH
        is_last = header.height % LENGTH == 0
        assert (header.next_validators_hash != header.validators_hash) is is_last
    for parent, child in pairwise(blocks):
        assert child.header.validators_hash == parent.header.next_validators_hash
        is_first = child.header.height % LENGTH == 1
        assert child.header.parent_view == (0 if is_first else parent.header.view)
    first, last = account_of(network.keys[0]), account_of(network.keys[4])
    proposers = {epoch: {block.header.proposer for block in blocks if block.header.epoch == epoch} for epoch in (0, 1)}
    assert first in proposers[0] and first not in proposers[1]
    assert last in proposers[1] and last not in proposers[0]


def test_who_leaves_stops_voting_and_who_enters_begins() -> None:
    network = _network(2)
    for end_ms in range(0, 9_000, 20):
        network.run_until(end_ms)
        for node in (network.nodes[0], network.nodes[4]):
            if node.state is not None:
                is_member = (node.state.members.epoch % 2 == 1) is (node.index == 4)
                assert (voter_of(node.config, node.state) is not None) is is_member
                assert is_member or node.state.own == {}
    signed = {
        node.index: {record.vote.content.epoch for record in node.log if isinstance(record, LoggedVote)}
        for node in (network.nodes[0], network.nodes[4])
    }
    assert all(epoch % 2 == 0 for epoch in signed[0]) and all(epoch % 2 == 1 for epoch in signed[4])


class _NoFinality(Behaviour):
    """Says nothing final about an epoch's last block itself: only a block above it can end the epoch."""

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        return [effect for effect in effects if not self._is_withheld(node, effect)]

    def _is_withheld(self, node: Node, effect: Effect) -> bool:
        if not isinstance(effect, Send | Persist):
            return False
        message = effect.message if isinstance(effect, Send) else getattr(effect.record, "vote", None)
        if not isinstance(message, Vote) or message.content.kind is not VoteKind.FINALIZE or node.state is None:
            return False
        return self._height(node, message) % LENGTH == 0

    def _height(self, node: Node, vote: Vote) -> int:
        for other in node.network.nodes:
            entry = (
                None
                if other.state is None or vote.content.block is None
                else other.state.executed.get(vote.content.block)
            )
            if entry is not None:
                return int(entry.ancestor.height)
        return 1


def _forgetful(behaviours: int) -> list[Behaviour]:
    return [_NoFinality() for _ in range(behaviours)]


@pytest.fixture(scope="module")
def filled() -> Network:
    """A network in which every epoch ends by a block above its last one, and a node that has not started."""
    network = _network(3, _forgetful(5), late=[3])
    network.run_until(14_000)
    return network


def _last_blocks(node: Node) -> list[Block]:
    return [block for block in _blocks(node) if block.header.height % LENGTH == 0]


def test_blocks_above_the_last_one_make_it_final_and_are_never_stored(filled: Network) -> None:
    node = filled.nodes[1]
    last = _last_blocks(node)
    assert len(last) >= 3
    for block in last:
        raw = node.store.certificate_at(block.header.height)
        assert raw is not None
        proof = decode_finality(raw)
        assert proof.headers, "the last block has no finalization of its own"
        for header in proof.headers:
            assert (header.height, header.epoch) == (block.header.height + 1, block.header.epoch)
            assert header.state_root == block.header.state_root
        validators = node.config.application.validators_at(Ledger(node.store), block.header.epoch)
        if block.header.epoch == 0:
            validators = tuple(replace(entry, power=Power(10)) for entry in validators)
        assert compute_validators_hash(validators) == block.header.validators_hash
        verify_finality(block.header, proof, validators)
        with pytest.raises(Rejected):
            verify_finality(block.header, replace(proof, headers=proof.headers[1:]), validators)
        following = node.store.block_by_height(Height(block.header.height + 1))
        assert following is None or decode(Block, following).header.epoch == block.header.epoch + 1


def test_a_latecomer_follows_from_epoch_to_epoch(filled: Network) -> None:
    height = max(filled.heights())
    latecomer = filled.nodes[3]
    latecomer.start()
    filled.run_until(19_000)
    assert latecomer.state is not None and latecomer.state.tip.height >= height
    assert latecomer.store.certificate_at(Height(LENGTH)) == filled.nodes[1].store.certificate_at(Height(LENGTH))
    others = {node.state.members.epoch for node in filled.nodes if node.state is not None}
    assert latecomer.state.members.epoch >= min(others)


def test_an_answer_never_crosses_the_end_of_an_epoch(filled: Network) -> None:
    node = filled.nodes[1]
    assert node.state is not None
    event = MessageReceived(node.now(), "9", RangeRequest(Height(2)))
    _, effects = step(node.config, node.state, event)
    (answer,) = [effect.message for effect in effects if isinstance(effect, Send) and effect.peer == "9"]
    assert isinstance(answer, RangeResponse)
    assert [block.header.height for block in answer.blocks] == list(range(2, LENGTH + 1))
    assert {header.epoch for header in answer.headers} == {Epoch(0)}


def test_epochs_change_through_loss_crashes_and_partitions() -> None:
    for seed in range(2):
        faults = Faults(
            loss_percent=10, crash_per_mille=20, partitions=((400, 1_500, frozenset({0, 1})),), heal_ms=3_000
        )
        network = _network(seed, faults=faults)
        network.run_until(9_000)
        assert min(network.heights()) > 2 * LENGTH


class _Keeper(Behaviour):
    """Loses nothing of its log, and remembers its store as it was before an epoch's last block."""

    def __init__(self) -> None:
        self.before: StoreReader | None = None

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, CommitBlocks) and effect.commit.tip[0] == LENGTH:
                self.before = node.store.snapshot()
        return [effect for effect in effects if not isinstance(effect, PruneLog)]


def test_votes_of_the_next_epoch_outlive_a_crash_before_the_last_block_is_stored() -> None:
    keeper = _Keeper()
    network = _network(4, [Behaviour(), keeper, *(Behaviour() for _ in POWERS[2:])])
    node = network.nodes[1]
    network.run_until(2_000)
    assert keeper.before is not None and node.signed[0] > 0
    votes = [record.vote for record in node.log if isinstance(record, LoggedVote)]
    config = replace(node.config, store=keeper.before)
    state, effects = restore(config, tuple(node.log), node.signed, node.now())
    assert state.members.epoch == 0 and state.later and state.signed == node.signed
    seen, held = list(effects), set[Vote]()
    for block in _blocks(network.nodes[2])[LENGTH - 1 :]:
        name = compute_header_hash(block.header)
        if name_block(name) in state.requests:
            state, effects = step(config, state, MessageReceived(node.now(), "2", BlockResponse(block)))
            seen.extend(effects)
            held.update(vote for own in state.own.values() for vote in own.listed())
    assert state.members.epoch == node.signed[0] and state.later == ()
    assert {vote for vote in votes if vote.content.epoch == 1} <= held
    places = {(vote.content.epoch, vote.content.view, vote.content.kind) for vote in votes}
    again = [
        effect.record.vote.content
        for effect in seen
        if isinstance(effect, Persist) and isinstance(effect.record, LoggedVote)
    ]
    assert not [entry for entry in again if (entry.epoch, entry.view, entry.kind) in places]


def test_a_node_restarts_in_its_epoch() -> None:
    network = _network(5)
    network.run_until(4_000)
    for node in network.nodes:
        assert node.state is not None
        state, _ = restore(node.config, tuple(node.log), node.signed, node.now())
        assert state.members == node.state.members and state.members.epoch > 0
        assert state.tip == node.state.tip and state.finality is not None


def _early_messages(network: Network, node: Node) -> list[Vote]:
    """What the members of the next epoch might say before the node is there."""
    assert node.state is not None
    epoch = Epoch(node.state.members.epoch + 1)
    content = [VoteContent(VoteKind.NULLIFY, epoch, View(view), None) for view in range(1, 40)]
    key = network.keys[2]
    return [node.config.cryptography.sign_vote(key, network.genesis.chain_id, entry) for entry in content]


def test_what_is_said_of_the_next_epoch_is_kept_within_bounds_and_of_others_not() -> None:
    network = _network(6)
    network.run_until(1_500)
    node = network.nodes[1]
    state = node.state
    assert state is not None
    messages = _early_messages(network, node)
    for message in messages:
        state, effects = step(node.config, state, MessageReceived(node.now(), "2", message))
        assert not any(isinstance(effect, Send) and effect.message == message for effect in effects)
    assert len(state.early) == epochs.EARLY_PEER_MAX and state.ahead.epoch == state.members.epoch + 1
    assert state.pools == (node.state.pools if node.state is not None else {})
    far = replace(messages[0], content=replace(messages[0].content, epoch=Epoch(99)))
    state, _ = step(node.config, state, MessageReceived(node.now(), "3", far))
    assert all(message != far for _, message in state.early) and state.ahead.epoch == 99


def test_a_lie_about_a_later_epoch_is_forgotten() -> None:
    network = _network(7)
    network.run_until(1_000)
    node = network.nodes[1]
    assert node.state is not None
    message = _early_messages(network, node)[0]
    lie = replace(message, content=replace(message.content, epoch=Epoch(1 << 30)))
    node.take(MessageReceived(node.now(), "2", lie))
    network.run_until(6_000)
    assert node.state is not None and node.state.ahead == NOT_AHEAD
    assert network.kinds_sent[RangeRequest] < 20


def test_a_vote_of_an_epoch_that_is_over_counts_for_nothing() -> None:
    network = _network(8)
    network.run_until(4_000)
    node = network.nodes[1]
    assert node.state is not None and node.state.members.epoch > 0
    content = VoteContent(VoteKind.NULLIFY, Epoch(0), node.state.view, None)
    votes = [node.config.cryptography.sign_vote(key, network.genesis.chain_id, content) for key in network.keys[:4]]
    certificate = Certificate(content, tuple(vote.signer for vote in votes), tuple(vote.signature for vote in votes))
    messages: list[Message] = [*votes, certificate]
    for message in messages:
        state, _ = step(node.config, node.state, MessageReceived(node.now(), "2", message))
        assert (state.pools, state.nullifications) == (node.state.pools, node.state.nullifications)


def test_a_proposal_of_the_next_epoch_is_voted_for_once_it_has_begun() -> None:
    """Whoever hears of an epoch's end a moment too late must not lose its first view."""
    network = _network(9)
    network.run_until(8_000)
    nullified = {place for place in network.auditor.nullified if place[1] == 1}
    assert nullified == set(), "no first view was given up in a network without faults"
    assert not any(isinstance(entry, Proposal) for node in network.nodes if node.state for _, entry in node.state.early)


def test_epochs_survive_bytes_and_real_signatures() -> None:
    network = Network(
        3,
        (10_000,) * 4,
        [Equivocator(), *(Behaviour() for _ in range(3))],
        Faults(loss_percent=5, crash_per_mille=10, heal_ms=800),
        application=CONTRACTS,
        cryptography=ED25519,
        parameters=replace(PARAMETERS, epoch_blocks=Count(3)),
        make_table=compute_genesis_ledger,
        is_encoded=True,
        chain_id="real",
    )
    network.run_until(3_500)
    offender = account_of(network.keys[0])
    for node in network.honest:
        assert node.state is not None and node.state.members.epoch >= 2
        assert all(member.account != offender for member in node.state.members.validators), "the offender is out"
        assert len(node.state.members.validators) == 3

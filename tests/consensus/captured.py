"""A validator caught in the moment in which a proposal reaches it, for tests of single steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from milon.base.signing import SecretKey
from milon.base.units import TimeMs
from milon.chain.block import Header, compute_header_hash
from milon.chain.certificate import VoteContent, VoteKind
from milon.consensus.application import Config
from milon.consensus.effects import Effect
from milon.consensus.engine import step
from milon.consensus.events import MessageReceived
from milon.consensus.messages import Message, Proposal
from milon.consensus.state import State
from tests.simulation.cheap import account_of
from tests.simulation.network import Behaviour, Faults, Network, Node


class _Caught(Exception):
    """The moment has come."""


class _Catcher(Behaviour):
    def __init__(self, is_wanted: Callable[[Node, Message], bool]) -> None:
        self._is_wanted = is_wanted
        self.message: Message | None = None

    def hear(self, node: Node, sender: int, message: Message) -> None:
        if self._is_wanted(node, message):
            self.message = message
            raise _Caught


@dataclass(frozen=True)
class Moment:
    """A validator in a view, and the proposal that it is about to receive."""

    node: Node
    config: Config
    state: State
    now_ms: TimeMs
    proposal: Proposal
    leader: SecretKey

    def take(self, message: Message, now_ms: int | None = None) -> tuple[State, tuple[Effect, ...]]:
        """The step that a message from peer "0" causes."""
        return step(self.config, self.state, MessageReceived(TimeMs(now_ms or self.now_ms), "0", message))

    def with_header(self, **changes: object) -> Proposal:
        """The proposal with another header, signed by the leader as if it were right."""
        header: Header = replace(self.proposal.block.header, **changes)  # type: ignore[arg-type]
        content = VoteContent(VoteKind.NOTARIZE, header.epoch, header.view, compute_header_hash(header))
        vote = self.config.cryptography.sign_vote(self.leader, self.config.chain_id, content)
        return replace(self.proposal, block=replace(self.proposal.block, header=header), vote=vote)


def catch(view: int = 4, powers: Sequence[int] = (10, 10, 10, 10)) -> Moment:
    """Node 3 in `view`, or in the first one after it that another node leads."""

    def is_wanted(node: Node, message: Message) -> bool:
        assert node.state is not None
        return (
            isinstance(message, Proposal)
            and node.state.view >= view
            and message.block.header.view == node.state.view
            and node.state.view not in node.state.proposals
        )

    catcher = _Catcher(is_wanted)
    network = Network(1, powers, [*(Behaviour() for _ in powers[1:]), catcher], Faults())
    try:
        network.run_until(20_000)
    except _Caught:
        node = network.nodes[-1]
        assert node.state is not None and isinstance(catcher.message, Proposal)
        leader = next(key for key in network.keys if account_of(key) == catcher.message.block.header.proposer)
        return Moment(node, node.config, node.state, node.now(), catcher.message, leader)
    raise AssertionError("no proposal came")

"""What a node may believe of the messages it takes in; and the two ways in which a run ends before its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milon.chain.certificate import Certificate, Vote, VoteContent
from milon.consensus.messages import CertificateBatch, Message, Proposal, Status

if TYPE_CHECKING:
    from tests.simulation.network import Node


class Violation(AssertionError):
    """The protocol failed."""


class Unbearable(Exception):
    """A third of the power is crooked: nothing is promised any more, and nothing can be shown."""


class Judging:
    """Compares what a node holds after a message with the epoch that it is in."""

    def __init__(self, node: Node, message: Message) -> None:
        self._node = node
        epoch = -1 if node.state is None else int(node.state.members.epoch)
        self._epochs = {int(content.epoch) for content in _contents(message)}
        self._is_foreign = node.behaviour.is_honest and bool(self._epochs - {epoch})

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self._is_foreign or isinstance(error, Violation | Unbearable):
            return
        if error is not None:
            epochs = sorted(self._epochs)
            raise Violation(f"node {self._node.index} ends over what was said in epochs {epochs}: {error!r}") from error
        state = self._node.state
        if state is None:
            return
        held = [*state.notarizations.values(), *state.nullifications.values()]
        held += [] if state.finalization is None else [state.finalization]
        for certificate in held:
            if certificate.content.epoch != state.members.epoch:
                place = (int(certificate.content.epoch), int(certificate.content.view))
                raise Violation(f"node {self._node.index} in epoch {state.members.epoch} believes what is of {place}")


def _contents(message: Message) -> list[VoteContent]:
    """What a message says was voted for."""
    match message:
        case Vote() | Certificate():
            return [message.content]
        case CertificateBatch():
            return [certificate.content for certificate in message.certificates]
        case Proposal():
            return [message.vote.content]
        case Status() if message.finalization is not None:
            return [message.finalization.content]
        case _:
            return []

"""What must hold at every moment of every run, whatever goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milon.base.ids import AccountId, Digest
from milon.chain.certificate import Vote, VoteKind
from milon.consensus.effects import Accuse, Blame, CommitBlocks, Effect, Persist, Send
from milon.consensus.messages import LoggedCertificate, Proposal
from milon.consensus.quorum import find_contradiction, with_vote

if TYPE_CHECKING:
    from tests.simulation.network import Node


class Violation(AssertionError):
    """The protocol failed."""


class Auditor:
    """Sees everything that honest nodes do, and raises `Violation` when it must not be."""

    def __init__(self, honest: frozenset[AccountId]) -> None:
        """`honest` are the accounts whose every key holder keeps to the rules."""
        self.honest = honest
        self.final_at_height: dict[int, Digest] = {}
        self.final_in_view: dict[int, Digest] = {}
        self.nullified: set[int] = set()
        self.finalized: set[int] = set()
        self.notarized: dict[int, Digest] = {}
        self.accused: set[AccountId] = set()
        self.blamed: dict[str, int] = {}
        self._votes: dict[int, dict[tuple[VoteKind, AccountId], Vote]] = {}

    def observe(self, node: Node, effect: Effect) -> None:
        """Look at one effect of an honest node that took place."""
        match effect:
            case CommitBlocks():
                self._observe_commit(effect)
            case Persist(LoggedCertificate(certificate)):
                content = certificate.content
                self._observe_certificate(content.kind, int(content.view), content.block)
            case Send(_, Vote() as vote):
                self._observe_vote(vote)
            case Send(_, Proposal() as proposal):
                self._observe_vote(proposal.vote)
            case Accuse():
                if effect.first.signer in self.honest:
                    raise Violation(f"honest {effect.first.signer.hex()[:8]} accused: {effect.first} {effect.second}")
                self.accused.add(effect.first.signer)
            case Blame():
                self.blamed[effect.peer] = self.blamed.get(effect.peer, 0) + 1
                if node.network.nodes[int(effect.peer)].behaviour.is_honest:
                    raise Violation(f"honest node {effect.peer} blamed: {effect.reason} {effect.detail}")

    def _observe_commit(self, effect: CommitBlocks) -> None:
        for final in effect.finalized:
            header = final.block.header
            for table, place in ((self.final_at_height, header.height), (self.final_in_view, header.view)):
                if table.setdefault(int(place), final.hash) != final.hash:
                    raise Violation(f"two final blocks at height {header.height} or view {header.view}")
            below = self.final_at_height.get(header.height - 1)
            if below is not None and below != header.parent_hash:
                raise Violation(f"the final block at height {header.height} does not extend the one below")

    def _observe_certificate(self, kind: VoteKind, view: int, block: Digest | None) -> None:
        if kind is VoteKind.NULLIFY:
            self.nullified.add(view)
        elif block is not None and self.notarized.setdefault(view, block) != block:
            raise Violation(f"two blocks certified in view {view}")
        if kind is VoteKind.FINALIZE:
            self.finalized.add(view)
        if view in self.nullified and view in self.finalized:
            raise Violation(f"view {view} is both finalized and nullified")

    def _observe_vote(self, vote: Vote) -> None:
        pool = self._votes.setdefault(int(vote.content.view), {})
        contradiction = find_contradiction(pool, vote)
        if vote.signer in self.honest and contradiction is not None:
            raise Violation(f"honest {vote.signer.hex()[:8]} contradicts itself: {contradiction} {vote}")
        self._votes[int(vote.content.view)] = dict(with_vote(pool, vote))

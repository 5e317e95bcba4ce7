"""What must hold at every moment of every run, whatever goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milon.base.ids import AccountId, Digest
from milon.chain.certificate import Vote, VoteKind
from milon.consensus.effects import Accuse, Blame, CommitBlocks, Effect, Persist, Send
from milon.consensus.messages import LoggedCertificate, Proposal
from milon.consensus.quorum import find_contradiction, with_vote
from milon.state.commitment import EMPTY_ROOT, compute_update

if TYPE_CHECKING:
    from tests.simulation.network import Network, Node

Place = tuple[int, int]  # epoch and view


class Violation(AssertionError):
    """The protocol failed."""


class Auditor:
    """Sees everything that honest nodes do, and raises `Violation` when it must not be."""

    def __init__(self, honest: frozenset[AccountId]) -> None:
        """`honest` are the accounts whose every key holder keeps to the rules."""
        self.honest = honest
        self.final_at_height: dict[int, Digest] = {}
        self.final_in_view: dict[Place, Digest] = {}
        self.nullified: set[Place] = set()
        self.finalized: set[Place] = set()
        self.notarized: dict[Place, Digest] = {}
        self.accused: set[AccountId] = set()
        self.blamed: dict[str, int] = {}
        self._votes: dict[Place, dict[tuple[VoteKind, AccountId], Vote]] = {}

    def observe(self, node: Node, effect: Effect) -> None:
        """Look at one effect of a node that took place."""
        if not node.behaviour.is_honest:
            return
        match effect:
            case CommitBlocks():
                self._observe_commit(node, effect)
            case Persist(LoggedCertificate(certificate)):
                content = certificate.content
                self._observe_certificate(content.kind, (content.epoch, content.view), content.block)
            case Send(_, Vote() as vote):
                self._observe_vote(vote)
            case Send(_, Proposal() as proposal):
                self._observe_vote(proposal.vote)
            case Accuse():
                if effect.offender in self.honest:
                    raise Violation(f"honest {effect.offender.hex()[:8]} accused: {effect.evidence}")
                self.accused.add(effect.offender)
            case Blame():
                self.blamed[effect.peer] = self.blamed.get(effect.peer, 0) + 1
                if node.network.nodes[int(effect.peer)].behaviour.is_honest:
                    raise Violation(f"honest node {effect.peer} blamed: {effect.reason} {effect.detail}")

    def _observe_commit(self, node: Node, effect: CommitBlocks) -> None:
        for final in effect.finalized:
            header = final.block.header
            height, place = int(header.height), (int(header.epoch), int(header.view))
            is_only = self.final_at_height.setdefault(height, final.hash) == final.hash
            if not is_only or self.final_in_view.setdefault(place, final.hash) != final.hash:
                raise Violation(f"two final blocks at height {height} or view {place}")
            below = self.final_at_height.get(height - 1)
            if below is not None and below != header.parent_hash:
                raise Violation(f"the final block at height {height} does not extend the one below")
            ahead_ms = header.time_ms - node.network.now_ms
            if ahead_ms > node.network.genesis.parameters.clock_drift_ms_max + self.fastest_clock_ms(node.network):
                raise Violation(f"the final block at height {height} is {ahead_ms} ms ahead of the time")

    def fastest_clock_ms(self, network: Network) -> int:
        """How far the fastest honest clock is ahead."""
        return max(node.clock_skew_ms for node in network.nodes if node.behaviour.is_honest)

    def _observe_certificate(self, kind: VoteKind, place: Place, block: Digest | None) -> None:
        if kind is VoteKind.NULLIFY:
            self.nullified.add(place)
        elif block is not None and self.notarized.setdefault(place, block) != block:
            raise Violation(f"two blocks certified in view {place}")
        if kind is VoteKind.FINALIZE:
            self.finalized.add(place)
        if place in self.nullified and place in self.finalized:
            raise Violation(f"view {place} is both finalized and nullified")

    def _observe_vote(self, vote: Vote) -> None:
        place = (int(vote.content.epoch), int(vote.content.view))
        pool = self._votes.setdefault(place, {})
        contradiction = find_contradiction(pool, vote)
        if vote.signer in self.honest and contradiction is not None:
            raise Violation(f"honest {vote.signer.hex()[:8]} contradicts itself: {contradiction} {vote}")
        self._votes[place] = dict(with_vote(pool, vote))


def verify_stores(network: Network) -> None:
    """Raise `Violation` unless each honest store's root is that of its whole table, and equal tips have equal roots."""
    roots: dict[int, Digest] = {}
    for node in network.honest:
        tip, root = node.store.tip(), node.store.state_root()
        table: dict[bytes, bytes | None] = dict(node.store.scan(b""))
        if compute_update(lambda _: None, EMPTY_ROOT, table)[0] != root:
            raise Violation(f"node {node.index}: the state root is not that of the ledger")
        if tip is not None and roots.setdefault(int(tip[0]), root) != root:
            raise Violation(f"two state roots at height {tip[0]}")

"""A leader that builds on stale parents: it skips a notarized view without a nullification of it."""

from collections.abc import Sequence

from milon.base.units import TimeMs
from milon.chain.block import compute_beacon, compute_vrf_input
from milon.chain.certificate import Certificate, VoteContent, VoteKind
from milon.consensus.blocks import Plan, build_block
from milon.consensus.effects import Effect, Send
from milon.consensus.justification import compute_justification_hash
from milon.consensus.messages import Proposal
from milon.consensus.state import Ancestor
from tests.simulation.network import Behaviour, Node


class ForkingLeader(Behaviour):
    """Puts its block beside its parent, on the grandparent, with the best certificates that it has."""

    is_honest = False

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        """The same effects with every own proposal turned into a fork."""
        acted: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.message, Proposal):
                acted.append(Send(effect.peer, self._fork(node, effect.message)))
            else:
                acted.append(effect)
        return acted

    def _fork(self, node: Node, proposal: Proposal) -> Proposal:
        state, config, header = node.state, node.config, proposal.block.header
        parent = None if state is None else state.executed.get(header.parent_hash)
        if state is None or parent is None or node.key is None:
            return proposal
        above = state.executed.get(parent.block.header.parent_hash)
        stale: Ancestor = state.tip if above is None else above.ancestor
        certificate = state.notarizations.get(stale.view, state.finalization)
        if stale.hash != parent.block.header.parent_hash or certificate is None or not stale.view:
            return proposal
        skipped = self._excuses(node, stale, proposal)
        certificates = (certificate, *skipped)
        alpha = compute_vrf_input(header.epoch, header.view, stale.beacon)
        proof = config.cryptography.prove(node.key, alpha)
        beacon = compute_beacon(stale.beacon, config.cryptography.verify_proof(header.proposer, alpha, proof))
        commitment = compute_justification_hash(stale.view, certificates)
        time_ms = TimeMs(max(header.time_ms, stale.time_ms + 1))
        plan = Plan(stale, header.view, time_ms, commitment, proof, beacon)
        entry = build_block(config, state, plan, header.proposer, ())
        content = VoteContent(VoteKind.NOTARIZE, header.epoch, header.view, entry.ancestor.hash)
        vote = config.cryptography.sign_vote(node.key, config.chain_id, content)
        return Proposal(entry.block, vote, certificates)

    def _excuses(self, node: Node, stale: Ancestor, proposal: Proposal) -> tuple[Certificate, ...]:
        """One certificate a skipped view; where there is no nullification, whatever was signed in that view."""
        assert node.state is not None
        found = []
        for view in range(stale.view + 1, proposal.block.header.view):
            for held in (node.state.nullifications, node.state.notarizations):
                if view in held:
                    found.append(held[view])  # type: ignore[index]
                    break
        return tuple(found)

"""A leader that builds on stale parents: it skips a notarized view without a nullification of it."""

from collections.abc import Sequence

from milon.base.units import TimeMs, View
from milon.chain.certificate import Certificate, Vote, VoteContent, VoteKind
from milon.consensus.blocks import build_block, plan_block
from milon.consensus.effects import Effect, Send
from milon.consensus.justification import compute_justification_hash
from milon.consensus.messages import Proposal
from milon.consensus.proposals import is_leading
from milon.consensus.state import Ancestor
from milon.consensus.turn import Turn
from tests.simulation.cheap import account_of
from tests.simulation.network import Behaviour, Node


class ForkingLeader(Behaviour):
    """As soon as it leads, puts a block beside the newest notarized one, on that one's parent."""

    is_honest = False

    def __init__(self) -> None:
        """No view forked yet."""
        self._forked: set[View] = set()

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        """What the engine wants, but in a view that it leads a fork, early, in place of the proposal."""
        fork = self._fork(node)
        acted = [effect for effect in effects if not self._is_replaced(effect)]
        return acted if fork is None else [*acted, Send(None, fork)]

    def _is_replaced(self, effect: Effect) -> bool:
        if not isinstance(effect, Send) or not isinstance(effect.message, Proposal | Vote):
            return False
        vote = effect.message.vote if isinstance(effect.message, Proposal) else effect.message
        return vote.content.view in self._forked and vote.content.kind is VoteKind.NOTARIZE

    def _fork(self, node: Node) -> Proposal | None:
        state, config = node.state, node.config
        if state is None or node.key is None or state.view in self._forked:
            return None
        if not is_leading(Turn(config, state, node.now())):
            return None
        newest = state.notarizations.get(View(state.view - 1))
        entry = None if newest is None or newest.content.block is None else state.executed.get(newest.content.block)
        if entry is None:
            return None
        above = state.executed.get(entry.block.header.parent_hash)
        stale: Ancestor = state.tip if above is None else above.ancestor
        certificate = state.notarizations.get(stale.view, state.finalization)
        if stale.hash != entry.block.header.parent_hash or certificate is None or not stale.view:
            return None
        self._forked.add(state.view)
        certificates = (certificate, *self._excuses(node, stale, state.view))
        time_ms = TimeMs(max(node.now(), stale.time_ms + 1))
        commitment = compute_justification_hash(stale.view, certificates)
        plan = plan_block(config, account_of(node.key), stale, state.view, time_ms, commitment, state.members.epoch)
        fork = build_block(config, state, plan, account_of(node.key), ())
        content = VoteContent(VoteKind.NOTARIZE, state.members.epoch, state.view, fork.ancestor.hash)
        vote = config.cryptography.sign_vote(node.key, config.chain_id, content)
        return Proposal(fork.block, vote, certificates)

    def _excuses(self, node: Node, stale: Ancestor, end: View) -> tuple[Certificate, ...]:
        """One certificate a skipped view; where there is no nullification, whatever was signed in that view."""
        assert node.state is not None
        found = []
        for view in range(stale.view + 1, end):
            for held in (node.state.nullifications, node.state.notarizations):
                if View(view) in held:
                    found.append(held[View(view)])
                    break
        return tuple(found)

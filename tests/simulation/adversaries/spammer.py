"""A peer that slanders: votes in other people's names, that a proof would accuse if anybody believed them, and junk."""

import random
from collections.abc import Sequence
from dataclasses import replace

from milon.base.codec import encode
from milon.base.ids import AccountId, Digest, Signature
from milon.base.units import Count, Epoch, Height, View
from milon.chain.block import compute_header_hash
from milon.chain.certificate import Certificate, Vote, VoteContent, VoteKind
from milon.chain.evidence import (
    Contradiction,
    Evidence,
    count_entries,
    make_bad_justification,
    make_contradiction,
)
from milon.consensus.effects import Effect, Send, SetTimer
from milon.consensus.messages import CertificateRequest, Message, Proposal, RangeRequest
from tests.simulation.adversaries.rebuilding import rebuild, sign
from tests.simulation.cheap import account_of
from tests.simulation.network import Behaviour, Node

FAR_VIEWS = 1_000_000  # from every view that the network reaches


class Spammer(Behaviour):
    """Adds a slander or a piece of junk to everything it does."""

    is_honest = False

    def __init__(self, seed: int) -> None:
        """Its own source of chance."""
        self._random = random.Random(seed)
        self._heard: list[Vote] = []
        self._proposal: Proposal | None = None

    def hear(self, node: Node, sender: int, message: Message) -> None:
        """Keep the newest of what can be twisted."""
        if isinstance(message, Vote):
            self._heard = [*self._heard[-15:], message]
        elif isinstance(message, Proposal):
            self._proposal = message

    def act(self, node: Node, effects: Sequence[Effect]) -> list[Effect]:
        """What the engine wants, with slander in its own blocks now and then, and a lie or two."""
        acted = [self._slip_in(node, effect) for effect in effects]
        if any(isinstance(effect, SetTimer) for effect in effects):
            others = [str(peer.index) for peer in node.network.nodes if peer is not node]
            acted += [Send(self._random.choice(others), message) for message in self._invent(node)]
        return acted

    def _invent(self, node: Node) -> list[Message]:
        assert node.state is not None
        epoch = node.state.members.epoch
        junk: list[Message] = [
            CertificateRequest(epoch, View(FAR_VIEWS), View(0)),
            CertificateRequest(epoch, View(0), View(2**62)),
            CertificateRequest(Epoch(epoch + 9), View(0), View(2**62)),
            RangeRequest(Height(0)),
            RangeRequest(Height(2**62)),
        ]
        if self._heard:
            heard = self._random.choice(self._heard)
            junk += [self._twist(heard), *self._slander(heard), self._own(node, heard), *self._denounce(heard)]
        if self._proposal is not None:
            junk += [self._usurp(node, self._proposal), *self._suspect(self._proposal)]
        return self._random.sample(junk, k=min(2, len(junk)))

    def _twist(self, heard: Vote) -> Vote:
        """What somebody said, under the signature of something else."""
        kind = self._random.choice(list(VoteKind))
        block = None if kind is VoteKind.NULLIFY else Digest(self._random.randbytes(32))
        return replace(heard, content=replace(heard.content, kind=kind, block=block))

    def _slander(self, heard: Vote) -> list[Vote | Certificate]:
        """The honest signer's vote with a signature that holds nowhere; and a certificate of nothing but that."""
        vote = replace(self._twist(heard), signature=Signature(self._random.randbytes(64)))
        return [vote, Certificate(vote.content, (vote.signer,) * 3, (vote.signature,) * 3)]

    def _denounce(self, heard: Vote) -> list[Evidence]:
        """Evidence that looks like some and is none: a signature that does not hold, one vote twice, another order."""
        other = replace(self._twist(heard), signature=Signature(self._random.randbytes(64)))
        pair = make_contradiction(heard, other)
        return [pair, Contradiction(heard, heard), Contradiction(pair.second, pair.first)]

    def _suspect(self, proposal: Proposal) -> list[Evidence]:
        """A good justification called bad, and an entry that the header does not commit to."""
        header = proposal.block.header
        entries = [encode(certificate) for certificate in proposal.justification]
        entries = entries if header.parent_view else [b"", *entries]
        if len(entries) != count_entries(header):
            return []
        piece = make_bad_justification(proposal.vote, header, entries, self._random.randrange(len(entries)))
        return [piece, replace(piece, entry=b"nothing"), replace(piece, index=Count(len(entries)))]

    def _slip_in(self, node: Node, effect: Effect) -> Effect:
        """The own proposal with evidence against somebody honest in it."""
        if not isinstance(effect, Send) or not isinstance(effect.message, Proposal) or not self._heard:
            return effect
        proposal = effect.message
        block = rebuild(node, proposal.block, self._denounce(self._random.choice(self._heard))[:1])
        if block is None or self._random.randrange(2):
            return effect
        vote = sign(node, proposal.vote, VoteKind.NOTARIZE, compute_header_hash(block.header))
        return Send(effect.peer, Proposal(block, vote, proposal.justification))

    def _own(self, node: Node, heard: Vote) -> Vote:
        """Its own good vote, for a view that nobody will see."""
        assert node.key is not None
        content = VoteContent(VoteKind.NULLIFY, heard.content.epoch, View(heard.content.view + FAR_VIEWS), None)
        return node.config.cryptography.sign_vote(node.key, node.config.chain_id, content)

    def _usurp(self, node: Node, proposal: Proposal) -> Proposal:
        """Another leader's block under its own name and vote."""
        assert node.key is not None
        account: AccountId = account_of(node.key)
        header = replace(proposal.block.header, proposer=account)
        content = replace(proposal.vote.content, block=compute_header_hash(header))
        vote = node.config.cryptography.sign_vote(node.key, node.config.chain_id, content)
        return Proposal(replace(proposal.block, header=header), vote, proposal.justification)
